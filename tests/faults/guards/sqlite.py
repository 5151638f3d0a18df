"""The guards of SQLite stores, and of the process that holds a lock for them and for Chroma."""

from __future__ import annotations

from tests.harness.mutation import Guard

_GUARDED_DURABILITY = "tests/faults/test_guarded_durability.py::"
_GUARDED_SQLITE = "tests/faults/test_guarded_sqlite.py::"
_GUARDED_STORES = "tests/faults/test_guarded_stores.py::"
_LOCKHOLDER = "tests/stores/test_lockholder.py::"
_SQLITE_CONTENTS = "tests/stores/test_sqlite_contents.py::"
_SQLITE_SWITCH_KILLED = "tests/stores/test_sqlite_switch_killed.py::"
_SQLITE_SWITCH = "tests/stores/test_sqlite_switch.py::"

# The same methods, with the lock in this process.
_OWN_LOCK = '''class LockHolder:
    """Holds the lock in this process."""

    pause_ms = 0.0

    def __init__(self, database: Path, cap_s: float = CAP_S) -> None:
        self._database = database

    def start(self) -> None:
        import sqlite3

        self._connection = sqlite3.connect(self._database, isolation_level=None, check_same_thread=False)

    def take(self, wait_s: float) -> datetime:
        self._connection.execute("begin immediate")
        return datetime.now(UTC)

    def release(self) -> None:
        self._connection.execute("rollback")

    def close(self) -> None:
        self._connection.close()


class Helped:
    """One file's write lock: `start`,'''

SQLITE = (
    Guard(
        name="the cap of the lock's holder",
        protects="a stopped program does not block an application's writes",
        cases=("J9",),
        file="storekeeper/stores/_lockholder_program.py",
        old="        words = _command(taken + cap_s - time.monotonic())\n",
        new="        words = _command(None)\n",
        tests=(_GUARDED_STORES + "test_a_stopped_or_killed_program_lets_writers_go_on[stopped]",),
        always=True,
    ),
    Guard(
        name="the lock's holder ends with the program",
        protects="a killed program leaves no lock",
        cases=("J8",),
        file="storekeeper/stores/_lockholder_program.py",
        old="        if not byte:\n            return []\n",
        new="        if not byte:\n            time.sleep(0.1)\n            continue\n",
        tests=(_GUARDED_STORES + "test_a_stopped_or_killed_program_lets_writers_go_on[killed]",),
    ),
    Guard(
        name="the lock is held by a process of its own",
        protects="copying the file does not drop the lock on it",
        cases=("J8", "J12"),
        file="storekeeper/stores/lockholder.py",
        old='class LockHolder:\n    """One file\'s write lock: `start`,',
        new=_OWN_LOCK,
        tests=(_GUARDED_STORES + "test_a_copy_by_this_program_leaves_the_lock_that_other_processes_meet",),
        always=True,
        how="the program takes the lock itself",
    ),
    Guard(
        name="the old side of a SQLite file is saved under the lock",
        protects="no acknowledged row is in neither side",
        cases=("E-22",),
        file="storekeeper/stores/sqlite/overwriting.py",
        old="            self._locked = True\n            self._save()\n            self._announce()\n",
        new="            self._locked = True\n            self._announce()\n",
        tests=(_GUARDED_DURABILITY + "test_the_old_side_of_a_sqlite_file_is_durable_before_the_live_file_is_written",),
    ),
    Guard(
        name="a deadline for the lock of a SQLite file",
        protects="a reader that never ends does not hang a restore",
        cases=("J4",),
        file="storekeeper/stores/sqlite/overwriting.py",
        old='            raise _InTheWay("somebody else has it locked")\n',
        new="            return\n",
        tests=(_GUARDED_SQLITE + "test_a_switch_that_a_reader_is_in_the_way_of_comes_to_an_end",),
    ),
    Guard(
        name="the marker that tells which side of a SQLite file is live",
        protects="what an application writes after a crash does not hide the side",
        cases=("J3", "E-1"),
        file="storekeeper/stores/sqlite/switching.py",
        old='            side = to if _has_table(self._place.live, newest["marker"]) else _other(to)\n',
        new="            side = to\n",
        tests=(_SQLITE_SWITCH_KILLED + "test_a_switch_that_ended_at_any_note_is_finished_or_undone",),
    ),
    Guard(
        name="who has a SQLite file open is looked for again under the lock",
        protects="open connections do not read pages of another size",
        cases=("J5",),
        file="storekeeper/stores/sqlite/switching.py",
        old="                refuse_newcomers(place.live, _ALONE)\n",
        new="                pass\n",
        tests=(_GUARDED_SQLITE + "test_who_opens_a_file_after_the_first_look_keeps_its_shape_from_changing",),
    ),
    Guard(
        name="stale journals are set aside",
        protects="no old log is played into the file that takes the name",
        cases=("E-19",),
        file="storekeeper/stores/sqlite/arrival.py",
        old="    _move_companions(place.live, place.aside)\n",
        new="",
        tests=(_GUARDED_SQLITE + "test_what_lies_beside_a_name_without_a_database_is_set_aside_before_a_file_takes_the_name",),
    ),
    Guard(
        name="the staged SQLite file is made durable",
        protects="a power cut after the switch leaves whole contents",
        cases=("E-2", "J2"),
        file="storekeeper/stores/sqlite/overwriting.py",
        old="        durable.sync_file(part)\n        os.rename(part, self._saved)\n",
        new="        os.rename(part, self._saved)\n",
        tests=(_GUARDED_DURABILITY + "test_the_old_side_of_a_sqlite_file_is_durable_before_the_live_file_is_written",),
    ),
    Guard(
        name="the integrity of every page and row of a SQLite file",
        protects="a damaged file is no backup",
        cases=("B1", "B2"),
        file="storekeeper/stores/sqlite/contents.py",
        old='    if found != ["ok"]:\n',
        new="    if False:\n",
        tests=(_SQLITE_CONTENTS + "test_an_index_that_lost_an_entry_is_found_although_quick_check_finds_nothing",),
    ),
    Guard(
        name="foreign keys lead where they led",
        protects="a copy that lost rows is found",
        cases=("B1",),
        file="storekeeper/stores/sqlite/store.py",
        old='            if contents.dangling(connection) != record.details.get("dangling"):\n',
        new="            if False:\n",
        tests=(_SQLITE_CONTENTS + "test_a_key_that_leads_nowhere_is_backed_up_with_a_warning_and_a_new_one_is_damage",),
    ),
    Guard(
        name="a lock that was lost is told",
        protects="a copy that was not protected is no backup",
        cases=("J9",),
        file="storekeeper/stores/lockholder.py",
        old=('        if word == "released":\n            self._pause_ms += float(rest)\n            return\n'),
        new="        if True:\n            return\n",
        tests=(_LOCKHOLDER + "test_a_stopped_program_loses_the_lock_at_the_cap_and_learns_it",),
    ),
    Guard(
        name="our own locks do not live on in the lock's holder",
        protects="the next run is not kept out by a helper",
        cases=("D2",),
        file="storekeeper/stores/lockholder.py",
        old="self._process = processes.start(processes.Command(argv, keeps_locks=False)",
        new="self._process = processes.start(processes.Command(argv)",
        tests=(_LOCKHOLDER + "test_our_own_locks_do_not_live_on_in_the_process",),
    ),
)
