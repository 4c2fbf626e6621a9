"""Daft: it downloads and decodes, a batch UDF asks both models; for times see `measurement`.

The UDF runs in threads of the process of the query, and finds the models loaded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.measurement import BATCH_SIZE, Answer, Tagged, Work, measure_peer, read_clock


def tag(work: Work) -> Tagged:
    """Load the models, warm up in a first query, and answer in a second."""
    from benchmarks.peers.two_models import TwoModels, TwoProcessors

    processors = TwoProcessors.load(work.classifier, work.encoder)
    models = TwoModels.load(work.classifier, work.encoder, work.dtype)

    def ask(images: Sequence[Any]) -> list[Answer]:
        return models.answer(processors.prepare(images))

    _answer(work.warm_up, ask)
    started = read_clock()
    return Tagged(_answer(work.photos, ask), read_clock() - started)


def _answer(photos: Sequence[Path], ask: Callable[[Sequence[Any]], list[Answer]]) -> dict[Path, Answer]:
    import daft
    from daft import DataType
    from daft.functions import decode_image, download

    row = DataType.struct(
        {"category": DataType.string(), "confidence": DataType.float64(), "vector": DataType.list(DataType.float32())}
    )

    def ask_batch(images: daft.Series) -> list[dict[str, Any]]:
        return [vars(answer) for answer in ask(images.to_pylist())]

    udf = daft.func.batch(return_dtype=row, unnest=True, batch_size=BATCH_SIZE, use_process=False)(ask_batch)
    table = daft.from_pydict({"path": [str(photo) for photo in photos]})
    image = decode_image(download(table["path"]), mode="RGB")
    rows = table.select(table["path"], udf(image)).to_pydict()
    columns = zip(rows["path"], rows["category"], rows["confidence"], rows["vector"], strict=True)
    return {Path(path): Answer(category, confidence, vector) for path, category, confidence, vector in columns}


if __name__ == "__main__":
    measure_peer(tag, ["daft", "torch", "transformers", "pillow"])
