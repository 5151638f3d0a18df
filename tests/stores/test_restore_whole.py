"""A stack with a store of every kind, on real servers: restored as one, returned as one, never half of it."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed, Refused, StorekeeperError
from storekeeper.restore.journal import Journal, Step, journals, unfinished
from storekeeper.sets.publishing import take_set
from storekeeper.stack.model import ChromaModel
from storekeeper.stores.chroma.store import ChromaStore
from storekeeper.stores.surroundings import Surroundings
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness import chroma
from tests.harness.campaign import Campaign
from tests.harness.postgresql import Server, start_server
from tests.harness.stacks import Lab, Service, chroma_part, in_child, killed_at_random, make_lab, open_context, postgresql_part


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server() as started:
        yield started


@pytest.fixture
def lab(tmp_path: Path, server: Server, directories: Mapping[str, Path]) -> Iterator[Lab]:
    first = {"records": postgresql_part(server), "vectors": chroma_part(tmp_path / "live" / "vectors", directories)}
    made = make_lab(tmp_path, sqlites=1, services=1, first=first)
    yield made
    made.close()
    for (database,) in _databases(server):
        server.run(f'drop database "{database}" with (force)')


def _databases(server: Server) -> list[Any]:
    with server.connect() as connection:
        return connection.execute("select datname from pg_database where not datistemplate and datname <> 'postgres'").fetchall()


def test_every_kind_of_store_is_restored_and_returned_as_one(lab: Lab) -> None:
    entry = lab.take("first")
    lab.write("second")
    plan = restore(lab.context, RestoreRequest(set=entry.id, plan=True)).result["plan"]
    assert list(plan["stores"]) == ["records", "vectors", "main", "papers"]
    assert lab.all_hold("second")
    report = restore(lab.context, RestoreRequest(set=entry.id))
    assert lab.all_hold("first"), lab.sides()
    assert all(store["switch_ms"] > 0 for store in report.result["stores"].values())
    restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("second"), lab.sides()
    restore(lab.context, RestoreRequest(set=entry.id))
    assert lab.all_hold("first"), lab.sides()


def test_a_database_that_cannot_be_read_has_no_raw_copy_whatever_is_accepted(lab: Lab, server: Server) -> None:
    entry = lab.take("first")
    lab.write("second")
    server.run("alter database app with allow_connections false")
    with pytest.raises(StorekeeperError, match="cannot be saved first") as refused:
        restore(lab.context, RestoreRequest(set=entry.id))
    assert "--accept-unreadable" not in str(refused.value.next)
    with pytest.raises(Refused, match="no raw copy of database app can be made: its files belong to the server") as refused:
        restore(lab.context, RestoreRequest(set=entry.id, accept_unreadable=frozenset({"records"})))
    assert "pg_dump" in str(refused.value.next)
    assert journals(lab.context.state) == []
    server.run("alter database app rename to broken")
    restore(lab.context, RestoreRequest(set=entry.id))
    assert lab.all_hold("first"), "the way out that the refusal names"


def test_a_chroma_directory_that_a_process_keeps_open_is_switched_only_when_a_service_ends_it(
    tmp_path: Path, directories: Mapping[str, Path]
) -> None:
    live = tmp_path / "live" / "vectors"
    lab = make_lab(tmp_path, sqlites=1, services=1, first={"vectors": chroma_part(live, directories)})
    entry = lab.take("first")
    lab.write("second")
    service = lab.services[0]
    for is_service in (False, True):
        other = Service("other", tmp_path / "services")
        service.stop()
        (service if is_service else other).holds = live / "chroma.sqlite3"
        service.start()
        if not is_service:
            other.start()
        holder = service.pid if is_service else other.pid
        report = restore(lab.context, RestoreRequest(set=entry.id, plan=True))
        assert any(
            f"pid {holder} (sleep) has {live}/chroma.sqlite3 open: the restore goes back" in each.message for each in report.problems
        )
        if is_service:
            restore(lab.context, RestoreRequest(set=entry.id))
            assert lab.all_hold("first")
        else:
            with pytest.raises(Failed, match=rf"pid {holder} \(sleep\) has .* open.*the live data was not touched"):
                restore(lab.context, RestoreRequest(set=entry.id))
            assert lab.all_hold("second")
        assert service.is_running()
        other.stop()
    alone = open_context(tmp_path, lab.context.stack, scratch=lab.context.scratch)
    service.stop()
    service.start()
    with pytest.raises(Refused, match=rf"pid {service.pid} \(sleep\) has .* open and would go on using the old directory"):
        restore(alone, RestoreRequest(set=entry.id))
    lab.close()


@pytest.mark.fault("E-5")
@pytest.mark.parametrize("method", ["switch", "probe"])
def test_the_fourth_of_four_kinds_fails_and_the_three_before_it_go_back(lab: Lab, method: str) -> None:
    entry = lab.take("first")
    lab.write("second")

    def fail(*_: object) -> None:
        raise Failed("the disk of this store is on fire")

    setattr(lab.context.stores["papers"], method, fail)
    with pytest.raises(Failed, match="all stores are back as they were before"):
        restore(lab.context, RestoreRequest(set=entry.id))
    assert lab.all_hold("second"), lab.sides()
    assert journals(lab.context.state)[-1].stores(Step.BACK)[-1] == "records"


@pytest.mark.fault("E-6")
def test_a_way_back_that_fails_leaves_every_kind_restored(lab: Lab) -> None:
    """The return is a walk of its own: when one store cannot, those before it are switched once more."""
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, RestoreRequest(set=entry.id))

    def fail(*_: object) -> None:
        raise Failed("the disk of this store is on fire")

    papers = lab.context.stores["papers"]
    papers.switch_back = fail  # type: ignore[method-assign]
    with pytest.raises(Failed):
        restore(lab.context, RestoreRequest(back=True))
    del papers.switch_back
    if unfinished(lab.context.state) is not None:
        resume(lab.context)
    assert lab.all_hold("first"), lab.sides()
    restore(lab.context, RestoreRequest(back=True))
    assert lab.all_hold("second"), lab.sides()


def test_a_chroma_server_is_stopped_for_the_switch_and_serves_the_restored_directory_afterwards(
    tmp_path: Path, directories: Mapping[str, Path]
) -> None:
    live = tmp_path / "live" / "vectors"
    lab = make_lab(tmp_path, sqlites=1, services=1, first={"vectors": chroma_part(live, directories)})
    lab.write("first")
    with chroma.serving(live) as server:
        declared = ChromaModel(kind="chroma", path=live, url=server.url)
        surroundings = Surroundings("demo", tmp_path / "private", lab.context.scratch)
        stores = {**lab.context.stores, "vectors": ChromaStore("vectors", declared, surroundings, server)}
        context = replace(lab.context, stores=stores)
        entry = take_set(context, purpose="backup")
        server.stop()
        lab.write("second")
        server.start()
        before = server.pid
        plan = restore(context, RestoreRequest(set=entry.id, plan=True)).result["plan"]
        assert plan["services"] == ["service-0", server.label]
        assert server.pid == before
        vectors = restore(context, RestoreRequest(set=entry.id)).result["stores"]["vectors"]
        assert server.pid != before
        assert _collections(server.url) == ["first-papers"]
        assert vectors["downtime_s"] > vectors["switch_ms"] / 1000
        restore(context, RestoreRequest(back=True))
        assert _collections(server.url) == ["second-papers"]
    lab.close()


def _collections(url: str) -> list[str]:
    """What the server itself answers."""
    where = f"{url}/api/v2/tenants/default_tenant/databases/default_database/collections"
    with urllib.request.urlopen(where, timeout=10) as answer:
        return sorted(each["name"] for each in json.load(answer))


@pytest.mark.fault("E-1")
@pytest.mark.slow
def test_kill_9_while_stores_of_every_kind_are_switched_leaves_them_on_one_side(lab: Lab, campaign: Campaign) -> None:
    entry = lab.take("first")
    lab.write("second")
    restore(lab.context, RestoreRequest(set=entry.id))
    lines = journals(lab.context.state)[-1].path.read_bytes().splitlines()
    begin = next(number for number, line in enumerate(lines, 1) if b'"step":"switching"' in line)
    tried, mixed = list(range(begin, len(lines)))[:: campaign.trials(6, 1)] * campaign.trials(1, 3), []
    for number in tried:
        lab.write("second")
        assert in_child(lambda number=number: _killed(lab, entry.id, number)) == -signal.SIGKILL
        assert resume(lab.context).result["ended"] == "done"
        mixed += [] if lab.all_hold("first") else [(number, lines[number - 1], lab.sides())]
        assert lab.services[0].is_running()
    campaign.found(len(tried), "kills at lines of a restore of all four kinds", f"{len(mixed)} mixed states")
    assert mixed == []


@pytest.mark.slow
@pytest.mark.fault("E-1")
def test_kill_9_at_any_moment_of_a_restore_of_every_kind_leaves_them_on_one_side(lab: Lab, campaign: Campaign) -> None:
    entry = lab.take("first")
    lab.write("second")
    started = time.monotonic()
    restore(lab.context, RestoreRequest(set=entry.id))
    whole, mixed, late, trials = time.monotonic() - started, [], 0, campaign.trials(3, 100)
    for trial in range(trials):
        lab.write("second")
        # The first half takes the safety set: nothing of the live data is touched in it.
        after = random.Random(trial).uniform(0.4, 1) * whole
        late += not killed_at_random(lambda: restore(lab.context, RestoreRequest(set=entry.id)), after)
        resume(lab.context)
        mixed += [] if lab.all_hold("first") or lab.all_hold("second") else [(trial, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert lab.services[0].is_running()
    campaign.found(trials - late, f"kills of a restore of all four kinds at any moment, {late} came too late", f"{len(mixed)} mixed states")
    assert trials > late
    assert mixed == []


def _killed(lab: Lab, set_id: str, number: int) -> None:
    real, written = Journal.write, 0

    def write(journal: Journal, step: Step, store: str | None = None, **facts: object) -> None:
        nonlocal written
        real(journal, step, store, **facts)
        written += 1
        if written == number:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.write = write  # type: ignore[method-assign]
    restore(lab.context, RestoreRequest(set=set_id))
