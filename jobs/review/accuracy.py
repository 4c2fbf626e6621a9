"""How often the live classifier is right, told from what people answered, however the photos were chosen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from sqlalchemy import Connection, text

from jobs.database.images import FIRST_PLACE, LAST_PLACE, PLACE, START, select_random_images
from jobs.review.queue import TAGGED, read_live_classifier

NORMAL_QUANTILE = NormalDist().inv_cdf(0.975)
"""Of two-sided intervals at 95 %."""
SHARES_SAMPLE = 4_000
"""Photos from which the shares of the strata are reckoned: all of a small catalog."""
BINS = (0.5, 0.7, 0.9, 0.97)
"""Bounds of confidence between strata; photos that contradict their product are a stratum of their own."""


@dataclass(frozen=True)
class Estimate:
    """A share from 0 to 1 with its 95 % interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True)
class ReviewedAccuracy:
    """Of a classifier's answers: what the random audit says, what all reviews say, and what they seem to say.

    ``audited`` photos of the audit's sample have an answer, ``unanswered`` were passed over. ``seeming`` is the plain
    share of all ``reviewed`` photos, which is lower than the truth where hard ones were chosen.
    """

    classifier_version_id: int
    audited: int
    unanswered: int
    audit: Estimate | None
    reviewed: int
    corrected: Estimate | None
    seeming: float | None


@dataclass(frozen=True)
class Stratum:
    """Photos alike in what they were chosen by: their share of the catalog, and how many reviewed ones are right."""

    share: float
    reviewed: int
    right: int


def read_reviewed_accuracy(connection: Connection) -> ReviewedAccuracy | None:
    """The accuracy of the live classifier on the catalog; None while none is live.

    The truth of a photo is its latest label. Reviews of likely label errors and of drifted categories count in
    neither estimate: they were chosen by something that the strata do not hold.
    """
    version = read_live_classifier(connection)
    if version is None:
        return None
    audited, right, unanswered = _count_audit(connection, version)
    strata = _read_strata(connection, version)
    reviewed = sum(stratum.reviewed for stratum in strata)
    return ReviewedAccuracy(
        classifier_version_id=version,
        audited=audited,
        unanswered=unanswered,
        audit=estimate_share(right, audited) if audited else None,
        reviewed=reviewed,
        corrected=estimate_by_strata(strata, SHARES_SAMPLE),
        seeming=sum(stratum.right for stratum in strata) / reviewed if reviewed else None,
    )


def estimate_share(right: int, all_of_them: int) -> Estimate:
    """Wilson's score interval (1927), which holds for few answers and where all were right, too."""
    # By hand: scipy would cost Airflow's API server 40 MB.
    square = NORMAL_QUANTILE**2
    centre = right + square / 2
    margin = NORMAL_QUANTILE * math.sqrt(right * (all_of_them - right) / all_of_them + square / 4)
    low, high = ((centre + sign * margin) / (all_of_them + square) for sign in (-1, 1))
    return Estimate(right / all_of_them, max(low, 0.0), min(high, 1.0))


def estimate_by_strata(strata: Sequence[Stratum], shares_sample: int) -> Estimate | None:
    """The share of right answers in the catalog, from samples that were drawn more densely in some strata.

    Double sampling for stratification (Neyman 1938; Cochran, Sampling Techniques, 1977, chapter 12): the shares W of
    the strata come from a larger sample of n' photos, the rates p from those reviewed; the estimate is the sum of W p,
    its variance the sum of W^2 p (1 - p) / n plus the sum of W (p - estimate)^2 over n'. In the variance p is
    (right + 1) / (reviewed + 2), since a stratum of which all were right is not certain.
    """
    merged = _merge_unreviewed(strata)
    if not merged:
        return None
    rates = [stratum.right / stratum.reviewed for stratum in merged]
    share = sum(stratum.share * rate for stratum, rate in zip(merged, rates, strict=True))
    variance = 0.0
    for stratum, rate in zip(merged, rates, strict=True):
        careful = (stratum.right + 1) / (stratum.reviewed + 2)
        variance += stratum.share**2 * careful * (1 - careful) / stratum.reviewed
        variance += stratum.share * (rate - share) ** 2 / shares_sample
    margin = NORMAL_QUANTILE * math.sqrt(variance)
    return Estimate(share, max(share - margin, 0.0), min(share + margin, 1.0))


def _merge_unreviewed(strata: Sequence[Stratum]) -> list[Stratum]:
    """Let a stratum of fewer than two reviews be judged with its neighbour."""
    merged: list[Stratum] = []
    for stratum in strata:
        if merged and min(merged[-1].reviewed, stratum.reviewed) < 2:
            last = merged.pop()
            merged.append(
                Stratum(last.share + stratum.share, last.reviewed + stratum.reviewed, last.right + stratum.right)
            )
        else:
            merged.append(stratum)
    return merged if merged and merged[-1].reviewed else []


def _count_audit(connection: Connection, classifier_version_id: int) -> tuple[int, int, int]:
    """Answered, right and passed over, among the photos up to the last that an audit asked about."""
    last = connection.execute(
        text(f"""
            SELECT CAST({PLACE} < {START} AS integer) AS segment, {PLACE} AS place
            FROM catalog.reviews i
            WHERE classifier_version_id = :version AND reason = 'audit' AND undone_at IS NULL
            ORDER BY segment DESC, place DESC LIMIT 1
        """),
        {"version": classifier_version_id},
    ).one_or_none()
    if last is None:
        return 0, 0, 0
    drawn = select_random_images("i.image_id, t.category", TAGGED, "i.deleted_at IS NULL", is_bounded=True)
    row = connection.execute(
        text(f"""
            WITH answered AS (
                SELECT category, (
                    SELECT l.category FROM catalog.labels l WHERE l.image_id = drawn.image_id
                    ORDER BY l.label_id DESC LIMIT 1
                ) AS truth
                FROM ({drawn}) drawn
            )
            SELECT count(truth) AS answered, count(*) FILTER (WHERE truth = category) AS right_ones,
                   count(*) FILTER (WHERE truth IS NULL) AS unanswered
            FROM answered
        """),
        {
            "version": classifier_version_id,
            "limit": SHARES_SAMPLE,
            "last_0": last.place if last.segment == 0 else LAST_PLACE,
            "last_1": last.place if last.segment == 1 else FIRST_PLACE,
        },
    ).one()
    return row.answered, row.right_ones, row.unanswered


STRATUM = """
    CASE WHEN EXISTS (
        SELECT FROM catalog.product_tags d
        WHERE d.product_id = i.product_id AND d.classifier_version_id = :version AND d.photos_disagree
          AND d.category <> t.category
    ) THEN -1 ELSE width_bucket(t.confidence, CAST(:bins AS real[])) END
"""


def _read_strata(connection: Connection, classifier_version_id: int) -> list[Stratum]:
    """From those that contradict their product, over the least confident, to the most confident."""
    rows = connection.execute(
        text(f"""
            WITH drawn AS (
                {select_random_images(f"{STRATUM} AS stratum", TAGGED, "i.deleted_at IS NULL")}
            ), shares AS (
                SELECT stratum, count(*) / sum(count(*)) OVER () AS share
                FROM drawn GROUP BY stratum
            ), reviewed AS (
                SELECT {STRATUM} AS stratum, count(*) AS reviewed,
                       count(*) FILTER (WHERE t.category = (
                           SELECT l.category FROM catalog.labels l WHERE l.image_id = i.image_id
                           ORDER BY l.label_id DESC LIMIT 1
                       )) AS right_ones
                FROM (SELECT DISTINCT image_id FROM catalog.reviews
                      WHERE classifier_version_id = :version AND undone_at IS NULL
                        AND reason IN ('audit', 'low_confidence', 'photos_disagree')) r
                JOIN catalog.images i USING (image_id) {TAGGED}
                WHERE i.deleted_at IS NULL
                GROUP BY 1
            )
            SELECT coalesce(share, 0) AS share, coalesce(reviewed, 0) AS reviewed, coalesce(right_ones, 0) AS right_ones
            FROM shares FULL JOIN reviewed USING (stratum) ORDER BY stratum
        """),
        {"version": classifier_version_id, "bins": list(BINS), "limit": SHARES_SAMPLE},
    )
    return [Stratum(float(row.share), row.reviewed, row.right_ones) for row in rows]
