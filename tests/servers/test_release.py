"""The host program on booted servers of two Debians: made once, switched in one step, gone back from, with and without a package index."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator

import pytest

from operations.packing import pack
from tests.harness.guest import CHECKOUT, booted
from tests.harness.target import PROGRAM, Target

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", params=["bookworm-py"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with booted(request.param, name="release", number=78) as guest:
        yield Target(guest, tmp_path_factory.mktemp("control"))


def _releases(target: Target) -> list[str]:
    return sorted(target.guest.run("cd /opt/storekeeper/releases && ls").stdout.split())


def test_a_release_is_made_with_hashes_started_and_becomes_the_current_one_and_a_second_run_sends_nothing(target: Target) -> None:
    first = target.deploy("site")
    assert first.code == 0, first.said
    release = pack(()).name
    assert target.said("readlink", "/opt/storekeeper/current") == f"releases/{release}"
    assert re.fullmatch(r"storekeeper [0-9.]+", target.said(PROGRAM, "--version"))
    assert _releases(target) == [release]
    again = target.deploy("site")
    assert (again.code, again.changed) == (0, [])
    assert f"release {release} is current" in again.reasons
    assert target.said("ls", "-A", "/opt/storekeeper") == ".lock\ncurrent\nreleases"
    assert target.said("find", "/tmp", "-type", "f") == "", "nothing is left of what was sent"
    assert target.said("sh", "-c", f"find /opt/storekeeper/releases/{release}/lib -name '*.pyc' | grep -c /storekeeper/") != "0"


def test_old_releases_go_but_those_that_run_and_the_newest_three_stay_and_any_of_them_can_be_gone_back_to(target: Target) -> None:
    current = target.said("readlink", "/opt/storekeeper/current").removeprefix("releases/")
    for number in range(1, 6):
        at = f"/opt/storekeeper/releases/0.0.{number}-old"
        target.guest.run(f"cp -a /opt/storekeeper/releases/{current} {at} && sed -i '1s|.*|#!{at}/bin/python3|' {at}/bin/storekeeper")
        target.guest.run(f"touch -d '2020-01-0{number}' {at} {at}/.complete")
    target.guest.run("nohup /opt/storekeeper/releases/0.0.1-old/bin/python3 -c 'import time; time.sleep(600)' >/dev/null 2>&1 &")
    gone_back = target.deploy("site", storekeeper_release="0.0.5-old")
    assert gone_back.code == 0, gone_back.said
    assert target.said("readlink", "/opt/storekeeper/current") == "releases/0.0.5-old"
    assert _releases(target) == sorted(["0.0.1-old", "0.0.4-old", "0.0.5-old", current]), "one runs, one is current, one was, one is spare"
    assert target.deploy("site", storekeeper_release="0.0.5-old").changed == []
    assert target.deploy("site").changed == ["Program"]
    assert target.said("readlink", "/opt/storekeeper/current") == f"releases/{current}"
    target.guest.run("pkill -f 0.0.1-old")


def test_a_release_that_is_not_there_cannot_be_gone_back_to_and_nothing_is_changed(target: Target) -> None:
    before = target.said("readlink", "/opt/storekeeper/current"), _releases(target)
    refused = target.deploy("site", storekeeper_release="9.9.9-none")
    assert refused.code == 1
    assert "there is no release 9.9.9-none below /opt/storekeeper/releases to go back to; there is" in refused.said
    assert (target.said("readlink", "/opt/storekeeper/current"), _releases(target)) == before


@pytest.mark.parametrize(
    ("python", "sentence"),
    [
        ("/usr/bin/nosuch", "/usr/bin/nosuch does not run on release: apt-get install python3 python3-venv"),
        ("/srv/old", "/srv/old on release is Python 3.9, the program needs 3.11"),
    ],
)
def test_a_host_without_a_python_that_can_is_told_so(target: Target, python: str, sentence: str) -> None:
    target.guest.run("printf '#!/bin/sh\necho 3 9\n' >/srv/old && chmod 755 /srv/old")
    refused = target.deploy("site", storekeeper_releases="/opt/other", storekeeper_python=python)
    assert refused.code == 1
    assert sentence in refused.said
    assert target.guest.run("ls /opt/other/current", check=False).returncode != 0


def test_a_host_that_reaches_no_index_gets_its_packages_along(target: Target) -> None:
    """Its own pip is told an index at which nobody answers: without the packages the release is not made, and nothing becomes current."""
    target.guest.run(
        "printf '[global]\nindex-url = http://127.0.0.1:9/\nretries = 0\n' >/etc/pip.conf.none && cp -a /etc/pip.conf /etc/pip.conf.was"
    )
    target.guest.run("cp /etc/pip.conf.none /etc/pip.conf")
    try:
        alone = target.deploy("site", storekeeper_releases="/opt/alone")
        assert alone.code == 1
        assert target.guest.run("ls /opt/alone/current", check=False).returncode != 0
        along = target.deploy("site", storekeeper_releases="/opt/alone", storekeeper_wheelhouse="yes")
        assert along.code == 0, along.said
        assert target.said("/opt/alone/current/bin/storekeeper", "--version").startswith("storekeeper ")
    finally:
        target.guest.run("cp -a /etc/pip.conf.was /etc/pip.conf")


def test_what_an_interrupted_run_left_is_removed_and_made_again_and_what_is_no_release_stays(target: Target) -> None:
    release = pack(()).name
    target.guest.run(f"rm /opt/storekeeper/releases/{release}/.complete /opt/storekeeper/current; mkdir -p /opt/storekeeper/.{release}")
    target.guest.run("mkdir /opt/storekeeper/releases/9.9.9-0123456789ab /opt/storekeeper/releases/notes-of-mine")
    done = target.deploy("site")
    assert done.code == 0, done.said
    assert target.said("readlink", "/opt/storekeeper/current") == f"releases/{release}"
    assert target.said(PROGRAM, "--version").startswith("storekeeper ")
    assert "9.9.9-0123456789ab" not in _releases(target)
    assert "notes-of-mine" in _releases(target)


def _made_of(target: Target, script: str, name: str, wheel: bytes) -> int:
    """What the script answers on the host that makes a release of this wheel alone."""
    here = target.control / name
    (here / "locks").mkdir(parents=True)
    (here / "locks/none.txt").touch()
    (here / "release.sh").write_text(script)
    (here / pack(()).wheel_name).write_bytes(wheel)
    target.guest.put(here, f"/root/{name}")
    return target.guest.run(f"sh /root/{name}/release.sh /opt/storekeeper {name} /usr/bin/python3", check=False).returncode


def _that_does_not_start(wheel: bytes) -> bytes:
    broken = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel)) as old, zipfile.ZipFile(broken, "w") as new:
        for each in old.infolist():
            new.writestr(each, b"raise SystemExit(3)\n" if each.filename == "storekeeper/__init__.py" else old.read(each))
    return broken.getvalue()


def test_a_release_that_does_not_start_is_never_complete_and_control_without_the_try_it_would_be(target: Target) -> None:
    """What is not complete is not switched to: `test_a_host_that_reaches_no_index_gets_its_packages_along` sees that."""
    script, wheel = (CHECKOUT / "templates/release.sh").read_text(), _that_does_not_start(pack(()).wheel)
    tried = '"$release/bin/storekeeper" --version >/dev/null\n'
    assert script.count(tried) == 1
    assert _made_of(target, script, "0.0.8-0123456789ab", wheel) == 3
    assert target.guest.run("ls /opt/storekeeper/releases/0.0.8-0123456789ab/.complete", check=False).returncode != 0
    assert _made_of(target, script.replace(tried, ""), "0.0.9-0123456789ab", wheel) == 0
    assert target.said("ls", "/opt/storekeeper/releases/0.0.9-0123456789ab/.complete")
    target.guest.run("rm -r /opt/storekeeper/releases/0.0.9-0123456789ab")
