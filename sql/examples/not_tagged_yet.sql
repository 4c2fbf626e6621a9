-- Which images in the bucket have no category, and why?
SELECT i.object_key, i.first_seen_at, coalesce(f.reason, 'waits for the next run') AS why, f.detail
FROM catalog.images i
LEFT JOIN catalog.item_failures f ON f.image_id = i.image_id AND f.resolved_at IS NULL
WHERE i.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM catalog.current_image_tags t WHERE t.image_id = i.image_id)
ORDER BY i.first_seen_at, i.object_key;
