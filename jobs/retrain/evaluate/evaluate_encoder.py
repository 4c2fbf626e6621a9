"""An encoder on trial: how well it brings photos and texts together, beside the champion."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.models.encoder import load_text_encoder
from jobs.retrain.evaluate.context import Measured, Trial, encode_predictions
from jobs.retrain.evaluate.evaluation_files import PREDICTIONS_FILE
from jobs.retrain.evaluate.evaluation_record import EvaluationMetrics
from jobs.retrain.evaluate.scores import EncoderOutcome, pair_recalls, score_encoder
from jobs.retrain.evaluate.served_model import load_served_model, map_batches
from jobs.retrain.snapshot.snapshot_file import SnapshotRow

TRAIN_SAMPLE = 1000


@dataclass(frozen=True)
class _Answers:
    """The cosine of each photo with its text, and what follows from all of them."""

    cosines: np.ndarray
    outcome: EncoderOutcome


def evaluate_encoder(trial: Trial) -> Measured:
    """Ask candidate and champion for the same test photos; those without a text are left out.

    The candidate is also asked for photos that it learned from, of which the first 1,000 by their hash are a sample.
    """
    test = [row for row in trial.snapshot.part("test") if row.full_text]
    train = [row for row in trial.snapshot.part("train") if row.full_text][:TRAIN_SAMPLE]
    on_test = _ask(trial, trial.candidate, test)
    champion = _ask(trial, trial.champion, test) if trial.champion else None
    metrics = EvaluationMetrics(
        encoder=on_test.outcome.scores,
        encoder_on_train=_ask(trial, trial.candidate, train).outcome.scores,
        champion_encoder=champion.outcome.scores if champion else None,
        paired_recall=pair_recalls(on_test.outcome, champion.outcome) if champion else None,
    )
    predictions = encode_predictions(
        {
            "content_hash": [row.content_hash for row in test],
            "full_text": [row.full_text for row in test],
            "cosine": on_test.cosines,
            "champion_cosine": champion.cosines if champion else [None] * len(test),
        }
    )
    return Measured(metrics, {PREDICTIONS_FILE: predictions})


def _ask(trial: Trial, folder: Path, rows: Sequence[SnapshotRow]) -> _Answers:
    if not rows:
        nothing = np.empty((0, 1), dtype=np.float32)
        return _Answers(nothing[:, 0], score_encoder(nothing, nothing, [], logit_scale=1))
    images = load_served_model(folder, "encoder", trial.device)
    texts = load_text_encoder(folder, trial.device.in_precision("fp32"))
    image_vectors = images.predict(trial.photos.load_pixels(rows, images.geometry), trial.progress)
    full_texts = [row.full_text for row in rows]
    text_vectors = map_batches(texts.embed, full_texts, trial.device)
    logit_scale = float(texts.model.logit_scale.detach().exp()) if hasattr(texts.model, "logit_scale") else None
    outcome = score_encoder(image_vectors, text_vectors, full_texts, logit_scale)
    return _Answers((image_vectors * text_vectors).sum(axis=1), outcome)
