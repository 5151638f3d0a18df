"""pg_dump is killed, ends early with nothing, or its server hangs: no set is ever published of what it left, and nothing lives on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storekeeper.cli.main import main
from storekeeper.host import durable, processes
from storekeeper.host.progress import Progress
from storekeeper.sets import publishing
from storekeeper.sets.artefacts import check_artefacts
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.publishing import take_set
from storekeeper.sets.repository import SetEntry
from storekeeper.stores.postgresql import archiving, connection, digests, dump, hold, store
from tests.harness.campaign import Campaign
from tests.harness.database_program import database_program, programs_with
from tests.harness.descendants import SAID, WELL, Kept
from tests.harness.postgresql import PASSWORD, Server, programs_of, start_server
from tests.harness.stacks import Lab, make_lab, postgresql_part

BODY = "create table filling as select i, repeat(md5(i::text), 30) as body from generate_series(1, {rows}) i"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18, tcp=True) as running:
        running.run(BODY.format(rows=2000))
        yield running


@contextmanager
def laboratory(room: Path, server: Server, database: str = "app") -> Iterator[Lab]:
    part = postgresql_part(server, database)
    server.run(BODY.format(rows=4000), database)
    lab = make_lab(room, sqlites=1, services=0, first={"rows": part})
    try:
        lab.write("one")
        yield lab
    finally:
        lab.close()


def partials(lab: Lab) -> list[Path]:
    return sorted(lab.context.sets.path.glob(".*.partial"))


def is_good(lab: Lab, entry: SetEntry) -> bool:
    """Whether a listed set is what it says: every byte, and every store decoded."""
    if entry.manifest is None or check_artefacts(entry.path, entry.manifest, Progress()):
        return False
    for name, record in entry.manifest.stores.items():
        lab.context.stores[name].verify(entry.path / name, record)
    return True


def kill_when_it_runs(run: Kept, after: float) -> bool:
    """SIGKILL for the pg_dump of this run that dumps, that long after it was seen; False when there was none to be hit."""
    deadline = time.monotonic() + 30
    while not (pids := run.programs("pg_dump", "--snapshot")):
        if time.monotonic() > deadline or not Path(f"/proc/{run.pid}").exists():
            return False
    time.sleep(after)
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
    return True


@pytest.mark.fault("A1")
def test_a_dump_program_killed_at_any_moment_is_never_taken_for_a_dump(tmp_path: Path, server: Server, campaign: Campaign) -> None:
    count, chance = campaign.trials(5, 200), random.Random(1)
    with laboratory(tmp_path, server) as lab:
        first = take_set(lab.context, purpose="backup")
        usual = _seconds_of_pg_dump(first)
        killed = late = 0
        green: list[str] = []
        left: list[str] = []
        while killed < count and late <= count:
            run = Kept(lambda: take_set(lab.context, purpose="backup"))
            kill_when_it_runs(run, chance.uniform(0, usual))
            ending = run.end()
            hit = ending.code == SAID and "pg_dump was killed by signal 9" in ending.message
            killed, late = killed + hit, late + (not hit)
            assert hit or ending.code == WELL, ending
            listed = [entry for entry in lab.context.sets.entries() if entry.id != first.id]
            green += [entry.id for entry in listed if hit or not is_good(lab, entry)]
            left += [path.name for path in partials(lab)] + ending.orphans
            for entry in listed:
                durable.remove_tree(entry.path)
        campaign.found(killed, "kills of pg_dump at any moment", f"{len(green)} taken for a dump")
        assert (green, left) == ([], [])
        assert killed == count, "the kills came too late"
        assert take_set(lab.context, purpose="backup").state == "verified"
        assert lab.all_hold("one")


def _seconds_of_pg_dump(entry: SetEntry) -> float:
    assert entry.manifest is not None
    return float(entry.manifest.stores["rows"].details["pg_dump_s"])


@pytest.mark.control("A1")
def test_control_whoever_does_not_ask_how_pg_dump_ended_publishes_half_a_dump(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_sums(folder: Path, manifest: Manifest, *_: Any) -> None:
        assert check_artefacts(folder, manifest, Progress()) == []

    with laboratory(tmp_path, server, "half") as lab:
        copy = programs_with(lab.context.scratch / "bin", '{real} "$@" | head -c 20000; kill -9 $$')
        lab.context.stores["rows"]._declared = server.declared("half", programs=copy)  # type: ignore[attr-defined]
        monkeypatch.setattr(processes._Running, "finish", lambda self: self.process.wait())
        monkeypatch.setattr(publishing, "read_back", only_sums)
        entry = take_set(lab.context, purpose="backup")
        monkeypatch.undo()
        assert entry.state == "verified"
        with pytest.raises(processes.Failed):
            is_good(lab, entry)


# As people and cron see it

ENDS = {
    "killed": ('{real} "$@" | head -c 20000; kill -9 $$', "pg_dump was killed by signal 9"),
    "nothing": ("exit 0", "pg_restore ended with 1"),
    "20 bytes": ("head -c 20 /dev/zero", "pg_restore ended with 1"),
    "half": ('{real} "$@" | head -c 20000', "pg_restore ended with 1"),
}


@pytest.mark.fault("A1", "A16")
@pytest.mark.parametrize("how", ENDS)
def test_a_dump_that_is_none_fails_the_run_whatever_the_program_said_of_itself(
    how: str, tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    script, said = ENDS[how]
    with database_program(tmp_path, server) as program:
        assert main(["--config", str(program.config), "--json", "backup", "demo"]) == 0
        capsys.readouterr()
        program.declare_database(programs_with(program.folder / "bin", script))
        assert main(["--config", str(program.config), "--json", "backup", "demo"]) == 1
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        [problem] = [each for each in document["problems"] if each["severity"] == "error"]
        assert (document["outcome"], document["result"], problem["store"]) == ("failed", None, "rows")
        assert said in problem["message"]
        [record] = [each for each in program.records() if each["document"]["outcome"] == "failed"]
        assert record["document"] == document
        assert "storekeeper: " in printed.err
        assert PASSWORD not in printed.out + printed.err + program.everything_written()
        assert program.partials() == []
        assert main(["--config", str(program.config), "--json", "list", "demo"]) == 0
        assert [each["state"] for each in json.loads(capsys.readouterr().out)["result"]["sets"]] == ["verified"]
        assert server.ask("select count(*) from filling") == 2000


# A12


@pytest.mark.fault("A12")
def test_a_server_that_hangs_at_any_moment_fails_the_run_and_no_program_and_no_session_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, campaign: Campaign
) -> None:
    """SIGSTOP for the postmaster and every backend, as a disk that hangs would. The bounds are made short, as nobody waits half an hour."""
    _make_bounds_short(monkeypatch)
    count, chance = campaign.trials(2, 30), random.Random(12)
    with start_server(major=18) as server, laboratory(tmp_path, server) as lab:
        first = take_set(lab.context, purpose="backup")
        usual = first.manifest.stores["rows"].seconds * 2 if first.manifest else 0
        hung, slowest = 0, 0.0
        orphans: list[str] = []
        while hung < count:
            run = Kept(lambda: take_set(lab.context, purpose="backup"))
            time.sleep(chance.uniform(0, usual))
            stopped, began = _stop_whole(server), time.monotonic()
            ending = run.end()
            slowest = max(slowest, time.monotonic() - began)
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            assert ending.code in (SAID, WELL), ending
            hung += ending.code == SAID
            orphans += ending.orphans
            assert partials(lab) == []
            assert server.ask("select count(*) from filling", "app") == 4000
        sessions = _sessions_left(server)
        result = f"{len(orphans) + sessions} programs and sessions left, the last to be told after {slowest:.0f} s"
        campaign.found(hung, "backups whose server hung at any moment", result)
        assert (orphans, sessions) == ([], 0)
        assert slowest < 60
        assert take_set(lab.context, purpose="backup").state == "verified"


def _make_bounds_short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (connection, "CONNECT_SECONDS"),
        (archiving, "SILENCE_SECONDS"),
        (dump, "SILENCE_SECONDS"),
        (digests, "SILENCE_SECONDS"),
        (hold, "PIN_SECONDS"),
        (hold, "PREPARE_SECONDS"),
        (store, "_LOOK_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 1.0 if name != "CONNECT_SECONDS" else 1)
    monkeypatch.setattr(connection, "PAUSE_BEFORE_RETRY", 0.1)


def _stop_whole(server: Server) -> list[int]:
    """The postmaster first, so that it starts no backend any more; then all that it has."""
    os.kill(server.pid, signal.SIGSTOP)
    found = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False).stdout
    pids = [int(word) for word in found.split()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    return [pid for pid in [*pids, server.pid] if Path(f"/proc/{pid}").exists()]


def _sessions_left(server: Server) -> int:
    """Sessions of ours that the server still has; it needs a moment to notice that a client is gone."""
    deadline = time.monotonic() + 20
    while left := int(server.ask("select count(*) from pg_stat_activity where application_name = 'storekeeper'")):
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return left


@pytest.mark.control("A12")
def test_control_a_client_without_bounds_waits_as_long_as_the_server_hangs(tmp_path: Path) -> None:
    with start_server(major=18) as server:
        stopped = _stop_whole(server)
        words = [programs_of(18) / "psql", "-h", server.socket, "-p", str(server.port), "-U", "postgres", "-c", "select 1"]
        client = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(3)
        finally:
            client.kill()
            client.wait()
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
