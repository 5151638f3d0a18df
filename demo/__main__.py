"""The main job on four real stores, through pyinfra: kept, proven, broken, caught, and put back. Run by `make demo`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from demo import place
from demo.application import DOCUMENTS, MISSING, ORPHAN, Application
from demo.server import running

_PROGRAMS = Path(sys.prefix) / "bin"
_CONFIRM = f"confirm={place.STACK}@{os.uname().nodename}"


def main() -> None:
    """Run every step; ends with 1 at the first that does not go as it should. Whatever was started is stopped."""
    signal.signal(signal.SIGTERM, _interrupt)
    started = time.monotonic()
    root = place.directory()
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(mode=0o755, parents=True)
    print(f"Storekeeper's main job on four real stores, all below {root}\n")
    try:
        with running(root) as version:
            _tell("server", f"{version} with pgvector, on a socket, as an unprivileged user")
            good = _back_up_and_restore(root, Application(root))
            _disagree_and_agree(root, good)
            _tell("report", f"{_report(root / 'report.html') / 1000:.1f} kB")
    except KeyboardInterrupt:
        raise SystemExit("interrupted: everything that was started is stopped") from None
    print(f"\nDone in {time.monotonic() - started:.0f} s. The report: {root / 'report.html'}")


def _back_up_and_restore(root: Path, application: Application) -> str:
    """From nothing to a proven set, and back to it after a damage; the set's id."""
    _as_the_application(root, "create")
    whole = application.counts()
    _tell("application", f"{DOCUMENTS} documents in PostgreSQL, SQLite, Chroma and files: {_spoken(whole)}")
    _deploy("site")
    _tell("site", "directories, configuration, stack file and schedule are as declared")
    _deploy("backup")
    good = _sets()[-1]
    skew, pause = good["skew_ms"], good["pause_ms"]
    _tell("backup", f"{good['id']}: {good['bytes'] / 1e6:.1f} MB at one point, skew {skew:.0f} ms, writers paused {pause:.0f} ms")
    _deploy("prove")
    proven = _sets()[-1]
    _expect(proven["state"] == "proven", "the set is proven")
    _tell("prove", f"restored into scratch places, {sum(len(store['digests']) for store in proven['stores'].values())} digests equal")
    _deploy("backup")
    flipped = _flip_a_byte(Path(_sets()[-1]["path"]))
    _tell("break", f"one byte flipped in the second set ({flipped})")
    _deploy("verify", fails=True)
    second = _sets()[-1]
    _expect(second["state"] == "damaged", "verify finds the damaged set")
    _tell("verify", f"{second['id']} is {second['state']}, {proven['id']} is {_sets()[0]['state']}")
    _as_the_application(root, "damage")
    _tell("break", f"a tenth of everything deleted: {_spoken(application.counts())} left")
    _deploy("restore", "set=latest", _CONFIRM, "nobody_uses=vectors,papers")
    back = application.counts()
    _expect(back == whole, f"everything is back: {_spoken(back)}")
    _tell("restore", f"from {proven['id']}, all stores on one side: {_spoken(back)}")
    return str(proven["id"])


def _disagree_and_agree(root: Path, good: str) -> None:
    """What the stores disagree about is found, planned, repaired and undone; then the lost parts come back out of the set."""
    _as_the_application(root, "disagree")
    _tell("break", f"the row of {ORPHAN} is gone, and of {MISSING} the paper")
    _deploy("check")
    _expect(_disagreements() == {"orphan": 3, "missing": 1}, "the check finds both")
    _tell("check", f"3 orphans of {ORPHAN}, in chats, vectors and papers; 1 missing, the paper of {MISSING}")
    _report(root / "disagreement.html")
    _tell("table", "class by store, in disagreement.html")
    _deploy("repair", f"stack={place.STACK}", f"document={ORPHAN}", "at_once=yes")
    (plan,) = sorted(path.name for path in (root / "state" / place.STACK / "repairs").iterdir())
    _tell("plan", f"{plan}: what is left of {ORPHAN} may go")
    _deploy("repair", f"stack={place.STACK}", f"plan={plan}", _CONFIRM)
    _expect(_disagreements() == {"missing": 1}, "the orphans are gone")
    _tell("repair", "removed, with everything kept")
    _deploy("undo", f"stack={place.STACK}", f"plan={plan}", _CONFIRM)
    _expect(_disagreements() == {"orphan": 3, "missing": 1}, "the orphans are back")
    _tell("undo", "put back")
    for document in (ORPHAN, MISSING):
        _deploy("restore", f"set={good}", f"document={document}", _CONFIRM, "nobody_uses=vectors,papers")
    _expect(_disagreements() == {}, "all stores agree")
    _tell("document", f"{ORPHAN} and {MISSING} are whole again out of {good}, nothing else was touched")


def _report(page: Path) -> int:
    """Write the page of the fleet; how many bytes it has."""
    _deploy("status", f"report={page}")
    return page.stat().st_size


def _disagreements() -> dict[str, int]:
    """Findings by class, where there are any."""
    (rule,) = _asked("check", place.STACK)["rules"].values()
    return {name: count for name, count in rule["counts"].items() if count}


def _as_the_application(root: Path, what: str) -> None:
    subprocess.run([sys.executable, "-m", "demo.application", str(root), what], cwd=place.CHECKOUT, check=True)


def _deploy(name: str, *data: str, fails: bool = False) -> None:
    """Run a deploy through pyinfra, as a person would; what it says is shown when it does not end as expected."""
    words = [str(_PROGRAMS / "pyinfra"), "-y", "inventories/demo.py", f"deploys/{name}.py"]
    words += [word for pair in data for word in ("--data", pair)]
    done = subprocess.run(words, cwd=place.CHECKOUT, capture_output=True, text=True, check=False)
    if (done.returncode != 0) != fails:
        print(done.stdout + done.stderr)
        raise SystemExit(f"{' '.join(words[1:])} ended with {done.returncode}")


def _sets() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = _asked("list", place.STACK)["sets"]
    return found


def _asked(*words: str) -> dict[str, Any]:
    """What the host program answers."""
    config = place.directory() / "etc"
    done = subprocess.run(
        [str(_PROGRAMS / "storekeeper"), "--config", str(config), "--json", *words], capture_output=True, text=True, check=False
    )
    found: dict[str, Any] = json.loads(done.stdout)["result"]
    return found


def _flip_a_byte(folder: Path) -> str:
    """Rot in one artefact that no hard link shares with another set."""
    target = max((path for path in folder.rglob("*") if path.is_file() and path.stat().st_nlink == 1), key=lambda path: path.stat().st_size)
    target.chmod(0o600)
    with target.open("r+b") as file:
        file.seek(target.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    target.chmod(0o400)
    return str(target.relative_to(folder))


def _tell(step: str, figure: str) -> None:
    print(f"  {step:<12} {figure}", flush=True)


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise SystemExit(f"expected that {what}: it is not so")


def _spoken(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
