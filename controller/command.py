# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the command's words, as `controller.verbs` has them."""

from argparse import (
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    Namespace,
    RawDescriptionHelpFormatter,
)
from collections.abc import Sequence

from controller.client import SOCKET as PATH
from controller.nearest import expected
from controller.verbs import (
    ABOUT,
    EXITS,
    SHARED,
    SOCKET,
    VERBS,
    VERSION,
    Option,
    Values,
    Verb,
)


def parse(words: Sequence[str]) -> Namespace:
    """Read the words after ``ravelin``; exit 2 with a usage if they are wrong.

    ``verb`` and each argument and option are attributes of the result, in lower
    case; ``command`` has what follows the first ``--``.
    """
    parser = build()
    # argparse treats "--" differently from version to version.
    end = words.index("--") if "--" in words else len(words)
    _known(parser, words[:end])
    result, unknown = parser.parse_known_args(words[:end])
    result.verb = result.verb or "status"
    if result.verb == "run" and end == len(words):
        # An option that we have too would be taken out of the command.
        whole = list(words[end - len(result.command) :]) == result.command
        if unknown or not whole:
            parser.error("run: options in it, expected run DOMAIN -- COMMAND")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if result.verb == "run":
        result.command += words[end + 1 :]
        if not result.command:
            parser.error("run: no command, expected run DOMAIN -- COMMAND")
    elif end < len(words):
        parser.error(f"{result.verb}: nothing can follow --, only run has a command")
    if result.verb == "firewall":
        result.action = result.action or "list"
        if result.action == "del" and bool(result.rule) == (result.number is not None):
            parser.error("firewall del: expected either --rule-no N or a RULE")
        if result.action == "del" and result.rule and result.rule[0].isdecimal():
            parser.error(f"firewall del: expected --rule-no {result.rule[0]}")
    return result


def build() -> ArgumentParser:
    """Return the parser of the command."""
    exits = "".join(f"\n  {code}  {text}" for code, text in enumerate(EXITS))
    parser = ArgumentParser(
        prog="ravelin",
        description=ABOUT,
        epilog=f"exit status:{exits}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ravelin {VERSION}")
    parser.add_argument(
        *SOCKET.names, default=str(PATH), metavar=SOCKET.value, help=SOCKET.help
    )
    _options(parser, SHARED, default=False)
    parser.set_defaults(names=False)
    _children(parser, VERBS, dest="verb", default=False)
    return parser


def _known(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Refuse an unknown verb with the nearest one; argparse lists them all."""
    verbs = [verb.name for verb in VERBS]
    first = words[0] if words else "status"
    if not first.startswith("-") and first not in verbs:
        parser.error(f"{first}: unknown verb, {expected(first, verbs)}")


def _children(
    parser: ArgumentParser, verbs: Sequence[Verb], *, dest: str, default: bool | str
) -> None:
    """Add ``verbs``; a child's default must not undo what its parent has read."""
    children = parser.add_subparsers(dest=dest, metavar=dest.upper())
    for verb in verbs:
        child = children.add_parser(
            verb.name, help=verb.help, description=verb.help, allow_abbrev=False
        )
        for argument in verb.arguments:
            child.add_argument(
                argument.name.lower(),
                metavar=argument.name,
                nargs=argument.count.value,
                choices=argument.words or None,
                help=argument.help,
            )
        _options(child, verb.options, default=default)
        _options(child, SHARED, default=SUPPRESS)
        if verb.actions:
            _children(child, verb.actions, dest="action", default=SUPPRESS)


def _options(
    parser: ArgumentParser, options: Sequence[Option], *, default: bool | str
) -> None:
    for option in options:
        if option.value is None:
            parser.add_argument(
                *option.names, action="store_true", default=default, help=option.help
            )
        else:
            parser.add_argument(
                *option.names,
                dest=option.dest,
                type=_number if option.kind is Values.NUMBER else str,
                metavar=option.value,
                help=option.help,
            )


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r}: expected a number from 0")
    return int(text)
