"""How the vectors of a run came into the index of their space: loaded first and indexed after, or one by one."""

from dataclasses import dataclass

from sqlalchemy import Connection

from jobs.database.spaces import has_space_index
from jobs.database.tagging_runs import EmbeddedCounts, count_embedded


@dataclass(frozen=True)
class IndexFilling:
    """Vectors that were written while their space had no index, those that were added to one, and why."""

    loaded_first: int
    added_singly: int
    sentence: str


def read_index_filling(connection: Connection, run_id: str, space_id: int) -> IndexFilling:
    """What the ledger says of a run and its top-ups."""
    counts = count_embedded(connection, run_id)
    sentence = explain_filling(counts, has_space_index(connection, space_id))
    return IndexFilling(counts.without_index, counts.into_index, sentence)


def explain_filling(counts: EmbeddedCounts, has_index: bool) -> str:
    """What was done and why; ``has_index`` says whether the index is there by now."""
    parts = []
    if counts.without_index:
        after = (
            "and indexed by one build, several times faster than one by one" if has_index else "and are not indexed yet"
        )
        parts.append(f"{counts.without_index} vectors were loaded into a space without an index {after}")
    if counts.into_index:
        parts.append(
            f"{counts.into_index} vectors were added one by one to an index that was there, which stays for the "
            "searches or the rollback that need it"
        )
    return "; ".join(parts) or "no vectors were written"
