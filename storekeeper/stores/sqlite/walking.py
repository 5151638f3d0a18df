"""The b-trees of a damaged SQLite file: which pages hold a table's rows, and where the way to others is lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from storekeeper.stores.sqlite.decoding import Value, values_of
from storekeeper.stores.sqlite.pages import INDEX_INNER, INDEX_LEAF, TABLE_INNER, TABLE_LEAF, Damaged, Node, PageFile


@dataclass(frozen=True)
class Span:
    """A page that rows with a rowid above `low` and up to `high` stand on; None is no bound."""

    page: int
    low: int | None = None
    high: int | None = None

    def holds(self, rowid: int) -> bool:
        return (self.low is None or rowid > self.low) and (self.high is None or rowid <= self.high)


@dataclass(frozen=True)
class Hole:
    """Where a page should be. With `is_inner` it may have led to others, which nothing leads to now."""

    span: Span
    is_inner: bool


@dataclass
class Tree:
    """The pages of one table. Those of one without rowid hold rows on inner pages too."""

    is_index: bool
    pages: list[Span] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)


@dataclass(frozen=True)
class Root:
    """The first page of a table, whether it has no rowid, and how many columns a row of it may have."""

    page: int
    is_index: bool
    columns: int


@dataclass(frozen=True)
class Row:
    rowid: int | None
    values: list[Value]


def trees(file: PageFile, roots: Mapping[str, Root]) -> tuple[dict[str, Tree], set[int]]:
    """The tree of each table, by name, and beside them all pages that were reached."""
    reached = {root.page for root in roots.values()}
    return {name: _walk(file, root, reached) for name, root in roots.items()}, reached


def _walk(file: PageFile, root: Root, reached: set[int]) -> Tree:
    """A page belongs to whoever reached it first: no page is read twice, and no circle is walked."""
    tree = Tree(root.is_index)
    inner, leaf = (INDEX_INNER, INDEX_LEAF) if root.is_index else (TABLE_INNER, TABLE_LEAF)
    waiting: list[tuple[Span, int | None]] = [(Span(root.page), None)]
    while waiting:
        span, expected = waiting.pop()
        try:
            node = file.node(span.page)
            if node.kind not in ((inner, leaf) if expected is None else (expected,)):
                raise Damaged(f"page {span.page} is another than it should be")
            children = [] if node.is_leaf else _children(file, node, span)
            if node.kind == TABLE_LEAF:
                _refuse_strangers(file, node, span, root.columns)
        except Damaged:
            tree.holes.append(Hole(span, is_inner=expected != leaf))
            continue
        if node.is_leaf or tree.is_index:
            tree.pages.append(span)
        wanted = _kind_of(file, children, inner, leaf)
        for each in children:
            if each.page in reached or not 1 < each.page <= file.count:
                tree.holes.append(Hole(each, is_inner=wanted != leaf))
            else:
                reached.add(each.page)
                waiting.append((each, wanted))
    return tree


def _refuse_strangers(file: PageFile, node: Node, span: Span, columns: int) -> None:
    """Raises Damaged for a page that is whole and belongs elsewhere, as a disk leaves it that has written to the wrong place."""
    for start in {*node.starts[:1], *node.starts[-1:]}:
        rowid, found = file.peek(node, start)
        if not span.holds(rowid) or found > columns:
            raise Damaged(f"page {node.number} has rows of another")


def _children(file: PageFile, node: Node, span: Span) -> list[Span]:
    if node.kind == INDEX_INNER:
        return [*(Span(file.whole(node, start).child or 0) for start in node.starts), Span(node.right or 0)]
    found, low = [], span.low
    for page, key in node.children():
        if key is not None and not span.holds(key):
            raise Damaged(f"page {node.number} has keys of another")
        found.append(Span(page, low, span.high if key is None else key))
        low = key
    return found


def _kind_of(file: PageFile, children: list[Span], inner: int, leaf: int) -> int | None:
    """What the children are: all of them are at one depth, so that the whole ones tell of the others. None where none is whole."""
    kinds = [kind for kind in (file.kind(each.page) for each in children) if kind in (inner, leaf)]
    return max((inner, leaf), key=kinds.count) if kinds else None


def rows_of(file: PageFile, span: Span) -> Iterator[Row | None]:
    """The rows of one page, in order; None for each that cannot be read, or is no row of this page. Raises Damaged for no page at all."""
    node, last = file.node(span.page), span.low
    for start in node.starts:
        try:
            cell = file.whole(node, start)
            if cell.rowid is not None and not Span(span.page, last, span.high).holds(cell.rowid):
                raise Damaged("a row stands where it cannot be")
            values = values_of(cell.payload, file.header.encoding)
        except Damaged:
            yield None
        else:
            last = last if cell.rowid is None else cell.rowid
            yield Row(cell.rowid, values)


def lost_pages(file: PageFile, reached: set[int]) -> Iterator[Span] | None:
    """The pages with rows of tables that nothing leads to. None where it cannot be told which pages only hold what was deleted."""
    free = file.free_pages()
    if free is None:
        return None
    return (Span(number) for number in file.numbers() if number not in reached and number not in free and file.kind(number) == TABLE_LEAF)
