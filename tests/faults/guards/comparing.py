"""The guards of looks: nothing that has changed is taken for what it was."""

from __future__ import annotations

from tests.harness.mutation import Guard

_UNCHANGED = "tests/consistency/test_unchanged.py::"
_POSTGRESQL = "tests/stores/test_marks_postgresql.py::"
_CLEARING = "tests/unit/test_clearing.py::"

COMPARING = (
    Guard(
        name="what has another number of chunks is looked at by itself",
        protects="a document that lost chunks is not counted as one that agrees",
        cases=("F12",),
        file="storekeeper/consistency/clearing.py",
        old="        and (not :counts or m.chunks is null or sum(t.chunks) is m.chunks) end\n",
        new="        end\n",
        tests=(
            _CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[too few]",
            _CLEARING + "test_the_same_comes_out_as_of_all_documents",
        ),
    ),
    Guard(
        name="what stands under another owner is looked at by itself",
        protects="what belongs to somebody else is not counted as agreement",
        cases=("F4",),
        file="storekeeper/consistency/clearing.py",
        old="        min(t.owner) = max(t.owner) and (min(t.owner) in (x'', m.owner) or m.owner = x'')\n",
        new="        1\n",
        tests=(
            _CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[another owner]",
            _CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[a second owner]",
        ),
    ),
    Guard(
        name="what is not complete is looked at by itself",
        protects="what a failed document left behind is not counted as agreement",
        cases=("F6",),
        file="storekeeper/consistency/clearing.py",
        old='            connection.execute(_NOT_COMPLETE.format(", ".join("?" * len(complete))), complete)\n',
        new="            del complete\n",
        tests=(
            _CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[failed]",
            _CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[at work]",
        ),
    ),
    Guard(
        name="what the authority names twice is looked at by itself",
        protects="an authority that contradicts itself is unknown",
        cases=("F1",),
        file="storekeeper/consistency/clearing.py",
        old="        connection.execute(_TWICE)\n",
        new="",
        tests=(_CLEARING + "test_what_nobody_could_say_anything_of_is_left_to_the_comparison",),
    ),
    Guard(
        name="an id that a pattern cannot tell is looked at by itself",
        protects="whose a file is, is not guessed",
        cases=("F10",),
        file="storekeeper/consistency/clearing.py",
        old="                connection.execute(_UNSAYABLE, (key_of(end),))\n",
        new="                del end\n",
        tests=(_CLEARING + "test_what_nobody_could_say_anything_of_is_left_to_the_comparison",),
    ),
    Guard(
        name="what the authority does not name is looked at by itself",
        protects="an orphan is not passed over",
        cases=("F14",),
        file="storekeeper/consistency/clearing.py",
        old="        connection.execute(_UNNAMED)\n",
        new="",
        tests=(_CLEARING + "test_every_kind_of_disagreement_is_left_to_the_comparison[nobody's]",),
    ),
    Guard(
        name="no two places of a rule have one name",
        protects="what is kept of a replica is not taken for the authority, nor the rows of one table for those of another",
        cases=("F12",),
        file="storekeeper/consistency/places.py",
        old=" if each.name not in named)",
        new=")",
        tests=(
            "tests/consistency/test_one_store.py::test_no_two_places_of_a_rule_have_one_name",
            "tests/consistency/test_one_store.py::test_each_place_is_counted_as_its_own",
        ),
    ),
    Guard(
        name="what was just changed has no mark",
        protects="two changes within one tick of the clock are both seen",
        cases=("F5",),
        file="storekeeper/stores/marks.py",
        old=" or not stamps.are_settled(there)",
        new="",
        tests=(_UNCHANGED + "test_what_was_just_changed_has_no_mark",),
    ),
    Guard(
        name="a log is known by its index",
        protects="a transaction that is written and can be read later is seen",
        cases=("F5",),
        file="storekeeper/stores/marks.py",
        old="log.st_mtime_ns, index.hex())",
        new="log.st_mtime_ns)",
        tests=(_UNCHANGED + "test_a_transaction_that_was_written_long_ago_and_can_be_read_only_now_is_seen",),
    ),
    Guard(
        name="a query that asks the time is asked each time",
        protects="what a query says is not taken for what it said at another time",
        cases=("F5",),
        file="storekeeper/stores/marks.py",
        old="    return _PURE.issuperset(asked)\n",
        new="    return True\n",
        tests=(_UNCHANGED + "test_a_query_that_asks_the_time_is_asked_each_time",),
    ),
    Guard(
        name="files are known by what no program can set",
        protects="a change whose time was put back is seen",
        cases=("F5",),
        file="storekeeper/host/stamps.py",
        old="status.st_mtime_ns, status.st_ctime_ns)",
        new="status.st_mtime_ns)",
        tests=(_UNCHANGED + "test_no_change_escapes_however_it_is_hidden[a file renamed, the directory's time put back]",),
    ),
    Guard(
        name="marks are believed while the clock goes on",
        protects="a time that came again is not taken for the first",
        cases=("F5",),
        file="storekeeper/host/stamps.py",
        old="        return self.boot == now.boot and now.ahead > self.ahead - _SET_BACK_S\n",
        new="        return True\n",
        tests=(_UNCHANGED + "test_what_is_kept_is_believed_only_as_it_was_written[another boot]",),
    ),
    Guard(
        name="what is kept is compared with its sum",
        protects="a damaged file of ids is read by nobody",
        cases=("F1",),
        file="storekeeper/consistency/keeping.py",
        old="        return kept if kept is not None and self._is_whole(kept.file, kept.digest) else None\n",
        new="        return kept\n",
        tests=(_UNCHANGED + "test_what_is_kept_is_believed_only_as_it_was_written[a byte of what is kept]",),
    ),
    Guard(
        name="what time alone changes is compared again",
        protects="a document that failed a grace ago is told of, though nothing has changed",
        cases=("F6",),
        file="storekeeper/consistency/keeping.py",
        old="(known.until is not None and now > known.until) or ",
        new="",
        tests=(_UNCHANGED + "test_time_alone_makes_a_leftover_of_what_failed",),
    ),
    Guard(
        name="a server is known by when its statistics began",
        protects="a commit that a crash took back is not taken for the one that got its number",
        cases=("F5",),
        file="storekeeper/stores/postgresql/marks.py",
        old="    (select stats_reset::text from pg_stat_bgwriter)\n",
        new="    ''::text\n",
        tests=(_POSTGRESQL + "test_a_crash_that_takes_a_commit_back_and_gives_its_number_to_another_is_seen",),
    ),
)
