"""The page of benchmarks is what the runs found: every row, and every goal that was missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import page
from benchmarks.chart import draw
from benchmarks.measuring import Timing, compared, figure, in_turn, percentile, weighed


def timings(*seconds: float) -> list[Timing]:
    return [Timing(each, each / 2, each / 4) for each in seconds]


def part(name: str, *rows: dict[str, Any]) -> dict[str, Any]:
    machine = {"system": "Debian", "kernel": "6.1", "cores": "2", "memory": "4 GiB", "file system": "ext4", "load before": "0.1"}
    about = {"part": name, "title": name.title(), "measured": "2026-01-01 00:00 UTC", "seconds": 60, "machine": machine}
    return {**about, "versions": {"CPython": "3.11"}, "rows": list(rows)}


def test_a_ratio_is_that_of_two_runs_of_one_round() -> None:
    row = compared("backup", timings(1, 10), "cp", timings(2, 40), goal=0.4)
    assert row["ratio"] == {"median": 0.375, "min": 0.25, "max": 0.5}
    assert row["met"] is True
    assert compared("backup", timings(1, 10), "paging", timings(2, 40), goal=5, at_least=True)["met"] is False


def test_a_goal_for_the_worst_is_missed_by_one_run() -> None:
    assert figure("pause", [0.1, 0.1, 0.7], "s", goal=0.6)["met"] is True
    assert figure("pause", [0.1, 0.1, 0.7], "s", goal=0.6, worst=True)["met"] is False


def test_the_page_says_every_row_with_its_spread_and_names_what_missed_its_goal() -> None:
    missed = compared("backup", timings(3, 4, 5), "`cp`", timings(1, 1, 1), goal=2)
    said = page.render([part("files", missed, weighed("size", 10, "other", 20, goal=1)), part("start", figure("start", [7.0], "ms"))])
    assert "Of 2 goals 1 were met; missed:" in said
    assert "- Files: backup: 4.00 (3.00 to 5.00), the goal is at most 2." in said
    assert (
        "| backup | 3 | 4.00 s (3.00 to 5.00) | `cp`: 1.00 s | 4.00 (3.00 to 5.00) | 2.00 + 1.00 s | 0.50 + 0.25 s | at most 2: **mi"
        in said
    )
    assert "| start | 1 | 7.00 ms |  |  |  |  |  |" in said


def test_a_part_that_was_not_run_again_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    for name, value in (("one", 1.0), ("two", 2.0)):
        (tmp_path / f"{name}.json").write_text(json.dumps(part(name, figure(f"row of {name}", [value], "s"))))
    (tmp_path / "one.json").write_text(json.dumps(part("one", figure("row of one", [3.0], "s"))))
    page.write(("one", "two", "never"))
    said = (tmp_path / "page.md").read_text()
    assert "| row of one | 1 | 3.00 s" in said
    assert "| row of two | 1 | 2.00 s" in said


def test_the_published_page_is_what_the_published_results_say() -> None:
    parts = [json.loads(path.read_text()) for path in page.RESULTS.glob("*.json")]
    for each in parts:
        for row in each["rows"]:
            assert str(row["what"]) in page.PAGE.read_text(), f"{each['part']}: run make bench with --page-only"


def test_sides_take_turns_and_each_begins_some_round() -> None:
    order: list[str] = []
    sides = {name: (lambda _, name=name: (order.append(name), Timing(1, 1, 1))[1]) for name in ("a", "b")}
    assert {name: len(found) for name, found in in_turn(2, sides).items()} == {"a": 2, "b": 2}
    assert order == ["a", "b", "b", "a"]


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([5, 1, 4, 2, 3], 95) == 5
    assert percentile(list(range(1, 101)), 95) == 95


def test_a_chart_is_a_picture_whose_points_say_what_they_are() -> None:
    points = {"time": [(10, 1.0), (100, 10.0), (1000, 100.0)], "memory": [(10, 40.0), (100, 40.0), (1000, 40.0)]}
    series = [{"name": name, "unit": "<s>", "points": each} for name, each in points.items()]
    chart = {"title": "time & memory", "x": "documents", "series": series}
    picture = ElementTree.fromstring(draw(chart))
    space = "{http://www.w3.org/2000/svg}"
    assert [each.text for each in picture.iter(f"{space}title")][:3] == ["10: 1 <s>", "100: 10 <s>", "1,000: 100 <s>"]
    (rising, level) = (
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()] for line in picture.iter(f"{space}polyline")
    )
    assert level[0][1] == level[1][1] == level[2][1]
    assert rising[0][1] - rising[1][1] == pytest.approx(rising[1][1] - rising[2][1], abs=0.2)  # ten times as much is as far each time
    assert {x for x, _ in rising} == {x for x, _ in level}


def test_the_page_shows_the_chart_of_a_part_that_has_one() -> None:
    chart = {"title": "growth", "x": "documents", "series": []}
    with_chart = {**part("scale", figure("start", [7.0], "ms")), "chart": chart}
    assert "![growth](scale.svg)" in page.render([with_chart])
