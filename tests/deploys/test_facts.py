"""What facts make of the output of a host: whole documents, or an error; never something in between."""

from __future__ import annotations

import pytest
from pyinfra.api import OperationValueError
from pyinfra.api.exceptions import FactProcessError

from operations.facts.sets import Overview, Sets
from operations.program import Program
from tests.deploys.fake import CODE, END, answer, fake_host, recorded

PLACE = {"program": "/opt/sk/bin/storekeeper", "program_config": "/etc/storekeeper"}


def test_a_fact_types_quoted_words_and_marks_each_end():
    assert Sets().command(stack="demo; x", **PLACE) == (
        "/opt/sk/bin/storekeeper --config /etc/storekeeper --json list 'demo; x'; printf '\\nstorekeeper-code:%s\\n' $?; "
        "printf 'storekeeper-end\\n'"
    )


def test_a_stack_that_could_be_an_option_is_refused_before_it_is_typed():
    for fact, arguments in ((Sets, {"stack": "--all"}), (Overview, {"stacks": ["demo", "--all"]})):
        with pytest.raises(OperationValueError, match="stack cannot begin with a dash"):
            fact().command(**arguments, **PLACE)


@pytest.mark.parametrize("cut", range(1, 7))
def test_an_overview_that_was_cut_off_is_an_error_wherever_it_was_cut(cut):
    whole = answer("status", "list-proven")
    with pytest.raises(FactProcessError, match="cut off"):
        Overview().process(whole[:-cut])


def test_control_without_the_last_mark_a_lost_answer_would_look_like_a_stack_without_sets():
    whole = answer("status", "list-proven")
    assert whole[-1] == END
    lost = [*whole[:3], END]  # what would be believed if the first answer's mark were the end of all
    assert Overview().process(lost)["sets"] == {}
    assert Overview().process(whole)["sets"] == {"demo": recorded("list-proven")}


def test_attention_unknown_and_a_refused_list_are_answers_of_an_overview():
    found = Overview().process(answer("status-unknown", "list-no-stack"))
    assert found["status"]["outcome"] == "unknown"
    assert found["sets"]["nosuch"]["result"] is None


@pytest.mark.parametrize("name", ["backup-refused", "backup-failed"])
def test_a_state_that_is_not_known_is_an_error_that_says_why(name):
    with pytest.raises(FactProcessError, match=recorded(name)["problems"][0]["message"][:20].replace("[", ".")):
        Overview().process(answer(name))


@pytest.mark.parametrize("code", ["", "x", "-1", "127", "1"])
def test_a_code_that_does_not_belong_to_an_answer_is_an_error(code):
    printed = [*answer("list-proven")[:-2], f"{CODE}{code}", END]
    with pytest.raises(FactProcessError):
        Sets().process(printed)


def test_an_overview_asks_everything_in_one_command_and_gives_each_document():
    with fake_host({"status": answer("status", "list-proven")}) as fake:
        found = fake.host.get_fact(Overview, stacks=["demo"], **PLACE)
        assert found == {"status": recorded("status"), "sets": {"demo": recorded("list-proven")}}
        assert len(fake.typed) == 1


def test_a_host_names_its_own_program_and_configuration():
    with fake_host(storekeeper_program="/srv/sk", storekeeper_config="/srv/etc") as fake:
        assert Program.of(fake.host) == Program("/srv/sk", "/srv/etc")
