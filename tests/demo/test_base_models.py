from pathlib import Path

from demo.base_models import choose_bases
from demo.photos import find_own_photos
from fixtures.shop import Shop, TinyModels, make_photo
from jobs.models.classifier import read_categories


def write_shop(folder: Path) -> Path:
    for name in ("dress/1.jpg", "hat/2.jpg"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(make_photo(1, (32, 40)))
    return folder


def test_configured_bases_are_taken(shop: Shop, tiny_models: TinyModels, tmp_path: Path) -> None:
    chosen = {"classifier_base": str(tiny_models.classifier), "encoder_base": str(tiny_models.encoder)}
    settings = shop.with_settings(**chosen).settings
    bases = choose_bases(find_own_photos(write_shop(tmp_path / "shop"), (".jpg",)), settings, tmp_path / "bases")
    assert bases["classifier"].folder == tiny_models.classifier
    assert not bases["encoder"].has_random_weights
    assert bases["encoder"].reason == f"{tiny_models.encoder}, from CATALOG_ENCODER_BASE"


def test_a_base_that_cannot_be_loaded_becomes_random_weights_and_says_why(shop: Shop, tmp_path: Path) -> None:
    settings = shop.with_settings(classifier_base="/no/such/base", encoder_base="/no/such/base").settings
    photos = find_own_photos(write_shop(tmp_path / "shop"), (".jpg",))
    bases = choose_bases(photos, settings, tmp_path / "bases")
    assert bases["classifier"].has_random_weights
    assert read_categories(bases["classifier"].folder) == ("dress", "hat")
    assert bases["encoder"].reason.startswith("random weights, because CATALOG_ENCODER_BASE=/no/such/base")
    written = (bases["encoder"].folder / "model.safetensors").stat().st_mtime_ns

    again = choose_bases(photos, settings, tmp_path / "bases")
    assert again == bases
    assert (again["encoder"].folder / "model.safetensors").stat().st_mtime_ns == written
