"""A damaged SQLite file made anew: its schema, and every row that can still be read, in a file beside it.

Whole tables are copied by SQLite itself. A table that SQLite cannot read to its end is read page by page (`walking.py`), so that one
bad page costs the rows on it and no others, and pages that nothing leads to any more are found and given back to the table that they
can only be of. The damaged file is a copy that nobody changes.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from storekeeper.outcomes import Failed, Refused
from storekeeper.stores import databases, emptied
from storekeeper.stores.databases import quoted
from storekeeper.stores.rescue import TableRescue
from storekeeper.stores.sqlite import walking
from storekeeper.stores.sqlite.forms import Form, write
from storekeeper.stores.sqlite.pages import Damaged, Header, PageFile
from storekeeper.stores.sqlite.walking import Hole, Root, Row, Span, Tree

_SEQUENCE = "sqlite_sequence"
_TABLES = """
    select name, rootpage from sqlite_master
    where type = 'table' and rootpage > 0 and name not glob 'sqlite_stat[0-9]' and name not glob '_storekeeper_switch_*'
    order by name = 'sqlite_sequence', name
"""
_UNIQUE = re.compile(r"\s*create\s+unique\b", re.IGNORECASE)
_FULL_TEXT = re.compile(r"\busing\s+fts[345]\b", re.IGNORECASE)
_OF_THE_DATA = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH)
_DAMAGES = 20


def journal_mode(copy: Path) -> str:
    """`wal`, or another word where there is a rollback journal or no header."""
    with suppress(Damaged):
        return "wal" if Header.read(copy).is_wal else "delete"
    return "delete"


def settle(copy: Path, live: Path) -> list[str]:
    """Make a copied file one that can be looked into: what its journal or log holds is played into it, what was cut off is empty pages.

    Returns what is wrong with it, nothing where all is well. Raises Refused where it does not even begin as a database, or its schema
    cannot be read: then nothing says what its pages are.
    """
    try:
        header = Header.read(copy)
        cut = _lengthened(copy, header)
        with databases.explained(copy), closing(databases.open_writable(copy)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
            connection.execute("pragma journal_mode=delete").fetchone()
            connection.execute("select group_concat(name || coalesce(sql, '')) from sqlite_master").fetchone()
    except (Damaged, Failed) as error:
        said = error.message.removeprefix(f"{copy} is damaged: ") if isinstance(error, Failed) else str(error)
        raise Refused(f"{live} cannot be made anew from what is left: its beginning and its schema cannot be read ({said})") from error
    with closing(databases.open_sealed(copy)) as connection:
        return cut + _damages(connection)


def rebuild(copy: Path, made: Path) -> Rebuilt:
    """Make the file `made`, with a rollback journal, from what can be read of `copy`. It is fsynced by the caller."""
    with databases.explained(copy), closing(databases.open_sealed(copy)) as source, PageFile(copy) as file:
        found = emptied.statements(source)
        roots = {str(name): int(root) for name, root in source.execute(_TABLES)}
        with _opened(made, source) as target, _transaction(target):
            emptied.make_tables(target, found, has_sequence=_SEQUENCE in roots)
            for name, statement in found["index"]:
                if _UNIQUE.match(statement):  # before the rows: the second of two that are alike is refused
                    emptied.execute(target, name, statement)
        # With another connection: a module that has just made its tables would write what it remembers of them over what is filled in.
        with _opened(made, source) as target:
            target.execute("attach ? as damaged", (databases.uri(copy, mode="ro", immutable="1"),))
            rebuilt = _Filling(source, target, file, roots, found["virtual"]).fill()
        with _opened(made, source) as target, _transaction(target):
            _make_others(target, found)
            emptied.take_header(target, source)
    rebuilt.notes += _index_words_anew(made, rebuilt.anew)
    return rebuilt


@contextmanager
def _opened(made: Path, source: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """The file that is being made, with a connection of its own."""
    with closing(databases.make(made)) as target:
        emptied.take_shape(target, source)
        yield target


@contextmanager
def _transaction(target: sqlite3.Connection) -> Iterator[None]:
    target.execute("begin")
    try:
        yield
    except BaseException:
        if target.in_transaction:
            target.execute("rollback")
        raise
    target.execute("commit")


def _make_others(target: sqlite3.Connection, found: emptied.Statements) -> None:
    """What is made when the rows are there: triggers must not fire for them."""
    for kind in ("index", "view", "trigger"):
        for name, statement in found[kind]:
            if kind != "index" or not _UNIQUE.match(statement):
                emptied.execute(target, name, statement)


@dataclass
class Rebuilt:
    """What came of each table. `unplaced` rows may be of several; `anew` are the full-text indexes that have to be made again."""

    tables: dict[str, TableRescue]
    unplaced: int
    anew: list[str]
    notes: list[str] = field(default_factory=list)


class _Filling:
    """The tables of one file, filled from another that is attached as `damaged`."""

    def __init__(
        self,
        source: sqlite3.Connection,
        target: sqlite3.Connection,
        file: PageFile,
        roots: Mapping[str, int],
        virtual: Sequence[tuple[str, str]],
    ) -> None:
        self._source = source
        self._target = target
        self._file = file
        self._forms = {name: Form.of(target, name) for name in roots}
        self._words = {name: statement for name, statement in virtual if _FULL_TEXT.search(statement)}
        forms = {name: Root(page, self._forms[name].is_index, len(self._forms[name].stored)) for name, page in roots.items()}
        self._trees, self._reached = walking.trees(file, forms)
        self._shadows = {name for (name,) in target.execute("select name from pragma_table_list where schema = 'main' and type = 'shadow'")}
        self._refused = dict.fromkeys(roots, 0)
        self._torn: dict[str, int] = {}  # pages of tables that were read page by page
        self._notes: list[str] = []

    def fill(self) -> Rebuilt:
        anew = [name for name in self._words if not self._words_are_copied(name)]
        for name, form in self._forms.items():
            if name == _SEQUENCE:
                self._fill_sequence(form)
            elif self._index_of(name) is None or name in map(_content_of, anew):
                self._fill(form)
        unplaced = self._place_lost_pages()
        told = {name: self._told(name) for name in self._forms if self._index_of(name) not in anew or name in map(_content_of, anew)}
        if any(not each.is_whole for each in told.values()):
            anew += [name for name, statement in self._words.items() if name not in anew and emptied.CONTENT_ELSEWHERE.search(statement)]
        return Rebuilt(told, unplaced, anew, self._notes)

    def _words_are_copied(self, index: str) -> bool:
        """The tables of a full-text index, all of them whole; False, with them as its module has made them, where they are not."""
        return self._are_copied([form for name, form in self._forms.items() if self._index_of(name) == index])

    def _index_of(self, table: str) -> str | None:
        """The full-text index that a table belongs to, if any."""
        return next((name for name in self._words if table in self._shadows and table.startswith(f"{name}_")), None)

    def _fill(self, form: Form) -> None:
        if self._are_copied([form]):
            return
        tree = self._trees[form.table]
        self._torn[form.table] = len(tree.holes)
        with _transaction(self._target):
            self._clear(form)
            self._refused[form.table] += write(self._target, form, self._rows(form.table, tree))

    def _are_copied(self, forms: Sequence[Form]) -> bool:
        """Let SQLite copy whole tables; False, with nothing changed, where one cannot be read to its end or is not what it should be.

        In one transaction, which SQLite does not let go on once the other file has been found to be damaged.
        """
        if any(self._trees[form.table].holes for form in forms):
            return False
        try:
            with _transaction(self._target):
                for form in forms:
                    self._clear(form)
                    copy = "insert into main.{0} ({1}) select {1} from damaged.{0} not indexed"  # quoted
                    self._target.execute(copy.format(quoted(form.table), form.names))
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OF_THE_DATA:
                raise
            return False
        return True

    def _clear(self, form: Form) -> None:
        """A module may have made rows of its own."""
        self._target.execute(f"delete from main.{quoted(form.table)}")  # noqa: S608 - quoted

    def _rows(self, table: str, tree: Tree) -> Iterator[Row]:
        for span in tree.pages:
            is_torn = False
            try:
                for row in walking.rows_of(self._file, span):
                    if row is None:
                        is_torn = True
                    else:
                        yield row
            except Damaged:
                is_torn = True
            self._torn[table] += is_torn

    def _fill_sequence(self, form: Form) -> None:
        """The last rowid of each table that never uses one twice: what was rescued, and never below what stands in the table."""
        counted = self._target.execute("select name, seq from main.sqlite_sequence").fetchall()
        self._fill(form)
        for name, last in counted:
            self._target.execute("update main.sqlite_sequence set seq = max(seq, ?) where name = ?", (last, name))
            absent = "not exists (select 1 from main.sqlite_sequence where name = ?1)"
            self._target.execute(f"insert into main.sqlite_sequence select ?1, ?2 where {absent}", (name, last))

    def _place_lost_pages(self) -> int:
        """Give back pages that nothing leads to where only one table can have lost them; returns the rows of the others."""
        holes = [(name, hole) for name, tree in self._trees.items() for hole in tree.holes if hole.is_inner and not tree.is_index]
        if not holes:
            return 0
        lost = walking.lost_pages(self._file, self._reached)
        if lost is None:
            self._notes.append("its list of free pages is damaged: pages that nothing leads to were left, they may hold what was deleted")
            return 0
        unplaced = 0
        for span in lost:
            rows = _all_rows(self._file, span)
            owners = self._owners(rows, holes) if rows else []
            if len(owners) == 1:
                with _transaction(self._target):
                    self._refused[owners[0]] += write(self._target, self._forms[owners[0]], rows)
            else:
                unplaced += len(rows)
        return unplaced

    def _owners(self, rows: Sequence[Row], holes: Sequence[tuple[str, Hole]]) -> list[str]:
        first, last = rows[0].rowid or 0, rows[-1].rowid or 0
        names = dict.fromkeys(name for name, hole in holes if hole.span.holds(first) and hole.span.holds(last))
        fitting = [name for name in names if self._forms[name].fits(rows)]
        return fitting if len(fitting) < 2 else [name for name in fitting if self._forms[name].has_all_columns(rows)]

    def _told(self, name: str) -> TableRescue:
        (rows,) = self._target.execute(f"select count(*) from main.{quoted(name)}").fetchone()  # noqa: S608 - quoted
        refused, torn = self._refused[name], self._torn.get(name, 0)
        known = self._counted(name)
        if known is not None and known >= rows + refused:
            return TableRescue(rows, known - rows - refused, refused, torn)
        return TableRescue(rows, None if torn else 0, refused, torn)

    def _counted(self, name: str) -> int | None:
        """How many rows the table had, from its indexes that are whole: the fewest that one of them says."""
        known = "select name from pragma_index_list(?) where partial = 0 and origin <> ?"
        counts = []
        for (index,) in self._source.execute(known, (name, "pk" if self._forms[name].is_index else "")).fetchall():
            with suppress(sqlite3.DatabaseError):
                counted = f"select count(*) from {quoted(name)} indexed by {quoted(index)}"  # noqa: S608 - quoted
                counts.append(int(self._source.execute(counted).fetchone()[0]))
        return min(counts, default=None)


def _all_rows(file: PageFile, span: Span) -> list[Row]:
    """The rows of a page that nothing leads to; none unless all of them can be read: such a page has nothing else to show for itself."""
    try:
        rows = list(walking.rows_of(file, span))
    except Damaged:
        return []
    return [] if None in rows else [row for row in rows if row is not None]


def _lengthened(copy: Path, header: Header) -> list[str]:
    """A file that is shorter than it says is opened by no SQLite: what is missing becomes empty pages."""
    size = copy.stat().st_size
    whole = max(header.pages, -(-size // header.page_size)) * header.page_size
    if size >= whole:
        return []
    os.truncate(copy, whole)
    is_cut = not os.path.lexists(databases.beside(copy, "-wal"))  # a log may hold the rest
    return [f"it ends after {size:,} bytes of {whole:,}"] if is_cut else []


def _damages(connection: sqlite3.Connection) -> list[str]:
    try:
        said = [" ".join(str(line).split()) for (line,) in connection.execute(f"pragma integrity_check({_DAMAGES})")]
    except sqlite3.DatabaseError as error:
        return [str(error)]
    return [] if said == ["ok"] else said


def _content_of(index: str) -> str:
    """Where a full-text index keeps the texts themselves, unless they are elsewhere."""
    return f"{index}_content"


def _index_words_anew(made: Path, names: Sequence[str]) -> list[str]:
    """Full-text indexes whose tables were damaged, or whose texts are not all there any more. Returns those that could not be."""
    notes = []
    for name in names:
        with closing(databases.make(made)) as connection:
            try:
                connection.execute(f"insert into {quoted(name)} ({quoted(name)}) values ('rebuild')")  # noqa: S608 - quoted
            except sqlite3.Error as error:
                notes.append(f"the full-text index {name} could not be made anew: {error}")
    return notes
