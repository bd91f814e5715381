# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual page and the reference of the command, made from `controller.verbs`.

``python3 -m controller.manual`` writes both files; a test compares them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from controller.verbs import (
    ABOUT,
    EXITS,
    SHARED,
    SOCKET,
    VERBS,
    VERSION_OPTION,
    Argument,
    Count,
    Option,
    Verb,
)

MAN = Path("docs/man/ravelin.8")
REFERENCE = Path("docs/reference/command.md")

EXAMPLES = (
    ("ravelin up home.toml", "start the domains of home.toml"),
    ("ravelin run work -- curl https://www.example.com/", "use one of them"),
    (
        "ravelin firewall work add accept dsthost=www.example.org proto=tcp",
        "allow something, now and in home.toml",
    ),
    ("ravelin explain work www.example.com:443", "ask which rule decides"),
    (
        "ravelin explain --resolve work example.org:443",
        "the same, of a name that no rule has: work asks for it",
    ),
    ("ravelin tor new-identity anon", "give anon other circuits of Tor"),
    ("ravelin prefs work netvm none", "take work off the network"),
    ("ravelin verify --graph home.svg", "prove that nothing leaks, and draw it"),
)

CHANGES = "`changes`: a list of `sign` (`+`, `-` or `~`), `domain`, `text`"
MEANING = (
    f"{CHANGES}; `packets`: the same of what a domain may reach, `idle`: of rules that "
    "never decide; `failing` and `unjudged`: lists of assertions; `confirm`: seconds "
    "left to confirm"
)
DOMAINS = (
    "`domains`: a list of `name`, `depth`, `label`, `personality`, `netvm`, `ip`, "
    "`ip6`, `rules`, `disposable`, `state`, `received` and `sent` (bytes), `receiving` "
    "and `sending` (bytes per second since the last look), `report` (what a "
    "personality says of itself, by key; `summary` is shown beside the state), "
    "`problem`"
)
STATUS = (
    f"{DOMAINS}; `proof`: null, or `state` (`proved`, `refuted`, `possible`, `unknown` "
    "or `pending`), `text`, `claims`, `generations`, `age`, `changed`; `confirm`: "
    "seconds left to confirm, or null"
)
RULES = (
    "`domain`, `default` and `rules`: a list of `number`, `action`, `host`, "
    "`proto`, `ports`, `target`, `icmptype`, `expires`, `comment`, `text`, `raw`"
)
ROUTES = (
    "`accepted`, `differs`, `asked` (null, or by `--resolve` which `domain` was asked "
    "for which `host`) and `routes`: a list of `destination`, `verdict` (`accept`, "
    "`deny` or `unknown`), `hops` (a list of `domain`, `verdict`, `rule`, `reason`), "
    "`kernels` (hops as those of `verify`), `kernel_verdict`, `differs`, `missing`"
)
RESULTS = (
    "`results`: a list of `claim`, `version`, `status` (`proved`, `refuted`, "
    "`possible` or `unknown`), `packet`, `enters`, `hops` (a list of `domain`, "
    "`came_by`, `packet`, `verdict`, `rule`, `out`, `reason`), `notes`, `replay`, "
    "`domains`, `generations`; `summary`, `generations`, and `domains`: a list of "
    "`name`, `label`, `personality`, `netvm`"
)
CIRCUITS = (
    "`circuits`: a list of `domain`, `gateway`, `circuit`, `relays` (country:name "
    "of each, from here to the exit); `incomplete`: TorVMs of which some may not be "
    "known, since a client has asked for names that are none"
)
ANSWERS = (
    ("down, confirm, restart", CHANGES),
    ("up, apply, plan", MEANING),
    ("prefs with VALUE, firewall add, del and reset", MEANING),
    ("prefs", "`name`, `label`, `personality`, `netvm`, `ipv6`, `ip`"),
    ("status", STATUS),
    ("firewall list", RULES),
    ("explain", ROUTES),
    ("tor circuits", CIRCUITS),
    ("tor new-identity", "`domain`, `client` (who has other circuits), `gateway`"),
    ("verify", RESULTS),
    ("log", "`events`: a list of `time`, `domain`, `text`"),
)


def synopsis(verb: Verb, before: str = "ravelin") -> Iterator[str]:
    """Yield each way to write a verb, on one line."""
    own = [f"[{_spelt(option)}]" for option in verb.options]
    shown = [_shown(argument, verb) for argument in verb.arguments]
    line = " ".join((before, verb.name, *own, *shown))
    if verb.actions:
        for action in verb.actions:
            yield from synopsis(action, f"{before} {verb.name} {' '.join(shown)}")
    else:
        yield line


def _shown(argument: Argument, verb: Verb) -> str:
    name = "|".join(argument.words) if argument.words else argument.name
    if verb.name == "run" and argument.count is Count.ANY:
        return f"-- {name}..."
    match argument.count:
        case Count.ONE:
            return name
        case Count.OPTIONAL:
            return f"[{name}]"
        case Count.MANY:
            return f"{name}..."
        case Count.ANY:
            return f"[{name}...]"


def _spelt(option: Option) -> str:
    names = ", ".join(option.names)
    return names if option.value is None else f"{names} {option.value}"


def _terms(verb: Verb) -> Iterator[tuple[str, str]]:
    """Yield the arguments and options of a verb and of its actions."""
    for argument in verb.arguments:
        words = f" ({', '.join(argument.words)})" if argument.words else ""
        yield argument.name, f"{argument.help}{words}"
    for option in verb.options:
        yield _spelt(option), option.help
    for action in verb.actions:
        yield from _terms(action)


def reference() -> str:
    """Make ``docs/reference/command.md``."""
    lines = ["# The command", "", f"{ABOUT} Data goes to stdout, talk to stderr.", ""]
    lines += _table("Option", [(_spelt(o), o.help) for o in _everywhere()])
    for verb in VERBS:
        lines += [f"## {verb.name}", "", verb.help, "", "```"]
        lines += [*synopsis(verb), "```", ""]
        lines += [f"- `{action.name}`: {action.help}" for action in verb.actions]
        lines += [""] if verb.actions else []
        terms = tuple(dict.fromkeys(_terms(verb)))
        lines += _table("Word", terms) if terms else []
    lines += ["## Exit status", ""]
    lines += _table("Status", [(str(n), text) for n, text in enumerate(EXITS)])
    lines += ["`run` exits as its command does.", "", "## Data of `--json`", ""]
    lines += _table("Verb", ANSWERS)
    lines += ["## Examples", "", "```sh"]
    lines += [f"{line}  # {what}" for line, what in EXAMPLES]
    return "\n".join([*lines, "```", ""])


def _table(head: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    body = [f"| `{first}` | {second} |" for first, second in rows]
    return [f"| {head} | |", "| --- | --- |", *body, ""]


def _everywhere() -> tuple[Option, ...]:
    return (*SHARED, SOCKET, VERSION_OPTION)


def man() -> str:
    """Make ``docs/man/ravelin.8``, in the macros of man."""
    lines = [
        r".\" SPDX-License-Identifier: GPL-2.0-or-later",
        ".TH RAVELIN 8",
        ".SH NAME",
        rf"ravelin \- {_roff(ABOUT[0].lower() + ABOUT[1:].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".nf",
        *(_roff(line) for verb in VERBS for line in synopsis(verb)),
        ".fi",
        ".SH DESCRIPTION",
        "Data goes to standard output, talk to standard error.",
        *_paragraphs([(_spelt(option), option.help) for option in _everywhere()]),
    ]
    for verb in VERBS:
        lines += [f".SS {verb.name}", _roff(verb.help)]
        lines += _paragraphs([(action.name, action.help) for action in verb.actions])
        lines += _paragraphs(tuple(dict.fromkeys(_terms(verb))))
    lines += [".SH EXIT STATUS"]
    lines += _paragraphs([(str(n), text) for n, text in enumerate(EXITS)])
    lines += ["The verb run exits as its command does.", ".SH EXAMPLES"]
    lines += _paragraphs(EXAMPLES)
    return "\n".join([*lines, ".SH SEE ALSO", "nft(8), ip\\-netns(8)", ""])


def _paragraphs(terms: Sequence[tuple[str, str]]) -> list[str]:
    return [
        line
        for term, text in terms
        for line in (".TP", rf"\fB{_roff(term)}\fR", _roff(text))
    ]


def _roff(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


if __name__ == "__main__":
    MAN.write_text(man(), encoding="utf-8")
    REFERENCE.write_text(reference(), encoding="utf-8")
