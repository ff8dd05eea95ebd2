-- Who asked for the change that an event tells of: the W3C traceparent of the call or the consumed record.
ALTER TABLE outbox ADD COLUMN traceparent text;
ALTER TABLE outbox_parked ADD COLUMN traceparent text;
