"""Pieces compared by what is told of them: each with one other, and vectors that are nearly equal are equal."""

from __future__ import annotations

from typing import Any

from storekeeper.stores.mending import Piece, matched


def told(piece: Piece) -> Piece:
    return {key: value for key, value in piece.items() if key != "place"}


def row(name: str, place: int = 0, **more: Any) -> Piece:
    return {"name": name, "place": place, **more}


def test_equal_pieces_are_matched_as_often_as_they_are_there_and_answered_as_they_were_found() -> None:
    found, wanted = [row("a", 1), row("a", 2), row("b", 3)], [row("a", 7), row("c", 8)]
    both, rest, beyond = matched(found, wanted, told)
    assert (both, rest, beyond) == ([row("a", 1)], [row("a", 2), row("b", 3)], [row("c", 8)])


def test_a_vector_may_differ_by_rounding_and_by_nothing_more() -> None:
    one = [row("a", vector=[0.1, 1.0])]
    assert matched(one, [row("a", vector=[0.10001, 1.0])], told).both
    assert matched(one, [row("a", vector=None)], told).both, "one that was not looked at"
    assert not matched(one, [row("a", vector=[0.11, 1.0])], told).both
    assert not matched(one, [row("a", vector=[0.1])], told).both
    assert not matched(one, [row("b", vector=[0.1, 1.0])], told).both


def test_values_of_other_types_are_no_equals() -> None:
    assert not matched([row("a", value=1)], [row("a", value="1")], told).both
    assert not matched([row("a", value=1)], [row("a", value=None)], told).both
