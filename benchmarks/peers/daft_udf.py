"""Run Daft: it downloads and decodes, and a batch UDF calls both models. `measurement` defines what is timed.

The UDF runs in threads of the query's process, where the models are already loaded.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.peers.measurement import BATCH_SIZE, Prediction, TimedPredictions, Work, measure_peer, read_clock


def tag(work: Work) -> TimedPredictions:
    """Load the models, warm up in a first query, and predict in a second."""
    from benchmarks.peers.two_models import TwoModels, TwoProcessors

    processors = TwoProcessors.load(work.classifier, work.encoder)
    models = TwoModels.load(work.classifier, work.encoder, work.dtype)

    def predict(images: Sequence[Any]) -> list[Prediction]:
        return models.predict(processors.prepare(images))

    _predict(work.warm_up, predict)
    started = read_clock()
    return TimedPredictions(_predict(work.images, predict), read_clock() - started)


def _predict(images: Sequence[Path], predict: Callable[[Sequence[Any]], list[Prediction]]) -> dict[Path, Prediction]:
    import daft
    from daft import DataType
    from daft.functions import decode_image, download

    row = DataType.struct(
        {"category": DataType.string(), "confidence": DataType.float64(), "vector": DataType.list(DataType.float32())}
    )

    def predict_batch(images: daft.Series) -> list[dict[str, Any]]:
        return [vars(prediction) for prediction in predict(images.to_pylist())]

    udf = daft.func.batch(return_dtype=row, unnest=True, batch_size=BATCH_SIZE, use_process=False)(predict_batch)
    table = daft.from_pydict({"path": [str(image) for image in images]})
    image = decode_image(download(table["path"]), mode="RGB")
    rows = table.select(table["path"], udf(image)).to_pydict()
    columns = zip(rows["path"], rows["category"], rows["confidence"], rows["vector"], strict=True)
    return {Path(path): Prediction(category, confidence, vector) for path, category, confidence, vector in columns}


if __name__ == "__main__":
    measure_peer(tag, ["daft", "torch", "transformers", "pillow"])
