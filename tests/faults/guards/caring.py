"""The guards of looking after the stores: of what is asked of them, of looks inside, and of asking a program to end."""

from __future__ import annotations

from tests.harness.mutation import Guard

_QUERY = "tests/care/test_query.py::"
_EXAMINE = "tests/care/test_examine.py::"
_SERVERS = "tests/care/test_examine_servers.py::"
_SETTING = "tests/unit/test_setting.py::"

CARING = (
    Guard(
        name="what a query of SQLite may do at all",
        protects="a named query reads rows, and nothing else of SQLite",
        cases=("H10",),
        file="storekeeper/stores/sqlite/answering.py",
        old="    connection.set_authorizer(only_reads)\n",
        new="",
        tests=(_QUERY + "test_a_query_that_does_more_than_read_is_refused_and_changes_nothing[another file]",),
    ),
    Guard(
        name="the time that a query of SQLite gets",
        protects="a query without an end is ended",
        cases=("H10",),
        file="storekeeper/stores/sqlite/answering.py",
        old="    connection.set_progress_handler(lambda: clock.monotonic() > deadline, _STEPS)\n",
        new="",
        tests=(_QUERY + "test_a_query_without_an_end_is_ended",),
    ),
    Guard(
        name="the transaction of a query is read-only",
        protects="a named query changes nothing in PostgreSQL, whatever it calls",
        cases=("H10",),
        file="storekeeper/stores/postgresql/answering.py",
        old='            connection.execute("set transaction read only")\n',
        new="",
        tests=(_QUERY + "test_postgresql_refuses_what_writes_or_does_not_run[a function that writes]",),
    ),
    Guard(
        name="the time that a query of PostgreSQL gets",
        protects="a query without an end is ended",
        cases=("H10",),
        file="storekeeper/stores/postgresql/answering.py",
        old="            connection.execute(f\"set local statement_timeout = '{seconds * 1000:.0f}ms'\")\n",
        new="",
        tests=(_QUERY + "test_postgresql_ends_a_query_that_takes_too_long",),
    ),
    Guard(
        name="only who holds a lock is asked to end",
        protects="evict ends nobody who is in nobody's way",
        cases=("J4",),
        file="storekeeper/verbs/evict.py",
        old="        if found is None or found.lock is None:\n",
        new="        if found is None:\n",
        tests=(_EXAMINE + "test_nobody_is_asked_who_is_another_program_holds_no_lock_or_uses_another_file",),
    ),
    Guard(
        name="only the program that was named is asked to end",
        protects="evict ends no program that was not meant",
        cases=("J4",),
        file="storekeeper/verbs/evict.py",
        old="        if found.program != holder.program:\n",
        new="        if not found.program:\n",
        tests=(_EXAMINE + "test_nobody_is_asked_who_is_another_program_holds_no_lock_or_uses_another_file",),
    ),
    Guard(
        name="runs of our own are not asked to end",
        protects="evict ends no backup and no restore",
        cases=("J4",),
        file="storekeeper/verbs/evict.py",
        old="        if any(each in holder.jobs or _is_ours(each) for each in _line_of(pid)):\n",
        new="        if pid in _line_of(1):\n",
        tests=(_EXAMINE + "test_runs_of_our_own_and_what_they_started_are_never_asked",),
    ),
    Guard(
        name="a process that cannot be looked at may be ours",
        protects="evict ends no backup and no restore that it could not see",
        cases=("J4",),
        file="storekeeper/verbs/evict.py",
        old='        raise Unknown(f"{said}: nobody was asked to end", next="run as root") from error\n',
        new="        return not said\n",
        tests=(_EXAMINE + "test_one_whose_parents_cannot_be_read_is_not_asked",),
    ),
    Guard(
        name="every vector is looked at",
        protects="a vector that is no number is named",
        cases=("F13",),
        file="storekeeper/stores/chroma/examining.py",
        old='    if not math.isfinite(sum(array("f", row.vector))):\n',
        new="    if not math.isfinite(0.0):\n",
        tests=(_SERVERS + "test_vectors_of_another_dimension_and_such_that_are_no_numbers_are_named",),
    ),
    Guard(
        name="checksums that are off are said",
        protects="the risk that no backup can find a page that rots is told",
        cases=("B6",),
        file="storekeeper/stores/postgresql/examining.py",
        old="    if not has:\n",
        new="    if has is None:\n",
        tests=(_SERVERS + "test_control_without_checksums_the_rotten_page_is_backed_up_and_the_risk_was_said",),
    ),
    Guard(
        name="no address is guessed",
        protects="an address that refers to another variable leads to no other database",
        cases=("H10",),
        file="storekeeper/stack/setting.py",
        old='    return None if value is None or "${" in value or "\\n" in value else value\n',
        new="    return value\n",
        tests=(_SETTING + "test_what_is_no_such_address_is_refused_with_file_and_key_and_never_the_value",),
    ),
)
