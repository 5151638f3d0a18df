"""Reading the index files without Chroma: every way in which their map was ever written, and nothing in it executed."""

from __future__ import annotations

import io
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


def _read(data: bytes) -> dict[str, int]:
    return dict(pickled.labels(io.BytesIO(data)))


def _as_chroma(state: dict[str, Any]) -> bytes:
    """As Chroma 1.x writes it (Rust's serde_pickle): nothing remembered, every text and number in its longest form."""

    def value(each: object) -> bytes:
        if isinstance(each, str):
            return b"X" + len(each.encode()).to_bytes(4, "little") + each.encode()
        if isinstance(each, int):
            return b"J" + each.to_bytes(4, "little") if each < 1 << 31 else b"\x8a\x08" + each.to_bytes(8, "little")
        assert isinstance(each, dict)
        pairs = [value(key) + value(item) for key, item in each.items()]
        return b"}" + b"".join(b"(" + b"".join(pairs[first : first + 1000]) + b"u" for first in range(0, len(pairs), 1000))

    return b"\x80\x03" + value(state) + b"."


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 70_000])
def test_maps_of_every_size_and_age_are_read_as_pickle_reads_them(count: int, protocol: int) -> None:
    state = _state(count)
    for data in (pickle.dumps(state, protocol), pickle.dumps(PersistentData(state), protocol), _as_chroma(state)):
        assert dict(pickled.labels(io.BytesIO(data))) == state["id_to_label"]
        assert pickled.total_added(io.BytesIO(data)) == count


def test_the_map_that_chroma_writes_is_read_as_pickle_reads_it(tmp_path: Path) -> None:
    execute(tmp_path / "store", "load(collection('papers', sync=100), 1300, 4)")
    data = next(tmp_path.glob("store/*/index_metadata.pickle")).read_bytes()
    assert dict(pickled.labels(io.BytesIO(data))) == pickle.loads(data)["id_to_label"]


def test_a_map_cut_anywhere_is_found() -> None:
    for data in (pickle.dumps(_state(40), 4), _as_chroma(_state(40))):
        _read(data)
        for size in range(len(data)):
            with pytest.raises(pickled.BadPickle):
                _read(data[:size])
        with pytest.raises(pickled.BadPickle):
            _read(data + b".")


@pytest.mark.parametrize("window", [1, 10, 64, 1000])
def test_a_pair_that_ends_outside_the_window_is_read_whole(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "_WINDOW", window)
    state = _state(300)
    state["id_to_label"] |= {"": 300, "long " * 400: 301, "\n" * 11: 302}
    for data in (pickle.dumps(state, 4), _as_chroma(state)):
        assert _read(data) == state["id_to_label"]


def test_lengths_and_texts_that_make_no_sense_are_found_and_not_read_into_memory() -> None:
    data = bytearray(_as_chroma(_state(40)))
    place = data.index(b"id 7 ") - 4
    for length in (1 << 31, (1 << 32) - 1, 1 << 27, 3):
        with pytest.raises(pickled.BadPickle):
            _read(bytes(data[:place]) + length.to_bytes(4, "little") + bytes(data[place + 4 :]))
    for text in (b"id 7 ", b"id 8 "):
        broken = bytes(data).replace(text, b"\xff" + text[1:])
        with pytest.raises(pickled.BadPickle, match="not UTF-8"):
            _read(broken)


def test_nothing_in_a_map_is_executed(tmp_path: Path) -> None:
    state = _state(3)
    state["id_to_label"]["evil"] = Evil(tmp_path / "ran")
    data = pickle.dumps(state, 4)
    with pytest.raises(pickled.BadPickle):
        _read(data)
    assert not (tmp_path / "ran").exists()
    pickle.loads(data)
    assert (tmp_path / "ran").exists()  # control: the pickle is a working one
