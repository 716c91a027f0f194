-- What the store itself asks, whatever the schema holds.

-- name: ping
-- Proves that the connection lives.
SELECT 1;

-- name: can_write
-- Whether this server takes changes: after a failover we may be on a standby.
SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off';

-- name: set_local_deadlines
-- Deadlines for one transaction, where a pooler forbids them for the session.
-- args: statement_timeout text, lock_timeout text, idle_timeout text
SELECT set_config('statement_timeout', :statement_timeout::text, true),
       set_config('lock_timeout', :lock_timeout::text, true),
       set_config('idle_in_transaction_session_timeout', :idle_timeout::text, true);

-- name: find_database
-- Whether this server has a database of that name.
-- args: name text
SELECT true FROM pg_database WHERE datname = :name::text;

-- name: create_database
-- Makes the embedded server's database.
CREATE DATABASE lava;

-- name: lock_migrations
-- Waits until nobody else migrates this database; held until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('lava_migrations'));

-- name: set_lock_timeout
-- How long this transaction waits for a lock.
-- args: lock_timeout text
SELECT set_config('lock_timeout', :lock_timeout::text, true);

-- name: find_migrations
-- Whether the table of migrations is there.
SELECT to_regclass('lava_migrations') IS NOT NULL;

-- name: create_migrations
-- Makes the table of migrations.
CREATE TABLE lava_migrations (
    name       text PRIMARY KEY,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: applied_migrations
-- What was applied, in the order of names.
SELECT name, sha256 FROM lava_migrations ORDER BY name;

-- name: record_migration
-- Notes that a migration is applied, in its own transaction.
-- args: name text, sha256 text
INSERT INTO lava_migrations (name, sha256) VALUES (:name::text, :sha256::text);
