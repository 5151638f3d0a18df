"""What is wrong with a file that a person wrote: each mistake with its place, all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from storekeeper.outcomes import Problem, Refused

Step = str | int
Path = tuple[Step, ...]

MOST_SHOWN = 100


@dataclass(frozen=True)
class Mistake:
    """One mistake: `path` is what it is about (empty for the file itself); `hint` is a line of its own, for people."""

    label: str
    line: int
    column: int
    path: Path
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        about = f"{dotted(self.path)}: " if self.path else ""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.label}:{self.line}:{self.column}: {about}{self.message}{hint}"


class StackFileErrors(Refused):
    """A stack file or the configuration is wrong. The message lists all mistakes, a line each, and says that nothing was changed."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: (mistake.line, mistake.column)))
        lines = [str(mistake) for mistake in self.mistakes[:MOST_SHOWN]]
        if len(self.mistakes) > MOST_SHOWN:
            lines.append(f"and {len(self.mistakes) - MOST_SHOWN} more")
        count = "1 problem" if len(self.mistakes) == 1 else f"{len(self.mistakes)} problems"
        super().__init__("\n".join([*lines, f"{count}. Nothing was changed."]))

    def problems(self) -> tuple[Problem, ...]:
        """One entry a mistake, for a document's `problems`; the hint is the next thing to do."""
        return tuple(
            Problem(f"{mistake.label}:{mistake.line}:{mistake.column}: {_about(mistake)}{mistake.message}", next=mistake.hint)
            for mistake in self.mistakes
        )


def _about(mistake: Mistake) -> str:
    return f"{dotted(mistake.path)}: " if mistake.path else ""


def dotted(path: Path) -> str:
    """`services[0].systemd`; names that are no plain words are shown as a string would be."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if step.isidentifier() else quoted(step))
    return text


def quoted(text: str) -> str:
    """A text as it can be shown on a terminal and in a log: in double quotes, on one line, at most 60 characters."""
    short = text if len(text) <= 60 else text[:57] + "..."
    shown = short if short.isprintable() else short.encode("unicode_escape").decode("ascii")
    return f'"{shown}"'


def suggestion(word: str, known: Sequence[str]) -> str | None:
    """The known word that was probably meant."""
    near = get_close_matches(word, known, n=1, cutoff=0.6)
    return near[0] if near else None


def did_you_mean(word: str | None) -> str | None:
    return f"did you mean {quoted(word)}?" if word else None
