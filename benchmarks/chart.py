"""A picture of how a figure grows: points on two logarithmic scales, so that what grows in step is a straight line, as an SVG file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 720, 380, 64, 190, 48, 52
_COLOURS = ("#2f6fde", "#c2410c", "#15803d")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2937 } .title { font-weight: 600 } .grid { stroke: #d1d5db } .paper { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #e5e7eb } .grid { stroke: #374151 } .paper { fill: #111827 } }
"""


def draw(chart: Mapping[str, Any]) -> str:
    """`chart` has a `title`, the word for `x`, and `series`, each with `name`, `unit` and `points` of two numbers above zero."""
    series = chart["series"]
    points = [point for each in series for point in each["points"]]
    across, up = _Scale([x for x, _ in points], _LEFT, _WIDTH - _RIGHT), _Scale([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart["title"])}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(chart["title"])}</text>',
        *_grid(across, up),
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(chart["x"])}</text>',
    ]
    for each, colour in zip(series, _COLOURS, strict=False):
        lines += _line(each, colour, across, up)
    return "\n".join([*lines, "</svg>", ""])


class _Scale:
    """Powers of ten, from the one at or below the least value to the one at or above the largest."""

    def __init__(self, values: Sequence[float], first: float, last: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._first, self._last = first, last

    def at(self, value: float) -> float:
        return self._first + (math.log10(value) - self._low) / (self._high - self._low) * (self._last - self._first)

    @property
    def powers(self) -> Iterator[int]:
        return (int(10**power) for power in range(max(self._low, 0), self._high + 1))


def _grid(across: _Scale, up: _Scale) -> Iterator[str]:
    for power in across.powers:
        x = across.at(power)
        yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        yield f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{power:,}</text>'
    for power in up.powers:
        y = up.at(power)
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{power:,}</text>'


def _line(series: Mapping[str, Any], colour: str, across: _Scale, up: _Scale) -> Iterator[str]:
    at = [(across.at(x), up.at(y)) for x, y in series["points"]]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    yield f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"/>'
    for (x, y), (count, value) in zip(at, series["points"], strict=True):
        said = f"{count:,}: {value:.3g} {series['unit']}"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(said)}</title></circle>'
    x, y = at[-1]
    said = f"{series['name']}: {series['points'][-1][1]:.3g} {series['unit']}"
    yield f'<text x="{x + 10:.1f}" y="{y + 4:.1f}" style="fill:{colour}">{escape(said)}</text>'
