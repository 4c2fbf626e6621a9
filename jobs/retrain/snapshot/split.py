"""Splits photos into train, validation and test: by group, in equal shares of every category, the same way every time.

A group (a product, a photographer) is never split. One of which any photo was ever in test is in test; else, one of
which any was ever in train is in train. New groups are asked in the order of the sha256 of their names, and go to test
where that brings their categories nearer to their shares. So a group far larger than a share goes to train, and equal
photos give equal splits, with and without memory of them.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from jobs.database.examples import RememberedSplit
from jobs.retrain.snapshot.curation import CuratedPhoto
from jobs.retrain.snapshot.snapshot_file import Split

MOST_OF_SHARE = 1.5
"""A category gets at most so much of its share, since groups cannot be cut."""

LEAST_OF_SHARE = 0.5
"""A category that gets less gets one group more, even if this exceeds the share, but at most a third of its photos."""

Groups = Mapping[str, Counter[str]]
"""By the name of a group, its photos of each category."""


def split_groups(
    photos: Sequence[CuratedPhoto],
    memory: Mapping[bytes, RememberedSplit],
    test_share: float,
    validation_share: float,
) -> dict[str, Split]:
    """The part of each group, by its name; ``validation_share`` is that of what is not in test."""
    groups: defaultdict[str, Counter[str]] = defaultdict(Counter)
    sides: defaultdict[str, set[RememberedSplit | None]] = defaultdict(set)
    for photo in photos:
        groups[photo.group_name][photo.category] += 1
        sides[photo.group_name].add(memory.get(photo.content_hash))
    tested = [name for name in groups if "test" in sides[name]]
    new = [name for name in groups if sides[name] == {None}]
    test = _choose_groups(groups, tested, _shuffle(new, "test"), test_share)

    rest = {name: groups[name] for name in groups if name not in test}
    validation = _choose_groups(rest, [], _shuffle(rest, "validation"), validation_share)
    return {name: "test" if name in test else "validation" if name in validation else "train" for name in groups}


def _shuffle(names: Iterable[str], purpose: str) -> list[str]:
    """An order that depends on nothing but the names."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{purpose}/{name}".encode()).digest())


def _choose_groups(groups: Groups, chosen: Iterable[str], candidates: Sequence[str], share: float) -> set[str]:
    """Add to the chosen groups those candidates that bring every category nearest to its share."""
    choice = _Choice(groups, share)
    for name in chosen:
        choice.take(name)
    for name in candidates:
        if choice.measure_gain(name) > 0 and choice.stays_within(MOST_OF_SHARE * share, name):
            choice.take(name)
    for category in sorted({category for counts in groups.values() for category in counts}):
        if choice.measure_share(category) < LEAST_OF_SHARE * share:
            holders = [name for name in candidates if category in groups[name] and name not in choice.names]
            spared = [name for name in holders if choice.stays_within(max(1 / 3, share), name)]
            if spared:
                choice.take(max(spared, key=choice.measure_gain))
    return choice.names


class _Choice:
    """Groups that are set apart: how far each category is from its share of photos."""

    def __init__(self, groups: Groups, share: float) -> None:
        self.names: set[str] = set()
        self._groups = groups
        self._share = share
        self._photos: Counter[str] = Counter()
        for counts in groups.values():
            self._photos.update(counts)
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Set a group apart."""
        self.names.add(name)
        self._taken.update(self._groups[name])

    def measure_share(self, category: str) -> float:
        """The share of a category's photos that is set apart."""
        return self._taken[category] / self._photos[category]

    def stays_within(self, limit: float, name: str) -> bool:
        """Whether no category exceeds a share by this group; below 1, so that something is left to train on."""
        return all(
            self._taken[category] + photos <= limit * self._photos[category]
            for category, photos in self._groups[name].items()
        )

    def measure_gain(self, name: str) -> float:
        """How much nearer a group brings its categories to their shares: the sum of squares of what each misses."""
        gain = 0.0
        for category, photos in sorted(self._groups[name].items()):
            wanted = self._share * self._photos[category]
            missing = wanted - self._taken[category]
            gain += (missing**2 - (missing - photos) ** 2) / wanted**2
        return gain
