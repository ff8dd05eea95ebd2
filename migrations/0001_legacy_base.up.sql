-- The schema of the service that userd stands in for, revision b3e13817489d: made anew in an empty database, adopted
-- as it is, rows and all, where that service has already made it.
DO $$
DECLARE
    revision text;
BEGIN
    IF to_regclass('alembic_version') IS NOT NULL THEN
        SELECT version_num INTO revision FROM alembic_version;
        IF revision IS DISTINCT FROM 'b3e13817489d' THEN
            RAISE EXCEPTION 'alembic_version holds %, expected b3e13817489d: this database was made by another revision of the legacy service',
                coalesce(quote_literal(revision), 'no row');
        END IF;
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS "user" (
    id serial PRIMARY KEY,
    username varchar NOT NULL,
    id_auth integer NOT NULL UNIQUE
);

-- Present, so that the legacy service can be started again on this database.
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version (version_num)
SELECT 'b3e13817489d' WHERE NOT EXISTS (SELECT FROM alembic_version);
