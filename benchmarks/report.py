"""Generate docs/benchmarks.md from benchmarks/results: `make report`."""

from benchmarks.results import Result, format_table, read_result
from jobs.settings import PROJECT_ROOT

PAGE = PROJECT_ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

`make report` generates this page from `benchmarks/results/`, where each benchmark writes its figures.
"""
SECTIONS = (
    "throughput",
    "conditions",
    "night",
    "memory",
    "decode",
    "gpu",
    "discover",
    "recall",
    "switch",
    "query_service",
    "pages",
    "speed",
    "image_shards",
    "quality",
    "gates",
    "first_run",
    "compose",
    "chaos",
    "change_feed",
)
"""The names of the results, in the order of the page."""


def render_page() -> str:
    """Return the page as Markdown."""
    return "\n".join([INTRODUCTION, *(_render_section(read_result(name)) for name in SECTIONS), ""])


def _render_section(result: Result) -> str:
    where = ", ".join(filter(None, [result.machine, result.date]))
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    measured_on = "; ".join(filter(None, [where, versions]))
    targets = f" Targets: {result.targets}." if result.targets else ""
    # No blank line before the table or after it, because the page is limited to 200 lines.
    text = f"{result.measured}{targets} `{result.command}` on {measured_on}."
    return "\n".join([f"## {result.title}", text, *format_table(result.rows)])


def main() -> None:
    """Write the page."""
    PAGE.write_text(render_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
