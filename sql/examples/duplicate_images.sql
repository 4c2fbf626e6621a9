-- Which images are stored more than once, byte for byte? Of several products, they may be mixed up.
SELECT encode(content_hash, 'hex') AS content_hash, count(*) AS copies,
       count(DISTINCT product_id) AS products, array_agg(object_key ORDER BY object_key) AS object_keys
FROM catalog.images
WHERE deleted_at IS NULL AND content_hash IS NOT NULL
GROUP BY content_hash
HAVING count(*) > 1
ORDER BY copies DESC, content_hash;
