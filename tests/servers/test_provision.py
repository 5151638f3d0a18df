"""Bare Debian servers become ones that hold a stack: PostgreSQL as declared, every attribute in both directions, and no secret anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.guest import booted
from tests.harness.target import Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

ODD = "%m it's \\n \\"
PASSWORD = 'it\'s a $ecret \\ with "quotes" %s'
NUMBERS = {"bookworm": 80, "trixie": 81}
VERSIONS = {"bookworm": 15, "trixie": 17}


def _server(suite: str, **more: Any) -> dict[str, Any]:
    extensions = ["pg_trgm", "pg_stat_statements"] + (["vector"] if suite == "trixie" else [])
    return {
        "version": VERSIONS[suite],
        "max_connections": 60,
        "memory_share": 0.02,
        "settings": {"log_line_prefix": ODD},
        "roles": {
            "pm": {"password": {"file": "PASSWORD"}, "connection_limit": 40},
            "pm_test": {"createdb": True, "login": False},
        },
        "backup_role": "pm_backup",
        "monitoring_role": "pm_watch",
        "databases": {"pm": {"owner": "pm", "extensions": extensions, "pools": {"backend": 20, "workers": 10}, "test": True}},
        **more,
    }


# What pg_stat_statements has kept of roles, as text.
REMEMBERED = "select coalesce(string_agg(query, ' '), '') from pg_stat_statements where query ilike '%role%'"


class Bare(Target):
    """A server on which nothing of ours is installed, and what is declared for it."""

    def __init__(self, suite: str, *about: Any) -> None:
        self.suite = suite
        super().__init__(*about)
        self.password = self.control / "password"
        self.password.write_text(PASSWORD + "\n")
        self.password.chmod(0o600)

    def declare_server(self, **more: Any) -> None:
        server = _server(self.suite, **more)
        server["roles"]["pm"]["password"] = {"file": str(self.password)}
        self.declare(
            storekeeper_postgresql=server,
            storekeeper_users={"pm": {"home": "/srv/pm"}},
            storekeeper_directories={"/srv/pm": {"user": "pm"}, "/srv/pm/logs": {"user": "pm"}},
            storekeeper_logs={"pm": {"files": ["/srv/pm/logs/*.log"], "user": "pm"}},
        )

    def sql(self, statement: str, database: str = "postgres") -> str:
        return self.said("runuser", "-u", "postgres", "--", "psql", "-XAtqc", statement, database)


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def bare(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bare]:
    suite = request.param
    with booted(suite, name=f"prov-{suite}"[:12], number=NUMBERS[suite]) as guest:
        yield Bare(suite, guest, tmp_path_factory.mktemp("control"))


@pytest.fixture(scope="module")
def provisioned(bare: Bare) -> Bare:
    bare.declare_server()
    first = bare.deploy("provision")
    assert first.code == 0, first.said
    return bare


def test_a_version_that_the_distribution_does_not_have_is_refused_before_anything_is_installed(bare: Bare) -> None:
    before = bare.said("dpkg-query", "-W")
    bare.declare_server(version=16)
    refused = bare.deploy("provision")
    assert refused.code == 1
    assert f"has PostgreSQL {VERSIONS[bare.suite]}, declared is 16" in refused.said
    assert bare.said("dpkg-query", "-W") == before


def test_a_bare_server_holds_what_is_declared_and_a_second_run_changes_nothing(provisioned: Bare) -> None:
    again = provisioned.deploy("provision")
    assert (again.code, again.changed) == (0, []), again.said
    assert (
        provisioned.sql("select datname, pg_get_userbyid(datdba) from pg_database where datname like 'pm%' order by 1")
        == "pm|pm\npm_test|pm"
    )
    assert provisioned.sql("show data_checksums") == "on"
    assert provisioned.sql("show max_connections") == "60"
    assert provisioned.sql("show log_line_prefix") == ODD
    assert "pg_stat_statements" in provisioned.sql("select string_agg(extname, ' ') from pg_extension", "pm_test")
    assert provisioned.said("stat", "-c", "%U %a", "/srv/pm/logs") == "pm 750"


def test_the_application_can_log_in_with_its_password_and_the_backup_role_can_read_and_not_write(provisioned: Bare) -> None:
    passfile = "/root/passfile"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    (provisioned.guest.lab / "servers" / provisioned.guest.name / "root/root/passfile").write_text(f"*:*:*:pm:{escaped}\n")
    provisioned.said("chmod", "600", passfile)
    login = ["env", f"PGPASSFILE={passfile}", "psql", "-XAtqw", "-h", "127.0.0.1", "-U", "pm", "-d", "pm"]
    assert provisioned.said(*login, "-c", "create table if not exists t (x int); select count(*) from t") == "0"
    as_backup = "set session authorization pm_backup; "
    assert provisioned.sql(f"{as_backup} select count(*) from t", "pm") == "0"
    provisioned.said("rm", passfile)
    for statement in (
        "insert into t values (1)",
        "set default_transaction_read_only = off; insert into t values (1)",
        "create table u (x int)",
    ):
        done = provisioned.guest.run(f'runuser -u postgres -- psql -XAtqc "{as_backup} {statement}" pm', check=False)
        assert done.returncode != 0, statement


BY_HAND = {
    "alter role pm superuser": "select not rolsuper from pg_roles where rolname = 'pm'",
    "alter role pm nologin": "select rolcanlogin from pg_roles where rolname = 'pm'",
    "alter role pm_test nocreatedb": "select rolcreatedb from pg_roles where rolname = 'pm_test'",
    "alter role pm connection limit 3": "select rolconnlimit = 40 from pg_roles where rolname = 'pm'",
    "alter role pm valid until '2020-01-01'": "select rolvaliduntil = 'infinity' from pg_roles where rolname = 'pm'",
    "grant pg_monitor to pm": "select not pg_has_role('pm', 'pg_monitor', 'member')",
    "revoke pg_read_all_data from pm_backup": "select pg_has_role('pm_backup', 'pg_read_all_data', 'member')",
    "alter role pm set work_mem = '1MB'": (
        "select count(*) = 0 from pg_db_role_setting s join pg_roles r on r.oid = setrole where rolname = 'pm'"
    ),
    "alter role pm_watch password 'left by somebody'": "select rolpassword is null from pg_authid where rolname = 'pm_watch'",
}


@pytest.mark.fault("G9")
def test_what_was_changed_by_hand_is_found_and_put_back(provisioned: Bare) -> None:
    before = provisioned.sql("select rolpassword from pg_authid where rolname = 'pm'")
    for statement, is_back in BY_HAND.items():
        provisioned.sql(statement)
        assert provisioned.sql(is_back) == "f", statement
    provisioned.sql("alter role pm password 'another'")
    assert provisioned.deploy("drift").code == 4
    mended = provisioned.deploy("provision")
    assert (mended.code, mended.changed) == (0, ["Roles"]), mended.said
    for statement, is_back in BY_HAND.items():
        assert provisioned.sql(is_back) == "t", statement
    assert provisioned.sql("select rolpassword from pg_authid where rolname = 'pm'") == before


def test_a_role_that_nobody_declared_is_left_alone(provisioned: Bare) -> None:
    provisioned.sql("create role somebody login superuser")
    assert provisioned.deploy("provision").changed == []
    assert provisioned.sql("select rolsuper from pg_roles where rolname = 'somebody'") == "t"
    provisioned.sql("drop role somebody")


def test_no_secret_stands_in_what_is_printed_in_the_log_or_on_the_server(provisioned: Bare) -> None:
    provisioned.sql("alter role pm password 'another'")
    verbose = provisioned.deploy("provision", "-vvv", "--debug")
    assert verbose.changed == ["Roles"], verbose.said
    verifier = provisioned.sql("select rolpassword from pg_authid where rolname = 'pm'")
    assert verifier.startswith("SCRAM-SHA-256$4096:")
    logs = provisioned.guest.run("cat /var/log/postgresql/*.log; journalctl --no-pager 2>/dev/null || true").stdout
    for secret in ("$ecret", verifier, verifier.split(":")[-1]):
        assert secret not in verbose.said
        assert secret not in logs
    assert provisioned.guest.run("grep -rFl 'SCRAM-SHA-256$4096' /tmp /etc /root /home", check=False).stdout == ""
    provisioned.sql("alter role pm_test password 'typed by a person'")
    assert "typed by a person" in provisioned.sql(REMEMBERED, "pm"), "control: the server remembers statements, and what is in them"
    assert provisioned.deploy("provision").changed == ["Roles"]
    for secret in (verifier, verifier.split(":")[-1]):
        assert secret not in provisioned.sql(REMEMBERED, "pm"), "the monitoring role can read the statements of everybody"


def test_the_monitoring_role_sees_activity_and_sizes_and_no_rows(provisioned: Bare) -> None:
    as_watch = "set session authorization pm_watch;"
    provisioned.sql("create table if not exists rows_of_others (x int); insert into rows_of_others values (1)", "pm")
    assert int(provisioned.sql(f"{as_watch} select pg_database_size('pm')", "pm")) > 0
    assert provisioned.sql(f"{as_watch} select count(*) > 0 from pg_stat_activity where query is not null", "pm") == "t"
    denied = provisioned.guest.run(f'runuser -u postgres -- psql -XAtqc "{as_watch} select * from rows_of_others" pm', check=False)
    assert denied.returncode != 0
    assert "permission denied" in denied.stderr
    provisioned.sql("drop table rows_of_others", "pm")


def test_a_setting_with_which_the_server_would_not_start_is_taken_back(provisioned: Bare) -> None:
    file = f"/etc/postgresql/{VERSIONS[provisioned.suite]}/main/conf.d/storekeeper.conf"
    before = provisioned.said("sha256sum", file)
    for settings, words in (
        ({"work_mem": "plenty"}, {}),
        ({"shared_buffers": "900TB"}, {}),
        ({"shared_buffers": "100TB"}, {"restart": "yes"}),
    ):
        provisioned.declare_server(settings=settings)
        refused = provisioned.deploy("provision", **words)
        assert refused.code == 1, settings
        assert provisioned.said("sha256sum", file) == before
        assert provisioned.sql("select 1") == "1"
    provisioned.declare_server()
    assert provisioned.deploy("provision").changed == []


def test_a_setting_that_needs_a_restart_waits_for_a_word(provisioned: Bare) -> None:
    provisioned.declare_server(max_connections=70)
    assert provisioned.deploy("provision").changed == ["Settings"]
    assert provisioned.sql("show max_connections") == "60"
    waiting = provisioned.deploy("provision")
    assert (waiting.code, waiting.changed) == (0, [])
    assert "max_connections wait for a restart: --data restart=yes" in waiting.reasons
    assert provisioned.deploy("provision", restart="yes").changed == ["Settings"]
    assert provisioned.sql("show max_connections") == "70"
    provisioned.declare_server()
    assert provisioned.deploy("provision", restart="yes").changed == ["Settings"]


def test_what_alter_system_outdoes_is_named(provisioned: Bare) -> None:
    provisioned.sql("alter system set work_mem = '7MB'")
    provisioned.sql("select pg_reload_conf()")
    refused = provisioned.deploy("provision")
    assert refused.code == 1
    assert "work_mem is set in /var/lib/postgresql/" in refused.said
    provisioned.sql("alter system reset work_mem")
    provisioned.sql("select pg_reload_conf()")
    assert provisioned.deploy("provision").code == 0
