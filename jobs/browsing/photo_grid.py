"""Photos with their tags, filtered, page by page."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text

from jobs.browsing.cursor import BadCursorError, read_cursor, write_cursor

MOST_PRODUCTS = 5_000
"""Of so many products that fit a text the photos are shown; a text that more of them fit finds some, not all."""

Order = Literal["image", "confidence", "time"]


@dataclass(frozen=True)
class PhotoFilter:
    """What photos must fulfil, all of it together.

    ``text`` is looked for in the words of product names and at the start of product ids. ``run_id`` keeps what was
    tagged while that run went on, by its classifier. With a ``classifier_version_id`` the tags are that version's own,
    otherwise those in force: a label, else the tag of the live classifier.
    """

    category: str | None = None
    min_confidence: float | None = None
    max_confidence: float | None = None
    photos_disagree: bool = False
    run_id: str | None = None
    classifier_version_id: int | None = None
    deleted: bool = False
    text: str = ""

    @property
    def order(self) -> Order:
        """Least confident first where confidence is asked for, the latest first otherwise."""
        if self.min_confidence is not None or self.max_confidence is not None:
            return "confidence"
        return "time" if self.run_id else "image"

    @property
    def asks_for_tags(self) -> bool:
        """Whether a photo without a tag cannot be among the answers."""
        return bool(self.category or self.order != "image" or self.classifier_version_id)


@dataclass(frozen=True)
class PhotoCard:
    """A photo in a grid; without a category it was not tagged."""

    image_id: int
    product_id: str
    display_name: str | None
    category: str | None
    confidence: float | None
    source: Literal["model", "human"] | None
    is_deleted: bool


@dataclass(frozen=True)
class PhotoPage:
    """Some photos, and where the next page begins, if there is one."""

    photos: tuple[PhotoCard, ...]
    next_cursor: str | None


KEYS: dict[Order, tuple[str, str, str]] = {
    "image": ("CAST(NULL AS text)", "image_id < :after_image", "image_id DESC"),
    "confidence": (
        "confidence",
        "(confidence, image_id) > (CAST(:after_key AS real), :after_image)",
        "confidence, image_id",
    ),
    "time": (
        "tagged_at",
        "(tagged_at, image_id) < (CAST(:after_key AS timestamptz), :after_image)",
        "tagged_at DESC, image_id DESC",
    ),
}
"""For each order the key of a row, the condition for what follows another, and the SQL that sorts."""

MATCHED = """
    matched AS MATERIALIZED (
        (SELECT product_id FROM catalog.products
         WHERE to_tsvector('simple', coalesce(display_name, '')) @@ plainto_tsquery('simple', :text)
         LIMIT :most_products)
        UNION
        (SELECT product_id FROM catalog.products WHERE product_id LIKE :prefix LIMIT :most_products)
    ),
"""
WINDOW = """
    run AS MATERIALIZED (
        SELECT started_at, coalesce(finished_at, now()) AS finished_at, classifier_version_id
        FROM catalog.tagging_runs WHERE run_id = :run
    ),
"""


def read_photo_page(connection: Connection, wanted: PhotoFilter, after: str | None, size: int) -> PhotoPage:
    """The ``size`` photos that follow a cursor, or the first.

    Raises:
        BadCursorError: ``after`` is none of ours, or belongs to another order.
    """
    parameters = _collect_parameters(wanted, size)
    if after is not None:
        key, image_id = read_cursor(after)
        parameters |= {"after_key": _check_key(wanted.order, key), "after_image": image_id}
    build = _select_tagged if wanted.asks_for_tags else _select_all
    rows = connection.execute(text(build(wanted, after is not None)), parameters).all()
    photos = tuple(PhotoCard(*row[:7]) for row in rows[:size])
    if len(rows) <= size:
        return PhotoPage(photos, None)
    last = rows[size - 1]
    key = last.key.isoformat() if isinstance(last.key, datetime) else last.key
    return PhotoPage(photos, write_cursor(key, last.image_id))


def _collect_parameters(wanted: PhotoFilter, size: int) -> dict[str, Any]:
    # A NUL is in no name, and the driver refuses it.
    words = wanted.text.replace("\0", " ").strip()
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {
        "limit": size + 1,
        "category": wanted.category,
        "lowest": wanted.min_confidence if wanted.min_confidence is not None else 0.0,
        "highest": wanted.max_confidence if wanted.max_confidence is not None else 1.0,
        "run": wanted.run_id,
        "version": wanted.classifier_version_id,
        "text": words,
        "prefix": f"{escaped}%",
        "most_products": MOST_PRODUCTS,
    }


def _check_key(order: Order, key: str | float | None) -> str | float | None:
    try:
        fits = {"image": key is None, "confidence": isinstance(key, float), "time": isinstance(key, str)}[order]
        if fits and isinstance(key, str):
            datetime.fromisoformat(key)
    except ValueError:
        fits = False
    if not fits:
        raise BadCursorError("this page's address does not fit the filters: start again from the first page")
    return key


def _select_all(wanted: PhotoFilter, is_later: bool) -> str:
    """Every photo, tagged or not."""
    conditions = [*_product_conditions(wanted), *(["i.image_id < :after_image"] if is_later else [])]
    return f"""
        WITH {MATCHED if wanted.text.strip() else ""} live AS MATERIALIZED ({_classifier(wanted)})
        SELECT i.image_id, i.product_id, p.display_name, coalesce(l.category, t.category) AS category,
               CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
               CASE WHEN l.category IS NOT NULL THEN 'human' WHEN t.category IS NOT NULL THEN 'model' END AS source,
               i.deleted_at IS NOT NULL AS is_deleted, CAST(NULL AS text) AS key
        FROM catalog.images i
        JOIN catalog.products p USING (product_id)
        LEFT JOIN catalog.image_tags t
            ON t.image_id = i.image_id AND t.classifier_version_id = (SELECT version FROM live)
        LEFT JOIN LATERAL (
            SELECT category FROM catalog.labels WHERE image_id = i.image_id ORDER BY label_id DESC LIMIT 1
        ) l ON true
        WHERE {" AND ".join(conditions)}
        ORDER BY i.image_id DESC LIMIT :limit
    """


def _select_tagged(wanted: PhotoFilter, is_later: bool) -> str:
    """Photos by the tags in force, from models and from people, each read in order and then merged."""
    key, follows, order = KEYS[wanted.order]
    parts = [_select_by_model(wanted, follows if is_later else None, order)]
    # A confidence of 1 is what a human's word counts as; a version's own tags and runs know no labels.
    if wanted.classifier_version_id is None and wanted.run_id is None:
        parts.append(_select_by_human(wanted, follows if is_later else None, order))
    return f"""
        WITH {MATCHED if wanted.text.strip() else ""} {WINDOW if wanted.run_id else ""}
             live AS MATERIALIZED ({_classifier(wanted)}),
             hit AS MATERIALIZED ({" UNION ALL ".join(f"({part})" for part in parts)})
        SELECT h.image_id, i.product_id, p.display_name, h.category, h.confidence, h.source,
               i.deleted_at IS NOT NULL AS is_deleted, {key} AS key
        FROM hit h JOIN catalog.images i USING (image_id) JOIN catalog.products p USING (product_id)
        ORDER BY {order} LIMIT :limit
    """


def _select_by_model(wanted: PhotoFilter, follows: str | None, order: str) -> str:
    conditions = ["t.classifier_version_id = (SELECT version FROM live)", *_product_conditions(wanted)]
    if wanted.order == "confidence":
        conditions.append("t.confidence BETWEEN CAST(:lowest AS real) AND CAST(:highest AS real)")
    if wanted.category:
        conditions.append("t.category = :category")
    if wanted.run_id:
        conditions += ["t.tagged_at >= (SELECT started_at FROM run)", "t.tagged_at <= (SELECT finished_at FROM run)"]
    elif wanted.classifier_version_id is None:
        conditions.append("NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = t.image_id)")
    if follows:
        conditions.append(_qualify(follows, "t"))
    return f"""
        SELECT t.image_id, t.category, t.confidence, 'model' AS source, t.tagged_at
        FROM catalog.image_tags t JOIN catalog.images i ON i.image_id = t.image_id
        WHERE {" AND ".join(conditions)}
        ORDER BY {_qualify(order, "t")} LIMIT :limit
    """


def _select_by_human(wanted: PhotoFilter, follows: str | None, order: str) -> str:
    conditions = [
        "NOT EXISTS (SELECT FROM catalog.labels l2 WHERE l2.image_id = l.image_id AND l2.label_id > l.label_id)",
        *_product_conditions(wanted),
    ]
    if wanted.order == "confidence":
        conditions.append("CAST(:highest AS real) = 1")
    if wanted.category:
        conditions.append("l.category = :category")
    follow = [f"WHERE {follows}"] if follows else []
    return f"""
        SELECT * FROM (
            SELECT l.image_id, l.category, CAST(1 AS real) AS confidence, 'human' AS source, l.labelled_at AS tagged_at
            FROM catalog.labels l JOIN catalog.images i ON i.image_id = l.image_id
            WHERE {" AND ".join(conditions)}
        ) labelled {" ".join(follow)}
        ORDER BY {order} LIMIT :limit
    """


def _qualify(sql: str, alias: str) -> str:
    """The same words on the columns of one table, so that its index can be used."""
    for column in ("image_id", "confidence", "tagged_at"):
        sql = sql.replace(column, f"{alias}.{column}")
    return sql


def _classifier(wanted: PhotoFilter) -> str:
    if wanted.classifier_version_id is not None:
        return "SELECT CAST(:version AS integer) AS version"
    if wanted.run_id:
        return "SELECT classifier_version_id AS version FROM run"
    return "SELECT model_version_id AS version FROM catalog.live_models WHERE kind = 'classifier'"


def _product_conditions(wanted: PhotoFilter) -> list[str]:
    conditions = [f"i.deleted_at IS {'NOT NULL' if wanted.deleted else 'NULL'}"]
    if wanted.photos_disagree:
        conditions.append("""i.product_id IN (
            SELECT d.product_id FROM catalog.product_tags d
            WHERE d.photos_disagree AND d.classifier_version_id = (SELECT version FROM live))""")
    if wanted.text.strip():
        conditions.append("i.product_id IN (SELECT product_id FROM matched)")
    return conditions
