from pathlib import Path

import pytest

from fixtures.candidates import LabeledSet, make_labeled_set, store_labeled_set, write_classifier
from fixtures.shop import Shop


@pytest.fixture(scope="module")
def labeled() -> LabeledSet:
    return make_labeled_set()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, labeled: LabeledSet) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    write_classifier(folder, labeled)
    return folder


@pytest.fixture
def stocked_shop(shop: Shop, labeled: LabeledSet) -> Shop:
    store_labeled_set(shop.connections, labeled)
    return shop
