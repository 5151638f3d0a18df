"""A restore over a database that cannot be read, killed at any line of its journal or any rename: the whole of one side."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from storekeeper.restore.journal import Journal, journals, unfinished
from storekeeper.sets.repository import SetEntry
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.stacks import Lab, in_child, killing
from tests.harness.unreadable import accepting, begin, files_of, leave_log_and_break

pytestmark = pytest.mark.lab(sqlites=2, services=1)


@pytest.mark.fault("E-1")
@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the line", "after the line"])
def test_kill_9_at_any_line_of_the_journal_leaves_the_whole_of_one_side(lab: Lab, after: bool, campaign: Campaign) -> None:
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)
    restore(lab.context, accepting(entry))
    lines = len(journals(lab.context.state)[-1].path.read_bytes().splitlines())
    ended, mixed, tried = set(), [], range(1, lines + 1, campaign.trials(5, 1))
    for number in tried:
        restore(lab.context, RestoreRequest(back=True)) if lab.readers["meta"]() == "first" else None
        assert files_of(main) == broken, number
        assert in_child(lambda number=number: killed(lab, entry, number, after=after)) == -signal.SIGKILL  # type: ignore[misc]
        ended.add(resume(lab.context).result["ended"])
        before = files_of(main) == broken and [lab.readers[name]() for name in ("meta", "papers")] == ["second", "second"]
        mixed += [] if before or lab.all_hold("first") else [(number, lab.sides())]
        assert unfinished(lab.context.state) is None
        assert lab.services[0].is_running()
    campaign.found(
        len(tried), f"kills {'after' if after else 'before'} a line, over a file that could not be read", f"{len(mixed)} mixed states"
    )
    assert mixed == []
    assert ended == {None, "abandoned", "done"} or ended == {"abandoned", "done"}


def killed(lab: Lab, entry: SetEntry, number: int, *, after: bool) -> None:
    Journal.write = killing(number, after=after)  # type: ignore[method-assign]
    restore(lab.context, accepting(entry))


@pytest.mark.fault("E-1")
@pytest.mark.parametrize("way", ["forward", "back"])
def test_kill_9_at_any_rename_leaves_the_whole_of_one_side(lab: Lab, way: str) -> None:
    """Between two lines of the journal, up to seven names change."""
    entry, main = begin(lab, leave_log_and_break)
    broken = files_of(main)
    hit = 0
    for number in range(1, 9):
        if way == "back":
            restore(lab.context, accepting(entry))
        code = in_child(lambda number=number: killed_at_rename(lab, entry, number, way))  # type: ignore[misc]
        hit += code == -signal.SIGKILL
        how = resume(lab.context).result["ended"]
        whole_of_before = files_of(main) == broken and lab.readers["papers"]() == "second"
        assert whole_of_before or lab.all_hold("first"), (number, how, sorted(os.listdir(main.parent)))
        if not whole_of_before:
            restore(lab.context, RestoreRequest(back=True))
        assert files_of(main) == broken
    assert hit >= 4


def killed_at_rename(lab: Lab, entry: SetEntry, number: int, way: str) -> None:
    from storekeeper.host import durable  # noqa: PLC0415 only this test cuts into it

    real, left = durable.rename, number

    def rename(source: Path, destination: Path) -> None:
        nonlocal left
        if ".main." in source.name + destination.name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        real(source, destination)

    durable.rename = rename
    restore(lab.context, accepting(entry) if way == "forward" else RestoreRequest(back=True))


@pytest.mark.control("E-19")
def test_control_a_log_that_stays_beside_the_other_file_is_played_into_it_and_the_readers_above_see_that(lab: Lab) -> None:
    """Why all parts move, and why the name stands empty meanwhile."""
    entry, main = begin(lab, leave_log_and_break)
    log = files_of(main)["-wal"][0]
    restore(lab.context, accepting(entry))
    with closing(sqlite3.connect(main)) as connection:
        connection.execute("pragma journal_mode=wal")
    assert lab.readers["main"]() == "first"
    main.with_name(main.name + "-shm").unlink(missing_ok=True)
    main.with_name(main.name + "-wal").write_bytes(log)
    try:
        found = lab.readers["main"]()
    except sqlite3.DatabaseError:
        found = "damaged"
    assert found != "first"
