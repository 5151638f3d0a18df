"""A reset of PostgreSQL, Chroma, SQLite and files together, and what a command is told of a database."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storekeeper.outcomes import Failed
from storekeeper.restore.journal import Journal, unfinished
from storekeeper.stack.commands import DeclaredCommand
from storekeeper.verbs.reset import reset
from storekeeper.verbs.restore import RestoreRequest, restore
from storekeeper.verbs.resume import resume
from tests.harness.campaign import Campaign
from tests.harness.postgresql import PASSWORD, Server, programs_of, server_user, start_server
from tests.harness.restoring import LIVE, lines_of, running
from tests.harness.stacks import EMPTY, Lab, chroma_part, in_child, killing, make_lab, postgresql_part

PSQL = programs_of(18) / "psql"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with start_server(major=18, tcp=True) as made:
        yield made


@pytest.fixture
def four(tmp_path: Path, server: Server, directories: Mapping[str, Path]) -> Iterator[Lab]:
    vectors = chroma_part(tmp_path / "live/vectors", directories)
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    secret.chmod(0o600)
    app = postgresql_part(server)
    app = replace(app, declared=server.declared_over_tcp("app", secret))
    lab = make_lab(tmp_path, sqlites=1, services=1, first={"app": app, "vectors": vectors})
    lab.write(LIVE)
    yield lab
    lab.close()
    server.run("drop database if exists app with (force)")


def declaring(lab: Lab, *words: str, **more: Any) -> Lab:
    command = DeclaredCommand(run=words, **more)
    lab.context = replace(lab.context, stack=lab.context.stack.model_copy(update={"after_reset": (command,)}))
    return lab


@pytest.mark.fault("E-23")
@pytest.mark.slow
def test_four_kinds_of_stores_are_empty_or_as_they_were_wherever_a_reset_is_killed(four: Lab, campaign: Campaign) -> None:
    reset(four.context, plan=False)
    assert four.all_hold(EMPTY)
    restore(four.context, RestoreRequest(back=True))
    assert four.all_hold(LIVE)
    reset(four.context, plan=False)
    lines, mixed, kills = len(lines_of(four)), [], 0
    for number in range(2, lines + 1, campaign.trials(6, 1)):
        four.write(LIVE)

        def walk(number: int = number) -> None:
            Journal.write = killing(number, after=True)  # type: ignore[method-assign]
            reset(four.context, plan=False)

        assert in_child(walk) == -signal.SIGKILL
        kills += 1
        resume(four.context)
        mixed += [] if four.all_hold(LIVE) or four.all_hold(EMPTY) else [(number, four.sides())]
        assert unfinished(four.context.state) is None
        assert running(four) == [True]
    campaign.found(kills, "kills of a reset of PostgreSQL, Chroma, SQLite and files", f"{len(mixed)} mixed states after `resume`")
    assert mixed == []


@pytest.mark.parametrize("user", [None, "the server's"])
def test_a_command_reaches_the_emptied_database_by_a_private_file_with_the_password(four: Lab, user: str | None) -> None:
    seen = four.context.scratch / "seen"
    seen.touch()
    seen.chmod(0o666)
    name = None if user is None or os.geteuid() != 0 else server_user()
    script = f'{PSQL} -w -X -c "insert into things (word) values (1)" "$1" && stat -c "%a %U %n" "$PGPASSFILE" >{seen} && env >>{seen}'
    report = reset(declaring(four, "sh", "-c", script, "sh", "{app}", user=name).context, plan=False)
    assert report.result["stores"]["app"]["counts"] == {"public.things": 1}
    mode, owner, path = seen.read_text().splitlines()[0].split()
    assert (mode, owner) == ("600", name or "root" if os.geteuid() == 0 else owner)
    assert not Path(path).exists(), "it is gone afterwards"
    assert PASSWORD not in seen.read_text()


def test_no_password_is_told_of_a_command_that_prints_it(four: Lab) -> None:
    script = 'cat "$PGPASSFILE" >&2; echo "$1"; exit 1'
    with pytest.raises(Failed) as failed:
        reset(declaring(four, "sh", "-c", script, "sh", "{app}").context, plan=False)
    assert PASSWORD not in failed.value.message
    assert "[taken out]" in failed.value.message
    assert re.search(r"postgresql://\w+@/app\?host=127.0.0.1&port=\d+", failed.value.message)
    assert four.all_hold(LIVE)
    journal = b"".join(path.read_bytes() for path in four.context.state.rglob("*") if path.is_file())
    assert PASSWORD.encode() not in journal
