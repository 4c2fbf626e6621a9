-- Which products fit these words? First: catalog embed-text "red striped dress"
-- Then put the words in place of the subquery, which takes those that were embedded last.
SELECT product_id, display_name, category, similarity, object_key
FROM catalog.search_products((SELECT query_text FROM catalog.text_queries ORDER BY embedded_at DESC LIMIT 1), k => 5);
