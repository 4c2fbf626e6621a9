"""Render the evaluation page of a candidate as one self-contained HTML file, and the text for its approval."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jobs.database.evaluations import Evaluation, GateDecision
from jobs.retrain.evaluate.evaluation_record import EncoderScores, EvaluationMetrics, Flip, LabelSuspect
from jobs.retrain.gates import page_charts
from jobs.retrain.gates.gate_table import tabulate_gates
from jobs.retrain.train.history import EpochRecord
from jobs.units import format_figure, format_percent, format_seconds, format_words

TEMPLATES = Path(__file__).parent / "templates"
MAX_LISTED = 200
"""Maximum number of table rows for list entries without a thumbnail."""
MAX_FLIPS = 20
"""Maximum number of flips in the approval text."""
MARKDOWN_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")

ENCODER_SCORES = {
    "images": "images with texts",
    "clip_score": "CLIP score",
    "recall_at_1": "recall@1, text to image",
    "recall_at_5": "recall@5",
    "recall_at_10": "recall@10",
    "mean_reciprocal_rank": "mean reciprocal rank",
    "in_batch_accuracy": "accuracy in batches of 32",
    "loss": "contrastive loss",
}


@dataclass(frozen=True)
class PageContents:
    """The records that the page shows."""

    evaluation: Evaluation
    metrics: EvaluationMetrics
    decisions: Sequence[GateDecision]
    flips: Sequence[Flip]
    label_suspects: Sequence[LabelSuspect]
    history: Sequence[EpochRecord]


@dataclass(frozen=True)
class Tile:
    """A headline metric with a short explanation."""

    name: str
    value: str
    note: str


def render_page(contents: PageContents) -> str:
    """Render the page. It loads no external resources, and names that come from the shop are escaped."""
    scores, champion = contents.metrics.classifier, contents.metrics.champion_classifier
    failed = [decision for decision in contents.decisions if decision.verdict == "failed"]
    return (
        _open_templates()
        .get_template("evaluation_page.html")
        .render(
            evaluation=contents.evaluation,
            data=contents.metrics.data,
            scores=scores,
            gates=tabulate_gates(contents.decisions),
            failed=[(format_words(decision.gate), decision.sentence) for decision in failed],
            tiles=list_tiles(contents.metrics),
            encoder_rows=list_encoder_rows(contents.metrics),
            has_champion=contents.evaluation.champion_version_id is not None,
            confusion=page_charts.list_confusion(scores) if scores else (),
            bars=page_charts.list_category_bars(scores, champion) if scores else (),
            recall_bound=next((one.bound for one in contents.decisions if one.gate == "category_recall"), None),
            reliability=page_charts.draw_reliability(scores.reliability) if scores else None,
            history=page_charts.draw_history(contents.history),
            epochs=len(contents.history),
            flips=contents.flips,
            blast_radius=contents.metrics.blast_radius,
            label_suspects=contents.label_suspects,
            max_listed=MAX_LISTED,
        )
    )


@cache
def _open_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": format_figure, "percent": format_percent}
    return environment


def list_tiles(metrics: EvaluationMetrics) -> list[Tile]:
    """List the headline metrics of a candidate. Metrics that were not measured are left out."""
    tiles = []
    scores, champion, serving = metrics.classifier, metrics.champion_classifier, metrics.serving
    if scores and scores.images:
        note = (
            f"champion {format_percent(champion.correct / champion.images)}"
            if champion and champion.images
            else "no champion at the time"
        )
        tiles.append(
            Tile("Accuracy", format_percent(scores.correct / scores.images), f"{scores.images} images, {note}")
        )
        tiles.append(
            Tile("Top-3 accuracy", format_percent(scores.top_3_correct / scores.images), "among the three most likely")
        )
    if scores and scores.expected_calibration_error is not None:
        error = format_percent(scores.expected_calibration_error)
        tiles.append(Tile("Calibration error", error, "confidence vs. accuracy"))
    if metrics.encoder and metrics.encoder.clip_score is not None:
        tiles.append(Tile("CLIP score", f"{metrics.encoder.clip_score:.1f}", "100 times the mean cosine"))
    if metrics.encoder and metrics.encoder.recall_at_5 is not None:
        recall = metrics.champion_encoder.recall_at_5 if metrics.champion_encoder else None
        note = "no champion at the time" if recall is None else f"champion {format_percent(recall)}"
        tiles.append(Tile("Recall@5", format_percent(metrics.encoder.recall_at_5), note))
    if metrics.blast_radius and metrics.blast_radius.images:
        share = metrics.blast_radius.changed / metrics.blast_radius.images
        tiles.append(
            Tile("Catalog would change", format_percent(share), f"of {metrics.blast_radius.images} live images")
        )
    if serving and serving.mean_latency_milliseconds is not None:
        tiles.append(Tile("Latency", format_seconds(serving.mean_latency_milliseconds), "single image, mean"))
    if serving and serving.images_per_second is not None:
        tiles.append(Tile("Throughput", f"{serving.images_per_second:,.0f}", "images per second"))
    return tiles


def list_encoder_rows(metrics: EvaluationMetrics) -> list[tuple[str, list[float | None]]]:
    """List each score of the candidate on the test images, the champion on them, and the candidate on train images."""
    if metrics.encoder is None:
        return []
    columns = (metrics.encoder, metrics.champion_encoder, metrics.encoder_on_train)
    names = [field.name for field in fields(EncoderScores)]
    assert set(names) == ENCODER_SCORES.keys()
    return [
        (title, [getattr(scores, name) if scores else None for scores in columns])
        for name, title in ENCODER_SCORES.items()
    ]


def write_approval_text(
    evaluation: Evaluation, decisions: Sequence[GateDecision], flips: Sequence[Flip], page_uri: str
) -> str:
    """Write the gate table and the first flips in Markdown. Names that come from the shop are escaped."""
    kind, champion = evaluation.kind, evaluation.champion_version_id
    replaced = f"would replace **{kind} {champion}**" if champion is not None else f"would be the first {kind}"
    return "\n".join(
        [
            f"**{kind.capitalize()} {evaluation.candidate_version_id}** {replaced}. "
            f"Evaluation page: {_escape_markdown(page_uri)}",
            "",
            "| gate | verdict | reason |",
            "|---|---|---|",
            *(
                f"| {_escape_markdown(format_words(one.gate))} | **{one.verdict}** | {_escape_markdown(one.sentence)} |"
                for one in decisions
            ),
            *_list_flips(flips),
        ]
    )


def _list_flips(flips: Sequence[Flip]) -> list[str]:
    if not flips:
        return []
    return [
        "",
        f"First {min(len(flips), MAX_FLIPS)} of {len(flips)} sampled images that would change their category:",
        "",
        "| product | image | now | new |",
        "|---|---|---|---|",
        *(
            f"| {_escape_markdown(flip.product_id)} | {_escape_markdown(flip.object_key)} "
            f"| {_escape_markdown(flip.old_category)} {flip.old_confidence:.2f} "
            f"| **{_escape_markdown(flip.new_category)}** {flip.new_confidence:.2f} |"
            for flip in flips[:MAX_FLIPS]
        ),
    ]


def _escape_markdown(text: str) -> str:
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))
