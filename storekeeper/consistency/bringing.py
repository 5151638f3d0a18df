"""One document as a set holds it, put in the place of what is live of it: its places, one after the other, and nothing else.

What stood there is kept durably before it is exchanged, in the directory of a plan, with what comes: so a run that was killed can be
finished without the set, and taken back. Each place is exchanged in one step, in the store's own transaction where it has one, and read
again in the same step. The authority comes first, since rows of its store may refer to its own, and goes back last.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storekeeper.consistency.places import Place, places_of, rows_of
from storekeeper.consistency.plans import Plan
from storekeeper.host import durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Problem, Refused, Severity, StorekeeperError, naming
from storekeeper.stack.rules import Rule
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.mending import Matched, Mender, Piece, Wanted, matched
from storekeeper.stores.protocol import Store

APPLYING, LAID, APPLIED, UNDOING, UNDONE = "applying", "laid", "applied", "undoing", "undone"
_TOLD, _SIDES = "told", ("stays", "away", "here")


@dataclass(frozen=True)
class Found:
    """What a place holds of the document now, and what the set's copy does."""

    place: Place
    now: list[Piece]
    there: list[Piece]

    @property
    def matched(self) -> Matched:
        return matched(self.now, self.there, told)


def told(piece: Piece) -> Piece:
    return dict(piece[_TOLD])


def compared(
    rule: Rule, document: str, token: str, stores: Mapping[str, Store], copies: Mapping[str, Store], progress: Progress
) -> list[Found]:
    """Each place beside its copy; nothing is changed. Raises Refused where the exchange would be, as far as that can be told: of several
    places of one store only the first is rehearsed, since the others may need what comes with it.
    """
    found: list[Found] = []
    for place in places_of(rule):
        rows, wanted = rows_of(rule, place), [Wanted(document)]
        progress.step(place.store, f"reading {place.label}")
        with (
            naming(place.store),
            copies[place.store].mender(place.source, rows, token) as origin,
            origin.grip(wanted) as held,
            stores[place.store].mender(place.source, rows, token, only_look=True) as mender,
            mender.grip(wanted) as grip,
        ):
            there = _seen(mender, mender.brought(held.pieces(document), origin))
            found.append(Found(place, _seen(mender, grip.pieces(document)), there))
            if not any(each.place.store == place.store for each in found[:-1]):
                grip.rehearse(document, found[-1].matched.rest, found[-1].matched.beyond)
    return found


def entries(rule: str, found: Sequence[Found]) -> Iterator[bytes]:
    """The lines of a plan: what comes, whole but for the contents of files."""
    for each in found:
        yield from (to_line({"rule": rule, "place": each.place.name, "piece": piece}) for piece in each.there)


class Bringing:
    """A plan that brings a document back, carried out on the stores of a stack, or taken back."""

    def __init__(self, plan: Plan, rules: Mapping[str, Rule], stores: Mapping[str, Store], progress: Progress) -> None:
        if plan.restores is None:
            raise ValueError(f"the plan {plan.id} brings nothing back")
        self._plan = plan
        self._rule = rules[str(plan.restores["rule"])]
        self._document = str(plan.restores["document"])
        self._stores = stores
        self._progress = progress
        self.brought: Counter[str] = Counter()  # pieces by store
        self.removed: Counter[str] = Counter()
        self.problems: list[Problem] = []

    @property
    def stores(self) -> set[str]:
        """The stores that the document is exchanged in."""
        return {place.store for place in places_of(self._rule)}

    def lay(self, copies: Mapping[str, Store]) -> None:
        """Lay beside the stores what has to be made before it can be exchanged. From here on the set is not needed."""
        self._plan.note(APPLYING)
        durable.ensure_directory(self._plan.kept_folder)
        for place in places_of(self._rule):
            rows = rows_of(self._rule, place)
            with (
                naming(place.store),
                copies[place.store].mender(place.source, rows, self._plan.token, only_look=True) as origin,
                self._stores[place.store].mender(place.source, rows, self._plan.token, only_look=True) as mender,
            ):
                mender.receive(self._coming(place), origin)
        self._plan.note(LAID)

    def apply(self) -> None:
        """Raises the first store's error: what was done by then is taken back by `undo`, or finished by this. Refused where it was
        interrupted before all was laid."""
        if self._plan.state() not in (LAID, APPLIED):
            undo = f"storekeeper repair undo {self._plan.document['stack']} {self._plan.id}"
            raise Refused("it was interrupted before anything was changed", next=undo)
        for number, place in enumerate(places_of(self._rule), 1):
            self._progress.step(place.store, f"bringing back into {place.label}")
            with self._opened(place) as mender, mender.grip([Wanted(self._document)]) as grip:
                now = _seen(mender, grip.pieces(self._document))
                kept = self._kept(number) or self._keep(number, place, now)
                if (why := self._strange(now, kept)) is not None:
                    raise Refused(f"{place.name} {why}: it was left as it is", store=place.store)
                grip.exchange(self._document, kept["away"], kept["here"])
                after = matched(_seen(mender, grip.pieces(self._document)), [*kept["stays"], *kept["here"]], told)
                if after.rest or after.beyond:
                    raise Refused(
                        f"{place.name} holds something else than what was written: something in the store changes it, such as a trigger",
                        store=place.store,
                    )
            self.brought[place.store] += len(kept["here"])
            self.removed[place.store] += len(kept["away"])
        self._plan.note(APPLIED)
        self._drop()

    def undo(self) -> None:
        """Have what stood there stand there again. Safe to repeat; what was changed since is left as it is, and said. A place that cannot
        be reached keeps no other from it: its error is raised at the end."""
        self._plan.note(UNDOING)
        errors: list[Exception] = []
        for number, place in reversed(list(enumerate(places_of(self._rule), 1))):
            kept = self._kept(number)
            if kept is None:
                continue
            self._progress.step(place.store, f"putting back into {place.label}")
            try:
                self._undo(place, kept)
            except (StorekeeperError, OSError) as error:
                errors.append(error)
        if errors:
            raise errors[0]
        self._drop()
        self._plan.note(UNDONE)

    def _undo(self, place: Place, kept: Mapping[str, list[Piece]]) -> None:
        with self._opened(place) as mender, mender.grip([Wanted(self._document)]) as grip:
            now = _seen(mender, grip.pieces(self._document))
            if (why := self._strange(now, kept)) is not None:
                self.problems.append(Problem(f"{place.name} {why}: it was left as it is", Severity.WARNING, place.store))
                return
            grip.exchange(self._document, kept["here"], kept["away"])
            after = matched(_seen(mender, grip.pieces(self._document)), [*kept["stays"], *kept["away"]], told)
            if after.beyond:
                said = f"{len(after.beyond)} entries that stood in {place.name} are not there: somebody has removed what was kept"
                self.problems.append(Problem(said, Severity.WARNING, place.store))
        self.brought[place.store] += len(kept["away"])

    @contextmanager
    def _opened(self, place: Place) -> Iterator[Mender]:
        rows = rows_of(self._rule, place)
        with naming(place.store), self._stores[place.store].mender(place.source, rows, self._plan.token) as mender:
            yield mender

    def _coming(self, place: Place) -> list[Piece]:
        return [dict(line["piece"]) for line in self._plan.lines() if line["place"] == place.name]

    def _strange(self, now: Sequence[Piece], kept: Mapping[str, list[Piece]]) -> str | None:
        """Why what stands there is neither what stood there nor what came; None where it is."""
        known = matched(now, [piece for side in _SIDES for piece in kept[side]], told)
        return f"holds something of {self._document[:80]!r} that was changed since" if known.rest else None

    def _keep(self, number: int, place: Place, now: list[Piece]) -> dict[str, list[Piece]]:
        """Write down what goes, what comes and what stays; durable when this returns."""
        stays, away, here = matched(now, self._coming(place), told)
        kept = {"stays": stays, "away": away, "here": here}
        path = self._path(number)
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, durable.PRIVATE_FILE), "wb") as file:
            file.writelines(to_line({"place": place.name, "side": side, "piece": piece}) for side in _SIDES for piece in kept[side])
            file.flush()
            os.fsync(file.fileno())
        durable.rename(new, path)
        return kept

    def _kept(self, number: int) -> dict[str, list[Piece]] | None:
        path = self._path(number)
        if not path.exists():
            return None
        kept: dict[str, list[Piece]] = {side: [] for side in _SIDES}
        for line in read_lines(path):
            kept[str(line["side"])].append(dict(line["piece"]))
        return kept

    def _path(self, number: int) -> Path:
        return self._plan.kept_folder / f"{number:06}.jsonl"

    def _drop(self) -> None:
        for place in places_of(self._rule):
            rows = rows_of(self._rule, place)
            with naming(place.store), self._stores[place.store].mender(place.source, rows, self._plan.token, only_look=True) as mender:
                mender.drop()


def _seen(mender: Mender, pieces: Sequence[Piece]) -> list[Piece]:
    return [{**piece, _TOLD: mender.told(piece)} for piece in pieces]


def differences(found: Found) -> Iterator[str]:
    """What is not the same, named without any value: a row may hold what nobody should read here."""
    _, away, here = found.matched
    now: dict[str, list[Piece]] = {}
    for piece in away:
        now.setdefault(str(told(piece)["name"]), []).append(told(piece))
    for piece in here:
        mine = told(piece)
        others = now.get(str(mine["name"]))
        yield f"{mine['name']}: {_changed(others.pop(0), mine)}" if others else f"{mine['name']}: only in the set"
    yield from (f"{name}: not in the set" for name, left in now.items() for _ in left)


def _changed(now: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    one, other = (({**each, **each["row"]} if "row" in each else dict(each)) for each in (now, there))
    words = sorted(key for key in {*one, *other} - {"row"} if one.get(key) != other.get(key))
    return f"another {', '.join(words)}"
