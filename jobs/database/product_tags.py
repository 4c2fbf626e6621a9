"""Queries on ``product_tags``: a product's category, fused from its photos."""

from sqlalchemy import Connection, text


def renew_product_tags(connection: Connection, classifier_version_id: int) -> int:
    """Fuse anew the tags of all products whose photos, or whose photos' tags, changed; returns how many.

    A product's probabilities are the mean of its photos' (a linear opinion pool): one bad photo cannot veto
    what the others agree on, as it could in a product of probabilities.
    """
    parameters = {"classifier": classifier_version_id}
    connection.execute(
        text("""
            CREATE TEMPORARY TABLE stale_products ON COMMIT DROP AS
            SELECT product_id, photos.fused_from, photos.fused_from IS NULL AS is_gone
            FROM (
                SELECT i.product_id, md5(string_agg(i.image_id || ' ' || extract(epoch FROM t.tagged_at), ','
                                                    ORDER BY i.image_id)) AS fused_from
                FROM catalog.image_tags t JOIN catalog.images i USING (image_id)
                WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
                GROUP BY i.product_id
            ) photos
            FULL JOIN (SELECT * FROM catalog.product_tags WHERE classifier_version_id = :classifier) known
                USING (product_id)
            WHERE known.fused_from IS DISTINCT FROM photos.fused_from
        """),
        parameters,
    )
    connection.execute(
        text("""
            DELETE FROM catalog.product_tags t USING stale_products s
            WHERE t.product_id = s.product_id AND s.is_gone AND t.classifier_version_id = :classifier
        """),
        parameters,
    )
    connection.execute(text(FUSE), parameters)
    renewed: int = connection.execute(text("SELECT count(*) FROM stale_products")).scalar_one()
    return renewed


FUSE = """
    INSERT INTO catalog.product_tags (product_id, classifier_version_id, category, confidence, photos, photos_disagree,
                                      fused_from)
    SELECT DISTINCT ON (fused.product_id) fused.product_id, :classifier, v.categories[fused.output],
           least(fused.probability, 1), counted.photos, counted.photos_disagree, s.fused_from
    FROM (
        SELECT i.product_id, p.output, avg(p.probability) AS probability
        FROM catalog.image_tags t
        JOIN catalog.images i USING (image_id)
        JOIN stale_products s ON s.product_id = i.product_id
        CROSS JOIN LATERAL unnest(t.probabilities) WITH ORDINALITY AS p (probability, output)
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY i.product_id, p.output
    ) fused
    JOIN (
        SELECT i.product_id, count(*) AS photos, count(DISTINCT t.category) > 1 AS photos_disagree
        FROM catalog.image_tags t
        JOIN catalog.images i USING (image_id)
        JOIN stale_products s ON s.product_id = i.product_id
        WHERE t.classifier_version_id = :classifier AND i.deleted_at IS NULL
        GROUP BY i.product_id
    ) counted USING (product_id)
    JOIN stale_products s USING (product_id)
    JOIN catalog.model_versions v ON v.model_version_id = :classifier
    ORDER BY fused.product_id, fused.probability DESC, fused.output
    ON CONFLICT (product_id, classifier_version_id) DO UPDATE
    SET category = excluded.category, confidence = excluded.confidence, photos = excluded.photos,
        photos_disagree = excluded.photos_disagree, fused_from = excluded.fused_from, tagged_at = now()
"""
