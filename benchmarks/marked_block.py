"""Figures that a benchmark keeps up to date in a page of the docs, between two comments."""

import sys
from pathlib import Path


def replace_block(page: Path, name: str, lines: list[str]) -> None:
    """Replace what lies between ``<!-- NAME: begin -->`` and ``<!-- NAME: end -->``.

    Raises:
        SystemExit: the page has not one such block.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        sys.exit(f"{page} must have the lines {begin} and {end} once each")
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")
