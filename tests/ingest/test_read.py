"""Test which images need which models, and which copy the results of equal bytes."""

from jobs.database.item_failures import ItemFailure
from jobs.database.tagging_work import DueImage, KnownContent
from jobs.ingest.read import Deduplicator, ImageBytes, fail_duplicates

NOTHING_KNOWN = KnownContent(frozenset(), frozenset())


def make_image(image_id: int, content: bytes, *, needs_tag: bool = True, needs_embedding: bool = True) -> ImageBytes:
    due = DueImage(image_id, f"{image_id}.jpg", f"etag{image_id}", 1, "new", needs_tag, needs_embedding)
    return ImageBytes(due, content, content, 0.0)


def test_known_bytes_are_copied() -> None:
    deduplicator = Deduplicator(lambda _: KnownContent(frozenset({b"a"}), frozenset({b"a"})))
    batch = deduplicator.split(0, [make_image(1, b"a"), make_image(2, b"b")])
    assert [image.source.image.image_id for image in batch.pending] == [2]
    assert [copy.image_id for copy in batch.results.tag_copies] == [1]
    assert [copy.image_id for copy in batch.results.embedding_copies] == [1]
    assert batch.results.reused == 1


def test_bytes_with_a_tag_but_no_vector_are_only_embedded() -> None:
    deduplicator = Deduplicator(lambda _: KnownContent(frozenset({b"a"}), frozenset()))
    batch = deduplicator.split(0, [make_image(1, b"a")])
    assert [(image.compute_tag, image.compute_embedding) for image in batch.pending] == [(False, True)]
    assert len(batch.results.tag_copies) == 1
    assert batch.results.reused == 0


def test_duplicates_of_uncommitted_bytes_are_copied_across_batches() -> None:
    deduplicator = Deduplicator(lambda _: NOTHING_KNOWN)
    first = deduplicator.split(0, [make_image(1, b"a"), make_image(2, b"a")])
    second = deduplicator.split(1, [make_image(3, b"a")])
    assert [image.source.image.image_id for image in first.pending] == [1]
    assert not second.pending
    assert [copy.image_id for copy in second.results.tag_copies] == [3]


def test_only_the_models_that_an_image_needs_are_run() -> None:
    deduplicator = Deduplicator(lambda _: NOTHING_KNOWN)
    batch = deduplicator.split(0, [make_image(1, b"a", needs_embedding=False)])
    assert [(image.compute_tag, image.compute_embedding) for image in batch.pending] == [(True, False)]
    assert not batch.results.embedding_copies


def test_a_duplicate_of_failed_bytes_fails_under_its_own_id() -> None:
    deduplicator = Deduplicator(lambda _: NOTHING_KNOWN)
    deduplicator.split(0, [make_image(1, b"a")])
    results = deduplicator.split(0, [make_image(2, b"a"), make_image(3, b"b")]).results
    failure = ItemFailure(1, "etag1", "decode", "truncated", "cut off")
    failed = fail_duplicates(results, {b"a": failure})
    assert failed.failures == (ItemFailure(2, "etag2", "decode", "truncated", "cut off"),)
    assert failed.reused == 0
    assert not failed.contents
    assert not failed.tag_copies
