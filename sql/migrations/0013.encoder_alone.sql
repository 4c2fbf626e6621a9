-- A catalog without labels has an encoder and no classifier: its images get vectors and no tags.

ALTER TABLE catalog.tagging_runs ALTER COLUMN classifier_version_id DROP NOT NULL;
COMMENT ON COLUMN catalog.tagging_runs.classifier_version_id IS 'Null where the catalog had no classifier, so that images got vectors alone';
COMMENT ON COLUMN catalog.run_chunks.tagged IS 'Images that a model answered, also those that only the encoder did';
COMMENT ON COLUMN catalog.promotions.evaluation_id IS 'What the promotion rests on; null for rollbacks, and for an encoder that was adopted as the first champion';
