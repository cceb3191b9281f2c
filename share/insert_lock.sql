-- The table that pgpool locks rows of, in native replication mode with
-- insert_lock = on, so that serial columns get the same values on every node.
-- Run it on each database: psql -f insert_lock.sql

BEGIN;

CREATE SCHEMA IF NOT EXISTS pgpool_catalog;
GRANT USAGE ON SCHEMA pgpool_catalog TO PUBLIC;

DROP TABLE IF EXISTS pgpool_catalog.insert_lock;
CREATE TABLE pgpool_catalog.insert_lock (reloid oid PRIMARY KEY);
GRANT SELECT, INSERT, UPDATE ON pgpool_catalog.insert_lock TO PUBLIC;

-- locked by whoever adds the row of another table
INSERT INTO pgpool_catalog.insert_lock VALUES (0);

COMMIT;
