-- Which products have images of different categories? Often an image that belongs to another product.
SELECT t.product_id, t.display_name, t.category, i.object_key, i.category AS image_category, i.confidence
FROM catalog.current_product_tags t
JOIN catalog.current_image_tags i USING (product_id)
WHERE t.images_disagree
ORDER BY t.product_id, i.category <> t.category DESC, i.object_key;
