-- Which model was in use when, who decided so, and why?
SELECT p.kind, p.model_version_id, p.promoted_at AS used_from,
       lead(p.promoted_at) OVER (PARTITION BY p.kind ORDER BY p.promotion_id) AS used_until,
       p.promoted_by, p.reason, v.artifact_uri
FROM catalog.promotions p
JOIN catalog.model_versions v USING (model_version_id)
ORDER BY p.kind, p.promotion_id;
