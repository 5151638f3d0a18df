"""Have PostgreSQL on a host as its inventory declares: cluster, settings, roles, databases. Every operation is repeatable."""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterable, Mapping
from itertools import groupby

from pyinfra import host, logger
from pyinfra.api import FunctionCommand, Host, State, StringCommand, operation
from pyinfra.api.facts import get_fact

from .. import quiet, sql
from ..facts.postgresql import Found, Postgresql
from ..program import one_line, refused, unread
from ..scram import verifier
from . import changes, memory
from .changes import Change
from .model import Server
from .packages import needed, refusal

Commands = Generator[StringCommand | FunctionCommand, None, None]
_WHAT = "what PostgreSQL there is"


@operation()
def available(server: Server) -> Commands:
    """
    Refuse a host for which the declared version or an extension is not to be had, before anything is installed there.

    + server: what is declared

    **Example:**

    .. code:: python

        postgresql.available(name="PostgreSQL can be had", server=server)
    """
    found = _found(server)
    if found is None:
        yield unread(_WHAT)
    elif (why := refusal(server, found)) is not None:
        yield refused(why)
    else:
        host.noop(f"PostgreSQL {server.version} is to be had for {found.distribution} {found.release}")


@operation()
def created(server: Server) -> Commands:
    """
    Have the declared cluster, with checksums on its pages. One that is there is left as it is; another at its port is refused.

    + server: what is declared

    **Example:**

    .. code:: python

        postgresql.created(name="Cluster", server=server)
    """
    found = _found(server)
    if found is None:
        yield unread(_WHAT)
        return
    own = next((each for each in found.clusters if (each.version, each.name) == (str(server.version), server.cluster)), None)
    other = next((each for each in found.clusters if each.port == server.port and each is not own), None)
    if other is not None:
        yield refused(
            f"port {server.port} is that of the cluster {other.version}/{other.name}: declare another port, or remove that cluster"
        )
        return
    if own is not None:
        host.noop(f"cluster {own.version}/{own.name} is there, at port {own.port}")
        return
    words = [
        "pg_createcluster",
        str(server.version),
        server.cluster,
        "--port",
        str(server.port),
        "--encoding",
        "UTF8",
        "--locale",
        "C.UTF-8",
    ]
    words += ["--", "--data-checksums", "--auth-local=peer", "--auth-host=scram-sha-256"]
    yield StringCommand(shlex.join(words))


@operation()
def configured(server: Server, restart: bool = False) -> Commands:
    """
    Have one file of settings in conf.d, and a server that runs with it. A file with which it would not start is taken back.

    A running server is restarted only where that is allowed: until then it is said which settings wait.

    + server: what is declared
    + restart: whether a running server may be restarted

    **Example:**

    .. code:: python

        postgresql.configured(name="Settings", server=server)
    """
    found = _found(server)
    if found is None:
        yield unread(_WHAT)
        return
    wanted, file = memory.settings(server, found.memory), _file(server)
    if found.server is not None:
        there = {each["name"]: each["setting"] for each in found.server["files"] if each["file"] == file}
        if (outdone := _outdone(found.server["settings"], there, file)) is not None:
            yield refused(outdone)
            return
        waiting = sorted(name for name, each in found.server["settings"].items() if each["restart"])
        if there == wanted and not (waiting and restart):
            host.noop(
                f"{', '.join(waiting)} wait for a restart: --data restart=yes" if waiting else f"{len(wanted)} settings are as declared"
            )
            return
    yield quiet.told("sh -c " + shlex.quote(_install(server, file, restart=restart)), _rendered(wanted))


@operation()
def roles(server: Server, passwords: Mapping[str, str]) -> Commands:
    """
    Have the declared roles, every attribute as declared in both directions. Roles that nobody declared are left alone.

    + server: what is declared
    + passwords: by role; only what SCRAM makes of them is sent, and only on standard input

    **Example:**

    .. code:: python

        postgresql.roles(name="Roles", server=server, passwords=declared.passwords(host))
    """
    found = _found(server)
    if found is None or (found.server is None and found.clusters):
        yield unread("which roles PostgreSQL has")
        return
    there = found.server["roles"] if found.server is not None else {}
    made = list(changes.of_roles(server.all_roles, there))
    verifiers = {name: verifier(name, host.name, password) for name, password in passwords.items()}
    unset = _unset(server, {name: each for name, each in verifiers.items() if name in there})
    if unset is None:
        yield unread("which passwords PostgreSQL has")
        return
    made += changes.of_passwords({name: each for name, each in verifiers.items() if name in unset or name not in there})
    made += changes.of_no_passwords(
        [name for name in server.all_roles if name not in verifiers and there.get(name, {}).get("has_password")]
    )
    if not made:
        host.noop(f"{len(server.all_roles)} roles are as declared")
        return
    yield from _carried_out(server, made, together=True)


@operation()
def databases(server: Server) -> Commands:
    """
    Have the declared databases with their owners, limits and extensions. None is ever removed, and none is made anew.

    + server: what is declared

    **Example:**

    .. code:: python

        postgresql.databases(name="Databases", server=server)
    """
    found = _found(server)
    if found is None or (found.server is None and found.clusters):
        yield unread("which databases PostgreSQL has")
        return
    declared = server.all_databases
    there = found.server["databases"] if found.server is not None else {}
    try:
        made = [*changes.of_databases(declared, there), *changes.of_extensions(declared, found.extensions)]
    except ValueError as error:
        yield refused(str(error))
        return
    if not made:
        host.noop(f"{len(declared)} databases are as declared; pools take {server.pooled} of {server.max_connections} connections")
        return
    yield from _carried_out(server, made, together=False)


def _found(server: Server) -> Found | None:
    asked = {
        "version": server.version,
        "cluster": server.cluster,
        "port": server.port,
        "packages": needed(server),
        "databases": sorted(server.all_databases),
    }
    found: Found | None = get_fact(host.state, host, Postgresql, kwargs=asked, apply_failed_hosts=False)
    return found


def _outdone(settings: Mapping[str, Mapping[str, str | None]], ours: Mapping[str, str], file: str) -> str | None:
    """The sentence about a setting of ours whose value the server has from a later file (`alter system` writes one)."""
    for name, each in settings.items():
        if name in ours and each["file"] not in (None, file):
            return f"{name} is set in {each['file']}, which outdoes what is declared: alter system reset {name}"
    return None


def _unset(server: Server, verifiers: Mapping[str, str]) -> set[str] | None:
    """The roles whose password is another one; None where that could not be told. The server compares: nothing is read from it."""
    if not verifiers:
        return set()
    rows = ", ".join(f"({sql.literal(name)}, {sql.literal(each)})" for name, each in verifiers.items())
    wanted = f"(values {rows}) w(name, known)"
    others = f"select 'other ' || w.name from {wanted} join pg_authid on rolname = w.name where rolpassword is distinct from w.known"  # noqa: S608 quoted
    answer = quiet.asked(host, "sh -c " + shlex.quote(sql.psql(server.port)), f"{sql.QUIET} {others}; select 'end';")
    if answer is None or answer[-1:] != ["end"]:
        return None
    return {line.removeprefix("other ") for line in answer[:-1]}


def _carried_out(server: Server, made: Iterable[Change], *, together: bool) -> Commands:
    """Say each change, then carry them out in their order; `together` is one transaction."""
    for database, those in groupby(made, key=lambda change: change.database):
        found = list(those)
        yield FunctionCommand(_said, ([change.said for change in found],), {})
        statements = "\n".join(f"{change.statement};" for change in found)
        script = f"begin;\n{statements}\ncommit;" if together else statements
        yield quiet.told("sh -c " + shlex.quote(sql.psql(server.port, database)), f"{sql.QUIET}\n{script}")


def _said(state: State, host: Host, sentences: list[str]) -> None:  # noqa: ARG001 pyinfra looks for both names
    for sentence in sentences:
        host.log(one_line(f"  {sentence}"), log_func=logger.info)


def _file(server: Server) -> str:
    return f"/etc/postgresql/{server.version}/{server.cluster}/conf.d/storekeeper.conf"


def _rendered(settings: Mapping[str, str]) -> str:
    lines = [f"{name} = {_as_the_server_reads(value)}" for name, value in settings.items()]
    return "\n".join(["# Written by deploys/provision.py: change the inventory, not this file.", *lines])


def _as_the_server_reads(value: str) -> str:
    """In quotes, where a quote is doubled and a backslash escapes what follows (the manual, 20.1.2)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


_INSTALL = """
set -eu
file={file}
new=$file.new
was=$file.was
cat >"$new"
chown postgres: "$new"
chmod 644 "$new"
rm -f "$was"
if [ -e "$file" ]; then cp -a "$file" "$was"; fi
mv -T "$new" "$file"
back() {{
    if [ -e "$was" ]; then mv -T "$was" "$file"; else rm -f "$file"; fi
    echo "$1" >&2
}}
if ! pg_ctlcluster {version} {cluster} status >/dev/null 2>&1; then
    if ! pg_ctlcluster {version} {cluster} start; then back "the server did not start with what is declared"; exit 1; fi
else
    # the server's own reader of the files, which pg_file_settings is too late for: it says the same of a value that waits for a restart
    if ! wrong=$(cd / && runuser -u postgres -- {postgres} -D "{data}" -c config_file={config} -C shared_buffers 2>&1 >/dev/null); then
        back "the server refuses what is declared: $wrong"; exit 1
    fi
    pg_ctlcluster {version} {cluster} reload
    if {restart} && ! pg_ctlcluster {version} {cluster} restart; then
        back "the server did not start with what is declared"
        pg_ctlcluster {version} {cluster} start
        exit 1
    fi
fi
rm -f "$was"
sync -f "$(dirname "$file")"
"""


def _install(server: Server, file: str, *, restart: bool) -> str:
    return _INSTALL.format(
        file=shlex.quote(file),
        version=server.version,
        cluster=server.cluster,
        postgres=f"/usr/lib/postgresql/{server.version}/bin/postgres",
        data=f"/var/lib/postgresql/{server.version}/{server.cluster}",
        config=f"/etc/postgresql/{server.version}/{server.cluster}/postgresql.conf",
        restart="true" if restart else "false",
    )
