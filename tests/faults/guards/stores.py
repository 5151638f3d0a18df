"""The guards of `stores/`: one moment of each store, whole copies, and switches that a crash cannot halve."""

from __future__ import annotations

from tests.harness.mutation import Guard

_GUARDED = "tests/faults/test_guarded_stores.py::"
_HOLD = "tests/stores/test_postgresql_hold.py::"
_SWAP = "tests/stores/test_postgresql_restore.py::"
_SQLITE = "tests/stores/test_sqlite_switch.py::"
_CHROMA = "tests/stores/test_chroma_live.py::"

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

STORES = (
    Guard(
        name="the cap of the lock's holder",
        protects="a stopped program does not block an application's writes",
        cases=("J9",),
        file="storekeeper/stores/_lockholder_program.py",
        old="        words = _command(taken + cap_s - time.monotonic())\n",
        new="        words = _command(None)\n",
        tests=(_GUARDED + "test_a_stopped_or_killed_program_lets_writers_go_on[stopped]",),
        always=True,
    ),
    Guard(
        name="the lock's holder ends with the program",
        protects="a killed program leaves no lock",
        cases=("J8",),
        file="storekeeper/stores/_lockholder_program.py",
        old="        if not byte:\n            return []\n",
        new="        if not byte:\n            time.sleep(0.1)\n            continue\n",
        tests=(_GUARDED + "test_a_stopped_or_killed_program_lets_writers_go_on[killed]",),
    ),
    Guard(
        name="the lock is held by a process of its own",
        protects="copying the file does not drop the lock on it",
        cases=("J8", "J12"),
        file="storekeeper/stores/lockholder.py",
        old='class LockHolder:\n    """One file\'s write lock: `start`,',
        new=_OWN_LOCK,
        tests=(_GUARDED + "test_a_copy_by_this_program_leaves_the_lock_that_other_processes_meet",),
        always=True,
    ),
    Guard(
        name="Chroma's second pass under the lock",
        protects="no copy whose SQLite file is newer than its index",
        cases=("A17", "J10", "J12"),
        file="storekeeper/stores/chroma/hold.py",
        old="        self._pass.under_lock()\n",
        new="        pass\n",
        tests=(_GUARDED + "test_what_was_written_after_the_first_pass_and_before_the_lock_is_in_the_copy",),
    ),
    Guard(
        name="an index that is being written is waited for",
        protects="no copy of a half written index",
        cases=("A17",),
        file="storekeeper/stores/chroma/copying.py",
        old="or self._half_written():\n",
        new="or []:\n",
        tests=(_CHROMA + "test_an_index_that_is_being_written_is_waited_for",),
    ),
    Guard(
        name="a Chroma server's start is compared with the switch",
        protects="a server that reads the old directory on is noticed",
        cases=("J11",),
        file="storekeeper/stores/chroma/store.py",
        old="        self._check_restarted(place)\n",
        new="",
        tests=("tests/stores/test_chroma_restore.py::test_a_server_that_was_not_restarted_after_the_switch_fails_the_probe",),
    ),
    Guard(
        name="a set from a newer Chroma is refused",
        protects="an older Chroma does not read a directory wrongly",
        cases=("B11", "E-11"),
        file="storekeeper/stores/chroma/store.py",
        old="        if catalogue.ahead_of(wanted, known):\n",
        new="        if False:\n",
        tests=("tests/stores/test_chroma.py::test_a_newer_directory_is_warned_of_at_backup_and_refused_at_restore",),
    ),
    Guard(
        name="paths of a Chroma listing stay inside",
        protects="a hostile set writes nothing outside",
        cases=("E-15",),
        file="storekeeper/stores/chroma/staging.py",
        old="""    if name.startswith("/") or {"", ".", ".."} & set(name.split("/")) or "\\0" in name:\n""",
        new="    if False:\n",
        tests=("tests/stores/test_chroma_restore.py::test_a_hostile_listing_writes_nothing_outside",),
    ),
    Guard(
        name="tables locked before the snapshot",
        protects="TRUNCATE between snapshot and dump loses no row",
        cases=("A17",),
        file="storekeeper/stores/postgresql/hold.py",
        old="""                connection.execute(sql.SQL("lock table {} in access share mode").format(names))\n""",
        new="                del names\n",
        tests=(_HOLD + "test_truncate_between_the_snapshot_and_the_dump_waits_and_no_row_is_lost",),
        always=True,
    ),
    Guard(
        name="tables that came after the locks are locked too",
        protects="TRUNCATE of a new table loses no row either",
        cases=("A17",),
        file="storekeeper/stores/postgresql/hold.py",
        old="                if {table.oid for table in seen} <= {table.oid for table in self.tables}:\n",
        new="                if True:\n",
        tests=(_HOLD + "test_a_table_made_between_the_locks_and_the_snapshot_is_locked_too",),
    ),
    Guard(
        name="`closed` is noted before the rename",
        protects="a crash after closing is taken up, and the database opened again",
        cases=("E-1",),
        file="storekeeper/stores/postgresql/side.py",
        old="""        log.note("closed", live=self.live, absent=absent)\n""",
        new="",
        tests=(_SWAP + "test_a_crash_at_any_step_of_the_swap_is_taken_up_in_either_direction",),
    ),
    Guard(
        name="ALLOW_CONNECTIONS false before sessions are ended",
        protects="clients that connect again at once do not keep the swap from happening",
        cases=("E-7",),
        file="storekeeper/stores/postgresql/side.py",
        old="            for name in touched:\n                _allow(connection, name, allowed=False)\n",
        new="",
        tests=(_GUARDED + "test_nobody_is_let_in_while_names_change_and_everybody_after_they_did_not",),
    ),
    Guard(
        name="both renames in one transaction",
        protects="the live name is never without a database",
        cases=("E-1",),
        file="storekeeper/stores/postgresql/side.py",
        old="    with connection.transaction():\n",
        new="    if True:\n",
        tests=(_GUARDED + "test_a_second_rename_that_fails_undoes_the_first",),
    ),
    Guard(
        name="what holds a database and is no session is refused",
        protects="a prepared transaction does not leave the live database closed",
        cases=("E-8",),
        file="storekeeper/stores/postgresql/side.py",
        old="        if held := [what for name, _ in moves for what in holders(connection, name)]:\n",
        new="        if held := []:\n",
        tests=(_SWAP + "test_what_holds_the_database_and_is_no_session_is_refused_and_named",),
    ),
    Guard(
        name="the live database is opened again after a swap that failed",
        protects="the application is not locked out",
        cases=("E-7",),
        file="storekeeper/stores/postgresql/side.py",
        old="        except Exception:\n            self._reopen(connection)\n            raise\n",
        new="        finally:\n            pass\n",
        tests=(_GUARDED + "test_nobody_is_let_in_while_names_change_and_everybody_after_they_did_not",),
    ),
    Guard(
        name="only a restore's own databases are dropped",
        protects="the live database is never dropped",
        cases=("E-26",),
        file="storekeeper/stores/postgresql/side.py",
        old="        if name == self.live or not _OURS.fullmatch(name):\n",
        new="        if False:\n",
        tests=(_SWAP + "test_only_a_database_that_a_restore_made_is_ever_dropped",),
    ),
    Guard(
        name="names are exchanged, not removed and renamed",
        protects="the live name is never empty, and the old side is kept",
        cases=("E-1",),
        file="storekeeper/stores/exchange.py",
        old="        durable.exchange_names(incoming, live)\n",
        new="        import shutil\n\n        shutil.rmtree(live) if live.is_dir() else live.unlink()\n        os.rename(incoming, live)\n",
        tests=("tests/unit/test_exchange.py::test_killed_twice_at_any_steps_it_ends_on_the_side_that_is_asked_for",),
    ),
    Guard(
        name="inodes noted before anything moves",
        protects="after a crash it is known which side a name carries",
        cases=("E-1",),
        file="storekeeper/stores/exchange.py",
        old="        log.note(key, incoming=inode_of(stage), live=inode_of(live))\n",
        new="",
        tests=("tests/unit/test_exchange.py::test_killed_twice_at_any_steps_it_ends_on_the_side_that_is_asked_for",),
    ),
    Guard(
        name="directories made durable after an exchange",
        protects="what a switch acknowledged survives a power cut",
        cases=("E-2", "J2"),
        file="storekeeper/stores/exchange.py",
        old="            if folder.is_dir():\n                durable.sync_directory(folder)\n",
        new="            pass\n",
        tests=(_GUARDED + "test_a_switched_directory_is_durable_on_all_sides_before_the_switch_returns",),
    ),
    Guard(
        name="the old side of a SQLite file is saved under the lock",
        protects="no acknowledged row is in neither side",
        cases=("E-22",),
        file="storekeeper/stores/sqlite/overwriting.py",
        old="            self._locked = True\n            self._save()\n            self._announce()\n",
        new="            self._locked = True\n            self._announce()\n",
        tests=(_GUARDED + "test_the_old_side_of_a_sqlite_file_is_durable_before_the_live_file_is_written",),
    ),
    Guard(
        name="a deadline for the lock of a SQLite file",
        protects="a reader that never ends does not hang a restore",
        cases=("J4",),
        file="storekeeper/stores/sqlite/overwriting.py",
        old='            raise _InTheWay("somebody else has it locked")\n',
        new="            return\n",
        tests=(_SQLITE + "test_a_reader_that_never_ends_makes_the_switch_fail_by_name_and_the_live_file_stays",),
    ),
    Guard(
        name="the marker that tells which side of a SQLite file is live",
        protects="what an application writes after a crash does not hide the side",
        cases=("J3", "E-1"),
        file="storekeeper/stores/sqlite/switching.py",
        old='            side = to if _has_table(self._place.live, newest["marker"]) else _other(to)\n',
        new="            side = to\n",
        tests=(_SQLITE + "test_a_switch_that_ended_at_any_note_is_finished_or_undone",),
    ),
    Guard(
        name="another shape of a SQLite file needs the file alone",
        protects="open connections do not read pages of another size",
        cases=("J5",),
        file="storekeeper/stores/sqlite/switching.py",
        old="        refuse_others(live, _ALONE, nobody_uses=self._nobody_uses)\n        with databases.explained(live)",
        new="        with databases.explained(live)",
        tests=(_SQLITE + "test_another_page_size_auto_vacuum_or_encoding_is_restored_when_nobody_has_the_file_open",),
    ),
    Guard(
        name="stale journals are set aside",
        protects="no old log is played into the file that takes the name",
        cases=("E-19",),
        file="storekeeper/stores/sqlite/arrival.py",
        old="    _move_companions(place.live, place.aside)\n",
        new="",
        tests=(_SQLITE + "test_a_stale_log_is_never_played_into_the_file_that_takes_the_name",),
    ),
    Guard(
        name="the staged SQLite file is made durable",
        protects="a power cut after the switch leaves whole contents",
        cases=("E-2", "J2"),
        file="storekeeper/stores/sqlite/overwriting.py",
        old="        durable.sync_file(part)\n        os.rename(part, self._saved)\n",
        new="        os.rename(part, self._saved)\n",
        tests=(_GUARDED + "test_the_old_side_of_a_sqlite_file_is_durable_before_the_live_file_is_written",),
    ),
    Guard(
        name="artefacts are made durable when they are written",
        protects="no power cut leaves a listed set with empty files",
        cases=("A6", "J1", "J2"),
        file="storekeeper/stores/folder.py",
        old="    os.fchmod(descriptor, durable.SEALED_FILE)\n    os.fsync(descriptor)\n",
        new="    os.fchmod(descriptor, durable.SEALED_FILE)\n",
        tests=(
            "tests/faults/test_guarded_sets.py::test_everything_in_a_set_is_durable_before_the_set_has_its_name",
            "tests/faults/test_powercut.py::test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone",
        ),
    ),
    Guard(
        name="the directories of a tree are made durable",
        protects="no power cut takes the names of stored files",
        cases=("J1", "J2"),
        file="storekeeper/stores/folder.py",
        old="        writer.sync_directories()\n",
        new="",
        tests=("tests/faults/test_guarded_sets.py::test_everything_in_a_set_is_durable_before_the_set_has_its_name",),
    ),
    Guard(
        name="only an unchanged source is linked to the set before",
        protects="bytes changed behind an unchanged size and time are copied",
        cases=("J30",),
        file="storekeeper/stores/folder.py",
        old='known.get("source") == identity and _link(',
        new='known.get("size") == identity["size"] and _link(',
        tests=("tests/faults/test_publishing.py::test_unchanged_files_are_hard_links_to_the_set_before_and_changed_ones_are_not",),
    ),
)
