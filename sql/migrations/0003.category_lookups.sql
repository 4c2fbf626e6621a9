-- Searches within a category list its images first. With these columns in the indexes they need not read the tables,
-- which takes eight times as long for ten thousand images.

DROP INDEX catalog.product_tags_category;
CREATE INDEX product_tags_category ON catalog.product_tags (classifier_version_id, category) INCLUDE (product_id);
DROP INDEX catalog.image_tags_category;
CREATE INDEX image_tags_category ON catalog.image_tags (classifier_version_id, category) INCLUDE (image_id);
DROP INDEX catalog.images_product;
CREATE INDEX images_product ON catalog.images (product_id) INCLUDE (image_id);
