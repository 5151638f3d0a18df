"""An embedded Chroma directory is mended while the stack's services are stopped, and they run again whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storekeeper.consistency.bringing import Bringing
from storekeeper.consistency.plans import Scope
from storekeeper.consistency.repairing import Repairing
from storekeeper.outcomes import Failed, Refused, Unknown
from storekeeper.restore.journal import unfinished
from storekeeper.sets.context import Context
from storekeeper.stack.loader import load_stack
from storekeeper.verbs import repair
from storekeeper.verbs.backup import backup
from storekeeper.verbs.restore_document import DocumentRequest, restore_document
from storekeeper.verbs.resume import resume
from tests.harness.maestro import Maestro
from tests.harness.program import Program
from tests.harness.stacks import Service, in_child, open_context


@pytest.fixture
def service(application: Maestro, tmp_path: Path) -> Iterator[Service]:
    """The application, which has the directory open as long as it runs."""
    (tmp_path / "services").mkdir()
    found = Service("application", tmp_path / "services")
    found.holds = application.vectors / "chroma.sqlite3"
    found.start()
    yield found
    found.stop()


@pytest.fixture
def context(application: Maestro, program: Program, service: Service, tmp_path: Path) -> Context:
    """The stack with a document that the authority has lost."""
    application.delete_row("doc-00003")
    for folder in ("private", "state"):
        (tmp_path / folder).mkdir(mode=0o700)
    return open_context(tmp_path, load_stack(program.config / "stacks/maestro.yml"), (service,))


def planned(context: Context) -> str:
    return str(repair.plan(context, Scope(at_once=True)).result["plan"]["id"])


def test_services_are_stopped_for_the_chunks_of_an_embedded_directory_and_run_again(context: Context, service: Service) -> None:
    plan, before = repair.plan(context, Scope(at_once=True)), service.pid
    assert "stopped meanwhile: application" in [each.message for each in plan.problems]
    name = str(plan.result["plan"]["id"])
    done = repair.apply(context, name, None)
    assert done.result["removed"]["vectors"] > 0
    assert service.is_running()
    assert service.pid != before, "it was stopped meanwhile"
    assert unfinished(context.state) is None
    between = service.pid
    assert repair.undo(context, name).result["undone"]["vectors"] > 0
    assert (service.is_running(), service.pid != between) == (True, True)


@pytest.mark.fault("F15")
def test_a_repair_that_fails_or_is_killed_leaves_no_service_stopped(
    context: Context, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = planned(context)

    def fail(_: Repairing) -> None:
        assert not service.is_running()
        raise Failed("the disk is full")

    monkeypatch.setattr(Repairing, "apply", fail)
    with pytest.raises(Failed, match="the disk is full"):
        repair.apply(context, name, None)
    assert service.is_running()
    assert unfinished(context.state) is None

    monkeypatch.setattr(Repairing, "apply", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert in_child(lambda: repair.apply(context, name, None)) == -signal.SIGKILL
    assert not service.is_running()
    monkeypatch.undo()
    with pytest.raises(Refused, match=r"a repair begun at .* is unfinished") as refused:
        repair.apply(context, name, None)
    assert refused.value.next == "storekeeper resume maestro"
    told = resume(context)
    assert "the services that it had stopped run again" in told.problems[0].message
    assert told.problems[0].next == f"storekeeper repair undo maestro {name}"
    assert service.is_running()
    assert repair.apply(context, name, None).result["removed"]["vectors"] > 0


@pytest.mark.control("F15")
def test_control_without_a_journal_a_kill_leaves_services_stopped(context: Context, service: Service) -> None:
    def naive() -> None:
        service.stop()
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(naive) == -signal.SIGKILL
    assert "no restore of maestro is open" in resume(context).problems[0].message
    assert not service.is_running()


def test_a_plan_is_told_also_where_no_supervisor_can_be_asked(context: Context, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(_: Service) -> bool:
        raise Unknown("systemd does not answer")

    monkeypatch.setattr(type(service), "is_running", silent)
    report = repair.plan(context, Scope(at_once=True))
    assert "which services would be stopped cannot be told: systemd does not answer" in [each.message for each in report.problems]
    with pytest.raises(Unknown, match="systemd does not answer"):
        repair.apply(context, str(report.result["plan"]["id"]), None)


@pytest.mark.fault("F15")
def test_services_are_stopped_while_a_document_comes_back_and_run_again_whatever_happens(
    context: Context, service: Service, application: Maestro, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup(context)
    for lost in (application.delete_chunks, application.delete_metadata):
        lost("doc-00004")
    request = DocumentRequest("latest", "doc-00004")

    plan = restore_document(context, replace(request, plan=True)).result["plan"]
    assert (plan["services"], service.is_running()) == (["application"], True)

    def fail(_: Bringing) -> None:
        assert not service.is_running()
        raise Failed("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Bringing, "apply", fail)
        with pytest.raises(Failed, match="the disk is full"):
            restore_document(context, request)
    assert service.is_running()
    before = service.pid
    told = {each["place"]: each["change"] for each in restore_document(context, request).result["places"]}
    assert told["vectors/research_papers_dense"] == "put back"
    assert (service.is_running(), service.pid != before) == (True, True)


def test_while_an_undeclared_program_uses_the_directory_nothing_is_removed(context: Context, tmp_path: Path) -> None:
    name = planned(context)
    alone = open_context(tmp_path, context.stack, ())
    with pytest.raises(Refused, match="chunks can only be removed by who uses the directory, or while nobody does"):
        repair.apply(alone, name, None)
