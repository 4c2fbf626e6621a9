-- Which model tagged this product on that day, and what did it say? Put your own day and product_id.
WITH champion_then AS (
    SELECT model_version_id, promoted_at
    FROM catalog.promotions
    WHERE kind = 'classifier' AND promoted_at < date '2100-01-01' + interval '1 day'
    ORDER BY promotion_id DESC
    LIMIT 1
)
SELECT t.product_id, t.category, t.confidence, t.photos, c.model_version_id, c.promoted_at, v.artifact_uri
FROM champion_then c
JOIN catalog.model_versions v USING (model_version_id)
JOIN catalog.product_tags t ON t.classifier_version_id = c.model_version_id
WHERE t.product_id = (SELECT min(product_id) FROM catalog.current_product_tags);
