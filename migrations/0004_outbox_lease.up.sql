-- Who relays the outbox: one row. A session's advisory lock alone would stay with a host that is lost for as long as PostgreSQL
-- takes that host's connection to be alive, which by default is hours. An owner renews its lease every few seconds; one that
-- does not is succeeded, and what it then still asks for carries an old fence and does nothing.
CREATE TABLE outbox_lease (
    is_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    fence bigint NOT NULL DEFAULT 0,             -- one more with each owner
    renewals bigint NOT NULL DEFAULT 0,          -- one more with each renewal
    owner text,                                  -- for people; NULL: nobody yet
    has_lock boolean NOT NULL DEFAULT false,     -- its session holds the advisory lock as well: free when that is
    can_publish boolean NOT NULL DEFAULT false,  -- it reaches Kafka
    renewed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    publishing_at timestamptz NOT NULL DEFAULT clock_timestamp() -- the last renewal by an owner that reaches Kafka
) WITH (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
INSERT INTO outbox_lease DEFAULT VALUES;
