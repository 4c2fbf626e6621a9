CREATE OR REPLACE VIEW catalog.champion_models AS
SELECT DISTINCT ON (p.kind)
    p.kind, v.model_version_id, v.artifact_uri, v.categories, v.dimensions, v.metrics, p.promoted_at, p.promoted_by
FROM catalog.promotions p
JOIN catalog.model_versions v USING (model_version_id)
ORDER BY p.kind, p.promotion_id DESC;

COMMENT ON VIEW catalog.champion_models IS
    'The model version of each kind that was promoted last; catalog.live_models has those in use';
