"""Jobs that outlive whoever started them: killed callers, lost answers, the same words twice, and the way to end one."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from storekeeper.host import jobs
from tests.harness.campaign import Campaign
from tests.harness.program import Program


def records(program: Program) -> list[jobs.Record]:
    return jobs.records(program.state / "jobs" / "demo")


def wait_until_all_ended(program: Program) -> None:
    deadline = time.monotonic() + 60
    while any(record.running for record in records(program)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_is_followed_to_its_answer_which_is_that_of_the_plain_verb(program: Program) -> None:
    ended = program.answer("backup", "demo", "--job")
    [record] = records(program)
    assert (ended.code, ended.document["outcome"], ended.document["job"]) == (0, "ok", record.id)
    assert "demo: backup: main: dumping" in ended.err
    plain = program.answer("backup", "demo")
    assert set(ended.document) == {*plain.document, "job"}
    assert set(ended.document["result"]) == set(plain.document["result"])


def test_a_person_who_followed_has_heard_and_the_same_words_are_a_new_run(program: Program) -> None:
    for number in (1, 2):
        assert "is verified" in program.run("backup", "demo", "--job").out
        assert len(program.sets()) == number


def test_an_answer_that_nobody_heard_is_handed_on_once_instead_of_another_run(program: Program) -> None:
    first = program.answer("backup", "demo", "--job").document
    again = program.answer("backup", "demo", "--job")
    assert again.document == first
    assert "is what was asked for already" in again.err
    assert program.answer("backup", "demo", "--heard").document == first
    refused = program.answer("backup", "demo", "--heard")
    assert (refused.code, "job" in refused.document) == (2, False)
    assert program.answer("backup", "demo", "--job").document["job"] != first["job"]
    assert len(program.sets()) == 2


def test_other_words_are_another_job(program: Program) -> None:
    program.answer("backup", "demo", "--job")
    first = program.answer("verify", "demo", "--job").document
    assert program.answer("verify", "demo", "--all", "--job").document["job"] != first["job"]


def test_an_answer_of_long_ago_is_old_news_and_the_words_mean_a_new_run(program: Program) -> None:
    first = program.answer("backup", "demo", "--job").document["job"]
    [record] = records(program)
    kept = json.loads(record.path.read_text())
    record.path.write_text(json.dumps({**kept, "started": "2020-01-01T00:00:00Z"}))
    assert program.answer("backup", "demo", "--job").document["job"] != first
    assert len(program.sets()) == 2


@pytest.mark.fault("A22")
def test_a_caller_that_is_killed_at_any_moment_leaves_a_job_that_ends_and_is_found_and_nothing_runs_twice(
    program: Program, campaign: Campaign
) -> None:
    program.grow(8_000_000)
    count, chance, found = campaign.trials(5, 50), random.Random(22), 0
    for number in range(1, count + 1):
        caller = program.start("backup", "demo", "--job", "--json")
        time.sleep(chance.uniform(0.25, 0.9))
        caller.send_signal(chance.choice([signal.SIGKILL, signal.SIGHUP, signal.SIGTERM]))
        caller.communicate()
        wait_until_all_ended(program)
        begun = len(records(program))
        answer = program.answer("backup", "demo", "--job").document
        found += begun == number
        assert answer["outcome"] == "ok"
        assert program.answer("backup", "demo", "--heard").document == answer
        assert len(records(program)) == number, "one run for one wish"
    campaign.found(count, "callers killed while they follow a backup", f"{len(records(program)) - count} runs too many")
    assert found > count // 2, "most callers were killed before anything had begun: this proves little"
    assert program.sets()[-1] == (count, "verified")


@pytest.mark.control("A22")
def test_control_without_a_job_a_killed_caller_takes_the_backup_with_it_and_asking_again_runs_it_again(program: Program) -> None:
    program.grow(60_000_000)
    caller = program.start("backup", "demo", "--json")
    while not records(program):
        time.sleep(0.01)
    caller.send_signal(signal.SIGHUP)
    caller.communicate()
    assert program.answer("backup", "demo").code == 0
    assert [record.outcome for record in records(program)] == ["failed", "ok"]


def test_two_who_ask_at_once_follow_the_same_run(program: Program) -> None:
    """The run stands still until the second has been told which run it follows."""
    first = program.start("backup", "demo", "--job", "--json")
    while not records(program):
        time.sleep(0.01)
    (run,) = records(program)
    os.kill(run.pid, signal.SIGSTOP)
    second = program.start("backup", "demo", "--job", "--json")
    assert second.stderr is not None
    said = next((line for line in second.stderr if " job " in line or line.startswith("job ")), "nothing")
    os.kill(run.pid, signal.SIGCONT)
    answers = [json.loads(each.communicate()[0]) for each in (first, second)]
    assert [(answer["job"], answer["outcome"]) for answer in answers] == [(run.id, "ok")] * 2, said
    assert len(records(program)) == 1


def test_two_who_ask_at_the_same_moment_are_one_run_and_one_is_busy_at_most(program: Program) -> None:
    program.grow(30_000_000)
    with ThreadPoolExecutor(2) as both:
        answers = [each.result().document for each in [both.submit(program.answer, "backup", "demo", "--job") for _ in range(2)]]
    assert len(records(program)) == 1
    assert {answer.get("job") for answer in answers} <= {records(program)[0].id, None}
    assert any(answer["outcome"] == "ok" for answer in answers)


def test_a_job_that_was_killed_says_so_to_whoever_follows_it(program: Program) -> None:
    program.grow(300_000_000)
    caller = program.start("backup", "demo", "--job", "--json")
    while not records(program):
        time.sleep(0.01)
    os.kill(records(program)[0].pid, signal.SIGKILL)
    out, _ = caller.communicate()
    document = json.loads(out)
    assert (caller.returncode, document["outcome"]) == (1, "failed")
    assert "was interrupted" in document["problems"][0]["message"]


def test_a_job_that_was_killed_while_nobody_followed_it_has_no_answer_and_the_same_words_run_anew(program: Program) -> None:
    program.grow(300_000_000)
    caller = program.start("backup", "demo", "--job", "--json")
    while not records(program):
        time.sleep(0.01)
    caller.kill()
    caller.communicate()
    (killed,) = records(program)
    os.kill(killed.pid, signal.SIGKILL)
    again = program.answer("backup", "demo", "--job")
    assert again.code == 0, again.document
    assert again.document["job"] != killed.id
    assert program.answer("backup", "demo", "--heard").document == again.document


def test_a_job_is_ended_by_its_name_and_an_ended_one_is_not(program: Program) -> None:
    program.grow(300_000_000)
    caller = program.start("backup", "demo", "--job", "--json")
    while not records(program):
        time.sleep(0.01)
    job = records(program)[0].id
    stopped = program.answer("jobs", "--stop", job).document
    assert [(each["id"], each["outcome"]) for each in stopped["result"]["jobs"]] == [(job, "failed")]
    out, _ = caller.communicate()
    assert "was stopped by SIGTERM" in json.loads(out)["problems"][0]["message"]
    for word, sentence in ((job, "has ended"), ("20260101T000000Z-backup-00000000", "no record"), ("../x", "no record")):
        refused = program.answer("jobs", "--stop", word)
        assert (refused.code, sentence in refused.document["problems"][0]["message"]) == (2, True)


@pytest.mark.parametrize("words", [("list", "demo"), ("prune", "demo", "--dry-run"), ("restore", "demo", "latest", "--plan")])
def test_what_is_over_at_once_is_no_job(program: Program, words: tuple[str, ...]) -> None:
    refused = program.answer(*words, "--job")
    assert (refused.code, "is no job here" in refused.document["problems"][0]["message"]) == (2, True)
