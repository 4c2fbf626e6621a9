-- How did the last runs go, and how fast?
SELECT run_id, state, started_at, duration, planned_entries, entries, tagged, reused, failed, failure_reasons,
       round(images_per_second::numeric, 1) AS images_per_second
FROM catalog.tagging_run_summary
ORDER BY started_at DESC
LIMIT 10;
