"""The guards of `host/`, `stack/` and `cli/`: what reaches the disk, who else is there, and what a person has said."""

from __future__ import annotations

from tests.harness.mutation import Guard

_CLI_RUNS = "tests/unit/test_cli_runs.py::"
_DURABLE = "tests/unit/test_durable.py::"
_GIVING_UP = "tests/unit/test_giving_up.py::"
_GUARDED_RESTORE = "tests/faults/test_guarded_restore.py::"
_GUARDED_STORES = "tests/faults/test_guarded_stores.py::"
_HOLDERS = "tests/unit/test_holders.py::"
_IDENTITY = "tests/unit/test_identity.py::"
_LOCKS = "tests/unit/test_locks.py::"
_POSTGRESQL_REFUSALS = "tests/stores/test_postgresql_refusals.py::"
_POWERCUT = "tests/faults/test_powercut.py::"
_REPOSITORY = "tests/faults/test_repository.py::"
_SETS_MANIFEST = "tests/unit/test_sets_manifest.py::"
_SETS_REPOSITORY = "tests/unit/test_sets_repository.py::"
_SPACE = "tests/unit/test_space.py::"
_STACK_SECRETS = "tests/unit/test_stack_secrets.py::"

HOST = (
    Guard(
        name="fsync of a file before it gets its name",
        protects="no power cut leaves a name on an empty file",
        cases=("J1", "J2", "A6"),
        file="storekeeper/host/durable.py",
        old="            file.flush()\n            os.fsync(file.fileno())\n",
        new="            file.flush()\n",
        tests=(
            _DURABLE + "test_a_file_is_on_disk_before_its_name_and_its_name_before_we_go_on",
            _POWERCUT + "test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone",
        ),
        always=True,
    ),
    Guard(
        name="fsync of a directory",
        protects="no power cut takes a name that was acknowledged",
        cases=("J1", "J2", "E-2"),
        file="storekeeper/host/durable.py",
        old="os.O_RDONLY | os.O_DIRECTORY)\n    try:\n        os.fsync(descriptor)\n",
        new="os.O_RDONLY | os.O_DIRECTORY)\n    try:\n        pass\n",
        tests=(
            _DURABLE + "test_a_renamed_directory_is_durable_on_both_sides",
            _POWERCUT + "test_after_a_power_cut_no_listed_set_is_invalid_and_no_acknowledged_one_is_gone",
        ),
    ),
    Guard(
        name="fsync of the parent after a rename",
        protects="a published set is still listed after a power cut",
        cases=("J1", "J2"),
        file="storekeeper/host/durable.py",
        old="    os.rename(source, destination)\n    sync_directory(destination.parent)\n",
        new="    os.rename(source, destination)\n",
        tests=(_DURABLE + "test_a_renamed_directory_is_durable_on_both_sides",),
    ),
    Guard(
        name="a rename that never replaces",
        protects="nothing that stands under a name is lost to another",
        cases=("A23",),
        file="storekeeper/host/durable.py",
        old="    if os.path.lexists(destination):\n",
        new="    if False:\n",
        tests=(_DURABLE + "test_a_rename_never_replaces",),
    ),
    Guard(
        name="a temporary file is a new one",
        protects="another user gets nothing written or shown that he has put a name for",
        cases=("H11",),
        file="storekeeper/host/durable.py",
        old="    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW\n",
        new="    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC\n",
        tests=(
            _DURABLE + "test_a_link_in_the_place_of_the_temporary_file_is_not_followed",
            _DURABLE + "test_a_file_that_somebody_else_has_open_in_the_place_of_the_temporary_one_is_not_written_to",
        ),
    ),
    Guard(
        name="directories that only their owner may enter",
        protects="no other local user reads a backup",
        cases=("H12",),
        file="storekeeper/host/durable.py",
        old="PRIVATE_DIRECTORY = 0o700",
        new="PRIVATE_DIRECTORY = 0o755",
        tests=(
            _SETS_REPOSITORY + "test_a_published_set_is_whole_private_and_sealed",
            _REPOSITORY + "test_no_other_user_can_read_a_set",
        ),
    ),
    Guard(
        name="the lock of a stack",
        protects="one run at a time works on a stack",
        cases=("D1", "D6"),
        file="storekeeper/host/locks.py",
        old="        if not _try_for(_GLANCE, descriptor, fcntl.LOCK_EX):\n",
        new="        if False:\n",
        tests=(
            _LOCKS + "test_an_old_lock_is_never_broken",
            _CLI_RUNS + "test_of_ten_backups_at_once_one_runs_and_nine_say_by_whom_and_since_when",
        ),
    ),
    Guard(
        name="locks inherited by the programs that work under them",
        protects="a killed run's dump does not meet the next run",
        cases=("D2",),
        file="storekeeper/host/processes.py",
        old="pass_fds=[*(locks.inheritable() if command.keeps_locks else ()), *command.hands],",
        new="pass_fds=command.hands,",
        tests=(_LOCKS + "test_a_killed_parent_does_not_free_the_lock_of_its_living_child",),
        always=True,
    ),
    Guard(
        name="no lock on a network file system",
        protects="two hosts never work on one repository at once",
        cases=("A25",),
        file="storekeeper/host/locks.py",
        old="    if kind in _NETWORK_FILE_SYSTEMS:\n",
        new="    if False:\n",
        tests=(_LOCKS + "test_a_network_file_system_is_refused_by_name",),
    ),
    Guard(
        name="the exit code of every program of a pipeline",
        protects="a dump that was killed is no backup",
        cases=("A1",),
        file="storekeeper/host/processes.py",
        old="        if code != 0:\n            raise _failure(self.command",
        new="        if False:\n            raise _failure(self.command",
        tests=(_POSTGRESQL_REFUSALS + "test_a_dump_that_is_killed_fails_the_store_and_leaves_no_good_record",),
    ),
    Guard(
        name="room foreseen before anything is touched",
        protects="a disk is not filled half way by what could not fit",
        cases=("A7",),
        file="storekeeper/host/space.py",
        old="    if short:\n",
        new="    if False:\n",
        tests=(_SPACE + "test_two_directories_of_one_file_system_need_their_sum",),
    ),
    Guard(
        name="what cannot be looked at counts as in use",
        protects="a hidden process does not go on writing to a side that was taken away",
        cases=("E-19",),
        file="storekeeper/host/holders.py",
        old="    if hidden and not found:\n",
        new="    if False:\n",
        tests=(_HOLDERS + "test_without_a_lease_a_hidden_process_makes_the_answer_unknown",),
    ),
    Guard(
        name="the mode of a secret's file",
        protects="a password that others may read is not used",
        cases=("A13", "H9"),
        file="storekeeper/stack/secrets.py",
        old="    if mode & _FOR_OTHERS:\n",
        new="    if False:\n",
        tests=(_STACK_SECRETS + "test_a_file_that_others_may_reach_is_refused_and_named_with_its_mode",),
    ),
    Guard(
        name="the owner of a secret's file",
        protects="another user does not choose the password",
        cases=("H9",),
        file="storekeeper/stack/secrets.py",
        old="    if status.st_uid not in (0, os.geteuid()):\n",
        new="    if False:\n",
        tests=(_STACK_SECRETS + "test_a_file_of_another_user_is_refused",),
    ),
    Guard(
        name="--confirm names this stack and this host",
        protects="a command that was meant for another host changes nothing",
        cases=("E-16",),
        file="storekeeper/cli/confirm.py",
        old="    if words.confirm is not None and words.confirm != meant:\n",
        new="    if False:\n",
        tests=(_CLI_RUNS + "test_live_data_is_not_replaced_without_a_word_where_nobody_can_be_asked",),
    ),
    Guard(
        name="a word from a person before live data is replaced",
        protects="nobody restores by a slip",
        cases=("E-16",),
        file="storekeeper/cli/confirm.py",
        old="    return words.yes or words.confirm is not None\n",
        new="    return True\n",
        tests=(_CLI_RUNS + "test_live_data_is_not_replaced_without_a_word_where_nobody_can_be_asked",),
    ),
    Guard(
        name="a state directory that others can write is refused",
        protects="nobody else writes our journals",
        cases=("A25",),
        file="storekeeper/verbs/directories.py",
        old="    if status.st_mode & _OTHERS_WRITE:\n",
        new="    if False:\n",
        tests=(_CLI_RUNS + "test_a_state_directory_that_others_could_change_is_refused",),
    ),
    Guard(
        name="no link followed in the place of a lock",
        protects="another user cannot have us write to a file of his choice",
        cases=("H11",),
        file="storekeeper/host/locks.py",
        old="os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)",
        new="os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)",
        tests=(_LOCKS + "test_a_link_in_the_place_of_a_lock_is_not_followed",),
    ),
    Guard(
        name="programs get an environment of their own",
        protects="the caller's PGHOST and passwords reach no program",
        cases=("A13",),
        file="storekeeper/host/processes.py",
        old='            env={"PATH": SEARCH_PATH,',
        new='            env={**os.environ, "PATH": SEARCH_PATH,',
        tests=(_GUARDED_STORES + "test_nothing_of_the_caller_s_environment_reaches_a_program",),
    ),
    Guard(
        name="a run that is told to stop unwinds",
        protects="no child goes on, and no store stays locked",
        cases=("A3",),
        file="storekeeper/cli/signals.py",
        old="            raise self.heard\n",
        new="            pass\n",
        tests=(_CLI_RUNS + "test_a_run_that_is_told_to_stop_unwinds_and_says_so",),
    ),
    Guard(
        name="a newer format is refused",
        protects="a set of a later version is not read wrongly",
        cases=("B3", "U2"),
        file="storekeeper/host/formats.py",
        old="    if found > newest:\n",
        new="    if False:\n",
        tests=(_SETS_MANIFEST + "test_a_newer_schema_is_refused_with_both_numbers",),
    ),
    Guard(
        name="a journal of a newer format is refused",
        protects="a walk of a later version is not taken up wrongly",
        cases=("U2",),
        file="storekeeper/host/formats.py",
        old="    if found > newest:\n",
        new="    if False:\n",
        tests=(_GUARDED_RESTORE + "test_a_journal_whose_steps_all_look_familiar_but_whose_format_is_newer_is_refused",),
    ),
    Guard(
        name="programs are ended with the thread that waits for them",
        protects="a run that is told to stop does not wait for pg_dump or pg_restore",
        cases=("A3",),
        file="storekeeper/host/giving_up.py",
        old="        for stop in stops:\n            stop()\n",
        new="",
        tests=(_GIVING_UP + "test_a_thread_that_waits_for_a_program_comes_to_its_end_when_it_is_given_up",),
    ),
    Guard(
        name="the ids of the server's user are those of one thread",
        protects="what other threads write meanwhile belongs to root alone",
        cases=("H12",),
        file="storekeeper/host/identity.py",
        old="        _call(numbers[0], uid)\n",
        new="        os.seteuid(uid)\n",
        tests=(_IDENTITY + "test_only_the_calling_thread_is_the_other_user_and_it_is_itself_again",),
    ),
)
