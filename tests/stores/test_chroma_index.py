"""Reading the index files without Chroma: every way in which their map was ever written, and nothing in it executed."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from storekeeper.stores.chroma import pickled
from tests.harness.chroma import execute


class PersistentData:
    """As Chroma before 1.0 pickled it: an object whose state is the dictionary."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _state(count: int) -> dict[str, Any]:
    names = ["label_to_id" if number == 3 else f"id {number} \U0001f4da" for number in range(count)]
    return {
        "dimensionality": 8,
        "total_elements_added": count,
        "max_seq_id": 1 << 40,
        "id_to_label": {name: number for number, name in enumerate(names)},
        "label_to_id": dict(enumerate(names)),
        "id_to_seq_id": {},
    }


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 70_000])
def test_maps_of_every_size_and_age_are_read_as_pickle_reads_them(count: int, protocol: int) -> None:
    state = _state(count)
    for value in (state, PersistentData(state)):
        data = pickle.dumps(value, protocol)
        assert dict(pickled.labels(data)) == state["id_to_label"]
        assert pickled.total_added(data) == count
        pickled.check(data)


def test_the_map_that_chroma_writes_is_read_as_pickle_reads_it(tmp_path: Path) -> None:
    execute(tmp_path / "store", "load(collection('papers', sync=100), 1300, 4)")
    data = next(tmp_path.glob("store/*/index_metadata.pickle")).read_bytes()
    assert dict(pickled.labels(data)) == pickle.loads(data)["id_to_label"]


def test_a_map_cut_anywhere_is_found() -> None:
    data = pickle.dumps(_state(40), 4)
    for size in range(len(data)):
        with pytest.raises(pickled.BadPickle):
            pickled.check(data[:size])
    with pytest.raises(pickled.BadPickle):
        pickled.check(data + b".")


def test_nothing_in_a_map_is_executed(tmp_path: Path) -> None:
    state = _state(3)
    state["id_to_label"]["evil"] = Evil(tmp_path / "ran")
    data = pickle.dumps(state, 4)
    with pytest.raises(pickled.BadPickle):
        list(pickled.labels(data))
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists()  # control: the pickle is a working one
