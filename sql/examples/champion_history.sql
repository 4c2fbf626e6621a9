-- Which model was the champion when, who decided so, why, and since when did the whole catalog answer by it?
SELECT p.kind, p.model_version_id, p.promoted_at AS champion_from,
       lead(p.promoted_at) OVER (PARTITION BY p.kind ORDER BY p.promotion_id) AS champion_until,
       (SELECT min(s.switched_at) FROM catalog.switches s
        WHERE s.kind = p.kind AND s.model_version_id = p.model_version_id AND s.switched_at >= p.promoted_at) AS live_from,
       p.promoted_by, p.reason, p.evaluation_id, v.artifact_uri
FROM catalog.promotions p
JOIN catalog.model_versions v USING (model_version_id)
ORDER BY p.kind, p.promotion_id;
