"""The mark of a query's place: which transactions can be seen, of which start of which server, and what the query becomes there.

Every committed change of a row, a table or a right has a transaction of its own, and two snapshots are the same only where the same
transactions can be seen. A crash can take back what was seen and give its number to another: it also takes the statistics (since version
15), and when they began is part of the mark, as is when the server was started. What no transaction tells of (sequences, foreign tables,
what is not logged, the time, chance) has no mark at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from psycopg import sql

from storekeeper.stores.identities import RowsSource, SqlSource
from storekeeper.stores.marks import mark
from storekeeper.stores.postgresql.connection import Connection
from storekeeper.stores.postgresql.identities import asked

_MOMENT = """
select pg_current_snapshot()::text, pg_postmaster_start_time()::text, pg_conf_load_time()::text, current_database(), current_user::text,
    (select stats_reset::text from pg_stat_bgwriter)
where not pg_is_in_recovery() and current_setting('server_version_num')::int >= 150000"""
# What may say another thing of the same rows, and has a sign or a word for a name, so that a plan does not show what is called.
_OWN_OPERATORS = """
select exists (select from pg_operator o join pg_proc p on p.oid = o.oprcode where o.oid >= 16384 and p.provolatile <> 'i')
    or exists (select from pg_cast c join pg_proc p on p.oid = c.castfunc where c.oid >= 16384 and p.provolatile <> 'i')"""
_PLAIN_TABLES = "select count(*) = 0 from pg_class where oid = any(%s::regclass[]) and (relkind not in ('r', 'm') or relpersistence <> 'p')"
_CHANGING = "select count(*) from pg_proc where proname = any(%s) and provolatile <> 'i'"
_KNOWN = "select count(distinct proname) from pg_proc where proname = any(%s)"
_CALL = re.compile(r'([A-Za-z_][A-Za-z_0-9$]*|"(?:[^"]|"")+") *\(')
_SYNTAX = frozenset({"ALL", "AND", "ANY", "ARRAY", "CASE", "COALESCE", "ELSE", "FILTER", "GREATEST", "IN", "LEAST", "NOT", "NULLIF", "OR"})
_SYNTAX |= {"THEN", "WHEN"}
# A plan does not show how many rows are left out, and a word for a moment looks like any other text until it is read.
_UNSAID = re.compile(r"\b(limit|offset|fetch|over|tablesample)\b", re.IGNORECASE)
_OF_MOMENTS = re.compile(
    r"\b(CURRENT_\w+|LOCALTIME\w*|SESSION_USER|USER)\b|::(timestamp|timestamptz|date|time|timetz|reg\w+|oid)\b", re.IGNORECASE
)
_SCANS = frozenset({"Foreign Scan", "Table Function Scan", "Sample Scan", "Custom Scan"})


def of_query(connection: Connection, source: SqlSource | RowsSource) -> str | None:
    """None where it cannot be said that the same rows come of the same transactions. Raises psycopg.Error."""
    moment = connection.execute(_MOMENT).fetchone()
    if moment is None or None in moment:
        return None
    with connection.transaction(force_rollback=True):
        connection.execute("set transaction read only")
        connection.execute("set local search_path to default")
        plan = _plan_of(connection, source)
        return None if plan is None else mark(*moment, plan)


def _plan_of(connection: Connection, source: SqlSource | RowsSource) -> Any | None:
    query, columns = asked(source)
    if isinstance(source, SqlSource) and _UNSAID.search(source.query):
        return None
    explain = sql.SQL("explain (verbose, costs off, format json) {}").format(query)
    ((plan,),) = connection.execute(explain).fetchall()
    nodes = list(_nodes(plan[0]["Plan"]))
    text = "\n".join(_texts(plan))
    tables = [sql.Identifier(node["Schema"], node["Relation Name"]).as_string(connection) for node in nodes if "Relation Name" in node]
    if any(node["Node Type"] in _SCANS for node in nodes) or _OF_MOMENTS.search(text) or not _says_the_same(connection, text, tables):
        return None
    return [plan, columns]


def _says_the_same(connection: Connection, text: str, tables: list[str]) -> bool:
    called = {name.strip('"').replace('""', '"') for name in _CALL.findall(text) if name not in _SYNTAX}
    names = sorted(called)
    ((has_own,),) = connection.execute(_OWN_OPERATORS).fetchall()
    ((are_plain,),) = connection.execute(_PLAIN_TABLES, (tables,)).fetchall()
    ((changing,),) = connection.execute(_CHANGING, (names,)).fetchall()
    ((known,),) = connection.execute(_KNOWN, (names,)).fetchall()
    return bool(not has_own and are_plain and changing == 0 and known == len(names))


def _texts(found: Any) -> Iterator[str]:
    """Every text of a plan: names and expressions."""
    if isinstance(found, str):
        yield found
    for each in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from _texts(each)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
