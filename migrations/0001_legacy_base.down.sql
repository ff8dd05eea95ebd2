-- Nothing to take back: "user" and alembic_version belong to the legacy service, whether it or we made them.
SELECT 1;
