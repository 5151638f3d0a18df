"""The guards of manifests, artefacts and records: what a set is believed to hold."""

from __future__ import annotations

from tests.harness.mutation import Guard

_SETS_MANIFEST = "tests/unit/test_sets_manifest.py::"
_SETS_RECORDS = "tests/unit/test_sets_records.py::"
_SETS_READING_BACK = "tests/unit/test_sets_reading_back.py::"
_SETS_VERIFICATION = "tests/unit/test_sets_verification.py::"

BELIEVING = (
    Guard(
        name="the seal of the manifest",
        protects="an edited or rotten manifest is not believed",
        cases=("B3",),
        file="storekeeper/sets/manifest.py",
        old='    if document.get("seal") != _seal({key: value for key, value in document.items() if key != "seal"}):\n',
        new="    if False:\n",
        tests=(_SETS_MANIFEST + "test_no_changed_byte_of_a_manifest_goes_unnoticed",),
    ),
    Guard(
        name="the manifest belongs to its set",
        protects="manifests that were exchanged are found",
        cases=("B3",),
        file="storekeeper/sets/manifest.py",
        old="        if expected is not None and found != expected:\n",
        new="        if False:\n",
        tests=(_SETS_MANIFEST + "test_a_manifest_of_another_set_or_stack_is_refused",),
    ),
    Guard(
        name="no key twice in a manifest",
        protects="two readers never see two manifests in one",
        cases=("B3",),
        file="storekeeper/sets/manifest.py",
        old="    if len(found) != len(pairs):\n",
        new="    if False:\n",
        tests=(_SETS_MANIFEST + "test_a_key_that_stands_twice_is_refused",),
    ),
    Guard(
        name="the sha256 of every artefact",
        protects="a flipped bit anywhere is found",
        cases=("B1", "B2"),
        file="storekeeper/sets/artefacts.py",
        old="        if sha256 not in (None, written[1]):\n",
        new="        if False:\n",
        tests=(_SETS_VERIFICATION + "test_one_flipped_bit_anywhere_is_found",),
    ),
    Guard(
        name="files that do not belong to the set",
        protects="a set with one file too many is not taken for whole",
        cases=("B2",),
        file="storekeeper/sets/artefacts.py",
        old="        if present != count_files(content):\n",
        new="        if False:\n",
        tests=(_SETS_VERIFICATION + "test_an_extra_file_among_the_listed_ones_is_found_also_when_another_is_missing",),
    ),
    Guard(
        name="only what was verified is a backup",
        protects="a damaged set is not restored as the latest and keeps no place in retention",
        cases=("B10", "C1", "E-17"),
        file="storekeeper/sets/records.py",
        old="    if known.damaged:\n",
        new="    if False:\n",
        tests=(_SETS_RECORDS + "test_the_newest_look_that_could_tell_decides",),
    ),
    Guard(
        name="a record that cannot be read counts as damage",
        protects="rot in a record does not turn a bad set into a good one",
        cases=("B1",),
        file="storekeeper/sets/records.py",
        old='        return Record(time, "failed", f"its record',
        new='        return Record(time, "unknown", f"its record',
        tests=(_SETS_RECORDS + "test_a_record_that_cannot_be_read_is_not_taken_for_a_good_one",),
    ),
    Guard(
        name="every set that shares a bad file is marked",
        protects="a shared file that rots does not leave a set that looks good",
        cases=("B1",),
        file="storekeeper/sets/verification.py",
        old="                self._sharing[other.id] = fault.path\n",
        new="                pass\n",
        tests=(_SETS_VERIFICATION + "test_a_shared_file_that_rots_marks_every_set_that_shares_it",),
    ),
    Guard(
        name="a part that was read vouches for nothing",
        protects="a set is not verified by one file of it",
        cases=("B8",),
        file="storekeeper/sets/records.py",
        old='(record.outcome == "ok" and not record.part)',
        new='record.outcome == "ok"',
        tests=(_SETS_READING_BACK + "test_a_part_that_is_good_does_not_vouch_for_the_set",),
    ),
    Guard(
        name="listed paths stay inside of the set",
        protects="verify does not read what somebody else listed",
        cases=("E-15",),
        file="storekeeper/sets/artefacts.py",
        old="    if not is_below(path):\n",
        new="    if False:\n",
        tests=(_SETS_VERIFICATION + "test_a_listing_that_leads_outside_is_not_followed",),
    ),
    Guard(
        name="no link in the way of a listed file",
        protects="a set does not borrow its files from elsewhere",
        cases=("E-15", "B2"),
        file="storekeeper/sets/artefacts.py",
        old="            if os.path.realpath(parent) != parent:\n",
        new="            if False:\n",
        tests=(_SETS_VERIFICATION + "test_a_link_in_the_way_leads_nowhere",),
    ),
    Guard(
        name="a set of what could not be read is no backup",
        protects="a raw copy is never the latest",
        cases=("E-9", "E-17"),
        file="storekeeper/sets/records.py",
        old='    if published_as == "incomplete":\n',
        new="    if False:\n",
        tests=(_SETS_RECORDS + "test_an_incomplete_set_never_becomes_a_backup",),
    ),
    Guard(
        name="ids that are out of order are no ids",
        protects="a document whose id rotted in a set is not said to be absent from it",
        cases=("B1",),
        file="storekeeper/consistency/recording.py",
        old="    if key < last:\n",
        new="    if last is None:\n",
        tests=("tests/consistency/test_recording.py::test_an_id_that_rotted_is_unknown_and_not_absent",),
    ),
)
