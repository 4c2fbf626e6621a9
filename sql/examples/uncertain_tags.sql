-- Which tags should a human look at first? Those where the best two categories are close.
SELECT object_key, category, confidence,
       top_3 -> 1 ->> 'category' AS second_category, (top_3 -> 1 ->> 'confidence')::real AS second_confidence
FROM catalog.current_image_tags
WHERE source = 'model' AND confidence < 0.6
ORDER BY confidence - coalesce((top_3 -> 1 ->> 'confidence')::real, 0), object_key
LIMIT 20;
