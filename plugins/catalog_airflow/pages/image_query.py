"""The address of the image grid: its filters and its sort, as a form, as chips and as a link."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from catalog_airflow.pages.templating import make_url
from jobs.database.grid_choices import RunChoice
from jobs.database.image_filters import ImageFilter, Sort
from jobs.run_titles import title_run

SORTS: dict[Sort, str] = {
    "newest": "newest first",
    "oldest": "oldest first",
    "least_confident": "least confident first",
    "most_confident": "most confident first",
    "name": "name",
}

# Forms send empty fields as empty strings.
Percentage = Annotated[
    Annotated[float, Field(ge=0, le=100)] | None, BeforeValidator(lambda value: None if value == "" else value)
]
VersionParameter = Annotated[
    Annotated[int, Field(ge=1, lt=2**31)] | None, BeforeValidator(lambda value: None if value == "" else value)
]

CORNER = r"-?\d{1,3}(\.\d{1,2})?,-?\d{1,3}(\.\d{1,2})?"
AREA = rf"^({CORNER}(;{CORNER}){{2,49}})?$"
"""The corners of a polygon on the map."""


class GridQuery(BaseModel):
    """The query parameters of the grid. Confidence is in percent."""

    model_config = ConfigDict(frozen=True)

    category: Annotated[str, Field(max_length=200)] = ""
    min_confidence: Percentage = None
    max_confidence: Percentage = None
    disagree: bool = False
    run: Annotated[str, Field(max_length=500)] = ""
    version: VersionParameter = None
    deleted: bool = False
    text: Annotated[str, Field(max_length=500)] = ""
    area: Annotated[str, Field(max_length=800, pattern=AREA)] = ""
    sort: Sort = "newest"
    after: Annotated[str, Field(max_length=500)] = ""

    def make_filter(self) -> ImageFilter:
        """Return the filter for these parameters."""
        return ImageFilter(
            category=self.category or None,
            min_confidence=None if self.min_confidence is None else self.min_confidence / 100,
            max_confidence=None if self.max_confidence is None else self.max_confidence / 100,
            images_disagree=self.disagree,
            run_id=self.run or None,
            classifier_version_id=self.version,
            deleted=self.deleted,
            text=self.text,
            area=self.area or None,
            sort=self.sort,
        )

    def make_url(self, **changes: object) -> str:
        """Return the address of the first page with these parameters and some changes."""
        values = self.model_dump(exclude_defaults=True) | {"after": None} | changes
        whole = {name: f"{value:g}" for name, value in values.items() if isinstance(value, float)}
        return make_url("images", **(values | whole))


@dataclass(frozen=True)
class Chip:
    """A filter in words, and the address without it."""

    words: str
    url: str


def list_chips(query: GridQuery, runs: Sequence[RunChoice]) -> list[Chip]:
    """List the filters that are set."""
    titles = title_runs(runs)
    words_of = {
        ("text",): query.text and f"“{query.text}”",
        ("category",): query.category,
        ("min_confidence", "max_confidence"): _describe_confidence(query),
        ("disagree",): "images disagree" if query.disagree else "",
        ("run",): titles.get(query.run, query.run),
        ("version",): f"tags of classifier {query.version}" if query.version else "",
        ("deleted",): "deleted" if query.deleted else "",
        ("area",): "selected on the map" if query.area else "",
    }
    return [Chip(words, query.make_url(**dict.fromkeys(names))) for names, words in words_of.items() if words]


def _describe_confidence(query: GridQuery) -> str:
    lowest, highest = query.min_confidence, query.max_confidence
    if lowest is None:
        return f"confidence up to {highest:g} %" if highest is not None else ""
    return f"confidence from {lowest:g} %" if highest is None else f"confidence {lowest:g} to {highest:g} %"


def title_runs(runs: Sequence[RunChoice]) -> dict[str, str]:
    """Return the titles of runs by their ids."""
    return {run.run_id: title_run(run.run_id, run.started_at, run.purpose) for run in runs}
