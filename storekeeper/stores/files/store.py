"""A files store: the tree below a directory, or only some entries of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ClassVar

from storekeeper.host import locks
from storekeeper.host.processes import User
from storekeeper.host.tree import is_below, opened, remove
from storekeeper.outcomes import Failed, Problem, Refused, Severity, Unknown
from storekeeper.runtimes.protocol import Runtime
from storekeeper.stack.rules import Rows
from storekeeper.stores import lending
from storekeeper.stores.examination import Examination, InUse
from storekeeper.stores.files import checking, copies, emptying, examining, foreseeing, marks, mending, rawcopying, staging, switching
from storekeeper.stores.files.copying import Copying, directories_above
from storekeeper.stores.files.entries import NOT_THERE
from storekeeper.stores.files.hold import FilesHold, look_at_root
from storekeeper.stores.files.listing import is_gone, shown
from storekeeper.stores.files.measuring import measured
from storekeeper.stores.files.mending import FilesMender
from storekeeper.stores.files.patterns import Pattern
from storekeeper.stores.files.places import Place, places, staged_tree
from storekeeper.stores.files.rights import Rights
from storekeeper.stores.files.scope import Scope
from storekeeper.stores.folder import StoreFolder
from storekeeper.stores.identities import Identity, PatternSource, Remarks, Source
from storekeeper.stores.mending import Mender
from storekeeper.stores.protocol import Before, Content, Dumped, Facts, Foresight, Inspection, Look, Part, Rescued, SwitchLog, SwitchRoom
from storekeeper.stores.questions import Answer, Question
from storekeeper.stores.record import EMPTIED, StoreRecord
from storekeeper.stores.surroundings import Surroundings
from storekeeper.stores.trees import previous_tree

_KLASS = "listed-copy"
_DOWNTIME_S = 1.0  # a few renames


class FilesStore:
    """See `storekeeper.stores.protocol.Store`, and how a switch is made in `storekeeper.stores.files.switching`."""

    kind: ClassVar[str] = "files"
    needs_stopped: ClassVar[bool] = True
    copies_parts: ClassVar[bool] = True

    def __init__(self, name: str, root: Path, scope: Scope, surroundings: Surroundings, runtime: Runtime | None) -> None:
        self._name = name
        self._root = root
        self._scope = scope
        self._surroundings = surroundings
        self._runtime = runtime
        self._set: Path | None = None  # the folder that a copy was made from

    @property
    def name(self) -> str:
        return self._name

    @property
    def mends_alone(self) -> bool:
        return False

    @property
    def runtime(self) -> Runtime | None:
        return self._runtime

    def preflight(self) -> Sequence[Problem]:
        look_at_root(self._root)
        foreseeing.refuse_links(self._root, self._scope)
        warnings = [
            f"{inner} is declared in `include` and does not exist"
            for inner in self._scope.include
            if not os.path.lexists(self._root / inner)
        ]
        warnings += [
            f"{shown(inner)} is a mount point: its files are kept, but cannot be restored in place while it is mounted"
            for inner in foreseeing.mounts_inside(self._root, self._scope)
        ]
        return [Problem(warning, Severity.WARNING, self._name) for warning in warnings]

    def look(self, before: Before | None = None) -> Look:
        """The size of a tree is only known by looking at every entry; no file is opened."""
        look_at_root(self._root)
        with (
            previous_tree(before.folder if before else None, checking.LISTING, checking.CONTENT) as previous,
            opened({"": self._root}) as tree,
        ):
            counts, adds = measured(tree, self._scope, previous)
        return Look(locks.file_system_type(self._root), counts["bytes"], adds)

    def inspect(self) -> Inspection:
        look_at_root(self._root)
        counts = self._counts_now()
        return Inspection(locks.file_system_type(self._root), counts["bytes"], counts)

    def is_absent(self) -> bool:
        try:
            os.lstat(self._root)
        except OSError as error:
            if is_gone(error):
                return True
            raise Unknown(f"{self._root} cannot be looked at: {error.strerror}", store=self._name) from error
        return False

    def identities(self, source: Source, remarks: Remarks) -> Iterator[Identity]:
        if not isinstance(source, PatternSource):
            raise TypeError(f"a tree has no {type(source).__name__}")
        look_at_root(self._root)
        pattern = Pattern(source.pattern)
        remarks.ends = pattern.ends
        with opened({"": self._root}) as tree:
            yield from pattern.identities(tree, self._scope)

    def mark(self, source: Source) -> str | None:
        return marks.of_pattern(self._root, self._scope, Pattern(source.pattern)) if isinstance(source, PatternSource) else None

    def dumped_identities(
        self,
        hold: FilesHold,  # noqa: ARG002 - what vanished after it was pinned is not in the set
        folder: Path,
        source: Source,
        remarks: Remarks,
    ) -> Iterator[Identity]:
        if not isinstance(source, PatternSource):
            raise TypeError(f"a tree has no {type(source).__name__}")
        pattern = Pattern(source.pattern)
        remarks.ends = pattern.ends
        return pattern.of_paths(each["path"] for each in checking.listed(folder, self._scope) if each["type"] not in NOT_THERE)

    def mender(self, source: Source, rows: Sequence[Rows], token: str, *, only_look: bool = False) -> AbstractContextManager[Mender]:  # noqa: ARG002 - the protocol's
        if not isinstance(source, PatternSource):
            raise TypeError(f"a tree has no {type(source).__name__}")
        look_at_root(self._root)
        return nullcontext(FilesMender(self._root, self._scope, Pattern(source.pattern), token, self._rights(), self._set))

    def forget_taken(self, token: str) -> None:
        look_at_root(self._root)
        mending.forget(self._root, token)

    def answer(self, question: Question) -> Answer:
        raise TypeError(f"a tree of files answers no query: {question.query[:60]}")

    def examine(self, work: Path) -> Examination:  # noqa: ARG002 - nothing is copied
        look_at_root(self._root)
        return examining.examine(self._root, self._scope)

    def users(self) -> Sequence[InUse]:
        raise Refused("files are guarded by no lock")

    def rescue(self, into: StoreFolder, work: Path) -> Rescued:  # noqa: ARG002 - the protocol's
        raise Refused(f"{self._root} is a tree of files: only a SQLite database is made anew from what is left of it")

    def hold(self, work: Path) -> FilesHold:
        return FilesHold(self._root, self._scope, work)

    def begin_dump(self, hold: FilesHold, into: StoreFolder) -> bool:  # noqa: ARG002 - no program is needed
        return False

    def dump(self, hold: FilesHold, into: StoreFolder) -> Dumped:
        into.write(checking.ABOVE, [directories_above(hold.tree, self._scope)])
        with into.tree(checking.LISTING, checking.CONTENT) as writer:
            copying = Copying(hold.tree, writer)
            content = copying.copy(hold.listing)
        details = {
            "root": str(self._root),
            "include": list(self._scope.include),
            "exclude": list(self._scope.exclude),
            "remarks": dict(copying.remarks.counts),
            "linked": writer.linked,
        }
        return Dumped(_KLASS, content.counts, content.digests, details, tuple(copying.remarks.problems(self._name)))

    def empty(self, into: StoreFolder, work: Path, keep: Sequence[str] | None, instead: Before | None) -> Dumped:  # noqa: ARG002 - no tables
        look_at_root(self._root)
        with opened({"": self._root}) as tree:
            into.write(checking.ABOVE, [directories_above(tree, self._scope)])
            found = emptying.empty(tree, self._scope, into)
        details = {"root": str(self._root), "include": list(self._scope.include), "exclude": list(self._scope.exclude)}
        return Dumped(EMPTIED, found.counts, found.digests, details)

    @property
    def address(self) -> str:
        return str(self._root)

    def passfile_line(self) -> None:
        return None

    def verify(self, folder: Path, record: StoreRecord) -> None:
        checking.verify(folder, record, _scope_of(record))

    @contextmanager
    def copy(self, folder: Path, record: StoreRecord, scratch: Path, part: Part | None = None) -> Iterator[FilesCopy]:
        scope, root = _scope_of(record), scratch / "tree"
        only = None if part is None else copies.paths_of(part, folder, scope)
        try:
            for parent in scope.parents:
                (root / parent).mkdir(mode=0o700, parents=True, exist_ok=True)
            rights = Rights.in_scratch(root)
            with opened({"": root}) as tree:
                staging.lay(folder, scope, tree, rights, lasting=False, only=only)
            yield FilesCopy(self._name, root, scope, self._surroundings, folder, rights)
        finally:
            remove(root)

    def raw_bytes(self) -> int:
        return rawcopying.bytes_of(self._root, self._scope)

    def raw_copy(self, into: StoreFolder) -> Facts:
        """What can be read, with all attributes. The rest is named in `unread`, the first hundred."""
        with opened({"": self._root}) as tree:
            above = directories_above(tree, self._scope)
        return rawcopying.copy(self._root, self._scope, into, above)

    def foresee(self, folder: Path, record: StoreRecord, stage_dir: Path | None, *, raw: bool = False) -> Foresight:
        scope, rights = self._restored_scope(record), self._rights()
        found = places(self._name, self._root, scope, "00000000", stage_dir)
        foreseeing.refuse_links(self._root, scope)
        foreseeing.refuse_read_only(found)
        live = foreseeing.Covered(self._root, scope)
        foreseeing.refuse_mounts(live)
        survey = foreseeing.Survey(folder, scope, found, rights)
        survey.refuse(self._name)
        users = foreseeing.users(live, self._surroundings, self._name) if self._runtime is None else []
        return Foresight(
            counts_now=None if raw or self.is_absent() else self._counts_now(),
            counts_after=record.counts,
            bytes_needed=survey.bytes_needed,
            downtime_s=_DOWNTIME_S,
            problems=(*survey.problems(self._name, rights), *users),
        )

    def place(self, token: str, stage_dir: Path | None, *, raw: bool = False) -> Facts:  # noqa: ARG002 - entries are moved, readable or not
        return {"places": [place.to_json() for place in places(self._name, self._root, self._scope, token, stage_dir)]}

    def begin_stage(self, folder: Path, record: StoreRecord, place: Facts) -> None:  # noqa: ARG002 - no program is needed
        return None

    def stage(self, folder: Path, record: StoreRecord, place: Facts) -> Content:
        scope, found = self._restored_scope(record), _places_of(place)
        above = checking.above(folder, scope)
        for each in found:
            each.make({"exclude": list(scope.exclude), "above": above})
        with opened(staged_tree(found)) as tree:
            return staging.make(folder, scope, tree, self._rights(), lasting=True)

    def refuse_holders(self, place: Facts) -> None:
        found = _places_of(place)
        if all(each.exists() for each in found):
            self._refuse_holders(found)

    def back_needs(self, place: Facts) -> Mapping[Path, int]:  # noqa: ARG002 - the protocol's
        """Nothing: names are exchanged."""
        return {}

    def switch_room(self, place: Facts) -> SwitchRoom:
        """Nothing but what each place remembers of it."""
        return SwitchRoom(passing={str(each.hidden.parent): 0 for each in _places_of(place)})

    def switch(self, place: Facts, log: SwitchLog) -> None:
        found = _places_of(place)
        if all(each.exists() and each.state is None for each in found):
            self._refuse_holders(found)
        for each in found:
            self._switching(each, log).switch()

    def switch_back(self, place: Facts, log: SwitchLog) -> None:
        for each in reversed(_places_of(place)):
            if each.exists():
                self._switching(each, log).switch_back()

    def probe(self, place: Facts, expected: StoreRecord) -> None:
        """The entries are there, and readable. Counts are not compared: they were when they were staged, an exchange of names does
        not change them, and a program that nobody declared may have written since, for which no restore should be taken back.
        """
        look_at_root(self._root)
        for each in _places_of(place):
            switching.check_live(each)
        found = self._counts_now()["files"]
        if expected.counts["files"] and not found:
            raise Failed(f"{self._root} holds no file, and the set holds {expected.counts['files']:,}")

    def discard_stage(self, place: Facts) -> None:
        for each in _places_of(place):
            switching.discard_stage(each)

    def discard_old(self, place: Facts) -> None:
        for each in _places_of(place):
            switching.discard_old(each)

    def _switching(self, place: Place, log: SwitchLog) -> switching.Switching:
        scope = Scope(self._scope.include, place.restore["exclude"])
        return switching.Switching(place, scope, self._rights(), log)

    def _refuse_holders(self, found: Sequence[Place]) -> None:
        """Before anything has moved, and after what is declared has been stopped."""
        scope = Scope(self._scope.include, found[0].restore["exclude"])
        live = foreseeing.Covered(self._root, scope)
        foreseeing.refuse_holders(live, nobody_uses=self._surroundings.nobody_uses, name=self._name)

    def _rights(self) -> Rights:
        return Rights.here(no_owners=self._surroundings.no_owners)

    def _restored_scope(self, record: StoreRecord) -> Scope:
        """What the set covers. Raises Refused unless the stack file covers the same: else a restore would move other entries."""
        scope = _scope_of(record)
        if scope.include != self._scope.include:
            raise Refused(
                f"the set covers {_spoken(scope)}, the stack file {_spoken(self._scope)}: declare `include` as it was", store=self._name
            )
        return scope

    def _counts_now(self) -> dict[str, int]:
        with opened({"": self._root}) as tree:
            return measured(tree, self._scope)[0]


class FilesCopy(FilesStore):
    """A set's entries, or some of them, made in a scratch directory with these rights; `folder` is the set's own."""

    def __init__(self, name: str, root: Path, scope: Scope, surroundings: Surroundings, folder: Path, rights: Rights) -> None:
        super().__init__(name, root, scope, surroundings, None)
        self._set = self._folder = folder
        self._made_with = rights

    def content(self) -> Content:
        with opened({"": self._root}) as tree:
            return staging.read_back(tree, self._scope, self._made_with, checking.listed(self._folder, self._scope))

    def fingerprint(self) -> str:
        return str(self.content().digests)

    def lend(self, user: User | None) -> None:
        lending.give(self._root, user)


def _scope_of(record: StoreRecord) -> Scope:
    """Raises Failed for a record that no dump of this kind wrote."""
    include, exclude = record.details.get("include"), record.details.get("exclude")
    for words in (include, exclude):
        if not isinstance(words, list) or not all(isinstance(word, str) and word for word in words):
            raise Failed("the manifest does not say what the set covers")
    if not all(map(is_below, include or ())):
        raise Failed("the manifest names entries outside of the store")
    return Scope(include or (), exclude or ())


def _spoken(scope: Scope) -> str:
    return ", ".join(shown(entry) for entry in scope.include) or "all of it"


def _places_of(place: Facts) -> list[Place]:
    return [Place.of(each) for each in place["places"]]
