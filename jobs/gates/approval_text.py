"""What a human reads who is asked whether a candidate may go live: Markdown, short enough for a form."""

import re
from collections.abc import Sequence

from jobs.database.evaluations import Evaluation, GateDecision
from jobs.evaluation.evaluation_files import Flip

MAX_FLIPS = 20
SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")


def write_approval_text(
    evaluation: Evaluation, decisions: Sequence[GateDecision], flips: Sequence[Flip], page_uri: str
) -> str:
    """The gate table and the first flips; whatever the shop named is escaped."""
    kind, champion = evaluation.kind, evaluation.champion_version_id
    replaced = f"would replace **{kind} {champion}**" if champion is not None else f"would be the first {kind}"
    return "\n".join(
        [
            f"**{kind.capitalize()} {evaluation.candidate_version_id}** {replaced}. Its page: {_escape(page_uri)}",
            "",
            "| gate | verdict | why |",
            "|---|---|---|",
            *(
                f"| {_escape(decision.gate)} | **{decision.verdict}** | {_escape(decision.sentence)} |"
                for decision in decisions
            ),
            *_list_flips(flips),
        ]
    )


def _list_flips(flips: Sequence[Flip]) -> list[str]:
    if not flips:
        return []
    return [
        "",
        f"The first {min(len(flips), MAX_FLIPS)} of {len(flips)} images of the sample that would change:",
        "",
        "| product | photo | now | then |",
        "|---|---|---|---|",
        *(
            f"| {_escape(flip.product_id)} | {_escape(flip.object_key)} "
            f"| {_escape(flip.old_category)} {flip.old_confidence:.2f} "
            f"| **{_escape(flip.new_category)}** {flip.new_confidence:.2f} |"
            for flip in flips[:MAX_FLIPS]
        ),
    ]


def _escape(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
