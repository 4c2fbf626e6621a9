CREATE OR REPLACE VIEW catalog.current_image_tags AS
SELECT
    i.image_id, i.bucket, i.object_key, i.product_id,
    coalesce(l.category, t.category) AS category,
    CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
    CASE WHEN l.category IS NULL THEN t.top_3 END AS top_3,
    CASE WHEN l.category IS NULL THEN 'model' ELSE 'human' END AS source,
    CASE WHEN l.category IS NULL THEN t.classifier_version_id END AS classifier_version_id,
    coalesce(l.labeled_at, t.tagged_at) AS tagged_at
FROM catalog.images i
LEFT JOIN catalog.image_tags t
    ON t.image_id = i.image_id
    AND t.classifier_version_id = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
LEFT JOIN (
    SELECT DISTINCT ON (image_id) image_id, category, labeled_at
    FROM catalog.labels
    ORDER BY image_id, label_id DESC
) l ON l.image_id = i.image_id
WHERE i.deleted_at IS NULL AND coalesce(l.category, t.category) IS NOT NULL;

COMMENT ON VIEW catalog.current_image_tags IS
    'The category of each image in the bucket: its latest label, else the tag of the live classifier';
COMMENT ON COLUMN catalog.current_image_tags.confidence IS '0 to 1; 1 for a label';
COMMENT ON COLUMN catalog.current_image_tags.top_3 IS
    'Up to three {"category", "confidence"}, best first; null for a label';
COMMENT ON COLUMN catalog.current_image_tags.source IS 'human for a label, else model';
COMMENT ON COLUMN catalog.current_image_tags.classifier_version_id IS 'Null for a label';
