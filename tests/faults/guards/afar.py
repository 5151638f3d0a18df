"""The guards of what is asked for from another machine: jobs that are found again, sets that travel, schedules that owe a run."""

from __future__ import annotations

from tests.harness.mutation import Guard

_DUE = "tests/unit/test_due.py::"
_JOBS = "tests/faults/test_jobs.py::"
_LEAVING = "tests/deploys/test_leaving.py::"
_OPERATIONS = "tests/deploys/test_operations.py::"
_PAIRS = "tests/faults/test_pairs.py::"
_PASSAGE = "tests/faults/test_passage.py::"

AFAR = (
    Guard(
        name="the same words are the same run",
        protects="nothing runs twice because a wire was cut",
        cases=("A22", "G2"),
        file="storekeeper/verbs/following.py",
        old="            if wanted.is_that_of(record) and record.log.exists() and (record.running or _is_answer(record)):\n",
        new="            if wanted.is_that_of(record) and record.log.exists() and record.running:\n",
        tests=(_JOBS + "test_an_answer_that_nobody_heard_is_handed_on_once_instead_of_another_run",),
    ),
    Guard(
        name="one starter at a time",
        protects="two who ask at once follow one run",
        cases=("A22",),
        file="storekeeper/verbs/following.py",
        old="            if wanted.is_that_of(record) and record.log.exists() and (record.running or _is_answer(record)):\n",
        new="            if False:\n",
        tests=(_JOBS + "test_two_who_ask_at_once_follow_the_same_run",),
    ),
    Guard(
        name="paths of a set that travels",
        protects="a host that sends writes nothing outside of the set",
        cases=("E-15",),
        file="storekeeper/sets/passage.py",
        old='    if not isinstance(path, str) or not is_below(path) or "\\0" in path or path.startswith("."):\n',
        new="    if not isinstance(path, str):\n",
        tests=(_PASSAGE + "test_a_path_that_is_none_of_a_sets_is_refused_and_nothing_is_written_there",),
    ),
    Guard(
        name="the end of a set that travels",
        protects="what was cut off on its way is no set",
        cases=("G2",),
        file="storekeeper/sets/passage.py",
        old='        if not data.endswith(b"\\n"):\n            raise Failed("the set was cut off on its way: nothing of it is kept")\n',
        new='        if not data.endswith(b"\\n"):\n            data = b\'{"end": "\' + self._digest.hexdigest().encode() + b\'"}\\n\'\n',
        tests=(_PASSAGE + "test_a_stream_that_is_cut_off_anywhere_leaves_nothing",),
    ),
    Guard(
        name="a run that goes on is no missed one",
        protects="what was missed is caught up with once",
        cases=("I6",),
        file="storekeeper/verbs/due.py",
        old="            if any(_is_run_of(record, entry, planned) for record in records):\n",
        new="            if any(_is_run_of(record, entry, planned) for record in records if not record.running):\n",
        tests=(_DUE + "test_a_run_that_goes_on_is_no_missed_one",),
    ),
    Guard(
        name="a run that was turned away is owed",
        protects="a schedule that met another run is carried out later",
        cases=("I6",),
        file="storekeeper/verbs/due.py",
        old=" and record.outcome != Outcome.BUSY and not record.interrupted\n",
        new="\n",
        tests=(_DUE + "test_a_run_that_failed_is_not_repeated_but_one_that_was_turned_away_or_cut_off_is",),
    ),
    Guard(
        name="nothing is owed of the time before",
        protects="a stack that was just declared does not begin with all its verbs at once",
        cases=("I6",),
        file="storekeeper/verbs/due.py",
        old="        settled = before.get(entry.text, now)\n",
        new="        settled = before.get(entry.text, datetime.fromtimestamp(0, tz=now.tzinfo))\n",
        tests=(_DUE + "test_nothing_is_owed_of_the_time_before_the_schedule_was_there",),
    ),
    Guard(
        name="the exit code of who leaves",
        protects="a deploy that was left is not called done",
        cases=("A22",),
        file="operations/leaving.py",
        old="    raise SystemExit(LEFT)\n",
        new="    raise SystemExit(0)\n",
        tests=(_LEAVING + "test_who_leaves_is_told_that_the_backup_goes_on_and_how_to_come_back_and_it_does",),
    ),
    Guard(
        name="an answer that could not be read decides nothing",
        protects="a host whose sets could not be listed is not taken for one without sets",
        cases=("G5",),
        file="operations/sets.py",
        old='        yield unread(f"which sets {stack} has")\n        return\n    newest = _newest(listed, ("proven",) if proven',
        new='        yield JobVerb("backup", stack)\n        return\n    newest = _newest(listed, ("proven",) if proven',
        tests=(_OPERATIONS + "test_sets_that_could_not_be_read_fail_that_host_only_and_are_never_taken_for_none",),
    ),
    Guard(
        name="a dry run looks again",
        protects="what another run removes meanwhile is no fault of the one that only looks",
        cases=("D5",),
        file="storekeeper/sets/pruning.py",
        old="        except (FileNotFoundError, SetGone) as error:\n            if not dry_run:\n",
        new="        except (FileNotFoundError, SetGone) as error:\n            if True:\n",
        tests=(_PAIRS + "test_sets_that_go_while_a_dry_run_looks_at_them_are_no_fault",),
    ),
    Guard(
        name="what was shown is what is done",
        protects="a restore puts back the set whose plan was read, also when another was taken while it was read",
        cases=("D5",),
        file="operations/sets.py",
        old='            set = shown.document["result"]["plan"]["set"]',
        new="            pass",
        tests=(_LEAVING + "test_a_restore_without_a_confirmation_does_what_it_has_shown_once_stack_and_host_are_typed",),
    ),
)
