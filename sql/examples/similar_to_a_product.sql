-- What looks like this product? Put your own product_id in place of the subquery.
SELECT product_id, display_name, category, similarity, object_key
FROM catalog.similar_products((SELECT min(product_id) FROM catalog.current_product_tags), k => 5);
