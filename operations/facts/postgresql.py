"""Facts about the PostgreSQL of a host."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from ..sql import psql
from .answer import by_word, typed, whole

_SCRIPT = """
if [ -r /etc/os-release ]; then . /etc/os-release; fi
echo "system $ID $VERSION_ID $VERSION_CODENAME"
echo "memory $(($(getconf _PHYS_PAGES) * $(getconf PAGE_SIZE)))"
dpkg-query -W -f 'package ${{Package}} ${{db:Status-Status}} ${{Version}}\\n' {packages} 2>/dev/null
pg_lsclusters -h 2>/dev/null | sed 's/^/cluster /'
if pg_lsclusters -h 2>/dev/null | grep -q '^{version} *{cluster} *{port} *online'; then
    {psql} <<'SQL' 2>&1 | sed 's/^/server /'
{sql}
SQL
    for each in {databases}; do
        printf 'database %s ' "$each"
        {extensions}
    done
fi
"""

_SERVER = """
select json_build_object(
    'version', current_setting('server_version_num')::int,
    'roles', (
        select coalesce(json_object_agg(rolname, json_build_object(
            'login', rolcanlogin, 'superuser', rolsuper, 'createdb', rolcreatedb, 'createrole', rolcreaterole,
            'inherit', rolinherit, 'replication', rolreplication, 'bypassrls', rolbypassrls,
            'connection_limit', rolconnlimit, 'has_password', rolpassword is not null,
            'valid_until', case when rolvaliduntil <> 'infinity'
                then to_char(rolvaliduntil at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"+00:00"') end,
            'member_of', (
                select coalesce(json_agg(g.rolname order by g.rolname), '[]')
                from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = a.oid),
            'settings', (
                select coalesce(json_agg(s), '[]')
                from pg_db_role_setting d, unnest(d.setconfig) s where d.setrole = a.oid and d.setdatabase = 0)
        )), '{}')
        from pg_authid a where rolname !~ '^pg_'),
    'databases', (
        select json_object_agg(datname, json_build_object(
            'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding), 'locale', datcollate,
            'connection_limit', datconnlimit))
        from pg_database where not datistemplate),
    'files', (
        select coalesce(json_agg(json_build_object('name', name, 'file', sourcefile, 'setting', setting) order by seqno), '[]')
        from pg_file_settings),
    'settings', (
        select json_object_agg(name, json_build_object('file', sourcefile, 'restart', pending_restart))
        from pg_settings where sourcefile is not null or pending_restart));
"""
_EXTENSIONS = "select coalesce(json_object_agg(extname, extversion), '{}') from pg_extension"


@dataclass(frozen=True)
class Installed:
    """One cluster of `pg_lsclusters`."""

    version: str
    name: str
    port: int
    online: bool


@dataclass(frozen=True)
class Found:
    """What a host has. `server` is what the declared cluster said of itself, None where it is absent or down."""

    distribution: str
    release: str
    codename: str
    memory: int  # bytes
    packages: Mapping[str, str]  # installed, with their versions
    clusters: tuple[Installed, ...]
    server: Mapping[str, Any] | None
    extensions: Mapping[str, Mapping[str, str]]  # database -> extension -> version, of the databases that were asked for and are there


class Postgresql(FactBase[Found]):
    """
    The distribution, the packages, the clusters, and of one cluster its roles, databases, extensions and settings: one round trip.

    No password and no verifier is among what is read.

    **Example:**

    .. code:: python

        found = host.get_fact(Postgresql, version=17, cluster="main", port=5432, packages=["postgresql-17"], databases=["app"])
    """

    def command(self, version: int, cluster: str, port: int, packages: Sequence[str], databases: Sequence[str]) -> str:
        script = _SCRIPT.format(
            version=version,
            cluster=cluster,
            port=port,
            packages=" ".join(shlex.quote(each) for each in packages),
            databases=" ".join(shlex.quote(each) for each in databases) or "''",
            psql=psql(port),
            sql=_SERVER,
            extensions=_asked_of_each(port),
        )
        return typed(script)

    def process(self, output: list[str]) -> Found:
        said = by_word(whole(output))
        distribution, release, codename = [*said["system"][0].split(" "), "", ""][:3]
        return Found(
            distribution=distribution,
            release=release,
            codename=codename,
            memory=int(said["memory"][0]),
            packages=dict(_installed(said.get("package", ()))),
            clusters=tuple(_cluster(line) for line in said.get("cluster", ())),
            server=_server(said["server"]) if "server" in said else None,
            extensions=dict(_extensions(line) for line in said.get("database", ()) if "{" in line),
        )


def _asked_of_each(port: int) -> str:
    """psql with the name of a database from the shell's variable `each`, which is one of those that were declared."""
    words = psql(port, "%").replace(shlex.quote("dbname='%'"), "\"dbname='$each'\"")
    return f"{words} -c {shlex.quote(_EXTENSIONS)} 2>/dev/null || echo"


def _installed(lines: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, version) for name, status, version in (line.split(" ", 2) for line in lines) if status == "installed"]


def _cluster(line: str) -> Installed:
    version, name, port, status, *_ = line.split()
    return Installed(version, name, int(port), status.startswith("online"))


def _server(lines: Sequence[str]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads("\n".join(lines))
    except ValueError:
        raise FactProcessError(f"the server did not say what it has: {lines[0] if lines else 'nothing came'}") from None
    return found


def _extensions(line: str) -> tuple[str, dict[str, str]]:
    name, _, found = line.partition(" ")
    return name, json.loads(found)
