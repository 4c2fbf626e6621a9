-- Pages show an evaluation's page only if it is the one that the gates wrote.

ALTER TABLE catalog.evaluations ADD COLUMN page_sha256 bytea CHECK (length(page_sha256) = 32);
COMMENT ON COLUMN catalog.evaluations.page_sha256 IS 'Of page.html below artifact_uri, as the latest decision of the gates wrote it; null before the first';
