CREATE OR REPLACE VIEW catalog.readable_changes AS
SELECT * FROM catalog.changes
-- Of the transactions from here on, some may still be open, and their rows would appear before ones that were read.
WHERE transaction_id < pg_snapshot_xmin(pg_current_snapshot());

COMMENT ON VIEW catalog.readable_changes IS
    'The changes before the oldest open transaction. A reader that remembers the last (transaction_id, change_id) '
    'misses none';
