"""Programs that go on when whoever started them is gone: a transient unit of systemd, else a process in a session of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SYSTEMD = Path("/run/systemd/system")  # is there where systemd is process 1 (sd_booted(3))
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH")  # of our environment: nothing else has a meaning for the program


def start(unit: str, argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Start a program with nothing to read and its standard error at the end of `log`. Raises OSError where it cannot be started.

    As root on a host with systemd it is a unit of that name, so that no end of a session ends it.
    """
    known = {**{name: os.environ[name] for name in _KEPT if name in os.environ}, **environment}
    if os.geteuid() == 0 and _SYSTEMD.is_dir():
        words = ["systemd-run", "--quiet", "--collect", "--no-ask-password", f"--unit={unit}", "--working-directory=/"]
        words += ["--property=KillMode=mixed", "--property=StandardOutput=null", f"--property=StandardError=append:{log}"]
        words += [f"--setenv={name}={value}" for name, value in known.items()]
        done = subprocess.run([*words, "--", *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"systemd-run ended with {done.returncode}: {done.stderr.strip()}")
        return
    with open(log, "ab") as told:
        subprocess.Popen(argv, cwd="/", env=known, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
