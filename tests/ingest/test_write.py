"""Write the chunks of a shard."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import md5, sha256

from sqlalchemy import Connection, text

from fixtures.job_processes import wait_until
from fixtures.shop import Shop, make_image
from jobs.ingest.plan import IngestOptions, plan_run
from jobs.ingest.tag_shard import ShardTagger
from jobs.ingest.write import count_confidences


def test_each_bin_includes_its_lower_bound_and_the_last_one_includes_1() -> None:
    assert count_confidences([0.0, 0.0999, 0.1, 0.5, 0.9, 1.0]) == [2, 1, 0, 0, 0, 1, 0, 0, 0, 2]


def test_chunks_are_written_side_by_side_and_copies_wait_for_their_originals(tagging_shop: Shop) -> None:
    connections = tagging_shop.with_settings(chunk_size=1, batch_size=1, shard_size=10)
    # A shard is sorted by etag, which this endpoint computes by MD5. Its first two chunks have the same bytes.
    first, *others = sorted((make_image(seed) for seed in range(4)), key=lambda content: md5(content).hexdigest())
    for name, content in (("a_1.jpg", first), ("b_1.jpg", first), *((f"c{n}_1.jpg", o) for n, o in enumerate(others))):
        tagging_shop.put(name, content)
    plan_run(connections, "run", IngestOptions())
    chunks = "SELECT chunk FROM catalog.run_chunks ORDER BY chunk"
    (original,), _ = tagging_shop.query("SELECT image_id FROM catalog.images WHERE object_key < 'c' ORDER BY image_id")

    def release_late(blocker: Connection) -> None:
        # The chunks behind the blocked one are committed, except for the one that copies from it.
        wait_until(lambda: tagging_shop.query(chunks) == [(2,), (3,), (4,)])
        blocker.rollback()

    with connections.engine.connect() as blocker, ThreadPoolExecutor(1) as pool:
        blocker.execute(text("SELECT FROM catalog.images WHERE image_id = :id FOR UPDATE"), {"id": original})
        released = pool.submit(release_late, blocker)
        (report,) = ShardTagger(connections).tag("run", [0])
        released.result()
    assert (report.tagged, report.reused, report.failed) == (4, 1, 0)
    assert tagging_shop.query(chunks) == [(number,) for number in range(5)]
    same = "SELECT DISTINCT category, probabilities FROM catalog.image_tags WHERE content_hash = :hash"
    assert len(tagging_shop.query(same, hash=sha256(first).digest())) == 1
