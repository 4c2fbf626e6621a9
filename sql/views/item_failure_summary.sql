CREATE OR REPLACE VIEW catalog.item_failure_summary AS
SELECT
    f.reason, f.stage, count(*) AS images,
    f.reason IN ('access_denied', 'decoder_lost', 'object_missing', 'object_refused', 'object_replaced') AS is_temporary,
    max(f.attempts) AS attempts, min(f.first_failed_at) AS oldest, max(f.last_failed_at) AS newest
FROM catalog.item_failures f
JOIN catalog.images i USING (image_id)
WHERE f.resolved_at IS NULL AND f.ignored_at IS NULL AND i.deleted_at IS NULL
GROUP BY f.reason, f.stage;

COMMENT ON VIEW catalog.item_failure_summary IS 
    'Images in the bucket that could not be tagged, counted by reason, without ignored ones';
COMMENT ON COLUMN catalog.item_failure_summary.is_temporary IS
    'Whether runs retry: five times, then once a week; otherwise only after the bytes change';
