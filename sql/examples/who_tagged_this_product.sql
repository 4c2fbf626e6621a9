-- Which model tagged this product on that day, and what did it say? Put your own day and product_id.
WITH live_then AS (
    SELECT model_version_id, switched_at
    FROM catalog.switches
    WHERE kind = 'classifier' AND switched_at < date '2100-01-01' + interval '1 day'
    ORDER BY switch_id DESC
    LIMIT 1
)
SELECT t.product_id, t.category, t.confidence, t.images, l.model_version_id, l.switched_at, v.artifact_uri
FROM live_then l
JOIN catalog.model_versions v USING (model_version_id)
JOIN catalog.product_tags t ON t.classifier_version_id = l.model_version_id
WHERE t.product_id = (SELECT min(product_id) FROM catalog.current_product_tags);
