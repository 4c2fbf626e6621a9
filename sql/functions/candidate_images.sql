-- From indexes alone, so that counting up to a limit is cheap. is_result removes the images that a label has moved to
-- another category, and those that left the bucket.
CREATE OR REPLACE FUNCTION catalog.candidate_images(category text, by_product boolean) RETURNS SETOF bigint
LANGUAGE sql STABLE AS $$
    SELECT t.image_id
    FROM catalog.live_models m
    JOIN catalog.image_tags t ON t.classifier_version_id = m.model_version_id
    WHERE NOT by_product AND m.kind = 'classifier' AND t.category = candidate_images.category
    UNION ALL
    SELECT l.image_id
    FROM catalog.labels l
    WHERE NOT by_product AND l.category = candidate_images.category
    UNION ALL
    SELECT i.image_id
    FROM catalog.live_models m
    JOIN catalog.product_tags t ON t.classifier_version_id = m.model_version_id
    JOIN catalog.images i USING (product_id)
    WHERE by_product AND m.kind = 'classifier' AND t.category = candidate_images.category
    UNION ALL
    SELECT i.image_id
    FROM catalog.labels l
    JOIN catalog.images labeled USING (image_id)
    JOIN catalog.images i ON i.product_id = labeled.product_id
    WHERE by_product AND l.category = candidate_images.category
$$;

COMMENT ON FUNCTION catalog.candidate_images IS
    'Internal: all images of a category, or whose products are, and some others that is_result has to remove';
