"""The benchmark of memory defines growth."""

from benchmarks.ingest.memory import Sample, summarize


def test_growth_starts_after_2000_images() -> None:
    samples = [
        Sample(0, 900, 10),
        Sample(1000, 500, 20),
        Sample(1900, 520, 30),
        Sample(2000, 510, 40),
        Sample(20000, 560, 60),
        Sample(20000, 300, 5),
    ]
    memory = summarize(samples)
    assert (memory.images, memory.peak, memory.tree_peak) == (20000, 900, 910)
    assert (memory.growth, memory.decoding_growth) == (40, 30)
