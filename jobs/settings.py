"""Read every setting once, check it, and pass it to the code that needs it.

Sources, strongest first: environment variables, ``.env``, and the file that the local stack wrote. The last one counts
only if neither of the others sets a location, so a laptop's local stack cannot leak into production.
The process environment is only read. Clients and child processes get what they need of ``.env`` passed in.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from jobs.errors import ConfigurationError
from jobs.storage.credentials import VARIABLES as AWS_VARIABLES
from jobs.storage.credentials import AwsCredentials
from jobs.storage.uri import S3Uri

PROJECT_ROOT = Path(__file__).resolve().parent.parent
HOME_VARIABLE = "CATALOG_HOME"
"""Names the folder of ``.env`` and ``.local`` if that is not the project, for example in tests."""
HOME = PROJECT_ROOT / os.environ.get(HOME_VARIABLE, "")
LOCAL_STACK_FOLDER = HOME / ".local"
LOCAL_STACK_ENVIRONMENT = "stack.env"
PREFIX = "CATALOG_"
LOCATIONS = ("CATALOG_DATABASE_URL", "CATALOG_SOURCE_URI", "CATALOG_ARTIFACTS_URI", "CATALOG_S3_ENDPOINT_URL")
_PARTS_OF_A_KEY = ("AWS_PROFILE", "AWS_SESSION_TOKEN")
_READ_FROM_FILE = (PREFIX, *AWS_VARIABLES.values(), "AIRFLOW_", "POSTGRES_", "REDIS_", "TAGGING_")
"""Prefixes of the variables that the jobs or Docker Compose read from ``.env``."""


def _require_postgres(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must start with postgresql://")
    return url.replace("postgres://", "postgresql://", 1)


def _require_s3(uri: str) -> str:
    S3Uri.parse(uri)
    return uri


def _require_product_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    if "product_id" not in groups:
        raise ValueError("must be a regular expression with a group (?P<product_id>...)")
    return pattern


def _read_list(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        raise ValueError("must be a JSON list of texts") from None


Location = Annotated[str, AfterValidator(_require_s3)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_read_list)]
Locations = Annotated[tuple[Location, ...], BeforeValidator(_read_list)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareUpToHalf = Annotated[float, Field(gt=0, le=0.5)]
Count = Annotated[int, Field(ge=1)]


class SettingsGroup(BaseModel):
    """Settings that belong together. The variable of a field is its name in capitals, with the prefix CATALOG_."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LocationSettings(SettingsGroup):
    """Where the data is."""

    database_url: Annotated[str, AfterValidator(_require_postgres)]
    source_uri: Location
    other_sources: Locations = ()
    artifacts_uri: Location
    s3_endpoint_url: str | None = None
    model_cache: Path = LOCAL_STACK_FOLDER / "models"


class ImageSettings(SettingsGroup):
    """What counts as an image and as a product."""

    image_suffixes: Texts = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
    exclude_patterns: Texts = ()
    product_id_pattern: Annotated[str, AfterValidator(_require_product_group)] = (
        r"(?P<product_id>[^/]+?)(?:[_-]\d{1,2})?\.[^./]+$"
    )
    products_file: str = "products.csv"
    max_object_bytes: Count = 50_000_000
    max_pixels: Count = 100_000_000
    min_side_pixels: Count = 8


class RunSettings(SettingsGroup):
    """When a run stops, fails or starts a retraining."""

    vanished_share_limit: Share = 0.2
    failed_share_limit: Share = 0.01
    drift_limit: Annotated[float, Field(gt=0)] = 0.25
    drift_min_images: Count = 200
    max_attempts: Count = 5


class ComputeSettings(SettingsGroup):
    """How the work is split and computed."""

    device: str = "auto"
    engine: Literal["auto", "torch", "openvino"] = "auto"
    precision: str = "auto"
    jpeg_decoder: Literal["cpu", "gpu"] = "cpu"
    batch_size: Count | None = None
    read_threads: Count = 8
    decode_processes: Count = Field(default_factory=lambda: min(os.cpu_count() or 1, 8))
    shard_size: Count = 8192
    chunk_size: Count = 256

    @model_validator(mode="after")
    def _chunks_fit_in_shards(self) -> Self:
        if self.chunk_size > self.shard_size:
            raise ValueError("CATALOG_CHUNK_SIZE must not exceed CATALOG_SHARD_SIZE")
        return self


class ServingSettings(SettingsGroup):
    """The query service and its clients."""

    serve_host: str = "127.0.0.1"
    serve_port: Annotated[int, Field(ge=1, le=65535)] = 8091
    serve_queue_length: Count = 64
    serve_deadline_seconds: Annotated[float, Field(gt=0)] = 10.0
    query_service_url: str = "http://127.0.0.1:8091"
    query_token: Annotated[str, Field(pattern=r"^[\x21-\x7e]{16,}$")] | None = Field(default=None, repr=False)


class TrainingSettings(SettingsGroup):
    """How candidates are trained and judged."""

    classifier_base: str = "microsoft/resnet-18"
    encoder_base: str = "openai/clip-vit-base-patch32"
    test_share: ShareUpToHalf = 0.1
    validation_share: ShareUpToHalf = 0.1


class Settings(SettingsGroup):
    """The settings of every job."""

    locations: LocationSettings
    images: ImageSettings
    runs: RunSettings
    compute: ComputeSettings
    serving: ServingSettings
    training: TrainingSettings
    credentials: AwsCredentials = Field(default=AwsCredentials(), repr=False, exclude=True)


GROUPS: dict[str, type[SettingsGroup]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)
}
VARIABLES = {f"{PREFIX}{name}".upper(): (group, name) for group, model in GROUPS.items() for name in model.model_fields}
"""The group and field that each environment variable sets."""


def read_variables(home: Path = HOME) -> dict[str, str]:
    """Merge all sources.

    Where the bucket is that of the local stack, its own credentials win: only they open it.
    """
    own = read_own_variables(home)
    stack = home / LOCAL_STACK_FOLDER.name / LOCAL_STACK_ENVIRONMENT
    if names_locations(home) or not stack.is_file():
        return own
    of_stack = _read_file(stack)
    credentials = {name: value for name, value in of_stack.items() if name.startswith("AWS_")}
    return of_stack | merge_variables(own, credentials)


def read_own_variables(home: Path = HOME) -> dict[str, str]:
    """Merge the environment and ``.env``: what child processes inherit."""
    return merge_variables(_read_file(home / ".env"), os.environ)


def merge_variables(weaker: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    """Merge two sources; a key of the stronger one does not mix with a profile or token of the weaker one."""
    left_out = _PARTS_OF_A_KEY if stronger.get("AWS_ACCESS_KEY_ID") else ()
    return {name: value for name, value in weaker.items() if name not in left_out} | dict(stronger)


def names_locations(home: Path = HOME) -> bool:
    """Tell whether the environment or ``.env`` names a database or bucket of the user's own."""
    variables = read_own_variables(home)
    return any(variables.get(name) for name in LOCATIONS)


def find_ignored_variables(home: Path = HOME) -> list[str]:
    """Name what ``.env`` sets for libraries, such as ``HF_TOKEN``, which look for it in the environment alone."""
    names = _read_file(home / ".env").keys() - os.environ.keys()
    return sorted(name for name in names if not name.startswith(_READ_FROM_FILE))


def _read_file(path: Path) -> dict[str, str]:
    return {name: value for name, value in dotenv_values(path, interpolate=False).items() if value}


def load_settings(source_uri: str | None = None) -> Settings:
    """Read and check the settings; a ``source_uri`` given here wins over the environment.

    Raises:
        ConfigurationError: a setting is missing or wrong, the message names each by its variable; or the source is
            outside those that the settings name: whoever may start a run must not make it read any bucket.
    """
    variables = read_variables()
    if not source_uri:
        return make_settings(variables)
    configured = make_settings(variables)
    settings = make_settings(variables | {"CATALOG_SOURCE_URI": source_uri})
    allowed = (configured.locations.source_uri, *configured.locations.other_sources)
    if not any(S3Uri.parse(source_uri).is_within(S3Uri.parse(folder)) for folder in allowed):
        raise ConfigurationError(
            f"the source {source_uri} is not below CATALOG_SOURCE_URI={configured.locations.source_uri}: add it to "
            "CATALOG_OTHER_SOURCES to allow it"
        )
    return settings


def make_settings(variables: Mapping[str, str]) -> Settings:
    """Check the settings in these variables; an empty variable counts as not set. Raises as `load_settings`."""
    values: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    for variable, (group, name) in VARIABLES.items():
        if value := variables.get(variable):
            values[group][name] = value
    try:
        return Settings.model_validate({**values, "credentials": AwsCredentials.from_variables(variables)})
    except ValidationError as error:
        raise ConfigurationError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    errors = []
    for found in error.errors():
        name = f"{PREFIX}{found['loc'][1]}".upper() if len(found["loc"]) > 1 else "settings"
        is_missing = found["type"] == "missing"
        errors.append(f"{name} is not set" if is_missing else f"{name}: {found['msg'].removeprefix('Value error, ')}")
    return f"{'; '.join(errors)} (see .env.example; `make ui` starts a local stack that sets them)"
