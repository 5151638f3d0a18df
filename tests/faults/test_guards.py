"""Each guard of the product switched off in a copy, one at a time: some test must notice, or the guard could be lost in any change.

In every run the guards whose loss is worst, each with its fastest test; in the campaign all of them with all their tests.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.guards import GUARDS
from tests.harness import verdicts
from tests.harness.campaign import Campaign
from tests.harness.mutation import Guard, Verdict, Workshop, names_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "guard" in metafunc.fixturenames:
        chosen = [guard for guard in GUARDS if guard.always or metafunc.config.option.full]
        metafunc.parametrize("guard", [pytest.param(each, marks=pytest.mark.control(*each.cases), id=each.name) for each in chosen])


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with tempfile.TemporaryDirectory(prefix="sk-") as folder:  # short: sockets of servers are named below it
        os.chmod(folder, 0o711)  # some of its programs are run by other users
        yield Workshop(Path(folder))


@pytest.fixture(scope="module")
def sound(request: pytest.FixtureRequest, workshop: Workshop) -> Sequence[Verdict]:
    """How the tests of all guards of this run end where nothing is switched off."""
    full = request.config.option.full
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module]
    guards = [item.callspec.params["guard"] for item in items if hasattr(item, "callspec")]
    return workshop.run(workshop.plain, list(dict.fromkeys(test for guard in guards for test in _tests(guard, full=full))))


def test_a_guard_that_is_switched_off_is_noticed(guard: Guard, workshop: Workshop, sound: Sequence[Verdict], campaign: Campaign) -> None:
    tests = _tests(guard, full=campaign.full)
    before = [each for each in sound if any(each.test == test or each.test.startswith(f"{test}[") for test in tests)]
    if skipped := [each.words for each in before if each.outcome == verdicts.SKIPPED]:
        pytest.skip(skipped[0])
    assert {each.outcome for each in before} == {verdicts.PASSED}, f"without any change: {before}"
    after = workshop.run(workshop.without(guard), tests)
    caught = names_of(after, verdicts.FAILED)
    campaign.switched_off(guard.name, guard.change, caught)
    assert caught, f"{guard.protects}: without {guard.name} no assertion failed, {after}"


def _tests(guard: Guard, *, full: bool) -> Sequence[str]:
    return guard.tests if full else guard.tests[:1]
