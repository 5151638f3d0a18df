"""The address that is told how a scheduled backup ended (`ping:` in the stack file), for a service that misses its absence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from storekeeper.outcomes import Busy, Outcome, StorekeeperError
from storekeeper.verbs.report import Report
from storekeeper.watch.ping import ping


def told(url: str | None, stack: str, run: Callable[[], Report]) -> Report:
    """Run, then tell the address whether it went well. A run that found another at work tells nothing: the other one will.

    An address that cannot be told is a warning of its own, beside however the run ended.
    """
    if url is None:
        return run()
    try:
        report = run()
    except Busy:
        raise
    except StorekeeperError as error:
        _tell_failure(url, f"{stack}: {error.message}", error)
        raise
    except BaseException as error:
        _tell_failure(url, f"{stack}: backup ended with {type(error).__name__}", error)
        raise
    is_good = report.ended() in (Outcome.OK, Outcome.WARNING)
    problem = ping(url, is_good, f"{stack}: backup {report.ended()}")
    return report if problem is None else replace(report, problems=(*report.problems, problem))


def _tell_failure(url: str, sentence: str, error: BaseException) -> None:
    problem = ping(url, False, sentence)
    if problem is not None:
        error.add_note(problem.message)
