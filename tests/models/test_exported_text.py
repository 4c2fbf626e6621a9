"""Run exported text towers."""

from pathlib import Path

import numpy as np
import pytest

from fixtures.candidates import EXACT
from jobs.errors import ConfigurationError
from jobs.models.encoder import load_text_encoder
from jobs.models.exported_text import SETTINGS_FILE, TOKENIZER_FILE, load_exported_text
from jobs.models.image_model import PROGRAM_FILE
from jobs.retrain.optimize.export_text import export_text
from tests.models.tiny_architectures import write_chinese_clip, write_clip, write_siglip, write_siglip2

TEXTS = ["red", "A RED striped dress", "", "Größe 38, crème", "coat " * 500]
WRITERS = {"CLIP": write_clip, "SigLIP 2": write_siglip2, "Chinese CLIP": write_chinese_clip}


@pytest.mark.parametrize("name", WRITERS)
def test_a_program_gives_the_vectors_of_its_checkpoint(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / "checkpoint")
    assert export_text(tmp_path / "checkpoint", tmp_path / "text")
    exact = load_text_encoder(tmp_path / "checkpoint", EXACT)
    exported = load_exported_text(tmp_path / "text", EXACT)
    for texts in (TEXTS, *([text] for text in TEXTS)):
        np.testing.assert_allclose(exported.embed(texts), exact.embed(texts), atol=1e-5)


def test_a_tower_without_a_fast_tokenizer_stays_in_transformers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_siglip(tmp_path / "checkpoint")
    assert not export_text(tmp_path / "checkpoint", tmp_path / "text")
    assert "SiglipTokenizer has no tokenizer.json" in caplog.text


@pytest.mark.parametrize("name", [SETTINGS_FILE, TOKENIZER_FILE, PROGRAM_FILE])
def test_a_damaged_file_is_one_line(name: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "checkpoint")
    assert export_text(tmp_path / "checkpoint", tmp_path / "text")
    (tmp_path / "text" / name).write_bytes(b"damaged")
    with pytest.raises(ConfigurationError, match=name) as caught:
        load_exported_text(tmp_path / "text", EXACT)
    assert len(str(caught.value).splitlines()) == 1
