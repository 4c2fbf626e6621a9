"""Split images into train, validation and test: by group, stratified by category, deterministic.

A group (a product, a photographer) is never split. A group with an image that was ever in test goes to test. Otherwise,
a group with an image that was ever in train stays out of test. New groups are considered in the order of the sha256 of
their names, so the same images always give the same split. A new group goes to test if that brings its categories
closer to their target shares. Therefore, a group much larger than the target goes to train.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jobs.database.examples import RememberedSplit
from jobs.retrain.snapshot.curation import CuratedImage
from jobs.retrain.snapshot.snapshot_file import Split

MAX_OF_SHARE = 1.5
"""Maximum share of a category, as a multiple of the target share. Whole groups cannot match the target exactly."""

MIN_OF_SHARE = 0.5
"""A category below this multiple of the target share gets one more group, with at most a third of its images."""

Groups = Mapping[str, Counter[str]]
"""Number of images by group and category."""


def split_groups(
    images: Sequence[CuratedImage],
    memory: Mapping[bytes, RememberedSplit],
    test_share: float,
    validation_share: float,
) -> dict[str, Split]:
    """Return the split of each group. ``validation_share`` is relative to the images that are not in test."""
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    sides: defaultdict[str, set[RememberedSplit | None]] = defaultdict(set)
    for image in images:
        groups[image.group_name][image.category] += 1
        sides[image.group_name].add(memory.get(image.content_hash))
    tested = [name for name in groups if "test" in sides[name]]
    new = [name for name in groups if sides[name] == {None}]
    test = _choose_groups(groups, tested, _shuffle(new, "test"), test_share)

    rest = {name: groups[name] for name in groups if name not in test}
    validation = _choose_groups(rest, [], _shuffle(rest, "validation"), validation_share)
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in groups}


def _shuffle(names: Iterable[str], purpose: str) -> list[str]:
    """Return a pseudo-random order that depends only on the names."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose}/{name}".encode()).digest())


def _choose_groups(groups: Groups, chosen: Iterable[str], candidates: Sequence[str], share: float) -> set[str]:
    """Add candidates to the chosen groups to bring each category as close as possible to its target share."""
    selection = _Selection(groups, share)
    for name in chosen:
        selection.take(name)
    for name in candidates:
        if selection.measure_gain(name) > 0 and selection.stays_within(MAX_OF_SHARE * share, name):
            selection.take(name)
    for category in sorted({category for counts in groups.values() for category in counts}):
        if selection.measure_share(category) < MIN_OF_SHARE * share:
            holders = [name for name in candidates if category in groups[name] and name not in selection.names]
            eligible = [name for name in holders if selection.stays_within(max(1 / 3, share), name)]
            if eligible:
                selection.take(max(eligible, key=selection.measure_gain))
    return selection.names


class _Selection:
    """A growing set of groups, and the share of each category that it contains."""

    def __init__(self, groups: Groups, share: float) -> None:
        self.names: set[str] = set()
        self._groups = groups
        self._share = share
        self._images: Counter[str] = Counter()
        for counts in groups.values():
            self._images.update(counts)
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Add a group."""
        self.names.add(name)
        self._taken.update(self._groups[name])

    def measure_share(self, category: str) -> float:
        """Return the share of a category's images in the set."""
        return self._taken[category] / self._images[category]

    def stays_within(self, limit: float, name: str) -> bool:
        """Return whether no category exceeds the share ``limit`` if the group is added."""
        return all(
            self._taken[category] + images <= limit * self._images[category]
            for category, images in self._groups[name].items()
        )

    def measure_gain(self, name: str) -> float:
        """Return how much adding a group reduces the squared relative deviation from the target shares."""
        gain = 0.0
        for category, images in sorted(self._groups[name].items()):
            wanted = self._share * self._images[category]
            missing = wanted - self._taken[category]
            gain += (missing**2 - (missing - images) ** 2) / wanted**2
        return gain
