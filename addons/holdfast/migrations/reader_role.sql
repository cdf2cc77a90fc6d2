-- The role holdfast_reader: reads the record in a Postgres database, as `holdfast audit list`, `show`, `export`,
-- `verify`, `prove` and `reconcile` do, and writes nothing. It does not log in itself; give it to those who may read.
-- They inherit its rights but no settings, so each is told by itself that it only reads:
--
--   CREATE ROLE auditor LOGIN PASSWORD '...' CONNECTION LIMIT 20 IN ROLE holdfast_reader;
--   ALTER ROLE auditor SET default_transaction_read_only = on;
--
-- and let them set audit.readDatabase to postgresql://auditor@HOST/NAME, here or on a replica. Run this in the audit
-- database as the owner of its tables, who may make roles. Access to a table that is partitioned by day is access to
-- the days to come as well; it goes through the table, not to a partition by its own name. Holds are not part of the
-- record: held calls are recorded. Run again, it changes nothing.
--
-- What every role can do that may log in to Postgres, this one too, whatever is revoked:
--
--   - turn default_transaction_read_only off again: it keeps accidents out, the missing rights keep out the rest;
--   - hold a transaction open: nothing is vacuumed meanwhile, a gateway that begins a log waits up to 2 s and leaves
--     the day in the common partition, and `holdfast audit retention run` cannot drop a day;
--   - keep the server's processor, memory and temporary files busy, take advisory locks (no gateway waits for one) and
--     NOTIFY (nobody listens);
--   - store large objects, until the disk is full. Only a superuser can end that, in this database:
--
--   REVOKE EXECUTE ON FUNCTION lo_creat(integer), lo_create(oid), lo_from_bytea(oid, bytea) FROM PUBLIC;
--
-- Whom you trust less than that reads from a replica, which takes no writes at all, or gets an export.

BEGIN;

-- Where the record is; if its URL names another schema, name that one here.
SET LOCAL search_path = public, pg_temp;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast_reader') THEN
        CREATE ROLE holdfast_reader NOLOGIN;
    END IF;
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO holdfast_reader', current_database());
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO holdfast_reader', current_schema());
    -- What everybody may: make temporary tables, and, before Postgres 15, tables and operators in public. The owner of
    -- the database and of the schema can revoke it; another who runs this gets a warning.
    EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
END
$$;

GRANT SELECT ON
    logs, records, checkpoints, leaf_hashes, bodies, blobs, calls, callers, caller_claims, holdfast_version
TO holdfast_reader;

COMMIT;
