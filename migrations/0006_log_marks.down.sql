DROP TABLE database_identity;
ALTER TABLE consumed_offset DROP COLUMN record_offset, DROP COLUMN record_timestamp, DROP COLUMN record_checksum;
