"""The pretrained backbone that some tests need; without network it is there or it is not."""

import os
from pathlib import Path

import pytest

from jobs.settings import PROJECT_ROOT

FOLDER_VARIABLE = "CATALOG_PRETRAINED_WEIGHTS"
DEFAULT_FOLDER = PROJECT_ROOT.parent / "shared" / "weights" / "efficientnet-lite0"


def find_pretrained() -> Path:
    """The folder of an image classifier of Timm, which may be absent."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def require_pretrained() -> Path:
    """The same; where it is absent, the test is skipped."""
    folder = find_pretrained()
    if not folder.is_dir():
        pytest.skip(f"no pretrained backbone: set {FOLDER_VARIABLE}")
    return folder
