ALTER TABLE outbox_parked DROP COLUMN traceparent;
ALTER TABLE outbox DROP COLUMN traceparent;
