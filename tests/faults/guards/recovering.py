"""The guards of making a damaged database anew: what is believed of its pages, and that nobody writes meanwhile."""

from __future__ import annotations

from tests.harness.mutation import Guard

_RESCUE = "tests/stores/test_sqlite_rescue.py::"
_RECOVER = "tests/faults/test_recover.py::"

_SERVICES = "tests/consistency/test_repair_services.py::"

RECOVERING = (
    Guard(
        name="services that a repair has stopped are started whatever happens",
        protects="no service stays stopped after a repair that failed",
        cases=("F15",),
        file="storekeeper/restore/pausing.py",
        old="            _start(context, stoppable, journal, running)\n        except",
        new="            pass\n        except",
        tests=(_SERVICES + "test_a_repair_that_fails_or_is_killed_leaves_no_service_stopped",),
    ),
    Guard(
        name="services are stopped before a damaged file is read",
        protects="every row that was acknowledged is in what is made anew",
        cases=("E-28",),
        file="storekeeper/restore/recovering.py",
        old="        walk.stop_first()\n",
        new="",
        tests=(_RECOVER + "test_every_row_that_was_acknowledged_while_it_was_prepared_is_live",),
    ),
    Guard(
        name="a file that is whole is not made anew",
        protects="nothing is stopped and switched for nothing",
        cases=("E-28",),
        file="storekeeper/stores/sqlite/store.py",
        old="        if not damages:\n",
        new="        damages = damages or ['nothing at all']\n        if not damages:\n",
        tests=(_RECOVER + "test_a_database_that_is_whole_or_has_no_beginning_is_refused_and_no_service_is_stopped",),
    ),
    Guard(
        name="free pages are not read",
        protects="rows that were deleted do not come back",
        cases=("B6",),
        file="storekeeper/stores/sqlite/walking.py",
        old=" and number not in free",
        new="",
        tests=(_RESCUE + "test_rows_that_were_deleted_do_not_come_back_and_are_left_where_nobody_can_tell",),
    ),
    Guard(
        name="a page that several tables may have lost goes to none",
        protects="no row comes into a table that never had it",
        cases=("B6",),
        file="storekeeper/stores/sqlite/rescuing.py",
        old="            if len(owners) == 1:\n",
        new="            if owners:\n",
        tests=(_RESCUE + "test_pages_that_two_tables_may_have_lost_go_to_neither",),
    ),
    Guard(
        name="a page whose rows belong elsewhere is not believed",
        protects="no row comes into a table that never had it",
        cases=("B6",),
        file="storekeeper/stores/sqlite/walking.py",
        old="        if not span.holds(rowid) or found > columns:\n",
        new="        if False:\n",
        tests=(_RESCUE + "test_a_page_that_was_written_to_the_wrong_place_is_not_believed",),
    ),
)
