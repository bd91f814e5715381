# SPDX-License-Identifier: GPL-2.0-or-later
"""The completion of bash, zsh and fish, made from `controller.verbs`."""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import indent

from controller.verbs import (
    SHARED,
    SOCKET,
    VERBS,
    VERSION_OPTION,
    Count,
    Option,
    Values,
    Verb,
)

DOMAINS = "ravelin status --names 2>/dev/null"
RULE_WORDS = (
    "accept drop dsthost= dst4= dst6= proto=tcp proto=udp proto=icmp dstports= "
    "specialtarget=dns icmptype= expire= comment="
)


@dataclass(frozen=True, slots=True)
class Place:
    """What may stand as word ``number`` after ``verb``, or from there on."""

    verb: str
    number: int
    rest: bool
    values: Values
    words: str

    @property
    def pattern(self) -> str:
        """The place as bash and zsh match it; the first match counts."""
        return f"{self.verb}/{'*' if self.rest else self.number}"


def completion(shell: str) -> list[str]:
    """Return the script for bash, fish or zsh, line by line."""
    makers = {"bash": _bash, "fish": _fish, "zsh": _zsh}
    return makers[shell]().splitlines()


def _places() -> Iterator[Place]:
    for verb in VERBS:
        next_one = 1 + len(verb.arguments)
        for number, argument in enumerate(verb.arguments, start=1):
            rest = argument.count in (Count.ANY, Count.MANY)
            words = " ".join(argument.words)
            yield Place(verb.name, number, rest, argument.values, words)
        if verb.actions:
            names = " ".join(action.name for action in verb.actions)
            yield Place(verb.name, next_one, rest=False, values=Values.ANY, words=names)
            yield Place(
                verb.name, next_one + 1, rest=True, values=Values.RULE, words=RULE_WORDS
            )


def _all_options(verb: Verb) -> tuple[Option, ...]:
    inner = (option for action in verb.actions for option in action.options)
    return tuple(dict.fromkeys((*verb.options, *inner, *SHARED)))


def _names(options: tuple[Option, ...]) -> str:
    return " ".join(name for option in options for name in option.names)


def _valued(*kinds: Values) -> str:
    """Return the options whose next word is their value, as a shell pattern."""
    options = (SOCKET, *(option for verb in VERBS for option in _all_options(verb)))
    wanted = kinds or tuple(Values)
    valued = [o for o in options if o.value is not None and o.kind in wanted]
    return "|".join(dict.fromkeys(name for o in valued for name in o.names))


# Counts the words before the cursor; both shells read it the same way.
COUNT = """\
local verb= place=0 skip= word
for word in "${before[@]}"; do
    if [[ -n $skip ]]; then skip=; continue; fi
    case $word in
        VALUED) skip=1 ;;
        -*) ;;
        *) if [[ -z $verb ]]; then verb=$word; fi; place=$((place + 1)) ;;
    esac
done
"""


def _count() -> str:
    return COUNT.replace("VALUED", _valued())


def _cases(values: dict[Values, str]) -> str:
    lines = []
    for place in _places():
        does = f'words="{place.words}"' if place.words else values[place.values]
        lines.append(f"{place.pattern}) {does} ;;\n")
    return "".join(lines)


def _options(head: str) -> str:
    everywhere = (SOCKET, VERSION_OPTION, *SHARED)
    lines = [f'"") {head}"{_names(everywhere)}" ;;\n']
    lines += [f'{v.name}) {head}"{_names(_all_options(v))}" ;;\n' for v in VERBS]
    return "".join(lines)


def _bash() -> str:
    cases = _cases(
        {
            Values.ANY: ":",
            Values.DOMAIN: f'words="$({DOMAINS})"',
            Values.FILE: 'COMPREPLY=($(compgen -f -- "$cur")); return',
            Values.COMMAND: 'COMPREPLY=($(compgen -c -- "$cur")); return',
            Values.RULE: f'words="{RULE_WORDS}"',
        }
    )
    return f"""\
# bash completion of ravelin
_ravelin() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} words= cut=
    local before=("${{COMP_WORDS[@]:1:COMP_CWORD-1}}")
    [[ $cur == = ]] && cut=${{before[@]: -1}}= cur=
    [[ ${{before[@]: -1}} == = ]] && cut=${{before[@]: -2:1}}=
{indent(_count(), "    ")}    COMPREPLY=()
    case ${{COMP_WORDS[COMP_CWORD-1]}} in
        {_valued(Values.FILE)}) COMPREPLY=($(compgen -f -- "$cur")); return ;;
    esac
    case $verb/$place in
        /0) words="{" ".join(verb.name for verb in VERBS)}" ;;
{indent(cases, "        ")}    esac
    if [[ $cur == -* ]]; then
        case $verb in
{indent(_options("words="), "            ")}        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cut$cur"))
    COMPREPLY=("${{COMPREPLY[@]#"$cut"}}")
    if [[ ${{COMPREPLY[0]}} == *= ]]; then compopt -o nospace 2>/dev/null; fi
}}
complete -F _ravelin ravelin
"""


def _zsh() -> str:
    cases = _cases(
        {
            Values.ANY: ":",
            Values.DOMAIN: f'words="$({DOMAINS})"',
            Values.FILE: "_files; return",
            Values.COMMAND: "_command_names; return",
            Values.RULE: f'words="{RULE_WORDS}"',
        }
    )
    verbs = "".join(f'"{verb.name}:{verb.help}"\n' for verb in VERBS)
    return f"""\
#compdef ravelin
_ravelin() {{
    local cur=${{words[CURRENT]}}
    local -a before=("${{(@)words[2,CURRENT-1]}}")
    local words=
{indent(_count(), "    ")}    case ${{before[-1]}} in
        {_valued(Values.FILE)}) _files; return ;;
    esac
    if [[ $cur == -* ]]; then
        case $verb in
{indent(_options("words="), "            ")}        esac
        compadd -- ${{=words}}
        return
    fi
    case $verb/$place in
        /0)
            local -a verbs=(
{indent(verbs, "                ")}            )
            _describe verb verbs
            return ;;
{indent(cases, "        ")}    esac
    compadd -- ${{=words}}
}}
if [[ $funcstack[1] == _ravelin ]]; then _ravelin; else compdef _ravelin ravelin; fi
"""


def _fish() -> str:
    values = {
        Values.ANY: None,
        Values.DOMAIN: f"'({DOMAINS})'",
        Values.FILE: None,
        Values.COMMAND: "'(__fish_complete_command)'",
        Values.RULE: f"'{RULE_WORDS}'",
    }
    lines = [FISH.replace("VALUED", _valued().replace("|", " "))]
    for verb in VERBS:
        at = "complete -c ravelin -n '__ravelin_at eq 0'"
        lines.append(f"{at} -a {verb.name} -d {_quoted(verb.help)}")
        within = f"complete -c ravelin -n '__ravelin_verb {verb.name}'"
        lines += [f"{within} {_flags(option)}" for option in _all_options(verb)]
    for place in _places():
        at = f"{'ge' if place.rest else 'eq'} {place.number} {place.verb}"
        condition = f"complete -c ravelin -n '__ravelin_at {at}'"
        words = f"'{place.words}'" if place.words else values[place.values]
        if words is not None:
            lines.append(f"{condition} -a {words}")
        elif place.values is Values.FILE:
            lines.append(f"{condition} -F")
    return "\n".join(lines)


FISH = """\
# fish completion of ravelin
function __ravelin_words
    set -l skip
    for word in (commandline -opc)[2..]
        if test -n "$skip"
            set skip
        else if contains -- $word VALUED
            set skip 1
        else if not string match -q -- '-*' $word
            echo $word
        end
    end
end
function __ravelin_verb
    set -l found (__ravelin_words)
    test "$found[1]" = $argv[1]
end
function __ravelin_at
    set -l found (__ravelin_words)
    test (count $found) -$argv[1] $argv[2]; and test "$found[1]" = "$argv[3]"
end
complete -c ravelin -f"""


def _flags(option: Option) -> str:
    words = (
        f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
        for name in option.names
    )
    value = "" if option.value is None else " -x"
    if option.kind is Values.FILE:
        value = " -r -F"
    return f"{' '.join(words)}{value} -d {_quoted(option.help)}"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
