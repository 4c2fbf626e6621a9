"""The keys of the pages: each is explained, and shown after the label of its button."""

import re
from pathlib import Path

TEMPLATES = Path(__file__).parents[3] / "plugins/catalog_airflow/pages/templates"
KEY = re.compile(r'data-key="([^"{]+)"')
LETTER_BEFORE_LABEL = re.compile(r'data-key="\D"[^>]*><kbd>')


def test_the_dialog_explains_every_key() -> None:
    explained = set(re.findall(r"<kbd>(.*?)</kbd>", (TEMPLATES / "dialogs.html").read_text()))
    used = {key for path in TEMPLATES.glob("*.html") for key in KEY.findall(path.read_text())}
    assert {"n", "p", "c", "r", "i", "l", "v", "+", "-", "0"} <= used
    assert used <= explained


def test_keys_are_shown_after_the_label() -> None:
    for path in TEMPLATES.glob("*.html"):
        assert LETTER_BEFORE_LABEL.findall(path.read_text()) == [], path.name
