"""The table of gates shows each value and its bound in the same unit for people."""

import pytest

from jobs.database.evaluations import GateDecision, Verdict
from jobs.retrain.gates.gate_table import UNITS, tabulate_gates
from jobs.retrain.gates.gates import GATES


@pytest.mark.parametrize(
    ("gate", "value", "bound", "shown"),
    [
        ("memory", 688_123_904.0, 2e9, ("688 MB", "2,000 MB")),
        ("latency", 297.3, 200.0, ("0.3 s", "0.2 s")),
        ("latency", 12_345.0, 20_000.0, ("12 s", "20 s")),
        ("category_recall", 0.8681, 0.6, ("86.8 %", "60.0 %")),
        # Lower bounds of intervals are rounded down, and a bound that is exact stays as it is.
        ("accuracy", 0.79999, 0.8, ("79.9 %", "80.0 %")),
        ("top_3_accuracy", 0.9, 0.285, ("90.0 %", "28.5 %")),
        ("not_worse_than_champion", 0.0034, -0.025, ("+0.3 %", "-2.5 %")),
        ("not_worse_than_champion", None, -0.025, ("-", "-2.5 %")),
        ("snapshot_age", 3.25, 90.0, ("3.2 days", "90 days")),
        ("snapshot_age", -0.001, 90.0, ("0.0 days", "90 days")),
        ("throughput", 4281.9, 100.0, ("4,282 images/s", "100 images/s")),
        ("artifact_checksum", 0.0, 1.0, ("no", "yes")),
        ("test_set_size", 382.0, 174.0, ("382", "174")),
        ("same_outputs", 2e-6, 1e-3, ("2e-06", "0.001")),
        ("a gate of another version", 0.5, None, ("0.500", "-")),
    ],
)
def test_values_and_bounds_have_units(
    gate: str, value: float | None, bound: float | None, shown: tuple[str, str]
) -> None:
    (row,) = tabulate_gates([GateDecision(gate, value, bound, "passed", "reason")]).rows
    assert (row.value, row.bound) == shown


def test_units_belong_to_gates() -> None:
    assert UNITS.keys() <= {gate for gates in GATES.values() for gate in gates}


@pytest.mark.parametrize(
    ("verdicts", "summary"),
    [
        (["passed", "skipped", "passed"], "2 passed, 1 skipped"),
        (["skipped", "failed", "passed"], "1 passed, 1 failed, 1 skipped"),
        ([], ""),
    ],
)
def test_summary_counts_verdicts(verdicts: list[Verdict], summary: str) -> None:
    decisions = [GateDecision("accuracy", 0.9, 0.8, verdict, "reason") for verdict in verdicts]
    assert tabulate_gates(decisions).summary == summary


def test_names_and_sentences_are_escaped() -> None:
    attack = "<script>alert(1)</script>"
    html = tabulate_gates([GateDecision(attack, 0.5, 0.8, "failed", attack)]).__html__()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 2
