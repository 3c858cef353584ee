"""The tables that every service's schema has, as the SQL that its migrations run.

A version is frozen: a change is a new tuple of statements, called by a new migration of every service.
Statements come one by one, since asyncpg prepares each.
"""

import re

REQUEST_PARTITIONS = 16
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")

TENANT = "(SELECT nullif(current_setting('siyu.tenant', true), '')::uuid)"
"""The transaction's tenant. After a transaction-local set_config the value is '' and not NULL.

A sub-select is evaluated once a statement; the bare expression, once for every row that a batch looks up.
"""


def roles(service: str, *, password: str = "") -> tuple[str, ...]:
    """Makes the service's three roles where they are absent, and its schema; run by whoever may create roles.

    The owner has no log-in: migrations take it by SET ROLE. The others get the password, whichever they had; an empty
    one changes none, and leaves the log-in to pg_hba.conf.
    """
    app, system, owner = _role_names(service)
    return (
        _role(app, "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
        _role(system, "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
        *(_password(name, password) for name in (app, system) if password),
        _role(owner, "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS"),
        # since Postgres 16 a creator that is no superuser may not SET ROLE to what it made until it grants itself so
        f"GRANT {owner} TO CURRENT_USER",
        f"CREATE SCHEMA IF NOT EXISTS {service} AUTHORIZATION {owner}",
        f"GRANT USAGE ON SCHEMA {service} TO {app}, {system}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {service}"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app}, {system}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {service}"
        f" GRANT USAGE, SELECT ON SEQUENCES TO {app}, {system}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {service} GRANT EXECUTE ON FUNCTIONS TO {app}, {system}",
    )


def rls(service: str, table: str) -> tuple[str, ...]:
    """Row-level security: the app role sees and writes its transaction's tenant, the system role and owner all."""
    app, system, owner = _role_names(service)
    name = _checked(table)
    return (
        f"ALTER TABLE {service}.{name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {service}.{name} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY {name}_tenant ON {service}.{name} TO {app}"
        f" USING (tenant_id = {TENANT}) WITH CHECK (tenant_id = {TENANT})",
        f"CREATE POLICY {name}_system ON {service}.{name} TO {system}, {owner} USING (true) WITH CHECK (true)",
    )


def append_only(service: str, table: str) -> tuple[str, ...]:
    """Takes from both roles the right to change or delete rows: a ledger."""
    app, system, _owner = _role_names(service)
    return (f"REVOKE UPDATE, DELETE, TRUNCATE ON {service}.{_checked(table)} FROM {app}, {system}",)


def version_1(service: str) -> tuple[str, ...]:
    """Tenants, requests, outbox, log, cursors and leases of one service."""
    return (
        *_tenants(service),
        *_requests(service),
        *_outbox(service),
        *_log(service),
        *_cursors(service),
        *_leases(service),
    )


def version_2(service: str) -> tuple[str, ...]:
    """Parked events of one service."""
    _app, system, _owner = _role_names(service)
    return (
        # What was taken of a producer's log and could not be handled, with all that came behind it of the same tenant
        # and partition, in the order of (seq, place). `attempts` and `next_try_at` count for the first of them.
        f"""
        CREATE TABLE {service}.parked_events (
            tenant_id uuid NOT NULL,
            producer text NOT NULL,
            queue text NOT NULL,
            partition smallint NOT NULL,
            seq bigint NOT NULL,
            place integer NOT NULL,
            event_id text NOT NULL,
            type text NOT NULL,
            aggregate_type text NOT NULL,
            aggregate_id text NOT NULL,
            version bigint NOT NULL,
            occurred_at timestamptz NOT NULL,
            posted_at timestamptz NOT NULL,
            payload bytea NOT NULL,
            trace text NOT NULL,
            reason text NOT NULL,
            attempts integer NOT NULL DEFAULT 0,
            parked_at timestamptz NOT NULL DEFAULT now(),
            next_try_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT parked_events_key PRIMARY KEY (tenant_id, producer, queue, partition, seq, place),
            CONSTRAINT parked_events_attempts CHECK (attempts >= 0)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)
        """,
        *rls(service, "parked_events"),
        # the system role looks and counts; only a transaction of the tenant parks and takes back
        f"REVOKE INSERT, UPDATE, DELETE ON {service}.parked_events FROM {system}",
    )


def version_3(service: str) -> tuple[str, ...]:
    """A way to a queue's parked events over all tenants, shelf by shelf: the key begins with the tenant."""
    return (
        f"CREATE INDEX parked_events_of_queue ON {service}.parked_events"
        " (producer, queue, tenant_id, partition, seq, place)",
    )


def _tenants(service: str) -> tuple[str, ...]:
    return (
        # a projection of identity's tenants; test_clock_at is null where business time is machine time
        f"""
        CREATE TABLE {service}.tenants (
            tenant_id uuid PRIMARY KEY,
            time_zone text NOT NULL,
            currency_code text NOT NULL,
            test_clock_at timestamptz,
            version bigint NOT NULL,
            changed_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT tenants_currency CHECK (currency_code ~ '^[A-Z]{{3}}$')
        )
        """,
        *rls(service, "tenants"),
    )


def _requests(service: str) -> tuple[str, ...]:
    app, system, _owner = _role_names(service)
    statements = [
        # written once, when the answer is known: an insert-only table needs no vacuum to stay small
        f"""
        CREATE TABLE {service}.requests (
            tenant_id uuid NOT NULL,
            client_id text NOT NULL,
            family text NOT NULL,
            request_id text NOT NULL,
            fingerprint bytea NOT NULL,
            reply bytea,
            refusal jsonb,
            expires_at timestamptz,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT requests_key PRIMARY KEY (tenant_id, client_id, family, request_id),
            CONSTRAINT requests_answered CHECK ((reply IS NULL) <> (refusal IS NULL))
        ) PARTITION BY HASH (tenant_id, client_id, family, request_id)
        """,
    ]
    for remainder in range(REQUEST_PARTITIONS):
        part = f"{service}.requests_p{remainder}"
        statements += [
            f"CREATE TABLE {part} PARTITION OF {service}.requests"
            f" FOR VALUES WITH (MODULUS {REQUEST_PARTITIONS}, REMAINDER {remainder})",
            # policies of the parent don't guard a partition that is named directly
            f"REVOKE ALL ON {part} FROM {app}, {system}",
        ]
    return (
        *statements,
        *rls(service, "requests"),
        # the sweeper's way to refusals that may be forgotten; replies never expire and are not in it
        f"CREATE INDEX requests_expiry ON {service}.requests (expires_at) WHERE expires_at IS NOT NULL",
    )


def _outbox(service: str) -> tuple[str, ...]:
    app, _system, _owner = _role_names(service)
    return (
        # xid is the only order here: event ids, times and sequences commit out of theirs
        f"""
        CREATE TABLE {service}.outbox (
            tenant_id uuid NOT NULL,
            event_id uuid NOT NULL,
            xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
            type text NOT NULL,
            aggregate_type text NOT NULL,
            aggregate_id text NOT NULL,
            version bigint NOT NULL,
            partition smallint NOT NULL,
            payload bytea NOT NULL,
            occurred_at timestamptz NOT NULL,
            posted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            trace text NOT NULL DEFAULT ''
        ) WITH (
            autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
            -- a row lives for milliseconds: don't compress it, nor give it a second place, unless it must
            toast_tuple_target = 8160
        )
        """,
        f"ALTER TABLE {service}.outbox ALTER COLUMN payload SET STORAGE EXTERNAL",
        f"CREATE INDEX outbox_xid ON {service}.outbox (xid)",
        *rls(service, "outbox"),
        # a use case writes events and never takes one back
        f"REVOKE SELECT, UPDATE, DELETE ON {service}.outbox FROM {app}",
        # everything below the horizon is in the log; log_id is one part of what tells this log from others
        f"""
        CREATE TABLE {service}.relay_horizon (
            only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
            horizon xid8 NOT NULL,
            log_id uuid NOT NULL DEFAULT gen_random_uuid(),
            -- fixed by the first migration: with another number an aggregate's events would change their partition
            partitions smallint
        )
        """,
        f"INSERT INTO {service}.relay_horizon (horizon) VALUES ('0')",
        f"REVOKE INSERT, UPDATE, DELETE ON {service}.relay_horizon FROM {app}",
    )


def _log(service: str) -> tuple[str, ...]:
    app, system, _owner = _role_names(service)
    return (
        # one tenant and up to hundreds of events a row; the totals run on over the rows of a partition
        f"""
        CREATE TABLE {service}.log (
            partition smallint NOT NULL,
            seq bigint NOT NULL,
            tenant_id uuid NOT NULL,
            events integer NOT NULL,
            payload bytea NOT NULL,
            events_total bigint NOT NULL,
            checksum_total bigint NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT log_key PRIMARY KEY (partition, seq),
            CONSTRAINT log_events CHECK (events > 0)
        )
        """,
        # the payload is compressed already
        f"ALTER TABLE {service}.log ALTER COLUMN payload SET STORAGE EXTERNAL",
        *rls(service, "log"),
        f"REVOKE INSERT, UPDATE, DELETE ON {service}.log FROM {app}",
        # next_seq is the number the next row gets, floor_seq the oldest still there
        f"""
        CREATE TABLE {service}.log_heads (
            partition smallint PRIMARY KEY,
            next_seq bigint NOT NULL DEFAULT 1,
            floor_seq bigint NOT NULL DEFAULT 1,
            events_total bigint NOT NULL DEFAULT 0,
            checksum_total bigint NOT NULL DEFAULT 0,
            CONSTRAINT log_heads_order CHECK (floor_seq <= next_seq)
        ) WITH (fillfactor = 50)
        """,
        f"REVOKE INSERT, UPDATE, DELETE ON {service}.log_heads FROM {app}",
        # how far each consumer says it is; the log is kept until all of them have passed
        f"""
        CREATE TABLE {service}.log_readers (
            reader text NOT NULL,
            partition smallint NOT NULL,
            seq bigint NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT log_readers_key PRIMARY KEY (reader, partition)
        ) WITH (fillfactor = 50)
        """,
        f"REVOKE DELETE ON {service}.log_readers FROM {app}",
        f"REVOKE UPDATE ON {service}.log FROM {system}",
    )


def _cursors(service: str) -> tuple[str, ...]:
    return (
        # seq is the last row whose effect is here; the totals are counted from the events themselves
        f"""
        CREATE TABLE {service}.cursors (
            producer text NOT NULL,
            queue text NOT NULL,
            partition smallint NOT NULL,
            seq bigint NOT NULL DEFAULT 0,
            events_total bigint NOT NULL DEFAULT 0,
            checksum_total bigint NOT NULL DEFAULT 0,
            moved_at timestamptz NOT NULL DEFAULT now(),
            CONSTRAINT cursors_key PRIMARY KEY (producer, queue, partition)
        ) WITH (fillfactor = 50)
        """,
    )


def _leases(service: str) -> tuple[str, ...]:
    return (
        f"""
        CREATE TABLE {service}.leases (
            name text PRIMARY KEY,
            holder text NOT NULL,
            expires_at timestamptz NOT NULL
        ) WITH (fillfactor = 50)
        """,
    )


def _role_names(service: str) -> tuple[str, str, str]:
    name = _checked(service)
    return f"siyu_{name}", f"siyu_{name}_system", f"siyu_{name}_owner"


def _role(name: str, options: str) -> str:
    # another database of the same cluster may be migrating at this moment: losing that race is fine
    return f"""
        DO $do$
        BEGIN
            BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN
                    CREATE ROLE {name} {options};
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END
        $do$
        """


def _password(name: str, password: str) -> str:
    # such a race is lost to the same password: who shares a server's roles shares it
    return f"""
        DO $do$
        BEGIN
            ALTER ROLE {name} PASSWORD '{_literal(password)}';
        EXCEPTION WHEN internal_error THEN
            IF SQLERRM <> 'tuple concurrently updated' THEN
                RAISE;
            END IF;
        END
        $do$
        """


def _checked(name: str) -> str:
    # names go into DDL, where no parameter can: they come from code, and this keeps it so
    assert _NAME.match(name), f"{name!r} is not a plain lower-case name"
    return name


def _literal(text: str) -> str:
    assert "\\" not in text, "a role password with a backslash"
    return text.replace("'", "''").replace("$do$", "")
