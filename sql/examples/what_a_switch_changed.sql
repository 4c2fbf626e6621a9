-- Which categories did the last switch of the classifier change, and how often? With one image to look at for each.
SELECT old.category AS before, new.category AS after, count(*) AS images, min(i.object_key) AS for_example
FROM (SELECT * FROM catalog.switches WHERE kind = 'classifier' ORDER BY switch_id DESC LIMIT 1) s
JOIN catalog.image_tags new ON new.classifier_version_id = s.model_version_id
JOIN catalog.image_tags old ON old.classifier_version_id = s.replaced_version_id AND old.image_id = new.image_id
JOIN catalog.images i ON i.image_id = new.image_id AND i.deleted_at IS NULL
WHERE old.category <> new.category
GROUP BY old.category, new.category
ORDER BY images DESC, before, after;
