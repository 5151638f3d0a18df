"""What each verb's document holds, as a JSON schema: the reference is written from it and the tests hold every answer to it."""

from __future__ import annotations

from typing import Any

from storekeeper.cli.catalogue import BY_NAME
from storekeeper.cli.document import SCHEMA
from storekeeper.outcomes import EXIT_CODES, Severity
from storekeeper.stores.examination import KINDS

Schema = dict[str, Any]


def text(meaning: str) -> Schema:
    return {"type": "string", "description": meaning}


def whole(meaning: str) -> Schema:
    return {"type": "integer", "description": meaning}


def number(meaning: str) -> Schema:
    return {"type": "number", "description": meaning}


def flag(meaning: str) -> Schema:
    return {"type": "boolean", "description": meaning}


def moment(meaning: str) -> Schema:
    return {"type": "string", "pattern": r"^[0-9-]{10}T[0-9:.]{8,15}Z$", "description": f"{meaning} (RFC 3339, UTC)"}


def one_of(words: list[str], meaning: str) -> Schema:
    return {"enum": words, "description": meaning}


def or_null(schema: Schema, when: str) -> Schema:
    """The same, or null; `when` says what null means."""
    return {"anyOf": [schema, {"type": "null"}], "description": f"{schema.get('description', '')}; null: {when}".lstrip("; ")}


def record(fields: dict[str, Schema], meaning: str = "", optional: dict[str, Schema] | None = None) -> Schema:
    """An object with exactly these fields, and perhaps the optional ones."""
    known = {**fields, **(optional or {})}
    return {"type": "object", "properties": known, "required": list(fields), "additionalProperties": False, "description": meaning}


def by(key: str, schema: Schema, meaning: str = "") -> Schema:
    """An object whose keys are names of something."""
    return {"type": "object", "additionalProperties": schema, "description": meaning, "title": key}


def several(schema: Schema, meaning: str = "") -> Schema:
    return {"type": "array", "items": schema, "description": meaning}


COUNTS = by("OBJECT", whole("how many"), "rows of a table, vectors of a collection, `files` and `bytes` of a tree")
STORE_OUTCOME = one_of(["ok", "failed", "unknown", "skipped"], "how it went for this store")
STATE = one_of(["verified", "proven", "damaged", "unprovable", "incomplete"], "what is known of the set")

STORE_OF_SET = record(
    {
        "kind": text("postgresql, sqlite, chroma or files"),
        "class": text("how its moment was pinned: snapshot, locked-copy or listed-copy; raw-copy where it could not be read"),
        "outcome": STORE_OUTCOME,
        "bytes": whole("what its files hold"),
        "seconds": number("how long its dump took"),
        "pause_ms": number("how long its writers waited, in milliseconds"),
        "downtime_s": number("how long it did not answer, in seconds"),
        "counts": COUNTS,
        "digests": by("OBJECT", {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$", "description": "what it held, comparable"}),
    }
)

AGREEMENT = record(
    {
        "documents": or_null(whole("documents of the authority in the set"), "a place was not recorded"),
        "in_flight": or_null(whole("of these, the ones that were being worked on"), "a place was not recorded"),
        "counts": or_null(by("CLASS", whole("findings at the set's moment")), "a place was not recorded"),
        "holes": or_null(
            whole("missing and partial: what the authority had and a replica had not, or not all of"), "a place was not recorded"
        ),
        "extras": or_null(whole("orphan, leftover and foreign: what a replica had and should not have"), "a place was not recorded"),
        "unread": several(text("a place whose ids could not be recorded")),
    }
)

SET = record(
    {
        "id": text("the set's id"),
        "path": text("its directory"),
        "sequence": whole("its place in the order of the stack's sets"),
        "time": moment("when it was begun"),
        "state": STATE,
        "bytes": whole("what its files hold; files shared with other sets count in each"),
        "skew_ms": or_null(number("latest minus earliest pinned moment, in milliseconds"), "its manifest cannot be used"),
        "pause_ms": or_null(number("the longest that writers waited, in milliseconds"), "its manifest cannot be used"),
        "verified_at": or_null(moment("when it was last read back and decoded in full"), "never"),
        "proven_at": or_null(moment("when it was last restored into a scratch place and came out equal"), "never"),
        "pinned": flag("whether no rule may remove it"),
        "stores": by("NAME", STORE_OF_SET, "empty where its manifest cannot be used"),
        "agreements": by("RULE", AGREEMENT, "none where no rule was declared when it was taken"),
    }
)

PRUNED = {
    "kept": several(record({"id": text("a set's id"), "reasons": several(text("a rule that keeps it"))})),
    "removed": several(record({"id": text("a set's id"), "reason": text("why no rule keeps it")})),
    "bytes_freed": whole("what no set holds any more"),
}

LOOKED_AT = record(
    {
        "sets": several(
            record(
                {
                    "id": text("the set's id"),
                    "state": STATE,
                    "stores": by("NAME", record({"outcome": STORE_OUTCOME, "seconds": number("how long it took")})),
                }
            )
        )
    }
)

CLASSES = ("orphan", "missing", "partial", "leftover", "foreign")
FINDING = record(
    {
        "document": text("the document's id"),
        "owner": or_null(text("whose it is"), "no owner is known"),
        "class": one_of(list(CLASSES), "how the place disagrees with the authority"),
        "store": text("the store"),
        "place": text("where in the store: a query, a table, a collection or a pattern"),
        "detail": text("what is there"),
        "since": or_null(moment("since when every look has seen it; of a leftover, when the document failed"), "it is not known"),
    }
)
HELD = record({"documents": whole("documents of which it holds something"), "chunks": or_null(whole("chunks"), "the place counts none")})
CHECKED = record(
    {
        "outcome": one_of(["ok", "warning", "unknown"], "agreement, findings, or a place that could not be read"),
        "documents": or_null(whole("documents of the authority"), "it could not be read"),
        "counts": record(
            {
                **{name: whole("findings") for name in CLASSES},
                "in_flight": whole("documents that are being worked on, which are never wrong"),
            }
        ),
        "findings": several(FINDING, "by document, at most 10,000"),
        "left_out": whole("findings that are counted and not listed here"),
        "unread": several(text("a place that could not be read: nothing is said of it")),
        "unchanged": several(text("a place in which nothing has changed since it was read before, so that it was not read again")),
    }
)
_STATS = record(
    {
        "owners": whole("different owners of documents"),
        "states": by("STATE", whole("documents"), "as the authority calls them, the most frequent 50"),
        "places": by("PLACE", HELD),
    }
)
CHECK_RULES = by("RULE", CHECKED)
CHECK_STATS = record({**CHECKED["properties"], "stats": or_null(_STATS, "the authority could not be read")})

_AGREED = record({key: CHECKED["properties"][key] for key in ("outcome", "documents", "counts")})
_LOOKED_AT_ONE = LOOKED_AT["properties"]["sets"]["items"]["properties"]
PROVED = record({"sets": several(record({**_LOOKED_AT_ONE, "agreements": by("RULE", _AGREED, "what its restored copies agree on")}))})

PLANNED = record(
    {
        "id": text("the plan's id; its last 12 digits are of its own sha256"),
        "path": text("its directory, with a line for each entry in `entries.jsonl`"),
        "removals": by("STORE", whole("entries of documents that would be removed")),
        "documents": by("RULE", whole("documents of which something would be removed")),
        "reingest": whole("documents that the application has to take in again"),
        "reingest_file": text("the list of them, a document a line"),
        "restores": or_null(
            record(
                {"set": text("the set"), "document": text("the document"), "rule": text("the rule")}, "the document that it brings back"
            ),
            "it removes what disagrees",
        ),
        "waiting": whole("findings that were first seen less than the grace ago"),
        "by_hand": whole("findings of which nobody but a person can tell what is right"),
        "samples": several(record({"rule": text("the rule"), **FINDING["properties"]}), "the first of what would be removed"),
        "space": record({"needed": whole("bytes that are kept for undo, about"), "free": whole("bytes")}),
    }
)
_COUNTS_AFTER = {
    "asked": whole("documents that the application was asked for"),
    "whole": whole("of them whole in every place afterwards"),
    "in_flight": whole("being worked on"),
    "failed": whole("failed, by the authority's word"),
    "gone": whole("not known to the authority any more"),
    "missing": whole("missing still, or not whole"),
}
REINGESTED = record(
    {
        "plan": text("the plan's id"),
        "rules": by("RULE", record(_COUNTS_AFTER)),
        "skipped": several(record({"document": text("the document"), "why": text("why it was not asked for")}), "at most 1,000"),
        "left_out": whole("skipped and not listed here"),
    },
    "of `repair reingest`",
)
REPAIRED = record(
    {
        "plan": text("the plan's id"),
        "removed": by("STORE", whole("entries of documents that were removed")),
        "undone": by("STORE", whole("entries of documents that were put back")),
        "skipped": several(
            record({"document": text("the document"), "place": text("the place"), "why": text("what changed since the plan was made")}),
            "at most 1,000",
        ),
        "left_out": whole("skipped and not listed here"),
        "undo": or_null(text("the command that takes it back"), "it was just taken back"),
    },
    "of `repair apply` and `repair undo`",
)

VALUE: Schema = {
    "description": "bytes, and numbers that JSON has no word for (NaN, decimals), are an object; other types are the database's own text",
    "anyOf": [
        {"type": ["null", "boolean", "number", "string"]},
        record({"base64": text("bytes, and what is stored as text and is none")}),
        record({"number": text("the digits of a decimal, NaN, Infinity or -Infinity")}),
    ],
}
QUERIES = record(
    {
        "queries": several(
            record(
                {
                    "name": text("the query's name"),
                    "store": text("the store that is asked"),
                    "arguments": several(text("the name of a value")),
                    "limit": whole("at most so many rows are answered"),
                    "description": or_null(text("what it is for"), "the stack file does not say"),
                }
            )
        )
    },
    "without a query's name",
)
ANSWERED = record(
    {
        "query": text("the query's name"),
        "store": text("the store that was asked"),
        "columns": several(text("a column's name; two may be alike")),
        "rows": several(several(VALUE), "the first rows, as the query orders them"),
        "more": flag("whether there are more rows than these"),
    }
)

LOCK = or_null(one_of(["read", "write"], "the lock that it holds"), "none: it only has the file open")
FIGURE: Schema = {"type": ["number", "string", "boolean", "null"], "description": "by kind of store, see docs/care.md"}
EXAMINED = record(
    {
        "stores": by(
            "NAME",
            record(
                {
                    "kind": text("postgresql, sqlite, chroma or files"),
                    "outcome": one_of(["ok", "warning", "unknown"], "all is well, flaws, or something could not be looked at"),
                    "seconds": number("how long the look took"),
                    "figures": by("FIGURE", FIGURE),
                    "counts": or_null(COUNTS, "they could not be read"),
                    "flaws": several(
                        record(
                            {
                                "kind": one_of(list(KINDS), "what kind of thing is wrong"),
                                "object": or_null(text("a table, an index, collection/document, a path"), "the whole store"),
                                "message": text("a sentence"),
                                "next": or_null(text("what to do"), "nothing in particular"),
                            }
                        ),
                        "at most 1,000",
                    ),
                    "left_out": whole("flaws that are counted and not listed here"),
                    "users": or_null(
                        several(
                            record(
                                {
                                    "pid": whole("the process"),
                                    "program": text("its program"),
                                    "lock": LOCK,
                                    "waits": flag("whether it waits for a lock"),
                                }
                            )
                        ),
                        "not asked of this kind of store, or could not be seen",
                    ),
                }
            ),
        )
    }
)
EVICTED = record(
    {
        "store": text("the store"),
        "pid": whole("the process that was asked to end"),
        "program": text("its program"),
        "ended": flag("whether it has ended"),
        "held": LOCK,
        "lock": or_null(
            one_of(["read", "write", "unknown"], "the lock that it holds now, unknown where that cannot be seen"),
            "none: it has ended, or has let go of it",
        ),
    }
)

RESTORED = {
    "set": or_null(text("the set that is live now"), "the old sides are live again, the stores are empty, or nothing was changed"),
    "safety_set": or_null(text("the set that was taken first, pinned"), "every store was absent"),
    "stores": by(
        "NAME",
        record(
            {
                "switch_ms": number("how long its switch took, in milliseconds"),
                "downtime_s": number("how long it did not answer, in seconds"),
                "counts": COUNTS,
            }
        ),
    ),
    "agreements": by(
        "RULE",
        record(
            {
                "outcome": CHECKED["properties"]["outcome"],
                "documents": CHECKED["properties"]["documents"],
                "counts": CHECKED["properties"]["counts"],
            }
        ),
        "what a check found when all was live again; none where no rule is declared, or nothing was changed",
    ),
    "back": or_null(text("the command that returns"), "there is nothing to return from"),
}

PLAN = record(
    {
        "plan": record(
            {
                "set": or_null(text("the set that would be restored"), "the old sides of the last restore, or nothing at all in a reset"),
                "stores": by(
                    "NAME",
                    record(
                        {
                            "now": one_of(["readable", "absent", "unreadable"], "how it was found; only a raw copy is kept of the last"),
                            "counts_now": or_null(COUNTS, "the store is absent or cannot be read"),
                            "counts_after": or_null(COUNTS, "as the old side holds them"),
                            "bytes_needed": whole("beside the live data"),
                            "downtime_s": number("expected, in seconds"),
                        }
                    ),
                ),
                "services": several(text("what would be stopped meanwhile")),
                "space": by("MOUNT", record({"needed": whole("bytes"), "free": whole("bytes")}), "by file system"),
                "disagreements": by(
                    "RULE",
                    record(
                        {
                            "counts": or_null(by("CLASS", whole("findings that would come of it")), "it cannot be told"),
                            "samples": several(FINDING, "the first of them"),
                        }
                    ),
                    "of `--only`, for each rule with places in other stores too",
                ),
            }
        )
    },
    "with `--plan` only",
)

RESCUED = record(
    {
        "proven_set": or_null(text("the newest proven set, which it is compared with"), "there is none that holds the store"),
        "damages": several(text("what SQLite says is wrong with the file"), "the first twenty"),
        "tables": by(
            "TABLE",
            record(
                {
                    "rows": whole("rows that were rescued"),
                    "lost": or_null(whole("rows that cannot be read, as a whole index counts them"), "nobody can tell how many"),
                    "refused": whole("rows that were read and are against the table's own keys or checks"),
                    "pages": whole("pages that cannot be read, or not all of them"),
                    "in_set": or_null(whole("rows in the proven set"), "it does not hold the table, or there is none"),
                }
            ),
        ),
        "unplaced": whole("rows on pages that nothing leads to, of a table that nobody can tell"),
        "documents": several(
            record(
                {
                    "rule": text("the rule"),
                    "place": text("where in the store"),
                    "set": text("the proven set"),
                    "count": or_null(whole("documents that the set holds there and that were not rescued"), "it cannot be told"),
                    "samples": several(text("a document's id"), "the first ten"),
                }
            ),
            "for each place of a rule in the store, where anything is lost",
        ),
    }
)
_PLANNED = {key: value for key, value in PLAN["properties"]["plan"]["properties"].items() if key != "disagreements"}
RECOVERY_PLAN = record({"plan": record({**_PLANNED, "rescued": RESCUED})}, "with `--plan` only")

_BROUGHT = {
    "set": text("the set"),
    "document": text("the document"),
    "rule": text("the rule that it is one of"),
    "places": several(
        record(
            {
                "place": text("where in the store: a query, a table, a collection or a pattern"),
                "store": text("the store"),
                "now": whole("rows, chunks or files of the document before"),
                "after": whole("as many as the set holds"),
                "change": one_of(["same", "put back", "replaced", "removed"], "what becomes of them"),
                "differs": several(text("what is not the same, named without its values"), "the first ten"),
            }
        ),
        "the authority first",
    ),
}
DOCUMENT_PLAN = record(
    {
        "plan": record(
            {
                **_BROUGHT,
                "stores": by("NAME", {"type": "null"}, "none is replaced as a whole"),
                "services": several(text("what would be stopped meanwhile")),
            }
        )
    },
    "with `--document` and `--plan`",
)
DOCUMENT_RESTORED = record(
    {
        **_BROUGHT,
        "repair": or_null(text("the id under which what stood there is kept"), "nothing was changed"),
        "back": or_null(text("the command that returns"), "there is nothing to return from"),
    },
    "with `--document`",
)

AGED = record(
    {
        "set": text("the set's id"),
        "at": moment("when the backup was begun, or the proof was made"),
        "age_s": whole("seconds since then"),
        "limit_s": or_null(whole("the age that the schedule allows: its longest gap and two hours"), "the verb has no schedule"),
    }
)

MIGRATIONS = or_null(
    record(
        {
            "newest": or_null(text("the first column of the query's first row"), "none was applied"),
            "count": whole("how many were applied"),
            "more": flag("whether there are more than were counted"),
        },
        "with `--live`, of a stack that declares `migration`; the key is missing else",
    ),
    "the store could not be asked",
)
STATUS = record(
    {
        "stacks": by(
            "NAME",
            record(
                {
                    "stores": by(
                        "NAME",
                        record(
                            {
                                "kind": text("postgresql, sqlite, chroma or files"),
                                "state": or_null(
                                    one_of(["up", "unknown"], "what the store itself answered"), "it was not asked (`--live`)"
                                ),
                                "bytes": or_null(whole("its size"), "not known yet"),
                                "counts": or_null(COUNTS, "not known yet"),
                                "as_of": or_null(moment("when these figures were true"), "not known yet"),
                                "last_proof": or_null(AGED, "never proven"),
                            }
                        ),
                        "figures of the newest backup, or with `--live` of the store itself",
                    ),
                    "last_backup": or_null(AGED, "there is no usable backup"),
                    "last_proof": or_null(AGED, "no backup is proven"),
                    "next_run": or_null(moment("the next scheduled backup"), "none is scheduled"),
                    "findings": or_null(by("CLASS", whole("findings of all rules")), "no rule is declared, or not every one was looked at"),
                    "agreement": by(
                        "RULE",
                        or_null(
                            record(
                                {
                                    "at": moment("when it was last looked at in full"),
                                    "stores": several(text("a store that must follow")),
                                    "documents": or_null(whole("documents of the authority then"), "it could not be read"),
                                    "counts": by("CLASS", by("STORE", whole("findings"))),
                                    "unread": several(text("a place that could not be read then: nothing is known of it")),
                                }
                            ),
                            "it was never looked at as it is declared now",
                        ),
                        "what the last look at each declared rule found",
                    ),
                    "alerts": several(
                        record(
                            {
                                "store": or_null(text("the store it is about"), "the whole stack"),
                                "message": text("what needs attention"),
                                "next": or_null(text("what to do"), "nothing in particular"),
                            }
                        )
                    ),
                    "backups": or_null(
                        record(
                            {
                                "usable": whole("verified and proven sets"),
                                "proven": whole("proven sets"),
                                "bytes": whole("what all sets hold; shared files count in each"),
                                "free": whole("bytes left where they are kept"),
                            }
                        ),
                        "they could not be read",
                    ),
                },
                optional={"migrations": MIGRATIONS},
            ),
        )
    }
)

JOBS = record(
    {
        "jobs": several(
            record(
                {
                    "id": text("the run's id"),
                    "verb": text("the verb"),
                    "stack": text("the stack"),
                    "started": moment("when it began"),
                    "outcome": or_null(one_of([str(each) for each in EXIT_CODES], "how it ended"), "it is running"),
                    "path": text("its record, which holds its whole document"),
                    "seconds": or_null(number("how long it took"), "it is running, or was interrupted"),
                    "interrupted": flag("whether it ended without a record of its end"),
                    "message": or_null(text("the first sentence of what it had to say"), "nothing"),
                }
            ),
            "oldest first",
        )
    }
)

DUE = record(
    {
        "runs": several(
            record(
                {
                    "id": text("the run's id"),
                    "verb": text("the verb"),
                    "arguments": several(text("what stands after the stack's name in the schedule")),
                    "planned": moment("when it should have run"),
                    "outcome": or_null(one_of([str(each) for each in EXIT_CODES], "how it ended"), "it is running"),
                }
            ),
            "what was missed and ran now",
        )
    }
)

MISSING = record(
    {
        "what": text("what is missing"),
        "stack": or_null(text("the stack that needs it"), "the host"),
        "store": or_null(text("the store that needs it"), "the whole stack"),
        "command": or_null(text("the command that mends it"), "there is none"),
    }
)

PINNED = record({"id": text("the set's id"), "pinned": flag("whether it is pinned now")})

HISTORY = record(
    {
        "document": text("the document's id"),
        "sets": several(
            record(
                {
                    "id": text("the set's id"),
                    "time": moment("when it was begun"),
                    "state": STATE,
                    "why": or_null(text("why nothing of it is known"), "its manifest could be read"),
                    "rules": by(
                        "RULE",
                        record(
                            {
                                "is": one_of(
                                    ["whole", "incomplete", "in_flight", "failed", "orphan", "absent", "unknown"],
                                    "how the set holds it: `orphan` where replicas had something of it and the authority had not",
                                ),
                                "owner": or_null(text("whose it was"), "no owner is known"),
                                "findings": several(FINDING, "what was wrong with it"),
                                "why": or_null(text("why it is not known"), "it is known"),
                            }
                        ),
                        "none where the set recorded no ids, or nothing of it is known",
                    ),
                }
            ),
            "oldest first",
        ),
        "newest_whole": or_null(text("the newest good set in which it is whole"), "there is none"),
        "restore": or_null(text("the command that brings it back out of that set"), "there is none"),
    }
)

_ACTION = one_of(["upgrade", "downgrade", "stamp", "test"], "which of the declared commands")
_APPLIED = or_null(
    record({"newest": or_null(text("its name"), "none was applied"), "count": whole("how many were applied")}),
    "the stack declares no `applied`",
)

MIGRATED = record(
    {
        "action": _ACTION,
        "command": text("the command, with the words that were typed"),
        "set": text("the proven set of which it was tried on a copy"),
        "trial": record({"changed": flag("whether it changed anything there"), "applied": _APPLIED, "seconds": number("how long it took")}),
        "safety_set": or_null(text("what was live before, pinned"), "nothing live was touched"),
        "stores": by("NAME", record({"counts": COUNTS}), "as they are now; none where nothing live was touched"),
        "downtime_s": number("how long services were stopped, in seconds"),
        "applied": _APPLIED,
        "agreements": RESTORED["agreements"],
        "back": or_null(text("the command that returns"), "there is nothing to return from"),
    }
)

MIGRATION_PLAN = record(
    {
        "plan": record(
            {
                "action": _ACTION,
                "commands": several(text("what would be run on the copy, in this order; the first of them live, unless it is a test")),
                "set": text("the proven set of which a copy is made"),
                "applied": _APPLIED,
                "stores": by(
                    "NAME",
                    record({"counts_now": or_null(COUNTS, "never"), "bytes_needed": whole("for the way back, beside the live data")}),
                ),
                "services": several(text("what would be stopped meanwhile")),
                "space": by("MOUNT", record({"needed": whole("bytes"), "free": whole("bytes")}), "by file system"),
            }
        )
    },
    "with `--plan`",
)

MIGRATION_TOLD = record(
    {
        "action": one_of(["current", "history"], "which of the declared commands"),
        "command": text("the command, with the words that were typed"),
        "output": text("the end of what it said on standard output, at most 64,000 characters, with every declared secret taken out"),
    },
    "of `current` and `history`",
)

_MADE = {
    "stores": several(text("a store"), "the databases that are left without any table"),
    "command": text("the declared `upgrade`, which makes the schema"),
}
_LIVE_SCHEMA = "every store keeps its own schema"
RESET = record({**RESTORED, "schema": or_null(record({**_MADE, "applied": _APPLIED}), _LIVE_SCHEMA)})
RESET_PLAN = record(
    {"plan": record({**PLAN["properties"]["plan"]["properties"], "schema": or_null(record(_MADE), _LIVE_SCHEMA)})}, "with `--plan` only"
)

RESULTS: dict[str, list[Schema]] = {
    "backup": [record({"set": SET, "retention": or_null(record(PRUNED, "what retention did afterwards"), "it could not end")})],
    "list": [record({"sets": several(SET, "oldest first")})],
    "verify": [LOOKED_AT],
    "prove": [PROVED],
    "restore": [record(RESTORED), PLAN, DOCUMENT_RESTORED, DOCUMENT_PLAN],
    "reset": [RESET, RESET_PLAN],
    "recover": [record({**RESTORED, "rescued": RESCUED}), RECOVERY_PLAN],
    "migrate": [MIGRATED, MIGRATION_PLAN, MIGRATION_TOLD],
    "resume": [
        record(
            {"ended": or_null(one_of(["done", "went back", "abandoned"], "how the interrupted restore ended"), "none was open"), **RESTORED}
        ),
        record({"ended": {"type": "null", "description": "no restore was open"}}),
    ],
    "check": [
        record({"rules": CHECK_RULES}),
        record(
            {
                "rules": by("RULE", CHECK_STATS),
                "stores": by("NAME", or_null(record({"bytes": whole("its size"), "counts": COUNTS}), "it does not answer")),
            },
            "with `--stats`",
        ),
        record(
            {"rules": CHECK_RULES, "repaired": or_null(REPAIRED, "nothing that is declared was found, or nothing could be removed")},
            "with `--repair-declared`",
        ),
    ],
    "history": [HISTORY],
    "repair": [record({"plan": PLANNED}, "of `repair plan`"), REPAIRED, REINGESTED],
    "query": [QUERIES, ANSWERED],
    "examine": [EXAMINED],
    "evict": [EVICTED],
    "prune": [record({**PRUNED, "dry_run": flag("whether nothing was removed")})],
    "send": [record({"set": SET})],
    "receive": [record({"set": SET})],
    "pin": [PINNED],
    "unpin": [PINNED],
    "jobs": [JOBS],
    "due": [DUE],
    "status": [STATUS],
    "doctor": [record({"missing": several(MISSING)})],
}

PROBLEM = record(
    {
        "stack": or_null(text("the stack it is about"), "the host"),
        "store": or_null(text("the store it is about"), "the whole stack"),
        "severity": one_of([str(each) for each in Severity], "how grave it is"),
        "message": text("a sentence"),
        "next": or_null(text("what to do, mostly a command to paste"), "nothing in particular"),
    }
)


def document_schema(verb: str) -> Schema:
    """The schema of every document that a verb can answer with."""
    shell = {
        "schema": {"const": SCHEMA, "description": "the version of this contract"},
        "verb": one_of([verb], "the verb"),
        "stack": or_null(text("the stack"), "the verb was not about one stack, or the words could not be read"),
        "host": text("`uname -n`"),
        "outcome": one_of([str(each) for each in EXIT_CODES], "how it ended; the exit code follows from it"),
        "started": moment("when it began"),
        "seconds": number("how long it took"),
        "result": or_null({"anyOf": RESULTS[verb], "description": "by verb, see below"}, "the verb could not answer; `problems` says why"),
        "problems": several(PROBLEM, "what a person should know; the gravest is not always the first"),
    }
    found = record(shell, f"what `storekeeper {verb} --json` prints")
    if BY_NAME[verb].job:
        found["properties"]["job"] = text("with `--job` and `--heard`, the run whose answer this is")
    return found


def usage_schema() -> Schema:
    """The schema of the answer to words that could not be read: `verb` is the one that was recognised, if any."""
    found = document_schema("list")
    verb = or_null(one_of(list(BY_NAME), "the verb that was recognised"), "none was")
    return {**found, "properties": {**found["properties"], "verb": verb, "result": {"type": "null"}}}
