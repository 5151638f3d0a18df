"""In which order the files of real servers are begun: where two run at once, the longest must not be the last."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

_LONGEST = "tests/servers/test_maestro.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = _longest_first(items)


def _longest_first(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    return sorted(items, key=lambda item: not item.nodeid.startswith(_LONGEST))
