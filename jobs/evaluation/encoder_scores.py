"""How well an encoder brings photos and their texts together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from jobs.evaluation.evaluation_record import EncoderScores, PairedOutcomes
from jobs.evaluation.paired_outcomes import pair_outcomes

BATCH_SIZE = 32
RECALL_DEPTHS = (1, 5, 10)


@dataclass(frozen=True)
class EncoderOutcome:
    """The scores of an encoder, and the rank of the best photo for each different text, from 1, in their order."""

    scores: EncoderScores
    ranks: np.ndarray


def score_encoder(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> EncoderOutcome:
    """Score photos with their texts, whose unit vectors are rows [n, dimensions] in the same order.

    A text that several photos share is asked for once, so that every answer counts once. ``logit_scale`` is the
    factor by which the model multiplies cosines before their softmax; without one there is no loss.
    """
    if not texts or not (np.isfinite(image_vectors).all() and np.isfinite(text_vectors).all()):
        return EncoderOutcome(EncoderScores(len(texts), *[None] * 7), np.empty(0, dtype=int))
    ranks = rank_photos(image_vectors, text_vectors, texts)
    loss, in_batch_accuracy = _score_batches(image_vectors, text_vectors, texts, logit_scale)
    scores = EncoderScores(
        images=len(texts),
        loss=loss,
        clip_score=100 * float((image_vectors * text_vectors).sum(axis=1).mean()),
        in_batch_accuracy=in_batch_accuracy,
        recall_at_1=float((ranks <= 1).mean()),
        recall_at_5=float((ranks <= 5).mean()),
        recall_at_10=float((ranks <= 10).mean()),
        mean_reciprocal_rank=float((1 / ranks).mean()),
    )
    return EncoderOutcome(scores, ranks)


def rank_photos(image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The rank, from 1, of the best photo of each different text among all photos, in the order of first mention.

    Photos of other texts that are just as near count as nearer: an encoder to which all is alike finds nothing.
    """
    _, first, text_of_photo = np.unique(np.array(texts, dtype=object), return_index=True, return_inverse=True)
    ranks = np.empty(len(first), dtype=int)
    for text_number, photo in enumerate(first):
        similarities = image_vectors @ text_vectors[photo]
        is_own = text_of_photo == text_number
        ranks[text_number] = 1 + np.count_nonzero(similarities[~is_own] >= similarities[is_own].max())
    ordered: np.ndarray = ranks[np.argsort(first)]
    return ordered


def pair_recalls(candidate: EncoderOutcome, champion: EncoderOutcome) -> dict[str, PairedOutcomes] | None:
    """Who found which text's photo, by the name of the recall; None where one of them could not be scored."""
    if not len(candidate.ranks) or not len(champion.ranks):
        return None
    return {
        f"recall_at_{depth}": pair_outcomes(candidate.ranks <= depth, champion.ranks <= depth)
        for depth in RECALL_DEPTHS
    }


def _score_batches(
    image_vectors: np.ndarray, text_vectors: np.ndarray, texts: Sequence[str], logit_scale: float | None
) -> tuple[float | None, float]:
    """Contrastive loss (Radford et al. 2021) and accuracy; photos of the same text are no negatives of each other."""
    losses, hits = 0.0, 0
    for start in range(0, len(texts), BATCH_SIZE):
        batch = slice(start, start + BATCH_SIZE)
        own_texts = np.array(texts[batch], dtype=object)
        is_same = torch.from_numpy(own_texts[:, None] == own_texts[None, :])
        logits = (logit_scale or 1) * torch.from_numpy(image_vectors[batch] @ text_vectors[batch].T)
        own = torch.arange(len(logits))
        masked = logits.masked_fill(is_same & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
        loss = (functional.cross_entropy(masked, own) + functional.cross_entropy(masked.T, own)) / 2
        losses += float(loss) * len(logits)
        hits += int(is_same[own, logits.argmax(dim=1)].sum())
    return losses / len(texts) if logit_scale else None, hits / len(texts)
