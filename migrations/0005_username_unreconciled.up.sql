-- Users that others than userd have made or renamed, for whom userd then looks after the claims: a member of the legacy service
-- beside it knows none. A session of userd's says that it is one (userd.writer), so that what it writes costs a comparison.
CREATE TABLE username_unreconciled (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id_auth integer NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- SECURITY DEFINER: the legacy service may have a role of its own, which knows this table as little as it knows claims.
CREATE FUNCTION username_note_unreconciled() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO username_unreconciled (id_auth) VALUES (NEW.id_auth);
    RETURN NULL;
END
$$;
CREATE TRIGGER username_note_unreconciled AFTER INSERT OR UPDATE OF username, id_auth ON "user"
    FOR EACH ROW WHEN (coalesce(current_setting('userd.writer', true), '') <> 'on')
    EXECUTE FUNCTION username_note_unreconciled();
