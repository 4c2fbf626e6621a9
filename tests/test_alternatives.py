"""A name that does not exist is answered with those that do."""

import pytest

from jobs.alternatives import name_alternatives

CATEGORIES = ["bag", "boot", "coat", "dress", "hat", "shirt"]


@pytest.mark.parametrize(
    ("wanted", "existing", "answer"),
    [
        ("dres", CATEGORIES, "Did you mean dress?"),
        ("coot", CATEGORIES, "Did you mean coat or boot?"),
        ("sofa", CATEGORIES, "The existing ones are bag, boot, coat, dress, hat and others"),
        ("sofa", ["hat", "bag"], "The existing ones are hat, bag"),
        (77, [7], "The only one is 7"),
        ("sofa", [], "There are none yet"),
    ],
)
def test_similar_names_come_first(wanted: object, existing: list[object], answer: str) -> None:
    assert name_alternatives(wanted, existing) == answer
