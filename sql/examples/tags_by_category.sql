-- How many products and images are of each category, and how sure is the classifier?
SELECT p.category, p.products, i.images, i.median_confidence
FROM (SELECT category, count(*) AS products FROM catalog.current_product_tags GROUP BY category) p
FULL JOIN (
    SELECT category, count(*) AS images,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY confidence) AS median_confidence
    FROM catalog.current_image_tags GROUP BY category
) i USING (category)
ORDER BY p.products DESC NULLS LAST, category;
