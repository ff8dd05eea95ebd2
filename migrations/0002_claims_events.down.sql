-- Back to the legacy schema. Refused while events wait to be published: they would be lost.
DO $$
BEGIN
    IF EXISTS (SELECT FROM outbox) THEN
        RAISE EXCEPTION 'outbox holds % unpublished events: let userd publish them first', (SELECT count(*) FROM outbox);
    END IF;
END
$$;

DROP TRIGGER username_claim_release ON "user";
DROP FUNCTION username_claim_release();
DROP INDEX user_username_hash;
DROP TABLE consumed_offset, outbox_parked, outbox, identity_gate, user_tombstone, username_claim;
