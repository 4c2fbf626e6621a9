"""Run two Transformers pipelines over all images, in batches of 32. `measurement` defines what is timed.

Each pipeline reads and decodes the images by itself, so every image is decoded twice.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoImageProcessor, CLIPVisionModelWithProjection, pipeline

from benchmarks.peers.measurement import BATCH_SIZE, Prediction, TimedPredictions, Work, measure_peer, read_clock
from benchmarks.peers.two_models import DTYPES


def tag(work: Work) -> TimedPredictions:
    """Load both pipelines, then predict."""
    dtype = DTYPES[work.dtype]
    classify = pipeline("image-classification", str(work.classifier), dtype=dtype, device="cpu")
    # A complete CLIP model would also require texts. The image tower with its projection is enough for vectors.
    tower = CLIPVisionModelWithProjection.from_pretrained(
        work.encoder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    processor = AutoImageProcessor.from_pretrained(work.encoder, local_files_only=True)
    embed = pipeline("image-feature-extraction", tower, image_processor=processor, device="cpu")

    def predict(images: Sequence[Path]) -> dict[Path, Prediction]:
        names = [str(image) for image in images]
        categories = classify(names, batch_size=BATCH_SIZE, top_k=1)
        vectors = embed(names, batch_size=BATCH_SIZE, return_tensors=True)
        return {
            image: Prediction(best["label"], best["score"], vector[0].float().numpy())
            for image, (best,), vector in zip(images, categories, vectors, strict=True)
        }

    predict(work.warm_up)
    started = read_clock()
    return TimedPredictions(predict(work.images), read_clock() - started)


if __name__ == "__main__":
    measure_peer(tag, ["torch", "transformers", "pillow"])
