"""Labels that are likely wrong, by confident learning: reported, never removed."""

from collections.abc import Callable, Sequence

import numpy as np

from jobs.datasets.snapshot_file import SnapshotRow
from jobs.evaluation.classifier_scores import ClassifierAnswers
from jobs.evaluation.evaluation_files import MAX_THUMBNAILS, LabelSuspect


def audit_labels(
    rows: Sequence[SnapshotRow], answers: ClassifierAnswers, read_thumbnail: Callable[[SnapshotRow], str]
) -> list[LabelSuspect]:
    """Rank the labels that disagree with a classifier which never learned from these images.

    By the method of Northcutt et al. 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels". Nothing is
    found where the classifier answers no numbers, or does not know the categories.
    """
    # Here, since it is slow to load.
    from cleanlab.filter import find_label_issues

    if not np.isfinite(answers.probabilities).all() or not {row.category for row in rows} <= set(answers.categories):
        return []
    numbers = {category: number for number, category in enumerate(answers.categories)}
    labels = np.array([numbers[row.category] for row in rows])
    ranked = find_label_issues(labels, answers.probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    best = answers.best
    return [
        LabelSuspect(
            content_hash=rows[index].content_hash,
            given_label=rows[index].category,
            suggested_label=best[index] or rows[index].category,
            score=float(answers.probabilities[index, labels[index]]),
            thumbnail=read_thumbnail(rows[index]) if place < MAX_THUMBNAILS else None,
        )
        for place, index in enumerate(ranked)
    ]
