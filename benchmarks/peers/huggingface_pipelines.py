"""Two pipelines of Transformers, one after the other over all photos, in batches of 32; for times see `measurement`.

Each pipeline reads and decodes the photos itself, so every photo is decoded twice.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoImageProcessor, CLIPVisionModelWithProjection, pipeline

from benchmarks.peers.measurement import BATCH_SIZE, Answer, Tagged, Work, measure_peer, read_clock
from benchmarks.peers.two_models import DTYPES


def tag(work: Work) -> Tagged:
    """Load both pipelines, and answer."""
    dtype = DTYPES[work.dtype]
    classify = pipeline("image-classification", str(work.classifier), dtype=dtype, device="cpu")
    # The whole CLIP would ask for texts too; its image tower with the projection gives the vector.
    tower = CLIPVisionModelWithProjection.from_pretrained(
        work.encoder, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    processor = AutoImageProcessor.from_pretrained(work.encoder, local_files_only=True)
    embed = pipeline("image-feature-extraction", tower, image_processor=processor, device="cpu")

    def answer(photos: Sequence[Path]) -> dict[Path, Answer]:
        names = [str(photo) for photo in photos]
        categories = classify(names, batch_size=BATCH_SIZE, top_k=1)
        vectors = embed(names, batch_size=BATCH_SIZE, return_tensors=True)
        return {
            photo: Answer(best["label"], best["score"], vector[0].float().numpy())
            for photo, (best,), vector in zip(photos, categories, vectors, strict=True)
        }

    answer(work.warm_up)
    started = read_clock()
    return Tagged(answer(work.photos), read_clock() - started)


if __name__ == "__main__":
    measure_peer(tag, ["torch", "transformers", "pillow"])
