"""How a name and a value stand in SQL, and how SQL reaches a server: on standard input, as its superuser, over its socket."""

from __future__ import annotations

import shlex

# A verifier could be in what is sent. So nothing of it may stand in the server's log, not even where it fails, in its list of what
# goes on, or among the statements that pg_stat_statements remembers: a role that only watches can read these.
QUIET = (
    "set pg_stat_statements.track = 'none'; set track_activities = off; "
    "set log_statement = 'none'; set log_min_duration_statement = -1; set log_min_error_statement = 'panic'; "
    "set log_duration = off; set standard_conforming_strings = on;"
)


def name(text: str) -> str:
    """An identifier (https://www.postgresql.org/docs/current/sql-syntax-lexical.html)."""
    return '"' + text.replace('"', '""') + '"'


def setting(text: str) -> str:
    """The name of a setting; an extension's has a dot."""
    return ".".join(name(part) for part in text.split("."))


def literal(text: str) -> str:
    """A string constant, where `standard_conforming_strings` is on. Raises ValueError for a NUL, which none can hold."""
    if "\0" in text:
        raise ValueError("a NUL cannot stand in SQL")
    return "'" + text.replace("'", "''") + "'"


def psql(port: int, database: str = "postgres") -> str:
    """The shell words that carry out SQL from standard input, as one that stops at its first error."""
    words = ["runuser", "-u", "postgres", "--", "psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1"]
    words += ["-h", "/var/run/postgresql", "-p", str(port), "-d", f"dbname={_conninfo(database)}"]
    return "cd / && " + " ".join(shlex.quote(word) for word in words)


def _conninfo(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
