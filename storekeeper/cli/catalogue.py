"""Every word that can be typed: the verbs, their options, exit codes and examples.

The parser, the help, the completion and docs/reference/cli.md are all made from this one table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Takes(Enum):
    """What an option is followed by, for the parser and for completion."""

    NOTHING = "nothing"
    TEXT = "text"
    DIRECTORY = "directory"
    STORE = "store"
    SUBSET = "subset"
    SECONDS = "seconds"
    NUMBER = "number"


@dataclass(frozen=True)
class Option:
    flags: tuple[str, ...]
    help: str
    takes: Takes = Takes.NOTHING
    metavar: str = ""
    choices: tuple[str, ...] = ()
    repeats: bool = False

    @property
    def shown(self) -> str:
        """As the help shows it, such as `--only STORE`."""
        words = ", ".join(self.flags)
        return f"{words} {self.metavar}" if self.metavar else words


@dataclass(frozen=True)
class Argument:
    name: str
    help: str
    optional: bool = False
    choices: tuple[str, ...] = ()
    repeats: bool = False  # any number of words, none too

    @property
    def shown(self) -> str:
        word = "|".join(self.choices) if self.choices else self.name.upper()
        return f"[{word}{'...' if self.repeats else ''}]" if self.optional else word


@dataclass(frozen=True)
class Verb:
    """`job` runs are recorded on the host; `changes_live` runs ask first."""

    name: str
    sentence: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]
    exits: dict[int, str]
    examples: tuple[tuple[str, str], ...]  # a command, and what it is for
    job: bool = False
    changes_live: bool = False
    streams: bool = False  # what it is for goes through standard input or output as bytes

    @property
    def usage(self) -> str:
        words = [f"storekeeper {self.name}"]
        words += [argument.shown for argument in self.arguments]
        words += [
            f"[{option.flags[-1]} {option.metavar}]".replace(" ]", "]") + ("..." if option.repeats else "") for option in self.options
        ]
        return " ".join(words)


STACK = Argument("stack", "the stack's name, as its stack file says it")
ANY_STACK = Argument("stack", "one stack; all stacks of the configuration when left out", optional=True)
SET = Argument("set", "a set's id, its time (20250109_030000), the start of its id, or latest")
ANY_SET = Argument("set", "a set's id, time, start of its id, or latest; the newest set when left out", optional=True)

GLOBAL_OPTIONS = (
    Option(("--config",), "configuration (STOREKEEPER_CONFIG; default /etc/storekeeper)", Takes.DIRECTORY, "DIR"),
    Option(("--json",), "print one JSON document on standard output"),
    Option(("--color",), "colour: auto, always or never (NO_COLOR is honoured)", Takes.TEXT, "WHEN", ("auto", "always", "never")),
    Option(("-q", "--quiet"), "print nothing but what went wrong, for cron"),
    Option(("--spread",), "wait first, for cron: always as long on a host, at most this", Takes.SECONDS, "SECONDS"),
    Option(("--job",), "carry it out as a job that goes on when you are gone"),
    Option(("--heard",), "the answer of such a job, for whoever could not wait for it"),
    Option(("--debug",), "print the traceback of an error"),
    Option(("-h", "--help"), "explain the program, or a verb"),
)

_YES = Option(("--yes",), "do not ask: live data may be replaced")
_CONFIRM = Option(("--confirm",), "the same from afar, naming what is meant", Takes.TEXT, "STACK@HOST")
_NOBODY_USES = Option(("--nobody-uses",), "the store's files are in no other program's use", Takes.STORE, "STORE", repeats=True)
_NO_OWNERS = Option(("--no-owners",), "restore the store without its owners and modes", Takes.STORE, "STORE", repeats=True)

_BUSY_SET = "the set is being removed"
_DONE_UNKNOWN = "something could not be found out"
_DONE = {0: "done", 1: "failed", 2: "wrong usage or refused, nothing was changed", 75: "another run is at it"}

VERBS = (
    Verb(
        "backup",
        "Take one set of all stores at one point, verify it, publish it, then apply retention.",
        (STACK,),
        (Option(("--accept-shrink",), "publish although the store lost nine tenths of what it held", Takes.STORE, "STORE", repeats=True),),
        {
            0: "a verified set is published",
            1: "failed, nothing is published",
            2: _DONE[2],
            3: "something could not be found out",
            4: "published, with warnings",
            75: _DONE[75],
        },
        (("storekeeper backup maestro", "take a set now"), ("storekeeper backup maestro --json", "the same, for programs")),
        job=True,
    ),
    Verb(
        "list",
        "List the sets of a stack, oldest first, each with its last proof.",
        (STACK,),
        (),
        {
            0: "listed (no set at all is a problem in the answer)",
            1: "failed",
            2: _DONE[2],
            3: "could not be read",
            4: "listed, with warnings",
        },
        (("storekeeper list maestro", "what there is, and what is proven"), ("storekeeper list maestro --json", "the same, for programs")),
    ),
    Verb(
        "verify",
        "Read sets back and decode every byte of them.",
        (STACK, ANY_SET),
        (
            Option(("--all",), "every set of the stack"),
            Option(("--read-subset",), "read part n of t parts of each set", Takes.SUBSET, "n/t"),
        ),
        {0: "good", 1: "a store of a set is bad", 2: _DONE[2], 3: "could not be tried", 4: "good, with warnings", 75: _BUSY_SET},
        (("storekeeper verify maestro", "the newest set"), ("storekeeper verify maestro --all", "every set, as a weekly job")),
        job=True,
    ),
    Verb(
        "prove",
        "Restore a set into a scratch place, compare its digests, remove the scratch place.",
        (STACK, ANY_SET),
        (),
        {
            0: "proven",
            1: "it does not restore",
            2: _DONE[2],
            3: "could not be tried here; the answer says what is missing",
            4: "proven, with warnings",
            75: _BUSY_SET,
        },
        (("storekeeper prove maestro", "the newest set"), ("storekeeper prove maestro 20250109_030000", "the set of that time (UTC)")),
        job=True,
    ),
    Verb(
        "restore",
        "Replace live data by a set, or return to how it was before the last restore.",
        (STACK, Argument("set", "a set's id, its time, the start of its id, or latest", optional=True)),
        (
            Option(("--back",), "return to the old side of the last restore, or to its safety set"),
            Option(("--only",), "only this store", Takes.STORE, "STORE", repeats=True),
            Option(("--document",), "only the document with this id, in all places of its rule", Takes.TEXT, "ID"),
            Option(("--rule",), "the rule that the document is one of", Takes.TEXT, "NAME"),
            Option(("--plan",), "say what would be done and change nothing"),
            Option(("--stage-dir",), "stage files in this directory", Takes.DIRECTORY, "DIR"),
            Option(("--accept-unreadable",), "keep a raw copy of a live store that cannot be read", Takes.STORE, "STORE", repeats=True),
            Option(("--allow-disagreement",), "restore with --only although the stores would disagree afterwards"),
            _NOBODY_USES,
            _NO_OWNERS,
            _YES,
            _CONFIRM,
        ),
        {
            0: "restored",
            1: "failed, and the live data is as it was",
            2: _DONE[2],
            3: "something could not be found out",
            4: "restored, with warnings",
            75: _DONE[75],
        },
        (
            ("storekeeper restore maestro latest --plan", "what it would do, need and cost"),
            ("storekeeper restore maestro --back --yes", "undo the last restore"),
        ),
        job=True,
        changes_live=True,
    ),
    Verb(
        "reset",
        "Empty all stores of a stack together, or none: what is left is their schema.",
        (STACK,),
        (
            Option(("--plan",), "say what would be done and change nothing"),
            Option(("--accept-unreadable",), "keep a raw copy of a live store that cannot be read", Takes.STORE, "STORE", repeats=True),
            _NOBODY_USES,
            _NO_OWNERS,
            _YES,
            _CONFIRM,
        ),
        {
            0: "all stores are empty",
            1: "failed, and the live data is as it was",
            2: _DONE[2],
            3: "something could not be found out",
            4: "all stores are empty, with warnings",
            75: _DONE[75],
        },
        (
            ("storekeeper reset maestro --plan", "what it would empty, keep, need and stop"),
            ("storekeeper restore maestro --back --yes", "undo the last reset"),
        ),
        job=True,
        changes_live=True,
    ),
    Verb(
        "recover",
        "Make a damaged SQLite store anew of all that can be read of it.",
        (STACK,),
        (
            Option(("--store",), "the damaged store, which must be named", Takes.STORE, "STORE"),
            Option(("--plan",), "say what can be rescued, and change nothing"),
            _NOBODY_USES,
            _NO_OWNERS,
            _YES,
            _CONFIRM,
        ),
        {
            0: "made anew, and nothing of it is lost",
            1: "failed, and the live data is as it was",
            2: "wrong usage or refused: it is whole, or nothing can be made of it; nothing was changed",
            3: "something could not be found out",
            4: "made anew, and something is lost",
            75: _DONE[75],
        },
        (
            ("storekeeper recover maestro --store main --plan", "what can be rescued, and what a set holds more"),
            ("storekeeper restore maestro --back --yes", "return to the damaged file"),
        ),
        job=True,
        changes_live=True,
    ),
    Verb(
        "migrate",
        "Run the application's migrations on a copy first, then live inside a safety set.",
        (
            STACK,
            Argument(
                "action",
                "the declared command; upgrade when left out. current and history change nothing, test ends with the copy",
                optional=True,
                choices=("upgrade", "downgrade", "stamp", "test", "current", "history"),
            ),
            Argument("values", "the words that the command takes; after -- those that begin with a dash", True, repeats=True),
        ),
        (
            Option(("--plan",), "say what would be run, stopped and needed, and run nothing"),
            _NOBODY_USES,
            _NO_OWNERS,
            _YES,
            _CONFIRM,
        ),
        {
            0: "migrated; or nothing was to be done, or told",
            1: "failed on the copy, and nothing live was touched; or live, and all stores are as they were",
            2: _DONE[2],
            3: "something could not be found out, or no copy can be made here",
            4: "migrated, with warnings",
            75: _DONE[75],
        },
        (
            ("storekeeper migrate maestro test", "upgrade a copy of the newest proven set, and test it"),
            ("storekeeper migrate maestro --yes", "upgrade a copy, then what is live"),
        ),
        job=True,
        changes_live=True,
    ),
    Verb(
        "resume",
        "Finish, or undo, a restore, reset, recovery or migration that was interrupted.",
        (STACK,),
        (_NOBODY_USES, _NO_OWNERS),
        {
            0: "nothing is open any more",
            1: "failed, the journal stays open",
            2: _DONE[2],
            3: "something could not be found out",
            4: "closed, with warnings",
            75: _DONE[75],
        },
        (("storekeeper resume maestro", "after a crash or a power cut"), ("storekeeper resume maestro --json", "the same, for programs")),
        job=True,
    ),
    Verb(
        "check",
        "Compare what the stores hold of each document, by the stack's rules, and change nothing.",
        (STACK,),
        (
            Option(("--rule",), "only this rule", Takes.TEXT, "NAME"),
            Option(("--document",), "tell only of the document with this id", Takes.TEXT, "ID"),
            Option(("--owner",), "tell only of documents of the owner with this id", Takes.TEXT, "ID"),
            Option(("--stats",), "count owners, documents by state, chunks and sizes as well"),
            Option(("--lines",), "print each finding as a line of JSON as it is found, without limit"),
            Option(("--repair-declared",), "then remove what the rules declare as `automatic`, as a repair does, within the brake"),
        ),
        {
            0: "agreement; documents in flight are no disagreement",
            1: "failed",
            2: _DONE[2],
            3: "a place could not be read, of which nothing is said; the others are told",
            4: "something disagrees",
            75: _DONE[75],
        },
        (
            ("storekeeper check maestro", "every rule, as the schedule does it"),
            ("storekeeper check maestro --document 4711 --json", "one document, for programs"),
        ),
        job=True,
    ),
    Verb(
        "repair",
        "Plan what may be removed of what disagrees, apply it with everything kept, undo it, or have what is missing taken in again.",
        (
            Argument(
                "action",
                "plan: write down what may be removed; apply: remove it; undo: put it back; reingest: have the application take in again "
                "what is missing, by its declared command",
                choices=("plan", "apply", "undo", "reingest"),
            ),
            STACK,
            Argument("repair", "the plan's id, which all but plan need", optional=True),
        ),
        (
            Option(("--rule",), "plan only this rule", Takes.TEXT, "NAME"),
            Option(("--document",), "plan only the document with this id", Takes.TEXT, "ID"),
            Option(("--owner",), "plan only documents of the owner with this id", Takes.TEXT, "ID"),
            Option(("--at-once",), "plan also what was seen for the first time less than the grace ago"),
            Option(("--limit",), "apply or reingest beyond the brake, up to so many documents of each rule", Takes.NUMBER, "N"),
            _YES,
            _CONFIRM,
        ),
        {
            0: "planned, repaired, undone, or whole again",
            1: "failed; what was removed by then can be undone",
            2: _DONE[2],
            3: "a place could not be read: nothing is planned",
            4: "done, but what changed meanwhile was left as it is, or not all is whole again",
            75: _DONE[75],
        },
        (
            ("storekeeper repair plan maestro", "what may be removed, and what must be taken in again"),
            ("storekeeper repair plan maestro --document 4711 --at-once", "clean up one document"),
        ),
        job=True,
        changes_live=True,
    ),
    Verb(
        "history",
        "Say in which sets a document is whole, by the ids that every set recorded at its moment.",
        (STACK, Argument("id", "the document's id")),
        (Option(("--rule",), "only under this rule", Takes.TEXT, "NAME"),),
        {0: "told, also where no set holds it", 1: "failed", 2: _DONE[2], 3: "the ids of a good set could not be read"},
        (
            ("storekeeper history maestro 4711", "every set, oldest first"),
            ("storekeeper history maestro 4711 --json", "the same, for programs"),
        ),
    ),
    Verb(
        "query",
        "Ask what a named query of the stack file finds, and change nothing.",
        (
            STACK,
            Argument("query", "the query's name; all that the stack declares are listed when left out", optional=True),
            Argument("values", "the query's values, in the order it names them; after -- those that begin with a dash", True, repeats=True),
        ),
        (Option(("--limit",), "at most so many rows, and never more than the query declares", Takes.NUMBER, "N"),),
        {
            0: "answered",
            1: "failed, or it took too long",
            2: _DONE[2],
            3: "the store could not be read",
        },
        (
            ("storekeeper query maestro", "which queries there are"),
            ("storekeeper query maestro recent_chats --limit 5 --json", "the first rows of one, for programs"),
        ),
    ),
    Verb(
        "examine",
        "Look inside the stores for damage, missing indexes and who holds locks, and change nothing.",
        (STACK,),
        (Option(("--store",), "only this store", Takes.STORE, "STORE"),),
        {
            0: "nothing is wrong",
            1: "failed",
            2: _DONE[2],
            3: "something could not be looked at; the others are told",
            4: "something is wrong",
        },
        (
            ("storekeeper examine maestro", "every store, as the schedule may do it"),
            ("storekeeper examine maestro --store main --json", "one store, for programs"),
        ),
        job=True,
    ),
    Verb(
        "evict",
        "Ask the program that holds a lock of a SQLite store to end.",
        (
            STACK,
            Argument("store", "the store"),
            Argument("pid", "the process, as `examine` shows it"),
            Argument("program", "its program, as `examine` shows it"),
        ),
        (_YES, _CONFIRM),
        {
            0: "it has ended",
            1: "failed",
            2: "wrong usage, or refused: it holds no lock, is another program, or is ours; nobody was asked to end",
            3: "who holds a lock could not be seen: nobody was asked to end, or what it holds after it was asked is not known",
            4: "it was asked, and has not ended yet",
        },
        (
            ("storekeeper evict maestro main 4711 python3", "after being asked, by SIGTERM and nothing harder"),
            ("storekeeper evict maestro main 4711 python3 --yes", "the same without a terminal"),
        ),
        changes_live=True,
    ),
    Verb(
        "prune",
        "Remove the sets that no rule keeps, and old sides past their time.",
        (STACK,),
        (
            Option(("--dry-run",), "say what would be removed and remove nothing"),
            Option(("--yes",), "remove them also where that is more than half of the sets"),
            _CONFIRM,
        ),
        {
            0: "pruned",
            1: "failed",
            2: "wrong usage, the newest backup failed, or more than half of the sets would go: nothing was removed",
            3: "something could not be found out",
            4: "pruned, with warnings",
            75: _DONE[75],
        },
        (("storekeeper prune maestro --dry-run", "each set with the reason it stays or goes"), ("storekeeper prune maestro", "apply it")),
        job=True,
    ),
    Verb(
        "send",
        "Write a set to standard output, for `receive` on another host.",
        (STACK, ANY_SET),
        (),
        {0: "sent", 1: "failed", 2: _DONE[2], 3: "something could not be found out", 75: _BUSY_SET},
        (
            ("storekeeper send maestro latest >set", "the newest good set, into a file"),
            ("storekeeper send maestro | ssh standby storekeeper receive maestro", "to another host"),
        ),
        streams=True,
    ),
    Verb(
        "receive",
        "Take a set from standard input, compare and decode all of it, and publish it here.",
        (STACK,),
        (),
        {0: "published", 1: "cut off, altered or not readable: nothing is kept of it", 2: _DONE[2], 3: _DONE_UNKNOWN, 75: _DONE[75]},
        (
            ("storekeeper receive maestro <set", "from a file"),
            ("ssh prod storekeeper send maestro | storekeeper receive maestro", "from another host"),
        ),
        streams=True,
    ),
    Verb(
        "pin",
        "Keep a set whatever the rules say.",
        (STACK, SET),
        (),
        {**_DONE, 0: "pinned"},
        (
            ("storekeeper pin maestro latest", "keep the newest good set"),
            ("storekeeper pin maestro 20250109_030000", "keep the set of that time"),
        ),
    ),
    Verb(
        "unpin",
        "Let the rules decide about a set again.",
        (STACK, SET),
        (),
        {**_DONE, 0: "no longer pinned"},
        (
            ("storekeeper unpin maestro latest", "for the newest good set"),
            ("storekeeper unpin maestro 20250109_030000", "for the set of that time"),
        ),
    ),
    Verb(
        "jobs",
        "Show the running and past runs on this host, or end one that runs.",
        (ANY_STACK,),
        (Option(("--stop",), "ask this run to end, and wait until it has", Takes.TEXT, "ID"),),
        {0: "shown", 1: "failed", 2: _DONE[2], 3: "the records could not be read"},
        (("storekeeper jobs", "of every stack"), ("storekeeper jobs maestro --json", "of one, for programs")),
    ),
    Verb(
        "due",
        "Carry out once what the schedule asked for while this host was off, asleep or busy.",
        (STACK,),
        (),
        {
            0: "nothing is owed any more",
            1: "failed",
            2: _DONE[2],
            3: "the records could not be read",
            4: "what was missed ran, and did not end well",
        },
        (("storekeeper due maestro", "each hour, from cron"), ("storekeeper due maestro --json", "the same, for programs")),
    ),
    Verb(
        "status",
        "Show on one screen whether each stack is safe, from what was last recorded.",
        (ANY_STACK,),
        (Option(("--live",), "ask the stores as well"),),
        {0: "all is well", 1: "failed", 2: _DONE[2], 3: "something could not be found out", 4: "something needs attention"},
        (("storekeeper status", "every stack"), ("storekeeper status maestro --live", "one stack, asking its stores")),
    ),
    Verb(
        "doctor",
        "Look for what is missing on this host, and say the command that mends it.",
        (ANY_STACK,),
        (),
        {0: "nothing is missing", 1: "failed", 2: _DONE[2], 3: "something could not be found out", 4: "something is missing"},
        (("storekeeper doctor", "for every stack"), ("storekeeper doctor maestro", "for one")),
    ),
    Verb(
        "completion",
        "Print the script that completes these words in a shell.",
        (Argument("shell", "the shell", choices=("bash",)),),
        (),
        {0: "printed", 2: "wrong usage"},
        (
            ("storekeeper completion bash >/etc/bash_completion.d/storekeeper", "for everybody on this host"),
            ('eval "$(storekeeper completion bash)"', "for this shell"),
        ),
    ),
)

BY_NAME = {verb.name: verb for verb in VERBS}
