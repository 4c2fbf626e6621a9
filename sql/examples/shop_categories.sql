-- How do the categories of the shop's own products file map to the tags?
SELECT p.shop_category, t.category, count(*) AS products
FROM catalog.products p
JOIN catalog.current_product_tags t USING (product_id)
WHERE p.shop_category IS NOT NULL
GROUP BY p.shop_category, t.category
ORDER BY p.shop_category, products DESC;
