-- Which images are nearest to a vector of your own? Any halfvec or vector of the live space's length will do;
-- here it lies halfway between two images.
SELECT object_key, product_id, category, similarity
FROM catalog.nearest_images(
    (SELECT avg(embedding)
     FROM (SELECT e.embedding FROM catalog.image_embeddings e
           WHERE e.space_id = catalog.live_space() ORDER BY e.image_id LIMIT 2) two_images),
    catalog.live_space(),
    k => 5
);
