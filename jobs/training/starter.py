"""The first champions of a catalog: one classifier and one encoder, trained on labelled photos, in one go."""

import logging
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from jobs.child_process import end_with_parent
from jobs.connections import Connections
from jobs.database.model_versions import (
    ModelKind,
    ModelVersion,
    insert_model_version,
    insert_promotion,
    read_champion,
)
from jobs.models.checkpoint import resolve_base
from jobs.models.registry import upload_checkpoint
from jobs.training.augmentation import Augmentation
from jobs.training.blank_checkpoints import write_blank_clip, write_blank_resnet18
from jobs.training.labelled_photos import read_labelled_photos, split_photos
from jobs.training.loop import TrainingSettings
from jobs.training.train_classifier import ClassifierTraining, train_classifier
from jobs.training.train_encoder import EncoderTraining, train_encoder

log = logging.getLogger(__name__)

TEST_SHARE = 0.1
BLANK_CLASSIFIER_SIDE = 56
BLANK_ENCODER_SIDE = 64


@dataclass(frozen=True)
class StarterBases:
    """The checkpoints to start from."""

    classifier: Path
    encoder: Path


@dataclass(frozen=True)
class StarterTraining:
    """How both models are trained; an encoder of no epochs is taken as it is."""

    classifier: ClassifierTraining
    encoder: EncoderTraining


FLIP_AND_CROP = Augmentation(rotation_degrees=0, colour_jitter=0)
"""The sample catalog is itself turned and lit at random."""

BLANK_TRAINING = StarterTraining(
    ClassifierTraining("nothing", TrainingSettings(epochs=3, batch_size=32, learning_rate=1e-3), FLIP_AND_CROP),
    EncoderTraining(TrainingSettings(epochs=12, batch_size=64, learning_rate=1e-3), FLIP_AND_CROP, category_weight=1.0),
)
"""For the sample catalog and random weights: large steps, few epochs, side by side in 3 minutes on two slow cores."""


@dataclass(frozen=True)
class StarterReport:
    """The new champions, and how well they did on the photos held back."""

    classifier_version_id: int
    encoder_version_id: int
    classifier_metrics: dict[str, float]
    encoder_metrics: dict[str, float]
    seconds: float


def resolve_bases(classifier: str, encoder: str) -> StarterBases:
    """Find the starting points that the settings name.

    Raises:
        PermanentError: one of them can neither be found nor downloaded.
    """
    return StarterBases(
        resolve_base(classifier, "CATALOG_CLASSIFIER_BASE"), resolve_base(encoder, "CATALOG_ENCODER_BASE")
    )


def tune_pretrained(encoder_epochs: int) -> StarterTraining:
    """For pretrained checkpoints: a new head for the classifier, small steps for the encoder."""
    return StarterTraining(
        ClassifierTraining("backbone", TrainingSettings(epochs=3, batch_size=32, learning_rate=1e-4)),
        EncoderTraining(TrainingSettings(encoder_epochs, batch_size=32, learning_rate=5e-6)),
    )


def write_blank_bases(folder: Path, labelled: Path) -> StarterBases:
    """Random weights in small architectures, for machines without any pretrained checkpoint."""
    bases = StarterBases(folder / "blank-classifier", folder / "blank-encoder")
    photos = read_labelled_photos(labelled)
    write_blank_resnet18(bases.classifier, BLANK_CLASSIFIER_SIDE, sorted({photo.category for photo in photos}))
    texts = [photo.text for photo in photos]
    write_blank_clip(bases.encoder, BLANK_ENCODER_SIDE, patch_side=16, width=128, dimensions=128, layers=4, texts=texts)
    return bases


def train_starter(
    connections: Connections, labelled: Path, bases: StarterBases, training: StarterTraining
) -> StarterReport:
    """Train, store, register and promote both models.

    Raises:
        PermanentError: no labelled photos, or a base that does not fit.
    """
    started = time.perf_counter()
    split = split_photos(read_labelled_photos(labelled), TEST_SHARE)
    with tempfile.TemporaryDirectory() as scratch:
        classifier, encoder = Path(scratch) / "classifier", Path(scratch) / "encoder"
        with _start_trainers() as trainers:
            training_classifier = trainers.submit(
                train_classifier, bases.classifier, split, training.classifier, classifier
            )
            training_encoder = trainers.submit(train_encoder, bases.encoder, split, training.encoder, encoder)
            classifier_metrics, encoder_metrics = training_classifier.result(), training_encoder.result()
        classifier_version = promote_checkpoint(connections, classifier, "classifier", classifier_metrics)
        encoder_version = promote_checkpoint(connections, encoder, "encoder", encoder_metrics)
    return StarterReport(
        classifier_version.model_version_id,
        encoder_version.model_version_id,
        classifier_metrics,
        encoder_metrics,
        round(time.perf_counter() - started, 1),
    )


def _start_trainers() -> ProcessPoolExecutor:
    """Two processes, each with half of the cores: steps of small models gain little from more threads."""
    cores = len(os.sched_getaffinity(0))
    return ProcessPoolExecutor(
        2, mp_context=get_context("spawn"), initializer=_prepare_trainer, initargs=(max(1, cores // 2),)
    )


def _prepare_trainer(threads: int) -> None:
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(threads)


def promote_checkpoint(
    connections: Connections, folder: Path, kind: ModelKind, metrics: dict[str, float]
) -> ModelVersion:
    """Store and register a checkpoint and make it the champion of its kind."""
    uploaded = upload_checkpoint(connections.store, connections.artifacts, folder, kind, metrics=metrics)
    with connections.engine.begin() as connection:
        version = insert_model_version(connection, uploaded)
        champion = read_champion(connection, kind)
        if champion != version:
            insert_promotion(connection, version, champion, promoted_by="train-starter", reason="starter model")
    return version
