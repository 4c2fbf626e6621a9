"""How a chunk is cut into batches."""

from jobs.database.tagging_work import DueImage
from jobs.ingest.pipeline import cut_batches


def make_images(*sizes: int) -> list[DueImage]:
    return [
        DueImage(number, f"{number}.jpg", "etag", size, "new", needs_tag=True, needs_embedding=True)
        for number, size in enumerate(sizes)
    ]


def cut(*sizes: int) -> list[list[int]]:
    """The sizes in each batch of at most 3 images and 100 bytes."""
    return [[image.size_bytes for image in batch] for batch in cut_batches(make_images(*sizes), 3, 100)]


def test_a_batch_holds_so_many_images() -> None:
    assert cut(1, 2, 3, 4, 5, 6, 7) == [[1, 2, 3], [4, 5, 6], [7]]
    assert cut() == []


def test_a_batch_holds_so_many_bytes() -> None:
    assert cut(60, 40, 1, 99, 2) == [[60, 40], [1, 99], [2]]


def test_an_image_of_more_bytes_is_a_batch_of_its_own() -> None:
    assert cut(1, 500, 1, 1) == [[1], [500], [1, 1]]
