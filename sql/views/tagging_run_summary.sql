CREATE OR REPLACE VIEW catalog.tagging_run_summary AS
SELECT
    r.run_id, r.state, r.source_uri, r.started_at, r.finished_at,
    coalesce(r.finished_at, now()) - r.started_at AS duration,
    r.entries AS planned_entries,
    coalesce(c.entries, 0) AS entries, coalesce(c.tagged, 0) AS tagged,
    coalesce(c.reused, 0) AS reused, coalesce(c.failed, 0) AS failed,
    coalesce(f.failure_reasons, '{}') AS failure_reasons,
    c.images_per_second,
    coalesce(c.read_seconds, 0) AS read_seconds, coalesce(c.decode_seconds, 0) AS decode_seconds,
    coalesce(c.predict_seconds, 0) AS predict_seconds, coalesce(c.write_seconds, 0) AS write_seconds
FROM catalog.tagging_runs r
LEFT JOIN LATERAL (
    SELECT
        sum(entries) AS entries, sum(tagged) AS tagged, sum(reused) AS reused, sum(failed) AS failed,
        sum(entries) / nullif(extract(epoch FROM max(committed_at)
            - min(committed_at - wall_seconds * interval '1 second'))::float, 0) AS images_per_second,
        sum(read_seconds) AS read_seconds, sum(decode_seconds) AS decode_seconds,
        sum(predict_seconds) AS predict_seconds, sum(write_seconds) AS write_seconds
    FROM catalog.run_chunks WHERE run_id = r.run_id
) c ON true
LEFT JOIN LATERAL (
    SELECT jsonb_object_agg(reason, images) AS failure_reasons
    FROM (
        SELECT reason, sum(images::integer) AS images
        FROM catalog.run_chunks, jsonb_each_text(failure_reasons) AS counted (reason, images)
        WHERE run_id = r.run_id
        GROUP BY reason
    ) reasons
) f ON true;

COMMENT ON VIEW catalog.tagging_run_summary IS 'The results of each run so far, summed over the chunks in its ledger';
COMMENT ON COLUMN catalog.tagging_run_summary.planned_entries IS 'Equals entries once every shard is done';
COMMENT ON COLUMN catalog.tagging_run_summary.entries IS 'tagged + reused + failed';
COMMENT ON COLUMN catalog.tagging_run_summary.images_per_second IS
    'Entries of all shards, divided by the seconds from the start of the first chunk to the commit of the last';
COMMENT ON COLUMN catalog.tagging_run_summary.read_seconds IS
    'Summed over parallel workers, and stages overlap, so the seconds can exceed the duration';
