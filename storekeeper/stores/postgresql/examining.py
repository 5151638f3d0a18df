"""A look inside a PostgreSQL database: indexes that are not there or not whole, pages that were found corrupt, sessions in the way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence

import psycopg
from psycopg import sql

from storekeeper.stores.examination import Examination
from storekeeper.stores.indexes import spoken, wanted
from storekeeper.stores.postgresql import catalogue
from storekeeper.stores.postgresql.connection import Connection, rows, sentence_of, value
from storekeeper.stores.postgresql.identities import table_of

LONG_S = 300.0  # a transaction that has held locks for longer is told
_INVALID = """
select n.nspname, c.relname, t.relname from pg_index i
join pg_class c on c.oid = i.indexrelid join pg_class t on t.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
where not (i.indisvalid and i.indisready and i.indislive) and c.relkind in ('i', 'I') and n.nspname !~ '^pg_(toast|temp)'
    and not exists (select from pg_stat_progress_create_index p where p.index_relid = c.oid)
order by 1, 2"""
# Key columns of each index that is whole and leaves no row out, in their order; an expression stands as null.
_KEYS = """
select array(select a.attname::text from unnest(i.indkey) with ordinality k(number, place)
             left join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number and k.number > 0
             where k.place <= i.indnkeyatts order by k.place)
from pg_index i where i.indrelid = %s and i.indpred is null and i.indisvalid and i.indisready and i.indislive"""
_SESSIONS = """
select a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'a program'), coalesce(a.usename, 'somebody'),
    coalesce(a.state, 'in a state that the role may not see'),
    extract(epoch from now() - a.xact_start)::bigint,
    (select count(*) from pg_locks l where l.pid = a.pid and l.granted and l.locktype = 'relation'),
    (select count(*) from pg_stat_activity w where a.pid = any (pg_blocking_pids(w.pid)))
from pg_stat_activity a
where a.datname = current_database() and a.pid <> pg_backend_pid() and a.xact_start < now() - make_interval(secs => %s)
    and exists (select from pg_locks l where l.pid = a.pid and l.granted and l.locktype = 'relation')
order by a.xact_start"""
# Whose transactions began when, a role without pg_read_all_stats is not told (postgresql.org/docs/current/monitoring-stats.html).
_UNSEEN = """
select count(distinct a.pid) from pg_stat_activity a join pg_locks l on l.pid = a.pid and l.granted and l.locktype = 'relation'
where a.datname = current_database() and a.xact_start is null and not pg_has_role('pg_read_all_stats', 'usage')
    and not pg_has_role(a.usesysid, 'usage')"""
_TREES = """
select c.oid, n.nspname, c.relname from pg_index i join pg_class c on c.oid = i.indexrelid join pg_am m on m.oid = c.relam
join pg_namespace n on n.oid = c.relnamespace
where m.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p' and i.indisvalid and i.indisready
order by n.nspname, c.relname"""
_AMCHECK = "select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'amcheck'"
# A page, or a whole file, that is not what it was (postgresql.org/docs/current/errcodes-appendix.html): XX, 58P01, 58030.
_ROTTEN = (psycopg.InternalError, psycopg.errors.UndefinedFile, psycopg.errors.IoError)
_WANTING = "53"  # memory, room or connections: nothing is known of the index then


def examine(connection: Connection, indexes: Mapping[str, Sequence[object]], long_s: float = LONG_S) -> Examination:
    """Nothing is changed; the server reads each index that amcheck can read."""
    found = Examination()
    found.figures["bytes"] = int(value(connection, "select pg_database_size(current_database())"))
    found.counts = _counts(connection, found)
    _checksums(connection, found)
    for schema, name, table in rows(connection, _INVALID):
        whole = f"{schema}.{name}"
        statement = sql.SQL("reindex index concurrently {}").format(sql.Identifier(schema, name)).as_string(connection)
        found.add("index", f"index {whole} of {table} is invalid: it is used by no query", whole, _psql(connection, statement))
    for table, columns in wanted(indexes):
        if (problem := _missing(connection, table, columns)) is not None:
            found.add("index", problem, table, _psql(connection, _made(connection, table, columns)))
    for each in _sessions(connection, long_s):
        found.add("session", each)
    if unseen := int(value(connection, _UNSEEN)):
        said = f"{unseen:,} sessions of other roles hold locks, and since when cannot be seen: grant this role pg_read_all_stats"
        found.notes.append(said)
    _check_trees(connection, found)
    return found


def _counts(connection: Connection, found: Examination) -> dict[str, int] | None:
    """Rows by table, for which every page of it is read; None where some table could not be."""
    counts, is_whole = {}, True
    for table in catalogue.require_readable(catalogue.tables(connection)):
        if not table.has_rows:
            continue
        try:
            counts[table.key] = int(value(connection, sql.SQL("select count(*) from only {}").format(table.identifier)))
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            continue  # it went away since it was listed
        except _ROTTEN as error:
            is_whole = False
            found.add("damage", f"table {table.key} cannot be read: {sentence_of(error)}", table.key)
    return counts if is_whole else None


def _checksums(connection: Connection, found: Examination) -> None:
    """Whether the server would notice a page that rots, and whether it has."""
    has = value(connection, "show data_checksums") == "on"
    failures, last = connection.execute(
        "select checksum_failures, checksum_last_failure::text from pg_stat_database where datname = current_database()"
    ).fetchone() or (None, None)
    found.figures |= {"data_checksums": has, "checksum_failures": failures}
    if not has:
        said = "data checksums are off: a page that rots on disk is read, and backed up, as it is"
        found.add("risk", said, None, "pg_checksums --enable, while the server is stopped")
    if failures:
        said = f"{failures:,} pages did not match their checksum, the last at {last}"
        found.add("damage", said, None, "look for the table in the server's log")


def _missing(connection: Connection, table: str, columns: tuple[str, ...]) -> str | None:
    """Why no index begins with these columns; None where one does. One that is invalid, or leaves rows out, is none."""
    name = table_of(table).as_string(connection)
    oid = value(connection, "select to_regclass(%s)::oid", (name,))
    if oid is None:
        return f"there is no table {table}, of which an index is declared"
    known = {str(row[0]) for row in rows(connection, "select attname from pg_attribute where attrelid = %s and attnum > 0", (oid,))}
    if unknown := [column for column in columns if column not in known]:
        return f"{table} has no column {unknown[0]}, of which an index is declared"
    if any(tuple(keys[: len(columns)]) == columns for (keys,) in rows(connection, _KEYS, (oid,))):
        return None
    return f"{table} has no valid index that begins with {spoken(columns)}"


def _made(connection: Connection, table: str, columns: Sequence[str]) -> str:
    named = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("create index concurrently on {} ({})").format(table_of(table), named).as_string(connection)


def _sessions(connection: Connection, long_s: float) -> Iterator[str]:
    for pid, program, role, state, seconds, locks, waiting in rows(connection, _SESSIONS, (long_s,)):
        behind = f", and {waiting:,} sessions wait for it" if waiting else ""
        yield f"{program} of {role} (pid {pid}, {state}) has held locks on {locks:,} tables and indexes for {seconds:,} s{behind}"


def _check_trees(connection: Connection, found: Examination) -> None:
    """Each B-tree compared with its table, where the extension is there and this role may call it; else that is noted."""
    schema = connection.execute(_AMCHECK).fetchone()
    if schema is None:
        found.notes.append("indexes were not compared with their tables: the extension amcheck is not installed in this database")
        return
    check = sql.SQL("select {}(%s::oid::regclass, true)").format(sql.Identifier(str(schema[0]), "bt_index_check"))
    for oid, namespace, name in rows(connection, _TREES):
        whole = f"{namespace}.{name}"
        try:
            connection.execute(check, (oid,))
        except psycopg.errors.InsufficientPrivilege:
            found.notes.append("indexes were not compared with their tables: the role may not call bt_index_check")
            return
        except psycopg.errors.UndefinedTable:
            continue  # it went away meanwhile
        except (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled):
            found.notes.append(f"index {whole} was not compared with its table: somebody keeps it locked")
        except (psycopg.InternalError, psycopg.DataError, psycopg.OperationalError) as error:
            if connection.closed:
                raise
            if (error.sqlstate or "").startswith(_WANTING):
                found.notes.append(f"index {whole} was not compared with its table: {sentence_of(error)}")
                continue
            statement = sql.SQL("reindex index concurrently {}").format(sql.Identifier(namespace, name)).as_string(connection)
            found.add("damage", f"index {whole} is damaged: {sentence_of(error)}", whole, _psql(connection, statement))


def _psql(connection: Connection, statement: str) -> str:
    return shlex.join(["psql", "-d", connection.info.dbname, "-c", statement])
