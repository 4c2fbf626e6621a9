-- Which images look like this one, among those of its own category?
SELECT s.object_key, s.product_id, s.confidence, s.similarity
FROM (SELECT * FROM catalog.current_image_tags ORDER BY image_id LIMIT 1) image
CROSS JOIN catalog.similar_images(image.image_id, k => 5, category => image.category) s;
