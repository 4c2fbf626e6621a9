"""The same bytes are answered once."""

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_work import DueImage, KnownContent
from jobs.ingest.read import ImageBytes
from jobs.ingest.reuse import ContentRouter, fail_twins

NOTHING_KNOWN = KnownContent(frozenset(), frozenset())


def make_image(image_id: int, content: bytes, *, needs_tag: bool = True, needs_embedding: bool = True) -> ImageBytes:
    due = DueImage(image_id, f"{image_id}.jpg", f"etag{image_id}", 1, "new", needs_tag, needs_embedding)
    return ImageBytes(due, content, content, 0.0)


def test_known_bytes_are_copied() -> None:
    router = ContentRouter(lambda _: KnownContent(frozenset({b"a"}), frozenset({b"a"})))
    batch = router.route(0, [make_image(1, b"a"), make_image(2, b"b")])
    assert [image.source.image.image_id for image in batch.fresh] == [2]
    assert [copy.image_id for copy in batch.settled.tag_copies] == [1]
    assert [copy.image_id for copy in batch.settled.embedding_copies] == [1]
    assert batch.settled.reused == 1


def test_half_known_bytes_are_computed_by_half() -> None:
    router = ContentRouter(lambda _: KnownContent(frozenset({b"a"}), frozenset()))
    batch = router.route(0, [make_image(1, b"a")])
    assert [(image.compute_tag, image.compute_embedding) for image in batch.fresh] == [(False, True)]
    assert len(batch.settled.tag_copies) == 1
    assert batch.settled.reused == 0


def test_twins_in_flight_are_copied_across_batches() -> None:
    router = ContentRouter(lambda _: NOTHING_KNOWN)
    first = router.route(0, [make_image(1, b"a"), make_image(2, b"a")])
    second = router.route(1, [make_image(3, b"a")])
    assert [image.source.image.image_id for image in first.fresh] == [1]
    assert not second.fresh
    assert [copy.image_id for copy in second.settled.tag_copies] == [3]


def test_only_what_is_needed_is_computed() -> None:
    router = ContentRouter(lambda _: NOTHING_KNOWN)
    batch = router.route(0, [make_image(1, b"a", needs_embedding=False)])
    assert [(image.compute_tag, image.compute_embedding) for image in batch.fresh] == [(True, False)]
    assert not batch.settled.embedding_copies


def test_twin_of_a_failure_fails_with_its_own_name() -> None:
    router = ContentRouter(lambda _: NOTHING_KNOWN)
    router.route(0, [make_image(1, b"a")])
    settled = router.route(0, [make_image(2, b"a"), make_image(3, b"b")]).settled
    failure = ItemFailure(1, "etag1", "decode", "truncated", "cut off")
    outcome = fail_twins(settled, {b"a": failure})
    assert outcome.failures == (ItemFailure(2, "etag2", "decode", "truncated", "cut off"),)
    assert outcome.reused == 0
    assert not outcome.contents
    assert not outcome.tag_copies
