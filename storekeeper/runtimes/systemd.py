"""A process that systemd supervises, asked and told through systemctl(1)."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from storekeeper.host import processes
from storekeeper.host.processes import Command, ProgramFailed
from storekeeper.outcomes import Failed, Unknown

_PROPERTIES = ("LoadState", "ActiveState", "SubState", "ActiveEnterTimestamp", "ExecMainStartTimestamp")
# A unit that is starting or stopping, or waits for its next restart, may touch its data: that is not stopped.
_RUNNING = {"active", "reloading", "refreshing", "activating", "deactivating"}
_STOPPED = {"inactive", "failed"}
_MOMENT = "%a %Y-%m-%d %H:%M:%S.%f %Z"

_ASKING = 20.0  # seconds
_PATIENCE = 300.0  # seconds; more than systemd's own 90 for a unit that says nothing else
_SETTLING = 0.5  # seconds: systemd calls a simple unit active before its program has been found to run


@dataclass(frozen=True)
class UnitState:
    """What systemd says of a unit. `loaded` is its LoadState, `active` its ActiveState; `started` is in UTC."""

    loaded: str
    active: str
    sub: str
    started: datetime | None

    @property
    def is_running(self) -> bool:
        return self.active in _RUNNING

    def __str__(self) -> str:
        return f"{self.active} ({self.sub})"


def parse_state(text: str) -> UnitState:
    """The output of `systemctl show --timestamp=us+utc`. Raises ValueError when a property is missing or not understood."""
    properties = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    missing = [name for name in _PROPERTIES if name not in properties]
    if missing:
        raise ValueError(f"it says nothing about {', '.join(missing)}")
    active = properties["ActiveState"]
    if active not in _RUNNING | _STOPPED:
        raise ValueError(f"it says ActiveState={active}")
    return UnitState(properties["LoadState"], active, properties["SubState"], _started(properties))


class SystemdUnit:
    """One unit of the system's service manager, named exactly; a name without a suffix is a service."""

    def __init__(self, unit: str, *, patience: float = _PATIENCE, program: str | Path = "systemctl") -> None:
        self._unit = unit
        self._program = program
        self._patience = patience

    @property
    def label(self) -> str:
        return f"systemd unit {self._unit}"

    def state(self) -> UnitState:
        """Raises Unknown when systemd does not answer, answers what we do not understand, or knows no such unit."""
        words = ["show", "--timestamp=us+utc", f"--property={','.join(_PROPERTIES)}"]
        try:
            said = processes.run(self._command(words), timeout=_ASKING).stdout.decode(errors="replace")
            state = parse_state(said)
        except ProgramFailed as error:
            raise Unknown(f"{self.label} cannot be looked at: {error.message}", next="systemctl is-system-running") from error
        except ValueError as error:
            raise Unknown(f"{self.label} cannot be looked at: systemctl was not understood, {error}", next=self._look()) from error
        if state.loaded in ("not-found", "error", "bad-setting") and not state.is_running:
            raise Unknown(f"systemd has no usable unit {self._unit}: it is {state.loaded}", next=self._look())
        return state

    def is_running(self) -> bool:
        return self.state().is_running

    def started_at(self) -> datetime | None:
        state = self.state()
        return state.started if state.is_running else None

    def stop(self) -> None:
        state = self.state()
        if not state.is_running:
            return
        if state.loaded != "loaded":
            raise Failed(f"{self.label} runs but is {state.loaded}: once stopped it could not be started again", next=self._look())
        self._tell("stop")
        state = self.state()
        if state.is_running:
            raise Failed(f"{self.label} was told to stop and is {state}", next=self._look())

    def start(self) -> None:
        if self.state().active != "active":
            self._tell("start")
        self._refuse_unless_active()
        time.sleep(_SETTLING)
        self._refuse_unless_active()

    def _refuse_unless_active(self) -> None:
        state = self.state()
        if state.active != "active":
            raise Failed(f"{self.label} was started and is {state}", next=self._look())

    def _tell(self, verb: str) -> None:
        try:
            processes.run(self._command([verb]), timeout=self._patience)
        except ProgramFailed as error:
            raise Failed(f"{self.label} could not be told to {verb}: {error.message}", next=self._look()) from error

    def _command(self, words: list[str]) -> Command:
        # What systemd starts outlives us, and must not carry our locks away.
        return Command([self._program, "--no-ask-password", "--no-pager", *words, "--", self._unit], keeps_locks=False)

    def _look(self) -> str:
        return f"systemctl status {shlex.quote(self._unit)}"


def _started(properties: Mapping[str, str]) -> datetime | None:
    """When the main process was started; for units without one, when they became active."""
    text = properties["ExecMainStartTimestamp"] or properties["ActiveEnterTimestamp"]
    if text in ("", "n/a"):
        return None
    if not text.endswith(" UTC"):
        raise ValueError(f"it says {text!r} for a time")
    return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC)
