"""Photos with their tags, filtered, page by page."""

import base64
import binascii
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection, text


class BadCursorError(ValueError):
    """A cursor that no page of ours was made with."""


def write_cursor(key: str | float | None, image_id: int) -> str:
    """The place behind an image, in a list that is ordered by a key and then by image."""
    return base64.urlsafe_b64encode(json.dumps([key, image_id]).encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[str | float | None, int]:
    """What `write_cursor` was given.

    Raises:
        BadCursorError: it is none of ours.
    """
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        raise BadCursorError("this page's address is damaged: start again from the first page") from None
    match values:
        case [str() | float() | None as key, int() as image_id] if 0 <= image_id < 2**63:
            return key, image_id
    raise BadCursorError("this page's address is damaged: start again from the first page")


MOST_PRODUCTS = 5_000
"""Of so many products that fit a text the photos are shown; a text that more of them fit finds some, not all."""

MOST_SORTED = 30_000
"""So many deleted photos, or tags of a run, are all read and sorted for a page."""

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

Source = Literal["named", "deleted", "run", "all"]
COUNTED: dict[Source, str] = {
    "deleted": "catalog.images WHERE deleted_at IS NOT NULL",
    "run": "catalog.image_tags WHERE classifier_version_id = :version AND tagged_at BETWEEN :started AND :finished",
}
"""Rows that are read first if they are at most `MOST_SORTED`."""
FEW: dict[Source, str] = {
    "named": """
        named AS MATERIALIZED (
            (SELECT product_id FROM catalog.products
             WHERE to_tsvector('simple', coalesce(display_name, '')) @@ plainto_tsquery('simple', :text)
             LIMIT :most_products)
            UNION
            (SELECT product_id FROM catalog.products WHERE product_id LIKE :prefix LIMIT :most_products)
        ),
        few AS MATERIALIZED (
            SELECT i.* FROM named CROSS JOIN LATERAL (
                SELECT image_id, product_id, deleted_at FROM catalog.images WHERE product_id = named.product_id OFFSET 0
            ) i
        ),
    """,
    "deleted": f"few AS MATERIALIZED (SELECT image_id, product_id, deleted_at FROM {COUNTED['deleted']}),",
    "run": f"""
        few_tags AS MATERIALIZED (
            SELECT image_id, category, confidence, tagged_at, classifier_version_id FROM {COUNTED["run"]}
        ),
    """,
    "all": "",
}
"""What is read first where that is little. ``OFFSET 0`` keeps Postgres from reading a whole table to join it."""
OF_FEW_IMAGES = """
    few i CROSS JOIN LATERAL (
        SELECT * FROM catalog.image_tags WHERE image_id = i.image_id AND classifier_version_id = :version OFFSET 0
    ) t
"""
TAGGED_IMAGES: dict[Source, str] = {
    "named": OF_FEW_IMAGES,
    "deleted": OF_FEW_IMAGES,
    "run": "few_tags t CROSS JOIN LATERAL (SELECT * FROM catalog.images WHERE image_id = t.image_id OFFSET 0) i",
    "all": "catalog.image_tags t JOIN catalog.images i ON i.image_id = t.image_id",
}


@dataclass(frozen=True)
class _Scope:
    """Whose tags are read, of which time, and from where."""

    version: int | None
    started: datetime | None = None
    finished: datetime | None = None
    source: Source = "all"


def read_photo_page(connection: Connection, wanted: PhotoFilter, after: str | None, size: int) -> PhotoPage:
    """The ``size`` photos that follow a cursor, or the first.

    Raises:
        BadCursorError: ``after`` is none of ours, or belongs to another order.
    """
    follows = {}
    if after is not None:
        key, image_id = read_cursor(after)
        follows = {"after_key": _check_key(wanted.order, key), "after_image": image_id}
    scope = _find_scope(connection, wanted)
    if scope is None:
        return PhotoPage((), None)
    parameters = _collect_parameters(wanted, size) | asdict(scope) | follows
    if wanted.asks_for_tags:
        statement = _select_tagged(wanted, scope, bool(follows))
    else:
        statement = _select_all(wanted, scope, bool(follows))
    rows = connection.execute(text(statement), parameters).all()
    photos = tuple(PhotoCard(*row[:7]) for row in rows[:size])
    if len(rows) <= size:
        return PhotoPage(photos, None)
    last = rows[size - 1]
    key = last.key.isoformat() if isinstance(last.key, datetime) else last.key
    return PhotoPage(photos, write_cursor(key, last.image_id))


def _find_scope(connection: Connection, wanted: PhotoFilter) -> _Scope | None:
    """None if the run was never planned."""
    if wanted.run_id is None:
        live = "SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier'"
        scope = _Scope(wanted.classifier_version_id or connection.execute(text(live)).scalar_one_or_none())
    else:
        run = connection.execute(
            text("""
                SELECT classifier_version_id, started_at, coalesce(finished_at, now()) AS finished_at
                FROM catalog.tagging_runs WHERE run_id = :run
            """),
            {"run": wanted.run_id},
        ).one_or_none()
        if run is None:
            return None
        scope = _Scope(wanted.classifier_version_id or run.classifier_version_id, run.started_at, run.finished_at)
    return replace(scope, source=_choose_source(connection, wanted, scope))


def _choose_source(connection: Connection, wanted: PhotoFilter, scope: _Scope) -> Source:
    """The planner, which does not know how tags lie in time or among deleted photos, is not left to guess."""
    if wanted.text.strip():
        return "named"
    if wanted.deleted and wanted.asks_for_tags and _are_few(connection, "deleted", scope):
        return "deleted"
    if wanted.run_id and wanted.order == "confidence" and _are_few(connection, "run", scope):
        return "run"
    return "all"


def _are_few(connection: Connection, source: Source, scope: _Scope) -> bool:
    counted = connection.execute(
        text(f"SELECT count(*) FROM (SELECT FROM {COUNTED[source]} LIMIT :limit) counted"),
        {**asdict(scope), "limit": MOST_SORTED + 1},
    ).scalar_one()
    return bool(counted <= MOST_SORTED)


def _collect_parameters(wanted: PhotoFilter, size: int) -> dict[str, Any]:
    # A NUL is in no name, and the driver refuses it.
    words = wanted.text.replace("\0", " ").strip()
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return {
        "limit": size + 1,
        "category": wanted.category,
        "lowest": wanted.min_confidence if wanted.min_confidence is not None else 0.0,
        "highest": wanted.max_confidence if wanted.max_confidence is not None else 1.0,
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


def _select_all(wanted: PhotoFilter, scope: _Scope, is_later: bool) -> str:
    """Every photo, tagged or not."""
    conditions = [*_image_conditions(wanted), *(["i.image_id < :after_image"] if is_later else [])]
    return f"""
        WITH {FEW[scope.source]} shown AS (
            SELECT i.image_id, i.product_id, i.deleted_at FROM {_images(scope)} i
            WHERE {" AND ".join(conditions)} ORDER BY i.image_id DESC LIMIT :limit
        )
        SELECT i.image_id, i.product_id, p.display_name, coalesce(l.category, t.category) AS category,
               CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
               CASE WHEN l.category IS NOT NULL THEN 'human' WHEN t.category IS NOT NULL THEN 'model' END AS source,
               i.deleted_at IS NOT NULL AS is_deleted, CAST(NULL AS text) AS key
        FROM shown i
        JOIN catalog.products p USING (product_id)
        LEFT JOIN catalog.image_tags t ON t.image_id = i.image_id AND t.classifier_version_id = :version
        LEFT JOIN LATERAL (
            SELECT category FROM catalog.labels WHERE image_id = i.image_id ORDER BY label_id DESC LIMIT 1
        ) l ON true
        ORDER BY i.image_id DESC
    """


def _select_tagged(wanted: PhotoFilter, scope: _Scope, is_later: bool) -> str:
    """Photos by the tags in force, from models and from people, each read in order and then merged."""
    key, follows, order = KEYS[wanted.order]
    parts = [_select_by_model(wanted, scope, follows if is_later else None, order)]
    # A confidence of 1 is what a human's word counts as; a version's own tags and runs know no labels.
    if wanted.classifier_version_id is None and wanted.run_id is None:
        parts.append(_select_by_human(wanted, scope, follows if is_later else None, order))
    return f"""
        WITH {FEW[scope.source]} hit AS MATERIALIZED ({" UNION ALL ".join(f"({part})" for part in parts)})
        SELECT h.image_id, i.product_id, p.display_name, h.category, h.confidence, h.source,
               i.deleted_at IS NOT NULL AS is_deleted, {key} AS key
        FROM hit h JOIN catalog.images i USING (image_id) JOIN catalog.products p USING (product_id)
        ORDER BY {order} LIMIT :limit
    """


def _select_by_model(wanted: PhotoFilter, scope: _Scope, follows: str | None, order: str) -> str:
    conditions = ["t.classifier_version_id = :version", *_image_conditions(wanted)]
    if wanted.order == "confidence":
        conditions.append("t.confidence BETWEEN CAST(:lowest AS real) AND CAST(:highest AS real)")
    if wanted.category:
        conditions.append("t.category = :category")
    if wanted.run_id:
        conditions.append("t.tagged_at BETWEEN :started AND :finished")
    elif wanted.classifier_version_id is None:
        conditions.append("NOT EXISTS (SELECT FROM catalog.labels l WHERE l.image_id = i.image_id)")
    if follows:
        conditions.append(_qualify(follows, "t"))
        if wanted.order == "image":
            conditions.append(_qualify(follows, "i"))
    return f"""
        SELECT i.image_id, t.category, t.confidence, 'model' AS source, t.tagged_at
        FROM {TAGGED_IMAGES[scope.source]}
        WHERE {" AND ".join(conditions)}
        ORDER BY {_qualify(order, "i" if wanted.order == "image" else "t")} LIMIT :limit
    """


def _select_by_human(wanted: PhotoFilter, scope: _Scope, follows: str | None, order: str) -> str:
    conditions = [
        "NOT EXISTS (SELECT FROM catalog.labels l2 WHERE l2.image_id = l.image_id AND l2.label_id > l.label_id)",
        *_image_conditions(wanted),
    ]
    if wanted.order == "confidence":
        conditions.append("CAST(:highest AS real) = 1")
    if wanted.category:
        conditions.append("l.category = :category")
    follow = [f"WHERE {follows}"] if follows else []
    return f"""
        SELECT * FROM (
            SELECT l.image_id, l.category, CAST(1 AS real) AS confidence, 'human' AS source, l.labelled_at AS tagged_at
            FROM catalog.labels l JOIN {_images(scope)} i ON i.image_id = l.image_id
            WHERE {" AND ".join(conditions)}
        ) labelled {" ".join(follow)}
        ORDER BY {order} LIMIT :limit
    """


def _qualify(sql: str, alias: str) -> str:
    """The same words on the columns of one table, so that its index can be used."""
    for column in ("image_id", "confidence", "tagged_at"):
        sql = sql.replace(column, f"{alias}.{column}")
    return sql


def _images(scope: _Scope) -> str:
    return "few" if scope.source in ("named", "deleted") else "catalog.images"


def _image_conditions(wanted: PhotoFilter) -> list[str]:
    conditions = [f"i.deleted_at IS {'NOT NULL' if wanted.deleted else 'NULL'}"]
    if wanted.photos_disagree:
        conditions.append("""i.product_id IN (
            SELECT d.product_id FROM catalog.product_tags d
            WHERE d.photos_disagree AND d.classifier_version_id = :version)""")
    return conditions
