-- What people decide about photos that could not be tagged: ask the models once more, or let them be.

ALTER TABLE catalog.item_failures
    ADD COLUMN retry_asked_by text,
    ADD COLUMN retry_asked_at timestamptz,
    ADD COLUMN ignored_by text,
    ADD COLUMN ignored_at timestamptz,
    ADD CHECK ((retry_asked_by IS NULL) = (retry_asked_at IS NULL)),
    ADD CHECK ((ignored_by IS NULL) = (ignored_at IS NULL)),
    ADD CHECK (ignored_at IS NULL OR retry_asked_at IS NULL);
COMMENT ON COLUMN catalog.item_failures.retry_asked_at IS 'The next run asks the image again, whatever the reason; null once it did';
COMMENT ON COLUMN catalog.item_failures.ignored_at IS 'No run asks these bytes again, and they are counted nowhere; other bytes under the key are asked as ever';
