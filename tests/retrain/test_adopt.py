"""Adopting the first encoder of a catalog without labels."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.util import get_temp_dir
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fixtures.catalog_rows import promote_model
from fixtures.job_processes import count_waiting, wait_until
from fixtures.shop import Shop, TinyModels
from jobs.database.model_versions import read_champion, read_live_model
from jobs.errors import PermanentError
from jobs.ingest.ingest import ingest
from jobs.ingest.plan import IngestOptions
from jobs.retrain.adopt import adopt_encoder
from jobs.retrain.gates.gate_policy import load_gate_policy
from jobs.search.by_text import find_products_by_text
from jobs.search.encoders import load_text_embedder
from jobs.settings import PROJECT_ROOT

WEIGHTS = "model.safetensors"
ROOMY = load_gate_policy().model_copy(update={"max_memory_bytes": 10**11})


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files. It must be empty after each adoption."""
    # Multiprocessing keeps its sockets in a folder that it creates once, and whose path must be short.
    get_temp_dir()
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def assert_nothing_is_left(shop: Shop, scratch: Path) -> None:
    assert shop.list_artifacts() == []
    assert shop.query("SELECT * FROM catalog.model_versions") == []
    assert shop.query("SELECT * FROM catalog.promotions") == []
    assert list(scratch.iterdir()) == []


SEARCH = """
import sys
from jobs.search import search_products
print(len(search_products(sys.argv[1])))
assert "transformers" not in sys.modules
"""


def test_images_can_be_searched_after_an_adoption_and_an_ingest(
    shop: Shop, tiny_models: TinyModels, scratch: Path
) -> None:
    shop.put_images(4)
    report = adopt_encoder(shop.connections, str(tiny_models.encoder), "anna", ROOMY)
    assert (report.base, report.precision) == (str(tiny_models.encoder), "fp32")
    assert report.images_per_second
    assert (report.promotion.is_new, report.promotion.is_live, report.promotion.replaced_version_id) == (
        True,
        False,
        None,
    )
    with shop.connections.engine.connect() as connection:
        champion, live = read_champion(connection, "encoder"), read_live_model(connection, "encoder")
    assert champion is not None
    assert (champion.model_version_id, live) == (report.promotion.model_version_id, None)
    assert shop.query("SELECT promoted_by, reason, evaluation_id FROM catalog.promotions") == [
        ("anna", report.reason, None)
    ]
    assert "without labels there is no test set" in report.reason
    assert list(scratch.iterdir()) == []

    # A repeated adoption changes nothing.
    again = adopt_encoder(shop.connections, str(tiny_models.encoder), "anna", ROOMY)
    assert not again.promotion.is_new
    assert (again.reason, again.engine, again.precision) == (report.reason, report.engine, report.precision)
    assert shop.query("SELECT count(*) FROM catalog.promotions") == [(1,)]

    assert ingest(shop.connections, IngestOptions()).tagged == 4

    def load(version: int) -> object:
        return load_text_embedder(shop.connections, version)

    hits = find_products_by_text(shop.connections.engine, load, "red striped dress", 5, None)  # type: ignore[arg-type]
    assert {hit.product_id for hit in hits} == {"p0000", "p0001"}
    similar = shop.query("SELECT product_id, category FROM catalog.similar_products('p0000')")
    assert similar == [("p0001", None)]

    command = [sys.executable, "-c", SEARCH, "blue hat"]
    environment = os.environ | shop.environment
    searched = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (searched.returncode, searched.stdout) == (0, "2\n"), searched.stderr


def test_a_second_champion_has_to_pass_its_gates(tagging_shop: Shop, tiny_models: TinyModels, scratch: Path) -> None:
    promotions = "SELECT * FROM catalog.promotions ORDER BY promotion_id"
    before, artifacts = tagging_shop.query(promotions), tagging_shop.list_artifacts()
    with pytest.raises(PermanentError, match=r"is already the champion.*catalog retrain --kinds encoder"):
        adopt_encoder(tagging_shop.connections, str(tiny_models.other_encoder), "anna", ROOMY)
    assert (tagging_shop.query(promotions), tagging_shop.list_artifacts()) == (before, artifacts)
    assert list(scratch.iterdir()) == []


def test_a_champion_promoted_during_an_adoption_stays(shop: Shop, tiny_models: TinyModels, scratch: Path) -> None:
    with ThreadPoolExecutor(1) as thread, shop.connections.engine.begin() as promoting:
        promoting.exec_driver_sql("LOCK TABLE catalog.promotions IN SHARE ROW EXCLUSIVE MODE")
        adoption = thread.submit(adopt_encoder, shop.connections, str(tiny_models.encoder), "anna", ROOMY)
        wait_until(lambda: adoption.done() or count_waiting(shop, "catalog.promotions") == 1)
        champion = promote_model(promoting, "encoder", 64)
        promoting.commit()
        with pytest.raises(PermanentError, match=f"encoder {champion} is already the champion"):
            adoption.result()
    assert shop.query("SELECT model_version_id FROM catalog.promotions") == [(champion,)]
    assert shop.query("SELECT model_version_id FROM catalog.model_versions") == [(champion,)]


def truncate_weights(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def fill_image_tower_with_nan(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["visual_projection.weight"].fill_(float("nan"))
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def zero_text_tower(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    weights["text_projection.weight"].fill_(0)
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def remove_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def remove_preprocessing(folder: Path) -> None:
    for file in folder.glob("*processor_config.json"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_weights, "cannot be loaded"),
        (fill_image_tower_with_nan, "are not all finite numbers"),
        (zero_text_tower, "vectors of texts do not have unit length"),
        (remove_tokenizer, "no tokenizer"),
        (remove_preprocessing, "no image preprocessing"),
    ],
)
def test_a_damaged_base_is_refused_and_leaves_nothing(
    shop: Shop,
    tiny_models: TinyModels,
    scratch: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_models.encoder, base)
    damage(base)
    with pytest.raises(PermanentError, match=message):
        adopt_encoder(shop.connections, str(base), "anna", ROOMY)
    assert_nothing_is_left(shop, scratch)


def test_a_classifier_is_refused(shop: Shop, tiny_models: TinyModels, scratch: Path) -> None:
    with pytest.raises(PermanentError, match="has no image and text features"):
        adopt_encoder(shop.connections, str(tiny_models.classifier), "anna", ROOMY)
    assert_nothing_is_left(shop, scratch)


def test_a_base_that_needs_too_much_memory_is_refused(shop: Shop, tiny_models: TinyModels, scratch: Path) -> None:
    tight = ROOMY.model_copy(update={"max_memory_bytes": 1_000_000})
    with pytest.raises(PermanentError, match="MB of memory"):
        adopt_encoder(shop.connections, str(tiny_models.encoder), "anna", tight)
    assert_nothing_is_left(shop, scratch)
