CREATE OR REPLACE VIEW catalog.current_product_tags AS
SELECT
    p.product_id, p.display_name,
    coalesce(l.category, t.category) AS category,
    CASE WHEN l.category IS NULL THEN t.confidence ELSE 1 END AS confidence,
    coalesce(t.images, 0) AS images,
    coalesce(t.images_disagree, false) AS images_disagree,
    CASE WHEN l.category IS NULL THEN 'model' ELSE 'human' END AS source,
    CASE WHEN l.category IS NULL THEN t.classifier_version_id END AS classifier_version_id,
    coalesce(l.labeled_at, t.tagged_at) AS tagged_at
FROM catalog.products p
LEFT JOIN catalog.product_tags t
    ON t.product_id = p.product_id
    AND t.classifier_version_id = (SELECT model_version_id FROM catalog.live_models WHERE kind = 'classifier')
LEFT JOIN (
    SELECT DISTINCT ON (i.product_id) i.product_id, l.category, l.labeled_at
    FROM catalog.labels l
    JOIN catalog.images i USING (image_id)
    WHERE i.deleted_at IS NULL
        -- An image of something else, such as a table of sizes, does not change a product that has other images.
        AND (l.category <> 'not clothing' OR NOT EXISTS (
            SELECT FROM catalog.images o
            WHERE o.product_id = i.product_id AND o.deleted_at IS NULL AND 'not clothing' IS DISTINCT FROM (
                SELECT n.category FROM catalog.labels n WHERE n.image_id = o.image_id ORDER BY n.label_id DESC LIMIT 1
            )
        ))
        AND NOT EXISTS (SELECT FROM catalog.labels n WHERE n.image_id = l.image_id AND n.label_id > l.label_id)
    ORDER BY i.product_id, l.label_id DESC
) l ON l.product_id = p.product_id
WHERE coalesce(l.category, t.category) IS NOT NULL
  AND EXISTS (SELECT FROM catalog.images i WHERE i.product_id = p.product_id AND i.deleted_at IS NULL);

COMMENT ON VIEW catalog.current_product_tags IS
    'The category of each product with an image in the bucket: the latest label of its images, else the tag of the '
    'live classifier; "not clothing" only if all of its images are labeled so';
COMMENT ON COLUMN catalog.current_product_tags.confidence IS '0 to 1; 1 for a label';
COMMENT ON COLUMN catalog.current_product_tags.images IS 'Images that the live classifier has tagged';
COMMENT ON COLUMN catalog.current_product_tags.images_disagree IS
    'Whether the live classifier gives these images more than one category';
COMMENT ON COLUMN catalog.current_product_tags.source IS 'human for a label, else model';
COMMENT ON COLUMN catalog.current_product_tags.classifier_version_id IS 'Null for a label';
