-- Which products of one category fit these words? As many as you ask for, however rare the category is.
SELECT product_id, display_name, similarity, object_key
FROM catalog.search_products(
    (SELECT query_text FROM catalog.text_queries ORDER BY embedded_at DESC LIMIT 1),
    k => 5,
    category => (SELECT category FROM catalog.current_product_tags GROUP BY category ORDER BY count(*) LIMIT 1)
);
