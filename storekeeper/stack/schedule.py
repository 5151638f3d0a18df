"""Which verbs run when: the `schedule` of a stack file, in its short form and as a list."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from storekeeper.stack.cron import CronTime
from storekeeper.stack.types import Declared, Duration, Matching, expected

VERBS = ("backup", "verify", "prove", "prune", "check", "examine", "status", "list", "doctor")
LONGEST_SPREAD = timedelta(hours=1)
# Verbs of the contract that a later version schedules.
LATER_VERBS = ("repair", "maintain", "measure", "report", "migrate", "query", "history")


def _verb(text: str) -> str:
    if text in LATER_VERBS:
        raise ValueError(f'"{text}" on a schedule is not known to this version of storekeeper')
    if text not in VERBS:
        raise expected(f"one of {', '.join(VERBS)}")
    return text


def _time(value: object) -> CronTime:
    if isinstance(value, CronTime):
        return value
    if not isinstance(value, str):
        raise expected("five fields such as 0 3 * * *")
    return CronTime.parse(value)


Verb = Annotated[str, AfterValidator(_verb), WithJsonSchema({"type": "string", "enum": list(VERBS)})]
# Plain words only: they stand on a cron line, where `%` and newlines end the command and a shell reads the rest.
Argument = Annotated[
    str,
    Matching(
        r"--[a-z][a-z-]{0,39}(=[A-Za-z0-9._:/-]{1,100})?|[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}",
        "an option or a plain word (letters, digits, . _ : / -)",
    ),
]
Time = Annotated[
    CronTime,
    PlainValidator(_time),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "description": "five cron fields, such as 0 3 * * *"}),
]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise expected("a time zone that this machine knows, such as Europe/Berlin") from None
    return name


def _spread(span: timedelta) -> timedelta:
    if span > LONGEST_SPREAD:
        raise expected("at most 1h")
    return span


class Scheduler(Declared):
    """What starts the verbs of a schedule."""

    by: Annotated[Literal["cron", "systemd"], Field(description="a file in /etc/cron.d, or a timer for each entry")] = "cron"
    zone: Annotated[
        Annotated[str, Matching(r"[A-Za-z0-9_+/-]{1,60}", "a time zone such as Europe/Berlin"), AfterValidator(_zone)] | None,
        Field(description="the zone in which times are meant, with systemd only; the host's when left out"),
    ] = None
    spread: Annotated[
        Annotated[Duration, AfterValidator(_spread)] | None,
        Field(description="start later by up to this, at most 1h, always the same on a host: so that hosts do not start at once"),
    ] = None


class ScheduleEntry(Declared):
    """One verb, with its arguments after the stack's name, and when it runs."""

    verb: Annotated[Verb, Field(description="the verb")]
    arguments: Annotated[tuple[Argument, ...], Field(description="what is typed after the stack's name")] = ()
    at: Annotated[Time, Field(description="five cron fields: numbers, `*`, lists, ranges and steps")]


def _entries(value: object) -> object:
    """The list that a short form (`{backup: "0 3 * * *"}`) stands for; anything else as it is."""
    if isinstance(value, dict):
        return tuple({"verb": verb, "at": at} for verb, at in value.items())
    if isinstance(value, list):
        return tuple(value)
    return value


def _as_tuples(value: object) -> object:
    if isinstance(value, dict) and isinstance(value.get("arguments"), list):
        return {**value, "arguments": tuple(value["arguments"])}
    return value


_ENTRY = ScheduleEntry.model_json_schema()
Schedules = Annotated[
    tuple[Annotated[ScheduleEntry, BeforeValidator(_as_tuples)], ...],
    BeforeValidator(_entries),
    WithJsonSchema(
        {
            "description": "verbs and their times: {backup: '0 3 * * *'}, or a list of {verb, arguments, at}",
            "anyOf": [
                {
                    "type": "object",
                    "propertyNames": {"enum": list(VERBS)},
                    "additionalProperties": {"type": "string", "description": "five cron fields, such as 0 3 * * *"},
                },
                {"type": "array", "items": _ENTRY},
            ],
        }
    ),
]
