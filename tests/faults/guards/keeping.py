"""The guards of retention: what is never removed."""

from __future__ import annotations

from tests.harness.mutation import Guard

_FORGETTING = "tests/consistency/test_forgetting.py::"
_GUARDED_SETS = "tests/faults/test_guarded_sets.py::"
_RESTORE_BACK = "tests/stores/test_restore_back.py::"
_RETENTION = "tests/faults/test_retention.py::"
_RETENTION_GUARDS = "tests/faults/test_retention_guards.py::"
_SETS_RETENTION = "tests/unit/test_sets_retention.py::"

KEEPING = (
    Guard(
        name="the newest survivor is read back before anything is removed",
        protects="the last good set does not go because a bad one is newer",
        cases=("C1", "C3"),
        file="storekeeper/sets/pruning.py",
        old="        _refuse_bad_survivor(sets, survivor, progress or Progress(), dry_run=dry_run)\n",
        new="        pass\n",
        tests=(_RETENTION + "test_nothing_is_removed_when_the_set_that_would_be_left_is_bad",),
        always=True,
    ),
    Guard(
        name="nothing is removed after a run that failed",
        protects="sixty days of failed backups cost no set",
        cases=("C2",),
        file="storekeeper/sets/retention.py",
        old="        if newest_run_failed:\n",
        new="        if False:\n",
        tests=(
            _SETS_RETENTION + "test_nothing_goes_after_a_run_that_failed",
            _RETENTION + "test_after_a_failed_run_nothing_is_removed",
        ),
    ),
    Guard(
        name="a clock behind the newest set is not believed",
        protects="1970 removes nothing",
        cases=("C5",),
        file="storekeeper/sets/retention.py",
        old="        if usable and usable[-1].time > self._now:\n",
        new="        if False:\n",
        tests=(_SETS_RETENTION + "test_a_clock_in_1970_removes_nothing_and_says_so",),
    ),
    Guard(
        name="a clock that jumped ahead is not believed",
        protects="a year too much removes nothing",
        cases=("C4",),
        file="storekeeper/sets/retention.py",
        old="        if jump := self._jump():\n",
        new="        if jump := None:\n",
        tests=(_SETS_RETENTION + "test_a_clock_that_jumps_a_year_ahead_and_back_removes_nothing_it_should_not",),
    ),
    Guard(
        name="the newest backups are kept whatever their age",
        protects="a policy of one day leaves a backup",
        cases=("C3", "C14"),
        file="storekeeper/sets/retention.py",
        old="        for entry in self._good[-self._keep.at_least :]:\n",
        new="        for entry in self._good[:0]:\n",
        tests=(_SETS_RETENTION + "test_the_newest_are_kept_whatever_their_age",),
    ),
    Guard(
        name="pinned sets are kept",
        protects="a user's pin outlives every rule",
        cases=("C13",),
        file="storekeeper/sets/retention.py",
        old="            if entry.pinned is not None and entry.pinned.holds(self._now):\n",
        new="            if False:\n",
        tests=(_SETS_RETENTION + "test_a_pinned_set_outlives_every_rule_until_its_pin_ends",),
    ),
    Guard(
        name="a set with somebody's file in it is left alone",
        protects="nothing goes that the program did not make",
        cases=("C9",),
        file="storekeeper/sets/pruning.py",
        old="if (name := _stranger_in(entries[set_id])) is not None}",
        new="if (name := None) is not None}",
        tests=(_RETENTION + "test_a_set_with_somebodys_file_in_it_is_left_alone_and_named",),
    ),
    Guard(
        name="a set's lock while it is removed",
        protects="a set that came into use after the decision stays",
        cases=("B9", "C10"),
        file="storekeeper/sets/pruning.py",
        old="        if free:\n            durable.ensure_directory(sets.trash)\n",
        new="        if free := True:\n            durable.ensure_directory(sets.trash)\n",
        tests=(_GUARDED_SETS + "test_a_set_that_is_held_at_the_last_moment_stays_where_it_is",),
    ),
    Guard(
        name="a set is moved to the trash in one step before it is removed",
        protects="a killed removal leaves no half set",
        cases=("C8",),
        file="storekeeper/sets/pruning.py",
        old="            durable.rename(entry.path, sets.trash / entry.id)\n",
        new="            durable.remove_tree(entry.path)\n",
        tests=(_RETENTION + "test_a_kill_while_sets_are_removed_leaves_each_whole_or_gone",),
    ),
    Guard(
        name="half of the sets go only when a person says so",
        protects="a mistake in the policy does not empty the repository",
        cases=("C12",),
        file="storekeeper/sets/pruning.py",
        old="        if needs_a_word and not dry_run:\n",
        new="        if False:\n",
        tests=(_RETENTION_GUARDS + "test_a_policy_that_would_drop_more_than_half_of_the_sets_shows_its_plan_and_stops",),
    ),
    Guard(
        name="what is no backup goes only when good ones are newer",
        protects="the last good sets stay whatever came after",
        cases=("C1",),
        file="storekeeper/sets/retention.py",
        old="        elif newer < self._keep.at_least:\n",
        new="        elif False:\n",
        tests=(_SETS_RETENTION + "test_what_is_no_backup_goes_with_its_age_when_enough_good_ones_are_newer",),
    ),
    Guard(
        name="what has no manifest is left alone",
        protects="nothing goes that may not be ours",
        cases=("C9",),
        file="storekeeper/sets/retention.py",
        old="        if not entry.has_manifest:\n",
        new="        if False:\n",
        tests=(_SETS_RETENTION + "test_what_has_no_manifest_is_never_removed",),
    ),
    Guard(
        name="old sides go only when a newer set is proven",
        protects="there is always a way to the data before",
        cases=("E-26",),
        file="storekeeper/restore/kept.py",
        old="        is_over = _is_past(journal, now) and journal.sequence < proven\n",
        new="        is_over = _is_past(journal, now)\n",
        tests=(_RESTORE_BACK + "test_old_sides_go_only_past_their_time_and_only_when_there_is_a_newer_proven_set",),
    ),
    Guard(
        name="only what has ended is forgotten",
        protects="a document half brought back keeps all that leads back",
        cases=("F9",),
        file="storekeeper/consistency/forgetting.py",
        old="    if step not in _OVER or made.changed() > before:\n",
        new="    if made.changed() > before:\n",
        tests=(_FORGETTING + "test_a_document_half_brought_back_keeps_all_that_leads_back",),
    ),
)
