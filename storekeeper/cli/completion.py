"""The script that completes the words in bash, made from the catalogue. It starts no program: stack names are the names of files."""

from __future__ import annotations

from storekeeper.cli.catalogue import GLOBAL_OPTIONS, VERBS, Option, Takes, Verb
from storekeeper.cli.words import DEFAULT_CONFIG

_SCRIPT = r"""# bash completion for storekeeper, made by `storekeeper completion bash`
_storekeeper_stacks() {
    local file
    for file in "$1"/stacks/*.yml; do
        [ -e "$file" ] || continue
        file=${file##*/}
        printf '%s\n' "${file%%.yml}"
    done
}

_storekeeper() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local config=${STOREKEEPER_CONFIG:-@CONFIG@} verb= given=0 index each
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        each=${COMP_WORDS[index]}
        case $each in
            --config) index=$((index + 1)); config=${COMP_WORDS[index]} ;;
            @VALUED@) index=$((index + 1)) ;;
            -*) ;;
            *) if [ -z "$verb" ]; then verb=$each; else given=$((given + 1)); fi ;;
        esac
    done
    case $before in
        @DIRECTORIES@) mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
@CHOICES@
        @VALUED@) return ;;
    esac
    if [ -z "$verb" ]; then
        mapfile -t COMPREPLY < <(compgen -W "@VERBS@ @GLOBALS@ --version" -- "$word")
        return
    fi
    local options= words=
    case $verb in
@CASES@
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options @GLOBALS@" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
    fi
}
complete -F _storekeeper storekeeper
"""


def bash_script() -> str:
    """What a shell evaluates. Completes verbs, options, directories, fixed values, stack names and `latest`."""
    options = [*GLOBAL_OPTIONS, *(option for verb in VERBS for option in verb.options)]
    parts = {
        "@CONFIG@": DEFAULT_CONFIG,
        "@VALUED@": _flags([option for option in options if option.takes is not Takes.NOTHING], "|"),
        "@DIRECTORIES@": _flags([option for option in options if option.takes is Takes.DIRECTORY], "|"),
        "@CHOICES@": "\n".join(_choice(option) for option in options if option.choices),
        "@VERBS@": " ".join(verb.name for verb in VERBS),
        "@GLOBALS@": _flags(GLOBAL_OPTIONS, " "),
        "@CASES@": "\n".join(_case(verb) for verb in VERBS),
    }
    script = _SCRIPT.replace("%%", "%")
    for name, text in parts.items():
        script = script.replace(name, text)
    return script


def _flags(options: list[Option] | tuple[Option, ...], between: str) -> str:
    return between.join(dict.fromkeys(flag for option in options for flag in option.flags))


def _choice(option: Option) -> str:
    return f'        {"|".join(option.flags)}) mapfile -t COMPREPLY < <(compgen -W "{" ".join(option.choices)}" -- "$word"); return ;;'


def _case(verb: Verb) -> str:
    """What may follow a verb: by place for its arguments, anywhere for its options."""
    places = []
    for place, argument in enumerate(verb.arguments):
        words = " ".join(argument.choices) or {"stack": '$(_storekeeper_stacks "$config")', "set": "latest"}.get(argument.name, "")
        places.append(f'[ "$given" = {place} ] && words="{words}"')
    body = "; ".join([f'options="{_flags(verb.options, " ")}"', *places])
    return f"        {verb.name}) {body} ;;"
