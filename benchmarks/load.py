"""What the users of a PostgreSQL database feel of its backup: short transactions of four clients, with and without one.

    python -m benchmarks.load [--rounds 5] [--rows 60000] [--seconds 10]

The clients leave a pause between transactions, as users do, so that the machine is not full before a backup comes. Times with a
backup, with one that leaves nothing to others (`load: {nice: 0}`), with one that is held to 20 MB a second, and without, take turns.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks import postgresql
from benchmarks.keeping import Keeping
from benchmarks.measuring import Found, command, figure, percentile, show
from tests.harness.postgresql import Server

__all__ = ["TITLE", "measure", "show"]
TITLE = "Under load"
CLIENTS, PAUSE_S = 4, 0.004
WAYS: dict[str, dict[str, Any]] = {
    "a backup as it comes": {},
    "a backup with `nice: 0`": {"nice": 0},
    "a backup with `max_rate: 20MB`": {"max_rate": "20MB"},
}


def measure(rounds: int = 5, rows: int = 60_000, seconds: int = 10) -> Found:
    with postgresql.serving() as (server, room):
        postgresql.fill(server, rows, 384, index=False)
        root = room / "ours"
        root.mkdir()
        keeping = Keeping(root, {})
        for number, load in enumerate(WAYS.values()):
            keeping.declare(f"way{number}", {"rows": postgresql.declared(server)}, backup={"load": load} if load else {})
        waits: dict[str, list[float]] = {way: [] for way in ("no backup", *WAYS)}
        lasted: dict[str, list[float]] = {way: [] for way in WAYS}
        with working(server, rows) as took:
            time.sleep(1)
            for _ in range(rounds):
                waits["no backup"].append(_within(took, lambda: time.sleep(seconds))[0])
                for number, way in enumerate(WAYS):
                    wait, length = _within(took, lambda stack=f"way{number}": keeping.backup(stack))
                    waits[way].append(wait)
                    lasted[way].append(length)
        what = f"short transactions of {CLIENTS} clients, 95th percentile"
        found = [figure(f"{what}, {way}", values, "ms") for way, values in waits.items()]
        found += [figure(f"how long it takes meanwhile, {way}", values, "s") for way, values in lasted.items()]
        return {"rows": found, "sizes": {"rows": rows}}


@contextmanager
def working(server: Server, rows: int) -> Iterator[list[tuple[float, float]]]:
    """Clients at work while the block runs; when each transaction began, and the seconds it took."""
    took: list[tuple[float, float]] = []
    ended = threading.Event()
    server.run("create table if not exists tallies (id bigint primary key, count bigint not null)", postgresql.DATABASE)
    server.run("insert into tallies select i, 0 from generate_series(1, 1000) i on conflict do nothing", postgresql.DATABASE)
    clients = [threading.Thread(target=_work, args=(server, rows, number, took, ended)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield took
    finally:
        ended.set()
        for client in clients:
            client.join()


def _work(server: Server, rows: int, number: int, took: list[tuple[float, float]], ended: threading.Event) -> None:
    chance = random.Random(number)
    with server.connect(postgresql.DATABASE) as connection:
        while not ended.wait(PAUSE_S * chance.uniform(0.5, 1.5)):
            began = time.monotonic()
            with connection.transaction():
                connection.execute("select body from chunks where id = %s", (chance.randint(1, rows),)).fetchone()
                connection.execute("update tallies set count = count + 1 where id = %s", (chance.randint(1, 1000),))
            took.append((began, time.monotonic() - began))


def _within(took: list[tuple[float, float]], action: Any) -> tuple[float, float]:
    """The 95th percentile in milliseconds of what began while `action` ran, and how long that was."""
    began = time.monotonic()
    action()
    ended = time.monotonic()
    inside = [seconds for moment, seconds in took if began <= moment < ended]
    if len(inside) < 100:
        raise RuntimeError(f"only {len(inside)} transactions ended in {ended - began:.1f} s: nothing can be said of them")
    return percentile(inside, 95) * 1000, ended - began


if __name__ == "__main__":
    command(__doc__, measure)
