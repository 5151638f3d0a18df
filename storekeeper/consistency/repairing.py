"""Applying a plan and undoing it, step by step; killed at any point, nothing is gone that undo does not bring back.

A step is some documents of one place. They are looked at in the store's own transaction, looked up in the authority once more, kept
durably, and then removed. Undo puts back whatever was kept, whether it was removed or not: what is still there stays as it is.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from storekeeper.consistency.comparison import State, words_of
from storekeeper.consistency.findings import Class, Finding
from storekeeper.consistency.places import Place, authority_of, replicas_of, rows_of
from storekeeper.consistency.plans import Plan
from storekeeper.host import clock, durable
from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, Problem, Refused, Severity, naming
from storekeeper.stack.rules import Rule
from storekeeper.stores.identities import Identity, Remarks, SqlSource
from storekeeper.stores.lines import read_lines, to_line
from storekeeper.stores.mending import Grip, Mender, Wanted
from storekeeper.stores.protocol import Store

_PROVED_AT_ONCE = 50_000  # documents that are held in memory
_MOST_SKIPPED = 1000


@dataclass
class Repaired:
    """What a run did, in pieces of documents by store."""

    removed: Counter[str] = field(default_factory=Counter)
    undone: Counter[str] = field(default_factory=Counter)
    skipped: list[dict[str, str]] = field(default_factory=list)
    left_out: int = 0
    problems: list[Problem] = field(default_factory=list)

    def skip(self, document: str, place: str, why: str) -> None:
        if len(self.skipped) < _MOST_SKIPPED:
            self.skipped.append({"document": document, "place": place, "why": why})
        else:
            self.left_out += 1


class Repairing:
    """One plan carried out on the stores of a stack."""

    def __init__(self, plan: Plan, rules: Mapping[str, Rule], stores: Mapping[str, Store], progress: Progress) -> None:
        self._plan = plan
        self._rules = rules
        self._stores = stores
        self._progress = progress
        self.done = Repaired()
        self._left_out: set[tuple[str, str]] = set()  # places and documents of which not all could be put back

    def apply(self) -> None:
        """Remove what the plan says and the authority still says. Raises the first store's error; what was done by then stays done, and
        `undo` takes it back."""
        self._refuse_what_cannot_be_mended()
        self._plan.note("applying")
        durable.ensure_directory(self._plan.kept_folder)
        for rule, place in self._places():
            with self._opened(rule, place) as mending, closing(self._plan.entries()) as entries:
                self._take(self._rules[rule], mending, (each for name, each in entries if (name, each.place) == (rule, place)))
        self._prove_removed()
        self._plan.note("applied")

    def undo(self) -> None:
        """Put back all that was kept. Raises the first store's error; it may be run again."""
        self._refuse_what_cannot_be_mended()
        self._plan.note("undoing")
        for path in reversed(self._kept()):
            self._put_back(path)
        self._prove_back()
        self._plan.note("undone")

    def _refuse_what_cannot_be_mended(self) -> None:
        """Open every place of the plan once, before anything is changed."""
        for rule, place in self._places():
            with self._opened(rule, place):
                pass

    def _places(self) -> list[tuple[str, str]]:
        """Every place of the plan, with its rule."""
        return sorted({(rule, finding.place) for rule, finding in self._plan.entries()})

    @contextmanager
    def _opened(self, rule: str, name: str) -> Iterator[_Mending]:
        """A place with its mender; one at a time, since an embedded directory bears one client."""
        place = next((each for each in replicas_of(self._rules[rule]) if each.name == name), None)
        if place is None:
            raise Refused(f"the rule {rule} has no place {name[:80]} any more: nothing was changed", next="make a new plan")
        with (
            naming(place.store),
            self._stores[place.store].mender(place.source, rows_of(self._rules[rule], place), self._plan.token) as mender,
        ):
            yield _Mending(rule, place, mender)

    def _take(self, rule: Rule, mending: _Mending, findings: Iterable[Finding]) -> None:
        place = mending.place
        for some in _steps(findings, mending.mender.at_once):
            self._progress.step(place.store, f"removing from {place.label}")
            with mending.mender.grip([Wanted(each.document, each.owner if each.kind is Class.ORPHAN else None) for each in some]) as grip:
                agreed = self._agreed(rule, mending, some, grip)
                if agreed:
                    self._keep(mending, agreed, grip)
                    grip.remove([each.document for each in agreed])
            if agreed:  # not before the block has ended: then they are gone
                self.done.removed[place.store] += len(agreed)

    def _agreed(self, rule: Rule, mending: _Mending, some: Sequence[Finding], grip: Grip) -> list[Finding]:
        """Those that are still there, and of which the authority still says what it said."""
        there = [each for each in some if grip.pieces(each.document)]
        for each in some:
            if each not in there:
                self.done.skip(each.document, mending.place.name, "it is not there any more")
        known = self._known(rule, {each.document for each in there})
        shared = self._shared(mending.place, there)
        agreed = []
        for each in there:
            why = _why_not(rule, each, known.get(each.document))
            if why is None and each.document in shared:
                why = "another owner has it there too, and which rows are whose nobody says"
            if why is None:
                agreed.append(each)
            else:
                self.done.skip(each.document, mending.place.name, why)
        return agreed

    def _shared(self, place: Place, found: Sequence[Finding]) -> set[str]:
        """Orphans of which another owner has something in the same place, where it is rows, which are taken without regard to owners."""
        owners = {each.document: each.owner for each in found if each.kind is Class.ORPHAN and each.owner is not None}
        if not owners or not isinstance(place.source, SqlSource) or "owner" not in place.source.columns:
            return set()
        stream = self._stores[place.store].identities(place.source, Remarks())
        return {each.id for each in stream if each.id in owners and each.owner != owners[each.id]}

    def _known(self, rule: Rule, documents: set[str]) -> dict[str, Identity]:
        """What the authority says of these documents now. Its not saying anything of any is its being empty, which repairs nothing."""
        authority = authority_of(rule)
        count, found = 0, {}
        for each in self._stores[authority.store].identities(authority.source, Remarks()):
            count += 1
            if each.id in documents:
                found[each.id] = each
        if not count:
            raise Refused(
                f"{authority.name} holds no document at all: nothing is removed by what an empty authority says", store=authority.store
            )
        return found

    def _keep(self, mending: _Mending, agreed: Sequence[Finding], grip: Grip) -> None:
        """Write down all that undo needs; durable when this returns."""
        number = 1 + max((int(path.stem) for path in self._kept()), default=0)
        path = self._plan.kept_folder / f"{number:06}.jsonl"
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, durable.PRIVATE_FILE), "wb") as file:
            file.write(to_line({"rule": mending.rule, "place": mending.place.name, "store": mending.place.store}))
            for each in agreed:
                owner = each.owner if each.kind is Class.ORPHAN else None
                file.writelines(
                    to_line({"document": each.document, "owner": owner, "piece": piece}) for piece in grip.pieces(each.document)
                )
            file.flush()
            os.fsync(file.fileno())
        durable.rename(new, path)

    def _kept(self) -> list[Path]:
        return sorted(self._plan.kept_folder.glob("[0-9]*.jsonl")) if self._plan.kept_folder.is_dir() else []

    def _put_back(self, path: Path) -> None:
        lines = read_lines(path)
        with closing(lines):
            head = next(lines)
            with self._opened(str(head["rule"]), str(head["place"])) as mending:
                store = mending.place.store
                self._progress.step(store, f"putting back into {mending.place.label}")
                for document, group in groupby(lines, key=lambda line: str(line["document"])):
                    for sentence in mending.mender.put_back([dict(line["piece"]) for line in group]):
                        self._left_out.add((mending.place.name, document))
                        self.done.problems.append(Problem(f"document {document[:80]!r}: {sentence}", Severity.WARNING, store))
                    self.done.undone[store] += 1

    def _prove_removed(self) -> None:
        """Raises Failed where something that was removed is still there."""
        for place, kept in self._all_kept():
            if still := self._held(place, kept):
                raise Failed(
                    f"{place.name} still holds {len(still)} documents that were removed, such as {_first(still)}", store=place.store
                )

    def _prove_back(self) -> None:
        """Raises Failed where something that was put back is not there; what could not be is said already."""
        for place, kept in self._all_kept():
            wanted = {each for each in kept if (place.name, each.document) not in self._left_out}
            if gone := wanted - self._held(place, wanted):
                raise Failed(
                    f"{place.name} does not hold {len(gone)} documents that were put back, such as {_first(gone)}", store=place.store
                )

    def _all_kept(self) -> Iterator[tuple[Place, set[Wanted]]]:
        """A place after the other, with the documents of some of its steps."""
        current: Place | None = None
        kept: set[Wanted] = set()
        for path in self._kept():
            lines = read_lines(path)
            with closing(lines):
                head = next(lines)
                place = next(each for each in replicas_of(self._rules[str(head["rule"])]) if each.name == head["place"])
                if current is not None and (place != current or len(kept) > _PROVED_AT_ONCE):
                    yield current, kept
                    kept = set()
                current = place
                kept |= {Wanted(str(line["document"]), line.get("owner")) for line in lines}
        if current is not None:
            yield current, kept

    def _held(self, place: Place, wanted: set[Wanted]) -> set[Wanted]:
        documents = {each.document for each in wanted}
        counts: dict[str, Counter[str | None]] = {}
        for each in self._stores[place.store].identities(place.source, Remarks()):
            if each.id in documents:
                counts.setdefault(each.id, Counter())[each.owner] += 1 if each.chunks is None else each.chunks
        return {each for each in wanted if _of_owner(counts.get(each.document, {}), each.owner) > 0}


def _steps(findings: Iterable[Finding], at_once: int) -> Iterator[list[Finding]]:
    """Findings that are sorted by document, some at a time. What several owners have of one document are several steps: a grip knows a
    document by its id alone."""
    some: list[Finding] = []
    for each in findings:
        if len(some) == at_once or (some and some[-1].document == each.document):
            yield some
            some = []
        some.append(each)
    if some:
        yield some


def _of_owner(counts: Mapping[str | None, int], owner: str | None) -> int:
    """What is there under this owner, or under none; all where none is asked for."""
    return sum(count for each, count in counts.items() if owner is None or each is None or each == owner)


def _first(found: set[Wanted]) -> str:
    return repr(min(each.document for each in found)[:80])


@dataclass(frozen=True)
class _Mending:
    rule: str
    place: Place
    mender: Mender


def _why_not(rule: Rule, finding: Finding, now: Identity | None) -> str | None:
    """Why a finding is none any more by what the authority says now; None where it still is one."""
    if finding.kind is Class.ORPHAN:
        return None if now is None else "the authority has it now"
    if now is None:
        return "the authority does not have it any more"
    words = words_of(rule.states)
    if words is None or words.get(now.state or "") is not State.FAILED:
        return f"its state is {now.state or 'none'} now"
    if now.at is not None and now.at > clock.now() - rule.grace:
        return "it was worked on since"
    return None


def refuse_beyond_brake(plan: Plan, rules: Mapping[str, Rule], limit: int | None) -> None:
    """Raises Refused where a plan removes more documents than the brake of a rule lets through, unless `limit` allows so many."""
    refuse_so_many(plan, plan.documents, rules, limit, "the plan removes {} documents of {}", plan.path / "entries.jsonl")


def refuse_so_many(
    plan: Plan, documents: Mapping[str, int], rules: Mapping[str, Rule], limit: int | None, said: str, list_of: Path
) -> None:
    """The same of any counts of documents by rule; `said` has a place for the count and one for the rule."""
    for name, count in documents.items():
        brake, total = rules[name].brake, plan.document["authority"][name]
        allowed = max(limit or 0, min(brake.documents, int(total * brake.percent / 100)))
        if count > allowed:
            share = f"{brake.percent:g}% of {total:,} documents, at most {brake.documents:,}"
            raise Refused(
                f"{said.format(f'{count:,}', name)}, the brake lets {allowed:,} through ({share}): nothing was changed",
                next=f"look at {list_of}, then say --limit {count}",
            )
