"""What systemd says of a unit, read from output that systemctl 252 of a booted Debian 12 gave; and silence is not `stopped`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storekeeper.outcomes import Failed, Unknown
from storekeeper.runtimes.registry import open_runtime
from storekeeper.runtimes.systemd import SystemdUnit, parse_state
from storekeeper.stack.model import RuntimeModel

# Recorded: systemctl --no-ask-password show --timestamp=us+utc --property=LoadState,ActiveState,... -- UNIT
RECORDED = {
    "running": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.553022 UTC
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestamp=Sat 2026-11-21 11:25:36.554328 UTC
""",
    "failed": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.569449 UTC
LoadState=loaded
ActiveState=failed
SubState=failed
ActiveEnterTimestamp=Sat 2026-11-21 11:25:36.569612 UTC
""",
    "waits for its restart": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.578539 UTC
LoadState=loaded
ActiveState=activating
SubState=auto-restart
ActiveEnterTimestamp=Sat 2026-11-21 11:25:36.578915 UTC
""",
    "starting": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.580303 UTC
LoadState=loaded
ActiveState=activating
SubState=start
ActiveEnterTimestamp=
""",
    "stopping": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.562274 UTC
LoadState=loaded
ActiveState=deactivating
SubState=stop-sigterm
ActiveEnterTimestamp=Sat 2026-11-21 11:25:36.562544 UTC
""",
    "never started": """ExecMainStartTimestamp=
LoadState=loaded
ActiveState=inactive
SubState=dead
ActiveEnterTimestamp=
""",
    "runs without its file": """ExecMainStartTimestamp=Sat 2026-11-21 11:25:36.559930 UTC
LoadState=not-found
ActiveState=active
SubState=running
ActiveEnterTimestamp=Sat 2026-11-21 11:25:36.561153 UTC
""",
    "masked": """ExecMainStartTimestamp=
LoadState=masked
ActiveState=inactive
SubState=dead
ActiveEnterTimestamp=
""",
    "absent": """ExecMainStartTimestamp=
LoadState=not-found
ActiveState=inactive
SubState=dead
ActiveEnterTimestamp=
""",
}
NOT_BOOTED = "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to connect to bus: Host is down\n"


class Recorded:
    """A stand-in for systemctl that plays recorded answers and writes down how it was called."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        program = directory / "systemctl"
        program.write_text(
            f"#!{sys.executable}\n"
            "import json, pathlib, sys\n"
            f"here = pathlib.Path({str(directory)!r})\n"
            "with open(here / 'calls', 'a') as file: file.write(json.dumps(sys.argv[1:]) + '\\n')\n"
            "answers = json.loads((here / 'answers').read_text())\n"
            "verb = next(word for word in sys.argv[1:] if not word.startswith('-'))\n"
            "out, err, code = answers[verb].pop(0) if len(answers[verb]) > 1 else answers[verb][0]\n"
            "(here / 'answers').write_text(json.dumps(answers))\n"
            "sys.stdout.write(out); sys.stderr.write(err); sys.exit(code)\n"
        )
        program.chmod(0o755)
        self.unit = SystemdUnit("maestro-chroma", program=program)

    def answers(self, *shown: str, start: tuple[str, str, int] = ("", "", 0), stop: tuple[str, str, int] = ("", "", 0)) -> None:
        show = [(RECORDED.get(each, each), "", 0) for each in shown]
        (self._directory / "answers").write_text(json.dumps({"show": show, "start": [start], "stop": [stop]}))
        (self._directory / "calls").write_text("")

    def fails(self, code: int, err: str) -> None:
        (self._directory / "answers").write_text(json.dumps({"show": [("", err, code)]}))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self._directory / "calls").read_text().splitlines()]

    @property
    def told(self) -> list[str]:
        return [verb for call in self.calls for verb in ("start", "stop") if verb in call]


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    monkeypatch.setattr("storekeeper.runtimes.systemd._SETTLING", 0.0)
    return Recorded(tmp_path)


@pytest.mark.parametrize(
    ("name", "running"),
    [
        ("running", True),
        ("starting", True),
        ("stopping", True),
        ("waits for its restart", True),
        ("runs without its file", True),
        ("failed", False),
        ("never started", False),
        ("masked", False),
    ],
)
def test_what_may_still_touch_its_data_counts_as_running(systemctl: Recorded, name: str, running: bool) -> None:
    systemctl.answers(name)
    assert systemctl.unit.is_running() is running


def test_it_is_asked_by_its_exact_name_and_never_prompts(systemctl: Recorded) -> None:
    systemctl.answers("running")
    systemctl.unit.is_running()
    assert systemctl.calls[0][:2] == ["--no-ask-password", "--no-pager"]
    assert systemctl.calls[0][-2:] == ["--", "maestro-chroma"]


def test_when_it_was_started_is_the_start_of_its_process_in_utc(systemctl: Recorded) -> None:
    systemctl.answers("running")
    assert systemctl.unit.started_at() == datetime(2026, 11, 21, 11, 25, 36, 553022, tzinfo=UTC)
    systemctl.answers("failed")
    assert systemctl.unit.started_at() is None


def test_a_unit_that_systemd_does_not_know_is_unknown_not_stopped(systemctl: Recorded) -> None:
    systemctl.answers("absent")
    for ask in (systemctl.unit.is_running, systemctl.unit.started_at, systemctl.unit.stop, systemctl.unit.start):
        with pytest.raises(Unknown, match="no usable unit maestro-chroma: it is not-found"):
            ask()
    assert systemctl.told == []
    assert "inactive" in RECORDED["absent"]  # the control: by ActiveState alone it looks stopped


def test_a_host_without_systemd_is_unknown_not_stopped(systemctl: Recorded) -> None:
    systemctl.fails(1, NOT_BOOTED)
    with pytest.raises(Unknown, match="has not been booted with systemd"):
        systemctl.unit.is_running()


def test_a_host_without_systemctl_is_unknown_not_stopped(tmp_path: Path) -> None:
    with pytest.raises(Unknown, match="could not be started"):
        SystemdUnit("maestro-chroma", program=tmp_path / "systemctl").is_running()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "ActiveState=active\n",
        RECORDED["running"].rsplit("\n", 2)[0],
        RECORDED["running"].replace("=active", "=new-word"),
        RECORDED["running"].replace(" UTC", " CET"),
        RECORDED["running"].replace("2026-11-21", "21.11.2026"),
    ],
)
def test_an_answer_that_was_cut_or_is_new_is_unknown(systemctl: Recorded, said: str) -> None:
    systemctl.answers(said)
    with pytest.raises(Unknown, match="was not understood"):
        systemctl.unit.is_running()


def test_stopping_waits_and_looks_again(systemctl: Recorded) -> None:
    systemctl.answers("running", "never started")
    systemctl.unit.stop()
    assert systemctl.told == ["stop"]
    systemctl.answers("running", "running")
    with pytest.raises(Failed, match="was told to stop and is active"):
        systemctl.unit.stop()


def test_stopping_what_is_stopped_tells_nobody(systemctl: Recorded) -> None:
    systemctl.answers("never started")
    systemctl.unit.stop()
    assert systemctl.told == []


def test_what_could_not_be_started_again_is_not_stopped(systemctl: Recorded) -> None:
    systemctl.answers("runs without its file")
    with pytest.raises(Failed, match="once stopped it could not be started again"):
        systemctl.unit.stop()
    assert systemctl.told == []


def test_starting_looks_twice_because_systemctl_is_content_too_early(systemctl: Recorded) -> None:
    systemctl.answers("never started", "running", "failed")
    with pytest.raises(Failed, match="was started and is failed"):
        systemctl.unit.start()
    systemctl.answers("never started", "running", "running")
    systemctl.unit.start()
    assert systemctl.told == ["start"]


def test_starting_what_runs_tells_nobody(systemctl: Recorded) -> None:
    systemctl.answers("running")
    systemctl.unit.start()
    assert systemctl.told == []


def test_what_systemctl_says_reaches_the_person(systemctl: Recorded) -> None:
    systemctl.answers("masked", start=("", "Failed to start maestro-chroma.service: Unit maestro-chroma.service is masked.\n", 1))
    with pytest.raises(Failed, match=r"Unit maestro-chroma\.service is masked") as caught:
        systemctl.unit.start()
    assert caught.value.next == "systemctl status maestro-chroma"
    systemctl.answers("running", stop=("", "Failed to stop maestro-chroma.service: Access denied\n", 4))
    with pytest.raises(Failed, match="Access denied"):
        systemctl.unit.stop()


def test_a_systemctl_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "systemctl"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("storekeeper.runtimes.systemd._ASKING", 0.2)
    with pytest.raises(Unknown, match="did not end within"):
        SystemdUnit("maestro-chroma", program=program).is_running()


def test_a_declared_runtime_is_opened_without_asking() -> None:
    assert open_runtime(RuntimeModel(systemd="maestro-chroma")).label == "systemd unit maestro-chroma"


def test_a_unit_that_nobody_has_is_unknown_here_too() -> None:
    """The real program, or none, on this machine."""
    with pytest.raises(Unknown):
        SystemdUnit("storekeeper-test-no-such-unit").is_running()


def test_every_recorded_answer_is_read() -> None:
    assert {name: str(parse_state(text)) for name, text in RECORDED.items()} == {
        "running": "active (running)",
        "failed": "failed (failed)",
        "waits for its restart": "activating (auto-restart)",
        "starting": "activating (start)",
        "stopping": "deactivating (stop-sigterm)",
        "never started": "inactive (dead)",
        "runs without its file": "active (running)",
        "masked": "inactive (dead)",
        "absent": "inactive (dead)",
    }
