-- What the record below each position was when it was applied, so that a log that was made anew is told from the one that the
-- position was taken in. It counts only where record_offset is next_offset - 1: an older userd moves next_offset alone.
ALTER TABLE consumed_offset
    ADD COLUMN record_offset bigint,
    ADD COLUMN record_timestamp bigint, -- Kafka's, in ms
    ADD COLUMN record_checksum bigint;  -- of key and value (eventd/log_mark.c)

-- Names this database in what userd commits to Kafka. A copy, a restored backup and a replica are the same database.
CREATE TABLE database_identity (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only)
);
INSERT INTO database_identity DEFAULT VALUES;
