"""docs/faults.md, of what each part of the campaign found when it was run last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.faults.catalogue import CASES, GROUPS
from tests.harness.campaign import Case, Found, SwitchedOff


def merged(parts: Mapping[str, Found]) -> dict[str, Case]:
    """What all parts say of each case: one failure in one of them is one of the case."""
    cases: dict[str, Case] = {}
    for found in parts.values():
        for name, case in found.cases.items():
            cases.setdefault(name, Case()).add(case)
    return cases


def not_held(parts: Mapping[str, Found]) -> list[str]:
    cases = merged(parts)
    return [case for case in CASES if case not in cases or not cases[case].holds]


def render(parts: Mapping[str, Found]) -> str:
    """The page, of parts by their names."""
    cases = merged(parts)
    lines = [
        "# Faults",
        "",
        "What Storekeeper was put through, and what came of it. `make faults` runs all of it, or some `PARTS`, and writes this page:",
        f"{len(CASES) - len(not_held(parts))} of {len(CASES)} cases held.",
        "",
        "Each case has tests that inject the fault into real stores, and at least one control: the same fault without the guard, which",
        "must do its damage. Figures are counts of that run; a case without one has no count beyond its tests. `make test` holds the",
        "same with fewer trials.",
        "",
        *_about_parts(parts),
    ]
    for letter, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| case | what goes wrong | result | figures | tests | controls |", "|---|---|---|---|---|---|"]
        lines += [_row(case, fault, cases.get(case, Case())) for case, fault in CASES.items() if case[0] == letter]
    lines += _about_guards([guard for found in parts.values() for guard in found.guards])
    return "\n".join(lines) + "\n"


def _about_parts(parts: Mapping[str, Found]) -> Iterator[str]:
    yield from ("| part | run (UTC) | of commit | minutes | tests passed | failed |", "|---|---|---|---|---|---|")
    for name, found in parts.items():
        passed, failed = found.tests["passed"], found.tests["failed"]
        yield f"| {name} | {found.began} | {found.commit} | {round(found.seconds / 60)} | {passed:,} | {failed} |"
    for versions in dict.fromkeys(tuple(found.versions) for found in parts.values()):
        names = [name for name, found in parts.items() if tuple(found.versions) == versions]
        yield from ("", f"{', '.join(names)}: with {', '.join(versions)}." if len(names) < len(parts) else f"With {', '.join(versions)}.")


def _row(case: str, fault: str, found: Case) -> str:
    result = "held" if found.holds else "**not held**"
    return f"| {case} | {fault} | {result} | {'<br>'.join(found.figures)} | {len(found.passed)} | {len(found.controls)} |"


def _about_guards(guards: Sequence[SwitchedOff]) -> Iterator[str]:
    """What is left of the suite's eyes: a guard whose absence nothing notices could be lost in any change."""
    if not guards:
        return
    noticed = sum(bool(each.caught_by) for each in guards)
    yield from ("", "## Guards", "")
    yield f"Each guard was switched off in a copy of the program, one at a time, and {noticed} of {len(guards)} were noticed: a test"
    yield from ("that passes without the change fails with it, by an assertion.", "")
    yield from ("| guard | switched off by | caught by |", "|---|---|---|")
    for each in guards:
        caught = "<br>".join(name.removeprefix("test_").replace("_", " ") for name in each.caught_by) or "**nothing**"
        yield f"| {each.guard} | {_cell(each.change)} | {caught} |"


def _cell(text: str) -> str:
    """A bar would end the cell, also inside of code."""
    return text.replace("|", "\\|")
