-- Where does the live classifier differ from what humans said, and how often?
SELECT c.category AS human, t.category AS model, count(*) AS images, min(c.object_key) AS for_example
FROM catalog.current_image_tags c
JOIN catalog.image_tags t USING (image_id)
JOIN catalog.live_models m ON m.kind = 'classifier' AND m.model_version_id = t.classifier_version_id
WHERE c.source = 'human' AND c.category <> t.category
GROUP BY c.category, t.category
ORDER BY images DESC, human, model;
