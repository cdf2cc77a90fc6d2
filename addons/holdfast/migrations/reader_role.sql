-- The role holdfast_reader: reads the record in a Postgres database, as `holdfast audit list`, `show`, `export`,
-- `verify`, `prove` and `reconcile` do, and writes nothing. It does not log in itself; give it to those who may read:
--
--   CREATE ROLE auditor LOGIN PASSWORD '...' IN ROLE holdfast_reader;
--
-- and let them set audit.readDatabase to postgresql://auditor@HOST/NAME, here or on a replica. Run this in the audit
-- database as the owner of its tables, who may make roles. Access to a table that is partitioned by day is access to
-- the days to come as well; it goes through the table, not to a partition by its own name. Holds are not part of the
-- record: held calls are recorded. Run again, it changes nothing.

BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_reader') THEN
        CREATE ROLE holdfast_reader NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO holdfast_reader', current_database());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO holdfast_reader', current_schema());
END
$$;

GRANT SELECT ON
    logs, records, checkpoints, leaf_hashes, bodies, blobs, calls, callers, caller_claims, holdfast_version
TO holdfast_reader;

COMMIT;
