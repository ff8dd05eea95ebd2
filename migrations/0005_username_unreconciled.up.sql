-- Users that others than userd have made or renamed, for whom userd then looks after the claims: a member of the legacy service
-- beside it knows none. A session of userd's says that it is one (userd.writer), so that what it writes costs a comparison.
CREATE TABLE username_unreconciled (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_auth integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- SECURITY DEFINER: the legacy service may have a role of its own, which knows this table as little as it knows claims.
CREATE FUNCTION username_note_unreconciled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO username_unreconciled (id_auth) VALUES (NEW.id_auth);
    RETURN NULL;
END
$$;
CREATE TRIGGER username_note_unreconciled AFTER INSERT OR UPDATE OF username, id_auth ON "user"
    FOR EACH ROW WHEN (coalesce(current_setting('userd.writer', true), '') <> 'on')
    EXECUTE FUNCTION username_note_unreconciled();

-- What a deleted user held is released with our rights as well. Both look into the schema of our tables and nowhere else:
-- where pg_temp is not named, it comes first, and a temporary table of the caller's would run its triggers with our rights.
DO $$
DECLARE
    home regnamespace;
BEGIN
    SELECT relnamespace INTO home FROM pg_class WHERE oid = 'username_claim'::regclass;
    EXECUTE format('ALTER FUNCTION username_note_unreconciled() SET search_path = %s, pg_temp', home);
    EXECUTE format('ALTER FUNCTION username_claim_release() SECURITY DEFINER SET search_path = %s, pg_temp', home);
END
$$;
