"""The guards of Chroma stores: a copy that is whole, and a server that reads it."""

from __future__ import annotations

from tests.harness.mutation import Guard

_CHROMA = "tests/stores/test_chroma.py::"
_CHROMA_LIVE = "tests/stores/test_chroma_live.py::"
_CHROMA_RESTORE = "tests/stores/test_chroma_restore.py::"
_GUARDED_DURABILITY = "tests/faults/test_guarded_durability.py::"
_GUARDED_STORES = "tests/faults/test_guarded_stores.py::"

CHROMA = (
    Guard(
        name="Chroma's second pass under the lock",
        protects="no copy whose SQLite file is newer than its index",
        cases=("A17", "J10", "J12"),
        file="storekeeper/stores/chroma/hold.py",
        old="        self._pass.under_lock()\n",
        new="        pass\n",
        tests=(_GUARDED_STORES + "test_what_was_written_after_the_first_pass_and_before_the_lock_is_in_the_copy",),
    ),
    Guard(
        name="an index that is being written is waited for",
        protects="no copy of a half written index",
        cases=("A17",),
        file="storekeeper/stores/chroma/copying.py",
        old="or self._half_written():\n",
        new="or []:\n",
        tests=(_CHROMA_LIVE + "test_an_index_that_is_being_written_is_waited_for",),
    ),
    Guard(
        name="a Chroma server's start is compared with the switch",
        protects="a server that reads the old directory on is noticed",
        cases=("J11",),
        file="storekeeper/stores/chroma/store.py",
        old="        self._check_restarted(place)\n",
        new="",
        tests=(_CHROMA_RESTORE + "test_a_server_that_was_not_restarted_after_the_switch_fails_the_probe",),
    ),
    Guard(
        name="a set from a newer Chroma is refused",
        protects="an older Chroma does not read a directory wrongly",
        cases=("B11", "E-11"),
        file="storekeeper/stores/chroma/store.py",
        old="        if catalogue.ahead_of(wanted, known):\n",
        new="        if False:\n",
        tests=(_CHROMA + "test_a_newer_directory_is_warned_of_at_backup_and_refused_at_restore",),
    ),
    Guard(
        name="paths of a Chroma listing stay inside",
        protects="a hostile set writes nothing outside",
        cases=("E-15",),
        file="storekeeper/stores/chroma/staging.py",
        old="    if not is_below(name):\n",
        new="    if False:\n",
        tests=(_CHROMA_RESTORE + "test_a_hostile_listing_writes_nothing_outside",),
    ),
    Guard(
        name="staged files of Chroma are compared with their sums",
        protects="what rotted since it was verified never becomes live",
        cases=("E-10", "B7"),
        file="storekeeper/stores/chroma/staging.py",
        old='    if sha256 != entry["sha256"]:\n',
        new="    if False:\n",
        tests=(_CHROMA_RESTORE + "test_a_set_that_rotted_since_it_was_verified_is_never_staged_as_good",),
    ),
    Guard(
        name="staged files of Chroma are made durable",
        protects="a power cut after the switch leaves whole contents",
        cases=("E-2", "J2"),
        file="storekeeper/stores/chroma/staging.py",
        old="    durable.sync_file(target)\n",
        new="",
        tests=(_GUARDED_DURABILITY + "test_what_is_staged_is_durable_before_it_is_said_to_be_staged[vectors]",),
    ),
    Guard(
        name="staged directories of Chroma are made durable",
        protects="a power cut after the switch takes no segment",
        cases=("E-2", "J2"),
        file="storekeeper/stores/chroma/staging.py",
        old="        durable.sync_directory(path)\n",
        new="",
        tests=(_GUARDED_DURABILITY + "test_what_is_staged_is_durable_before_it_is_said_to_be_staged[vectors]",),
    ),
)
