"""The largest part of a graph that may be computed in integers: its most sensitive blocks are left in float."""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.production.blocks import Block

LEAST_SHARE = 0.25
"""Of the multiply-adds in int8: below it, going back and forth between the precisions eats what integers gain."""


@dataclass(frozen=True)
class Mixture:
    """``operations``, by their names in the graph, are left in float; the rest is ``int8_share`` of multiply-adds."""

    float_blocks: tuple[str, ...]
    operations: frozenset[str]
    int8_share: float


def list_mixtures(blocks: Sequence[Block], ranked: Sequence[Block]) -> tuple[Mixture, ...]:
    """Leave ever more blocks of a graph in float, in the order of ``ranked``, as long as int8 is worth it."""
    total = sum(block.multiply_adds for block in blocks)
    mixtures: list[Mixture] = []
    for count in range(1, len(ranked)):
        left = [block for block in blocks if block in ranked[:count]]
        share = 1 - sum(block.multiply_adds for block in left) / total
        if share < LEAST_SHARE:
            break
        names = tuple(block.name for block in left)
        mixtures.append(Mixture(names, frozenset().union(*(block.operations for block in left)), share))
    return tuple(mixtures)
