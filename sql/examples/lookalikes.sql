-- Which other products show nearly the same image as the newest ones? For finding an article listed twice.
SELECT newest.object_key, s.object_key AS looks_like, s.product_id, s.similarity
FROM (
    SELECT i.* FROM catalog.images i
    JOIN catalog.image_embeddings e ON e.image_id = i.image_id AND e.space_id = catalog.live_space()
    WHERE i.deleted_at IS NULL ORDER BY i.first_seen_at DESC, i.image_id DESC LIMIT 20
) newest
CROSS JOIN LATERAL catalog.similar_images(newest.image_id, k => 3) s
WHERE s.similarity > 0.98 AND s.product_id <> newest.product_id
ORDER BY s.similarity DESC;
