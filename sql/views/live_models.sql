CREATE OR REPLACE VIEW catalog.live_models AS
SELECT DISTINCT ON (s.kind)
    s.kind, v.model_version_id, v.artifact_uri, v.categories, v.dimensions, v.metrics, s.switched_at
FROM catalog.switches s
JOIN catalog.model_versions v USING (model_version_id)
ORDER BY s.kind, s.switch_id DESC;

COMMENT ON VIEW catalog.live_models IS
    'The model version of each kind that is in use: the champion, once the whole catalog is retagged';
