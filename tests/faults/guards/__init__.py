"""The guards of the product, each with the tests that must go red where it is switched off (tests/faults/test_guards.py)."""

from __future__ import annotations

from tests.faults.guards.afar import AFAR
from tests.faults.guards.agreeing import AGREEING
from tests.faults.guards.believing import BELIEVING
from tests.faults.guards.caring import CARING
from tests.faults.guards.chroma import CHROMA
from tests.faults.guards.comparing import COMPARING
from tests.faults.guards.files import FILES
from tests.faults.guards.host import HOST
from tests.faults.guards.keeping import KEEPING
from tests.faults.guards.postgresql import POSTGRESQL
from tests.faults.guards.recovering import RECOVERING
from tests.faults.guards.restore import RESTORE
from tests.faults.guards.sqlite import SQLITE
from tests.faults.guards.taking import TAKING
from tests.harness.mutation import Guard

GUARDS: tuple[Guard, ...] = (
    *HOST,
    *TAKING,
    *BELIEVING,
    *KEEPING,
    *RESTORE,
    *POSTGRESQL,
    *SQLITE,
    *CHROMA,
    *FILES,
    *AFAR,
    *CARING,
    *AGREEING,
    *RECOVERING,
    *COMPARING,
)
