-- What could not be tagged, why, and will the next run try again? With one image to look at for each reason.
SELECT s.*, (
    SELECT min(i.object_key) FROM catalog.item_failures f JOIN catalog.images i USING (image_id)
    WHERE f.reason = s.reason AND f.stage = s.stage AND f.resolved_at IS NULL AND i.deleted_at IS NULL
) AS for_example
FROM catalog.item_failure_summary s
ORDER BY s.images DESC;
