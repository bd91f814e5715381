# SPDX-License-Identifier: GPL-2.0-or-later
"""The words between the command and the daemon, as JSON lines.

A connection carries one request; the daemon replies with any number of
``progress`` and then one ``answer`` or ``failure``.  Nothing here does I/O: the
daemon serves it from its own loop, the command from `controller.client`.  The
socket is for root: the daemon checks its peer (SO_PEERCRED).  What arrives is
untrusted until `decode_request` has given it its shape.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType

from controller.nearest import expected

MAX_REQUEST = 65536  # bytes, as the Admin API of Qubes
MAX_REPLY = 1 << 24  # bytes

Json = bool | int | float | str | None | Sequence["Json"] | Mapping[str, "Json"]


class Exit(IntEnum):
    """What the exit status of the command says."""

    OK = 0
    DIFFERS = 1
    USAGE = 2
    NOT_ENFORCED = 3


class ProtocolError(ValueError):
    """Bytes that are no message, or not one that was expected."""


class Kind(Enum):
    """The type of an argument; those with a question mark may be null."""

    TEXT = "text"
    MAYBE_TEXT = "text?"
    MAYBE_NUMBER = "number?"
    WORDS = "words"
    MAYBE_WORDS = "words?"
    FLAG = "flag"


Argument = str | int | bool | tuple[str, ...] | None

SHAPES: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "up": {"policy": Kind.TEXT},
        "down": {},
        "status": {},
        "plan": {},
        "apply": {"confirm": Kind.MAYBE_NUMBER},
        "confirm": {},
        "run": {"domain": Kind.TEXT, "command": Kind.WORDS, "disposable": Kind.FLAG},
        "prefs": {
            "domain": Kind.TEXT,
            "property": Kind.MAYBE_TEXT,
            "value": Kind.MAYBE_TEXT,
        },
        "firewall": {
            "domain": Kind.TEXT,
            "action": Kind.TEXT,
            "rule": Kind.WORDS,
            "number": Kind.MAYBE_NUMBER,
        },
        "explain": {
            "domain": Kind.TEXT,
            "proto": Kind.MAYBE_TEXT,
            "destination": Kind.TEXT,
            "told": Kind.MAYBE_WORDS,
        },
        "verify": {"no_replay": Kind.FLAG},
        "log": {},
        "restart": {"domain": Kind.TEXT},
        "tor": {
            "action": Kind.TEXT,
            "domain": Kind.MAYBE_TEXT,
            "addresses": Kind.FLAG,
        },
        # Not typed by anybody: a disposable lives as long as who sent this.
        "hold": {"domain": Kind.TEXT},
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """What the user wants; the arguments of each verb are those of `SHAPES`."""

    verb: str
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return an argument of `Kind.TEXT`."""
        return str(self.arguments[name])

    def maybe_text(self, name: str) -> str | None:
        """Return an argument of `Kind.MAYBE_TEXT`."""
        value = self.arguments[name]
        return None if value is None else str(value)

    def maybe_number(self, name: str) -> int | None:
        """Return an argument of `Kind.MAYBE_NUMBER`."""
        value = self.arguments[name]
        return value if isinstance(value, int) else None

    def words(self, name: str) -> tuple[str, ...]:
        """Return an argument of `Kind.WORDS`."""
        return self.maybe_words(name) or ()

    def maybe_words(self, name: str) -> tuple[str, ...] | None:
        """Return an argument of `Kind.MAYBE_WORDS`."""
        value = self.arguments[name]
        return value if isinstance(value, tuple) else None

    def flag(self, name: str) -> bool:
        """Return an argument of `Kind.FLAG`."""
        return self.arguments[name] is True


def only_looks(request: Request) -> bool:
    """Whether a request changes nothing, so that it need not wait for others."""
    if request.verb == "firewall":
        return request.text("action") == "list"
    if request.verb == "prefs":
        return request.maybe_text("value") is None
    return request.verb in ("status", "plan", "explain", "verify", "log")


@dataclass(frozen=True, slots=True)
class Progress:
    """What the daemon does now; more follows."""

    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked for; ``docs/reference/command.md`` has each verb's data."""

    data: Json


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it was not done, and the exit status that says so."""

    exit_code: Exit
    text: str


Reply = Progress | Answer | Failure


@dataclass(slots=True)
class Lines:
    """Cuts a stream of bytes into lines of at most ``limit`` bytes."""

    limit: int
    rest: bytes = b""

    def feed(self, untrusted_data: bytes) -> Iterator[bytes]:
        """Yield each line that ``untrusted_data`` completes, without its end."""
        *whole, self.rest = (self.rest + untrusted_data).split(b"\n")
        if any(len(line) > self.limit for line in (*whole, self.rest)):
            raise ProtocolError(f"longer than {self.limit} bytes")
        yield from whole


def encode(message: Request | Reply) -> bytes:
    """Return a message as one line, its end included."""
    return json.dumps(_tree(message), separators=(",", ":")).encode() + b"\n"


def _tree(message: Request | Reply) -> Json:
    match message:
        case Request(verb, arguments):
            return {"verb": verb, "arguments": dict(arguments)}
        case Progress(text):
            return {"progress": text}
        case Answer(data):
            return {"answer": data}
        case Failure(exit_code, text):
            return {"failure": text, "exit": int(exit_code)}


def decode_request(untrusted_line: bytes) -> Request:
    """Read a request, or raise `ProtocolError` that says what was expected."""
    tree = _table(untrusted_line)
    verb, arguments = tree.get("verb"), tree.get("arguments")
    if not isinstance(verb, str) or not isinstance(arguments, Mapping):
        raise ProtocolError("no request, expected a verb and its arguments")
    if verb not in SHAPES:
        raise ProtocolError(f"{verb}: unknown verb, {expected(verb, SHAPES)}")
    shape = SHAPES[verb]
    if arguments.keys() != shape.keys():
        wanted = ", ".join(shape) or "none"
        raise ProtocolError(f"{verb}: wrong arguments, expected {wanted}")
    return Request(
        verb, {name: _argument(kind, arguments[name]) for name, kind in shape.items()}
    )


def decode_reply(line: bytes) -> Reply:
    """Read a reply, or raise `ProtocolError`."""
    tree = _table(line)
    match tree:
        case {"progress": str(text)}:
            return Progress(text)
        case {"answer": data}:
            return Answer(data)
        case {"failure": str(text), "exit": int(code)} if code in list(Exit):
            return Failure(Exit(code), text)
    raise ProtocolError("no reply")


def _table(untrusted_line: bytes) -> Mapping[str, Json]:
    try:
        tree = json.loads(untrusted_line)
    except (ValueError, RecursionError):
        raise ProtocolError("no JSON") from None
    if not isinstance(tree, dict):
        raise ProtocolError("no JSON object")
    return tree


def _argument(kind: Kind, untrusted: Json) -> Argument:
    if kind in (Kind.TEXT, Kind.MAYBE_TEXT) and isinstance(untrusted, str):
        return untrusted
    if kind.value.endswith("?") and untrusted is None:
        return None
    if kind is Kind.FLAG and isinstance(untrusted, bool):
        return untrusted
    if kind is Kind.MAYBE_NUMBER and type(untrusted) is int and untrusted >= 0:
        return untrusted
    if kind in (Kind.WORDS, Kind.MAYBE_WORDS) and isinstance(untrusted, list):
        words = tuple(word for word in untrusted if isinstance(word, str))
        if len(words) == len(untrusted):
            return words
    raise ProtocolError(f"{untrusted!r}: expected {kind.value}")
