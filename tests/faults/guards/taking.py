"""The guards of taking and proving sets: what may have a name, where it may stand, and what is called proven."""

from __future__ import annotations

from tests.harness.mutation import Guard

_GUARDED_SETS = "tests/faults/test_guarded_sets.py::"
_GUARDED_STORES = "tests/faults/test_guarded_stores.py::"
_PROGRAM = "tests/faults/test_program.py::"
_PUBLISHING = "tests/faults/test_publishing.py::"
_REPOSITORY = "tests/faults/test_repository.py::"
_SCRATCH = "tests/faults/test_scratch.py::"
_SETS_NAMES = "tests/unit/test_sets_names.py::"
_SETS_REPOSITORY = "tests/unit/test_sets_repository.py::"
_SETS_VERIFICATION = "tests/unit/test_sets_verification.py::"

TAKING = (
    Guard(
        name="read-back after writing",
        protects="bytes that rotted on the way to the disk are in no set",
        cases=("A8",),
        file="storekeeper/sets/readingback.py",
        old="            _refuse_faults(ahead.findings(name))\n",
        new="            ahead.findings(name)\n",
        tests=(_PUBLISHING + "test_bytes_that_rot_between_write_and_read_back_are_found_and_nothing_is_published",),
        always=True,
    ),
    Guard(
        name="decoding before publishing",
        protects="a dump that does not decode is no backup, whatever its sum",
        cases=("A16", "B5"),
        file="storekeeper/sets/readingback.py",
        old="                    stores[name].verify(folder / name, manifest.stores[name])\n",
        new="                    pass\n",
        tests=(_GUARDED_SETS + "test_what_does_not_decode_is_not_published",),
    ),
    Guard(
        name="a name only when the set is whole",
        protects="whoever sees a set sees all of it",
        cases=("A2", "J1"),
        file="storekeeper/sets/stacksets.py",
        old="        durable.write_file(self.path / MANIFEST, manifest.to_bytes(), durable.SEALED_FILE)\n",
        new=(
            "        final = self._sets.path / self.id\n"
            "        os.rename(self.path, final)\n"
            "        durable.write_file(final / MANIFEST, manifest.to_bytes(), durable.SEALED_FILE)\n"
            "        self._published = True\n"
            "        return self._sets.entry(self.id)\n"
        ),
        tests=(
            _REPOSITORY + "test_a_publish_that_fails_at_any_step_is_withdrawn",
            _REPOSITORY + "test_a_killed_publish_leaves_a_partial_that_the_next_run_sweeps",
        ),
    ),
    Guard(
        name="the id of the repository",
        protects="another disk in its place is not written to",
        cases=("A24",),
        file="storekeeper/sets/repository.py",
        old="        elif found != known:\n",
        new="        elif False:\n",
        tests=(_REPOSITORY + "test_another_disk_in_its_place_is_refused_with_both_ids",),
    ),
    Guard(
        name="an empty mount point is no repository",
        protects="the root disk does not fill with sets while the backup disk is away",
        cases=("A24",),
        file="storekeeper/sets/repository.py",
        old="        if found is None:\n            if known is not None or not may_create:\n",
        new="        if found is None:\n            if not may_create:\n",
        tests=(_REPOSITORY + "test_an_unmounted_repository_is_refused_and_the_root_disk_stays_empty",),
    ),
    Guard(
        name="a repository that others can write is refused",
        protects="nobody else can put a set there",
        cases=("A25",),
        file="storekeeper/sets/repository.py",
        old="    if status.st_mode & _OTHERS_WRITE:\n",
        new="    if False:\n",
        tests=(_REPOSITORY + "test_a_repository_that_others_can_write_is_refused_with_its_mode",),
    ),
    Guard(
        name="a store that lost nine tenths fails the backup",
        protects="a dump of nothing that ended well does not become the newest backup",
        cases=("A16",),
        file="storekeeper/sets/shrinkage.py",
        old="        if has < had * _UNBELIEVABLE and name not in accepted:\n",
        new="        if False:\n",
        tests=(_PUBLISHING + "test_a_store_that_lost_nine_tenths_fails_the_backup_unless_a_person_accepts_it",),
    ),
    Guard(
        name="the words that may name a set",
        protects="a hostile name reaches no path",
        cases=("E-14", "H10"),
        file="storekeeper/sets/names.py",
        old="    if _START.fullmatch(name):\n",
        new="    if True:\n",
        tests=(_SETS_NAMES + "test_a_hostile_name_is_refused_in_one_short_line_that_repeats_at_most_60_characters",),
    ),
    Guard(
        name="a set's lock while it is used",
        protects="a set is not removed under a restore, a proof or a verify",
        cases=("B9", "C10"),
        file="storekeeper/sets/stacksets.py",
        old="                shared = held.enter_context(_held_within(_SETTLE, entry.path, shared=True))\n",
        new="                shared = True\n",
        tests=(_SETS_REPOSITORY + "test_a_set_in_use_is_not_free_and_a_free_one_is",),
    ),
    Guard(
        name="the lock of a set in the making",
        protects="a living run is not swept by another",
        cases=("C11",),
        file="storekeeper/sets/stacksets.py",
        old="if held.enter_context(locks.hold_directory(self.path / name))]",
        new="if (self.path / name).is_dir()]",
        tests=(
            _REPOSITORY + "test_a_partial_without_its_lock_is_swept_and_one_of_a_running_process_is_not",
            _PUBLISHING + "test_a_living_run_is_not_swept_by_another",
        ),
    ),
    Guard(
        name="what was not published is withdrawn",
        protects="a failed run gives its room back",
        cases=("A4", "A5"),
        file="storekeeper/sets/stacksets.py",
        old="                    partial.withdraw(error)\n",
        new="                    pass\n",
        tests=(_SETS_REPOSITORY + "test_a_run_that_fails_leaves_nothing_behind",),
    ),
    Guard(
        name="digests compared by a proof",
        protects="an archive that loads but holds other data is not proven",
        cases=("B5", "B10"),
        file="storekeeper/verbs/prove.py",
        old='        refuse_difference(found, record, "what was restored")\n',
        new="        del found\n",
        tests=(_GUARDED_SETS + "test_a_set_that_restores_to_other_contents_than_it_says_is_not_proven",),
    ),
    Guard(
        name="the order of sets is their number",
        protects="a clock that goes back makes no older set the latest",
        cases=("C4", "C6"),
        file="storekeeper/sets/stacksets.py",
        old="        found = sorted((parsed.sequence, parsed.time, name) for name, parsed in self._named(self.path))\n",
        new=(
            "        found = sorted(\n"
            "            ((parsed.sequence, parsed.time, name) for name, parsed in self._named(self.path)), key=lambda each: each[1]\n"
            "        )\n"
        ),
        tests=(_SETS_REPOSITORY + "test_sets_are_ordered_by_number_and_not_by_the_clock",),
    ),
    Guard(
        name="only a good set is linked to",
        protects="rot in one set does not reach the next",
        cases=("B1",),
        file="storekeeper/sets/stacksets.py",
        old="            if entry.usable:\n                return entry\n",
        new="            if True:\n                return entry\n",
        tests=(_SETS_VERIFICATION + "test_a_damaged_set_is_not_linked_to",),
    ),
    Guard(
        name="no link is a set",
        protects="a pointer does not choose what is restored",
        cases=("J29",),
        file="storekeeper/sets/stacksets.py",
        old="                if (parsed := read_id(each.name)) and each.is_dir(follow_symlinks=False):\n",
        new="                if (parsed := read_id(each.name)) and each.is_dir():\n",
        tests=(_REPOSITORY + "test_no_link_is_ever_taken_for_a_set",),
    ),
    Guard(
        name="a repository behind a link is refused",
        protects="the sets are where they are said to be",
        cases=("A25",),
        file="storekeeper/sets/repository.py",
        old="    if stat.S_ISLNK(status.st_mode):\n",
        new="    if False:\n",
        tests=(_REPOSITORY + "test_a_link_and_a_file_are_no_repository",),
    ),
    Guard(
        name="a repository of somebody else is refused",
        protects="nobody else decides what is restored",
        cases=("A25",),
        file="storekeeper/sets/repository.py",
        old="    if status.st_uid != os.geteuid():\n",
        new="    if False:\n",
        tests=(_REPOSITORY + "test_a_repository_of_somebody_else_is_refused_with_both_users",),
    ),
    Guard(
        name="a full scratch disk tells nothing of the set",
        protects="a good set is not disqualified by a disk",
        cases=("B10",),
        file="storekeeper/verbs/prove.py",
        old="            untried = not isinstance(error, Failed) or space.is_for_want_of_room(error)\n",
        new="            untried = not isinstance(error, Failed)\n",
        tests=(_PROGRAM + "test_a_scratch_disk_that_is_full_tells_nothing_of_the_set",),
    ),
    Guard(
        name="the scratch place of a living proof is left alone",
        protects="two proofs do not remove each other's copies",
        cases=("C11",),
        file="storekeeper/sets/scratch.py",
        old="            if dead:\n",
        new="            if True:\n",
        tests=(_SCRATCH + "test_the_scratch_place_of_a_living_proof_and_what_we_did_not_make_are_left_alone",),
    ),
    Guard(
        name="every hold is closed, however the point ends",
        protects="a store that failed leaves no other locked",
        cases=("A3", "A14"),
        file="storekeeper/sets/point.py",
        old="            open_holds.callback(hold.close)\n",
        new="            pass\n",
        tests=(_GUARDED_STORES + "test_a_store_that_cannot_be_pinned_leaves_no_other_store_locked",),
    ),
    Guard(
        name="locks before snapshots",
        protects="all stores stand still at one moment",
        cases=("A17",),
        file="storekeeper/sets/point.py",
        old="sorted(holds.items(), key=lambda item: item[1].order)",
        new="sorted(holds.items(), key=lambda item: -item[1].order)",
        tests=(_GUARDED_STORES + "test_locks_are_had_before_snapshots_are_taken_and_both_before_listings",),
    ),
)
