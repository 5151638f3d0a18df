"""The guards of the product, each with the tests that must go red where it is switched off (tests/faults/test_guards.py)."""

from __future__ import annotations

from tests.faults.guards.host import HOST
from tests.faults.guards.restore import RESTORE
from tests.faults.guards.sets import SETS
from tests.faults.guards.stores import STORES
from tests.harness.mutation import Guard

GUARDS: tuple[Guard, ...] = (*HOST, *SETS, *RESTORE, *STORES)
