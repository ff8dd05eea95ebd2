-- What userd keeps beside the legacy table. All of it is additive: the legacy service runs on this schema unchanged.

-- Who holds a name. `canonical` is the name in NFKC, case folded (worker/user/username_rules.c); `username` is the name
-- that it was made from: a row whose username differs from the user's was left behind by the legacy service and is
-- put right by `userd migrate up`. No foreign key: it would cost a query for each registered user; the trigger below
-- does the one thing that it would be for, once for a statement.
CREATE TABLE username_claim (
    id_auth integer PRIMARY KEY,
    canonical text COLLATE "C" NOT NULL,
    username varchar NOT NULL,
    CONSTRAINT username_claim_canonical_key UNIQUE (canonical)
);

CREATE FUNCTION username_claim_release() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM username_claim c USING removed r WHERE c.id_auth = r.id_auth;
    RETURN NULL;
END
$$;
CREATE TRIGGER username_claim_release AFTER DELETE ON "user"
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION username_claim_release();

-- For the exact match of GetByUsername. Hash: a name that came by event may be longer than a btree entry.
CREATE INDEX user_username_hash ON "user" USING hash (username);

-- Ids that were deleted. A registration that arrives later does nothing.
CREATE TABLE user_tombstone (
    id_auth integer PRIMARY KEY,
    deleted_at timestamptz NOT NULL DEFAULT now()
);

-- Always empty: only its lock is used. Deletions take it in ROW EXCLUSIVE mode, registrations in SHARE mode; each kind runs
-- beside its own, and never beside the other, so that a registration cannot miss a tombstone that is being written.
CREATE TABLE identity_gate (
    never boolean CHECK (false)
);

-- Events that are to be published. The id is drawn after the user's row lock: what is visible, read in id order, is
-- right for each user. A row goes when the broker has acknowledged it.
CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    destination smallint NOT NULL, -- as enum Destination in proto/ipc.proto: 1 delete, 2 dead letter
    id_auth integer,               -- whom it is about; rows of one user are published one after the other
    key bytea,
    value bytea,
    header_names text[] NOT NULL DEFAULT '{}',
    header_values bytea[] NOT NULL DEFAULT '{}',
    event_id uuid NOT NULL DEFAULT gen_random_uuid(), -- ce_id: the same in every repeat
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 0);

-- Rows that no broker will ever take (too large, invalid), with the reason; kept for an operator.
CREATE TABLE outbox_parked (
    id bigint PRIMARY KEY,
    destination smallint NOT NULL,
    id_auth integer,
    key bytea,
    value bytea,
    header_names text[] NOT NULL,
    header_values bytea[] NOT NULL,
    event_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    reason text NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now()
);

-- How far each partition is applied: the truth about consumption. Kafka's own commits are advice for lag tools.
CREATE TABLE consumed_offset (
    cluster text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (cluster, topic, partition)
) WITH (fillfactor = 50);
