"""What a host must be before anything is done there, on a booted Debian 12 over SSH: each refusal is one sentence, for its host alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.deploys import run_deploy
from tests.harness.guest import CHECKOUT, booted
from tests.harness.target import PROGRAM, Target
from tests.servers.unfit import CRON, TIMERS, Server, full, ready, stacks, typed

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ready("preflight", 90, tmp_path_factory.mktemp("control")) as server:
        yield server


@pytest.mark.parametrize(("shift", "direction"), [("+2 hours", "ahead of"), ("-2 hours", "behind")])
def test_a_clock_that_is_apart_is_refused(server: Server, shift: str, direction: str) -> None:
    with server.wrapped("date", f"exec /usr/bin/date -d '{shift}' \"$@\""):
        sentence = server.refused("site", **server.fresh("timeless"))
    (apart,) = re.findall(rf"the clock of preflight is (\d+) s {direction} this machine's: set it ", sentence)
    assert 7170 <= int(apart) <= 7230
    assert not server.there("/srv/timeless")


def test_a_clock_that_is_less_than_a_minute_apart_is_not(server: Server) -> None:
    with server.wrapped("date", "exec /usr/bin/date -d '-40 seconds' \"$@\""):
        assert server.well("list").reasons == ["preflight is fit: debian 12"]


def test_a_host_that_never_says_how_it_is_is_given_up(server: Server) -> None:
    with server.wrapped("date", "exec sleep 600"):
        done = server.deployed("list", storekeeper_patience=3)
        server.guest.run("pkill -x sleep")
    assert done.code == 1
    assert f"what {server.guest.address} is could not be read, so nothing was decided" in done.said


@pytest.mark.parametrize(
    ("release", "called"),
    [
        ("ID=ubuntu\nVERSION_ID=24.04", "ubuntu 24.04"),
        ("ID=alpine\nVERSION_ID=3.20.3", "alpine 3.20.3"),
        ("ID=debian\nVERSION_ID=11", "debian 11"),
        ("", "what has no name"),
    ],
)
def test_only_the_debians_that_are_known_are_provisioned(server: Server, release: str, called: str) -> None:
    with server.of_another_release(release):
        sentence = server.refused("provision", storekeeper_users={"shop": {"home": "/srv/shop"}})
    assert sentence == f"preflight runs {called}; this is made for debian 12 and 13"
    assert server.guest.run("id shop", check=False).returncode != 0


def test_the_program_is_not_limited_to_them(server: Server) -> None:
    with server.of_another_release("ID=ubuntu\nVERSION_ID=24.04"):
        assert server.well("site").reasons[0] == "preflight is fit: ubuntu 24.04"


def test_another_system_is_refused(server: Server) -> None:
    with server.wrapped("uname", 'if [ "$1" = -s ]; then echo Darwin; else exec /usr/bin/uname "$@"; fi'):
        assert server.refused("list") == "preflight runs Darwin; this is made for Linux"


@pytest.mark.fault("G11")
def test_the_deploy_says_what_starts_the_schedules(server: Server) -> None:
    assert server.well("site", storekeeper_stacks=stacks(CRON)).reasons[0] == "preflight is fit: debian 12, with schedules by cron"
    both = stacks(CRON) | stacks(TIMERS, "more")
    said = server.well("site", storekeeper_stacks=both).reasons[0]
    assert said == "preflight is fit: debian 12, with schedules by cron and systemd timers"
    away = "mv /run/systemd/system /run/systemd/away", "mv /run/systemd/away /run/systemd/system"
    with server.changed(*away):
        sentence = server.refused("site", storekeeper_stacks=both)
    assert sentence == "preflight is not run by systemd, which a stack declares as its scheduler: declare scheduler: {by: cron}"


@pytest.mark.fault("G11")
def test_on_the_other_debian_too(tmp_path: Path) -> None:
    with booted("trixie", name="preflight13", number=91) as guest:
        other = Target(guest, tmp_path, storekeeper_program="/opt/elsewhere", storekeeper_stacks=stacks(TIMERS))
        done = other.deploy("site")
        assert done.code == 0, done.said
        assert done.reasons[0] == "preflight13 is fit: debian 13, with schedules by systemd timers"
        assert "storekeeper-notes-backup.timer" in other.said("systemctl", "list-timers", "--all", "--no-legend")


@pytest.mark.control("G11")
def test_control_a_timer_on_a_host_without_systemd_starts_nothing(server: Server) -> None:
    """systemctl takes it for a system that is not booted with systemd: what is put there would stay a file."""
    with server.changed("mv /run/systemd/system /run/systemd/away", "mv /run/systemd/away /run/systemd/system"):
        done = server.guest.run("systemctl start storekeeper-notes-backup.timer", check=False)
    assert done.returncode != 0
    assert "System has not been booted with systemd" in done.stderr


# What is free


@pytest.mark.fault("G10")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("nr_inodes=100,mode=700", "has 99 inodes free, 1000 are needed to work at all: make room"),
        ("size=10m,mode=700", "has 10 MiB free, 64 are needed to work at all: make room"),
        ("ro,mode=700", "cannot be written to: is its file system read-only (findmnt --target /var/backups/storekeeper)?"),
    ],
)
def test_a_repository_in_which_nothing_can_be_put_is_refused(server: Server, options: str, sentence: str) -> None:
    with server.mounted("/var/backups/storekeeper", options):
        assert server.refused("site") == f"/var/backups/storekeeper on preflight {sentence}"


@pytest.mark.fault("G10")
@pytest.mark.parametrize("place", ["/var/lib/storekeeper", "/opt/storekeeper"])
def test_a_place_that_is_read_only_is_refused(server: Server, place: str) -> None:
    with server.mounted(place, "ro,mode=700"):
        assert server.refused("site").startswith(f"{place} on preflight cannot be written to: ")


@pytest.mark.fault("G10")
def test_a_backup_into_a_read_only_repository_says_so_and_what_is_there_can_be_listed(server: Server) -> None:
    with server.mounted("/var/backups/storekeeper", "ro,mode=700"):
        done = server.deployed("backup")
        assert done.code == 1
        assert done.said.count("notes: /var/backups/storekeeper is read-only") == 1, done.said
        server.well("list")


@pytest.mark.fault("G10")
def test_a_temporary_directory_without_room_is_not_needed(server: Server) -> None:
    assert "Program" in server.first.changed, "a release was made without it"
    with full(server):
        assert "Stack file of notes" in server.well("site", storekeeper_stacks=stacks("# another\n")).changed
        server.well("backup")


@pytest.mark.fault("G10")
def test_a_temporary_directory_without_exec_is_not_needed(server: Server) -> None:
    with server.mounted("/tmp", "noexec,mode=1777"):
        assert server.guest.run("printf '#!/bin/sh\n' >/tmp/try && chmod 755 /tmp/try && /tmp/try", check=False).returncode != 0
        for which in ("site", "backup", "prove"):
            server.well(which)


@pytest.mark.fault("G10")
def test_a_user_without_a_home_is_told_so_where_one_is_needed(server: Server) -> None:
    with server.changed("mv /home/ops /home/away", "mv /home/away /home/ops"):
        sentence = server.refused("site")
        assert re.match(r"ops has no home on \S+ that can be written to, and files go there first: mkhomedir_helper ops", sentence)
        server.well("backup")


@pytest.fixture
def open_mask(server: Server) -> Iterator[None]:
    """Each login has the mask 000 and the language C."""
    files = "/etc/pam.d/common-session /etc/pam.d/common-session-noninteractive"
    line = "session optional pam_umask.so umask=000"
    change = f"for file in {files}; do cp -a $file /root/ && echo '{line}' >>$file; done; echo LANG=C >/etc/environment"
    with server.changed(change, "cp -a /root/common-session* /etc/pam.d/; : >/etc/environment"):
        yield


@pytest.mark.fault("G10")
@pytest.mark.usefixtures("open_mask")
def test_with_an_open_mask_nothing_is_put_there_and_sets_are_private_all_the_same(server: Server) -> None:
    as_root = {"ssh_user": "root", "storekeeper_sudo": False}
    sentence = server.refused("site", **as_root, **server.fresh("open"))
    assert re.match(r"what root makes on \S+ can be written by everybody \(umask 000\): set UMASK 022 ", sentence)
    assert server.refused("site").startswith("what ops makes on "), "with sudo too: what is on its way belongs to the login"
    odd = server.guest.run("cd /srv/notes/papers && touch \"$(printf 'gr\\303\\274n \\377')\" && env | grep -e ^LANG -e ^LC").stdout
    assert odd == "LANG=C\n"
    server.well("backup", **as_root)
    server.well("prove", **as_root)
    server.guest.run(f"umask 000; unset HOME; {PROGRAM} --quiet backup notes")
    places = "/var/backups/storekeeper /var/lib/storekeeper /etc/storekeeper"
    assert server.said("find", *places.split(), "-perm", "/077", "!", "-type", "l") == ""
    assert server.guest.run("ls /var/backups/storekeeper/*/*/papers/content | grep -c ^gr").stdout.strip() != "0"


@pytest.mark.control("G10")
@pytest.mark.usefixtures("open_mask")
def test_control_what_pyinfra_makes_with_an_open_mask_everybody_can_write(server: Server) -> None:
    server.declare(ssh_user="root")
    assert typed(server, "mkdir -p /srv/anybodys/state", cwd=CHECKOUT).returncode == 0
    assert server.said("stat", "-c", "%a", "/srv/anybodys", "/srv/anybodys/state") == "777\n777"


# More than one, and a bad wire


def test_a_host_that_is_refused_stops_no_other(server: Server) -> None:
    server.declare(storekeeper_stacks=stacks())
    (host,) = re.findall(r"^hosts = \[\(.*?, (\{.*\})\)\]$", server.inventory.read_text(encoding="utf-8"), re.MULTILINE)
    also = f"{{**{host}, 'ssh_hostname': '{server.guest.address}'"
    inventory = server.control / "two.py"
    inventory.write_text(f"hosts = [('bad', {also}, 'ssh_user': 'other'}}), ('good', {also}}})]\n", encoding="utf-8")
    done = run_deploy(inventory, "backup")
    assert done.code == 1
    assert re.search(r"^ +\[bad\]\s+sudo does not work for other on bad ", done.said, re.MULTILINE), done.said
    assert re.search(r"^ +\[good\] ok: backup  notes ", done.said, re.MULTILINE), done.said
    assert done.table["Back up notes"][0] == 1


@pytest.mark.fault("G4")
def test_over_a_wire_that_loses_a_fifth_of_all_packets_each_way_one_set_comes_to_be(server: Server) -> None:
    """A deploy that gives its wire up is run again, and finds what it began."""
    count = "ls /var/backups/storekeeper/notes | wc -l"
    before = int(server.guest.run(count).stdout)
    server.declare(storekeeper_stacks=stacks())
    server.guest.lose(0.2)
    try:
        ended = next((done for done in (server.deploy("backup") for _ in range(4)) if done.code == 0), None)
    finally:
        server.guest.mend()
    assert ended is not None
    assert int(server.guest.run(count).stdout) == before + 1
