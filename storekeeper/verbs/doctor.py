"""doctor: what is missing on this host, and the command that mends it. Nothing is changed by looking."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from storekeeper.consistency.places import Place, places_of
from storekeeper.host import space
from storekeeper.host.processes import SEARCH_PATH, Command, ProgramFailed, run
from storekeeper.outcomes import Outcome, Problem, Refused, Severity, StorekeeperError
from storekeeper.runtimes.registry import open_runtime
from storekeeper.sets import room
from storekeeper.sets.repository import REMEMBERED, Repository
from storekeeper.stack import resolving
from storekeeper.stack.config import Places, stack_names
from storekeeper.stack.model import AnyStore, ChromaModel, PostgresqlModel, Stack
from storekeeper.stack.secrets import read_secret
from storekeeper.stores.identities import Remarks
from storekeeper.stores.protocol import Store
from storekeeper.stores.questions import Question
from storekeeper.verbs import opening
from storekeeper.verbs.directories import known_sets
from storekeeper.verbs.report import Report

_RECORDS = 1_000_000  # bytes that must be free for the records of a run
_PATIENCE = 60.0  # seconds for an interpreter to say whether it has a package


@dataclass
class Missing:
    """What is missing, in the order in which it was looked for; `unknown` is what could not be looked at."""

    found: list[Problem] = field(default_factory=list)
    unknown: list[Problem] = field(default_factory=list)

    def add(self, what: str, command: str | None, stack: str | None = None, store: str | None = None) -> None:
        self.found.append(Problem(what, Severity.WARNING, store, command, stack))

    @contextmanager
    def noting(self, stack: str | None = None, store: str | None = None) -> Iterator[None]:
        """A refusal in the block is something missing; any other error is something that could not be found out."""
        try:
            yield
        except StorekeeperError as error:
            severity = Severity.WARNING if isinstance(error, Refused) else Severity.ERROR
            problem = Problem(error.message, severity, error.store or store, error.next, stack)
            place = self.found if isinstance(error, Refused) else self.unknown
            # One cause, such as a disk that is not mounted, is met wherever it is looked for.
            if not any(each.message == problem.message and each.stack in (None, stack) for each in place):
                place.append(problem)


def doctor(places: Places, stack: str | None) -> Report:
    """Look at what the stacks of this host, or one of them, need."""
    missing = Missing()
    names = stack_names(places) if stack is None else (stack,)
    if not names:
        missing.add(f"no stack is declared in {places.stacks}", f"mkdir -p {places.stacks} && editor {places.stacks}/NAME.yml")
    with missing.noting():
        _look_at_repository(places)
    for name in names:
        with missing.noting(name):
            _look_at_stack(places, name, missing)
    outcome = Outcome.UNKNOWN if missing.unknown else Outcome.WARNING if missing.found else Outcome.OK
    return Report({"missing": [_described(each) for each in missing.found]}, [*missing.unknown, *missing.found], outcome)


def _described(problem: Problem) -> dict[str, Any]:
    return {"what": problem.message, "stack": problem.stack, "store": problem.store, "command": problem.next}


def _look_at_repository(places: Places) -> None:
    """Raises Refused when sets could not be kept there. That none was ever made is no fault."""
    if os.path.lexists(places.repository) or os.path.lexists(places.state / REMEMBERED):
        Repository.open(places.repository, places.state)
    if os.path.lexists(places.state) and not os.access(places.state, os.W_OK | os.X_OK):
        raise Refused(f"the state directory {places.state} cannot be written to", next=f"findmnt --target {places.state}")
    space.check({places.state: _RECORDS}, purpose="keeping records", next=f"df -h {places.state}")
    if not os.access(places.scratch, os.W_OK | os.X_OK):
        raise Refused(f"the scratch directory {places.scratch} cannot be written to", next=f"install -d -m 1777 {places.scratch}")


def _look_at_stack(places: Places, name: str, missing: Missing) -> None:
    stack = opening.declared(places, name)
    for store_name, declared in stack.stores.items():
        with missing.noting(name, store_name):
            _look_at_secrets(store_name, declared)
        with missing.noting(name, store_name):
            store = opening.open_store_of(stack, store_name, places)
            _look_at_backup_needs(store, name, missing)
            _look_for_programs_of_a_proof(store, declared)
        with missing.noting(name, store_name):
            _look_for_chromadb(declared)
    for service in stack.services:
        with missing.noting(name):
            open_runtime(service).is_running()
    _try_what_is_asked(places, stack, missing)
    with missing.noting(name):
        _look_at_room(places, stack)
    if stack.schedule:
        _look_for_cron(stack, missing)


def _try_what_is_asked(places: Places, stack: Stack, missing: Missing) -> None:
    """Ask everything that the stack file declares to be asked of a store, as far as the first answer: a column that is not there, or a
    query that writes, is found before a check or a person needs it.
    """
    for store, what, ask in _asked(stack):
        with missing.noting(stack.stack, store):
            try:
                ask(opening.open_store_of(stack, store, places))
            except Refused as error:
                correct = error.next or f"editor {places.stack_file(stack.stack)}"
                raise Refused(f"{what}: {error.message}", store=error.store, next=correct) from error


def _asked(stack: Stack) -> Iterator[tuple[str, str, Callable[[Store], object]]]:
    """The store that is asked, what asks it, and how."""
    for name, rule in stack.consistency.items():
        for place in places_of(rule):
            yield place.store, f"consistency.{name}, {place.label}", partial(_first_identity, place)
    for name, each in stack.queries.items():
        yield each.store, f"queries.{name}", partial(_understood, each.query, each.arguments)
    if stack.migration is not None and (applied := stack.migration.applied) is not None:
        yield applied.store, "migration.applied", partial(_understood, applied.query, ())


def _first_identity(place: Place, store: Store) -> None:
    next(store.identities(place.source, Remarks()), None)


def _understood(query: str, arguments: Collection[str], store: Store) -> None:
    store.answer(Question(query, dict.fromkeys(arguments), 0))


def _look_at_secrets(name: str, declared: AnyStore) -> None:
    if isinstance(declared, PostgresqlModel):
        for reference in (resolving.resolved(declared, name).password, declared.admin.password if declared.admin else None):
            if reference is not None:
                read_secret(reference, f"the password of {name}")


def _look_at_backup_needs(store: Store, stack: str, missing: Missing) -> None:
    """The store's own preflight, and whether its supervisor answers."""
    warnings = store.preflight()
    missing.found += [Problem(each.message, Severity.WARNING, store.name, each.next, stack) for each in warnings]
    if store.runtime is not None:
        store.runtime.is_running()


def _look_for_programs_of_a_proof(store: Store, declared: AnyStore) -> None:
    """Raises Refused where a scratch server of the same major version could not be started."""
    if isinstance(declared, PostgresqlModel):
        from storekeeper.stores.postgresql import programs  # noqa: PLC0415 only where the stack has such a store

        found = programs.find(declared.programs, programs.major_of(store.look().version))
        for program in ("initdb", "postgres"):
            found.path(program)


def _look_for_chromadb(declared: AnyStore) -> None:
    """Raises Refused unless the application's interpreter, or this one, can open a Chroma directory."""
    if not isinstance(declared, ChromaModel):
        return
    if declared.python is None:
        if importlib.util.find_spec("chromadb") is None:
            raise Refused(
                "a proof needs an interpreter that has chromadb", next="name the application's interpreter in the stack file: python: PATH"
            )
        return
    looking = "import importlib.util, sys; sys.exit(importlib.util.find_spec('chromadb') is None)"
    try:
        run(Command([declared.python, "-c", looking]), timeout=_PATIENCE)
    except ProgramFailed as error:
        raise Refused(
            f"{declared.python} cannot be used for a proof: it has no chromadb", next=f"{declared.python} -m pip install chromadb"
        ) from error


def _look_at_room(places: Places, stack: Stack) -> None:
    """Raises Refused when the next set would not fit."""
    try:
        needed = room.of_the_next(known_sets(places, stack.stack), opening.open_stores(stack, places))
    except StorekeeperError:
        return  # said where that store itself was looked at
    space.check({places.repository: needed}, purpose="the next backup", next=f"storekeeper prune {stack.stack}")


def _look_for_cron(stack: Stack, missing: Missing) -> None:
    if not any(shutil.which(program, path=SEARCH_PATH) for program in ("cron", "crond", "fcron", "bcron-start")):
        missing.add("its schedule needs a cron daemon, none is installed", "apt-get install -y cron", stack.stack)
