"""The guards of trees of files, of what a set's folder holds, and of directories that change places."""

from __future__ import annotations

from tests.harness.mutation import Guard

_EXCHANGE = "tests/unit/test_exchange.py::"
_FILES_REFUSALS = "tests/stores/test_files_refusals.py::"
_FOLDER = "tests/unit/test_folder.py::"
_GUARDED_DURABILITY = "tests/faults/test_guarded_durability.py::"
_GUARDED_SETS = "tests/faults/test_guarded_sets.py::"
_GUARDED_STORES = "tests/faults/test_guarded_stores.py::"
_POWERCUT = "tests/faults/test_powercut.py::"

FILES = (
    Guard(
        name="names are exchanged, not removed and renamed",
        protects="the live name is never empty, and the old side is kept",
        cases=("E-1",),
        file="storekeeper/stores/exchange.py",
        old="        durable.exchange(incoming, live)\n",
        new=(
            "        import shutil\n\n        shutil.rmtree(live) if live.is_dir() else live.unlink()\n        os.rename(incoming, live)\n"
        ),
        tests=(_EXCHANGE + "test_killed_twice_at_any_steps_it_ends_on_the_side_that_is_asked_for",),
    ),
    Guard(
        name="inodes noted before anything moves",
        protects="after a crash it is known which side a name carries",
        cases=("E-1",),
        file="storekeeper/stores/exchange.py",
        old="        log.note(key, incoming=inode_of(stage), live=inode_of(live))\n",
        new="",
        tests=(_EXCHANGE + "test_killed_twice_at_any_steps_it_ends_on_the_side_that_is_asked_for",),
    ),
    Guard(
        name="directories made durable after an exchange",
        protects="what a switch acknowledged survives a power cut",
        cases=("E-2", "J2"),
        file="storekeeper/stores/exchange.py",
        old="            if folder.is_dir():\n                durable.sync_directory(folder)\n",
        new="            pass\n",
        tests=(_GUARDED_DURABILITY + "test_a_switched_directory_is_durable_on_all_sides_before_the_switch_returns",),
    ),
    Guard(
        name="artefacts are made durable when they are written",
        protects="no power cut leaves a listed set with empty files",
        cases=("A6", "J1", "J2"),
        file="storekeeper/stores/sealing.py",
        old="    os.fchmod(descriptor, durable.SEALED_FILE)\n    os.fsync(descriptor)\n",
        new="    os.fchmod(descriptor, durable.SEALED_FILE)\n",
        tests=(
            _GUARDED_SETS + "test_everything_in_a_set_is_durable_before_the_set_has_its_name",
            _POWERCUT + "test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone",
        ),
    ),
    Guard(
        name="the directories of a tree are made durable",
        protects="no power cut takes the names of stored files",
        cases=("J1", "J2"),
        file="storekeeper/stores/folder.py",
        old="        writer.sync_directories()\n",
        new="",
        tests=(_GUARDED_SETS + "test_everything_in_a_set_is_durable_before_the_set_has_its_name",),
    ),
    Guard(
        name="a source is unchanged only if its ctime says so",
        protects="bytes changed behind an unchanged size and time are copied",
        cases=("A17",),
        file="storekeeper/stores/trees.py",
        old='"ctime_ns": status.st_ctime_ns, ',
        new="",
        tests=(_FOLDER + "test_equal_size_and_time_of_another_content_is_copied_because_ctime_tells",),
    ),
    Guard(
        name="a file written to just now is copied",
        protects="two writes within one tick are told apart",
        cases=("A17",),
        file="storekeeper/stores/trees.py",
        old="        elif is_settled(before, now_ns):\n",
        new="        elif True:\n",
        tests=(_FOLDER + "test_a_file_written_to_just_now_is_never_shared_for_its_time_may_not_change_with_the_next_write",),
    ),
    Guard(
        name="a file that changed while it was read says so",
        protects="torn contents are not said to be whole",
        cases=("A17",),
        file="storekeeper/stores/trees.py",
        old="        if source_of(os.fstat(source.fileno())) != identity:\n",
        new="        if False:\n",
        tests=(_GUARDED_SETS + "test_a_file_that_is_written_to_while_it_is_stored_is_listed_as_one_that_changed",),
    ),
    Guard(
        name="staged files of a tree are compared with their sums",
        protects="what rotted since it was verified never becomes live",
        cases=("E-10",),
        file="storekeeper/stores/files/staging.py",
        old='            if _copy(source, file, entry["size"]) != (entry["sha256"], entry["size"]):\n',
        new='            if _copy(source, file, entry["size"]) is None:\n',
        tests=(_GUARDED_STORES + "test_a_file_that_rotted_since_it_was_verified_is_not_staged[papers]",),
    ),
    Guard(
        name="hostile paths in a listing of files are refused",
        protects="a restore writes nothing outside",
        cases=("E-15",),
        file="storekeeper/stores/files/checking.py",
        old="    if not isinstance(path, str) or not is_below(path):\n",
        new="    if False:\n",
        tests=(_FILES_REFUSALS + "test_a_hostile_listing_is_found_and_nothing_is_written_outside",),
    ),
    Guard(
        name="a mount point is not moved aside",
        protects="what is mounted in a tree stays mounted",
        cases=("E-15",),
        file="storekeeper/stores/files/foreseeing.py",
        old="    found = mounts_in(paths, itself=True)\n    if found:\n",
        new="    found = mounts_in(paths, itself=True)\n    if False:\n",
        tests=(_FILES_REFUSALS + "test_a_mount_point_among_covered_entries_is_refused_and_one_at_the_root_is_not",),
    ),
    Guard(
        name="nothing mounted is ever removed",
        protects="a removal stops at another disk",
        cases=("E-15",),
        file="storekeeper/host/tree.py",
        old="    if status.st_dev != device:\n",
        new="    if False:\n",
        tests=(_FILES_REFUSALS + "test_nothing_that_is_mounted_in_a_place_is_ever_removed_with_it",),
    ),
    Guard(
        name="staged files are made durable",
        protects="a power cut after the switch leaves whole contents",
        cases=("E-2", "J2"),
        file="storekeeper/stores/files/store.py",
        old="            return staging.make(folder, scope, tree, self._rights(), lasting=True)\n",
        new="            return staging.make(folder, scope, tree, self._rights(), lasting=False)\n",
        tests=(_GUARDED_DURABILITY + "test_what_is_staged_is_durable_before_it_is_said_to_be_staged[papers]",),
    ),
    Guard(
        name="switched entries of a tree are made durable",
        protects="what a switch acknowledged survives a power cut",
        cases=("E-2", "J2"),
        file="storekeeper/stores/files/switching.py",
        old=(
            "        for folder in (self._place.live, self._place.new, self._place.old):\n"
            "            if folder.is_dir():\n"
            "                durable.sync_directory(folder)\n"
            "        self._keep"
        ),
        new="        self._keep",
        tests=(_GUARDED_DURABILITY + "test_names_that_a_switch_or_its_way_back_changed_are_durable_before_it_returns[papers]",),
    ),
    Guard(
        name="what a switch carries over is made durable",
        protects="a power cut leaves carried files on one of the sides",
        cases=("E-2", "J2"),
        file="storekeeper/stores/files/carrying.py",
        old="        os.fsync(directory)\n",
        new="        pass\n",
        tests=(_GUARDED_DURABILITY + "test_what_a_switch_carries_over_is_durable_in_both_places",),
    ),
    Guard(
        name="the plan of a switch is made durable",
        protects="after a power cut it is known which side a name carries",
        cases=("E-1", "E-2", "J2"),
        file="storekeeper/stores/files/places.py",
        old="            os.fsync(file.fileno())\n",
        new="",
        tests=(_GUARDED_DURABILITY + "test_the_plan_of_a_switch_is_durable_before_the_first_name_moves",),
    ),
    Guard(
        name="nothing is put back through a link",
        protects="an undo writes nothing outside of the tree, whatever the application has put in its way",
        cases=("F9",),
        file="storekeeper/stores/files/mending.py",
        old="            durable.rename(Path(here.handle(source)), Path(there.handle(target)))\n",
        new="            durable.rename(root / source, root / target)\n",
        tests=("tests/stores/test_files_mending.py::test_nothing_goes_back_through_a_link[under_the_last]",),
    ),
)
