# SPDX-License-Identifier: GPL-2.0-or-later
"""tor's control protocol (control-spec), read by stem and never waited for.

The only module that knows stem.  Its threads and its `Controller` are not
used: a call of theirs waits for tor, and an agent that waits enforces nothing.
The socket is ours, and stem's parsers read one whole message at a time.
"""

import io
import logging
import select
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

import stem
import stem.response
import stem.response.events
import stem.socket
from stem.response import ControlMessage as Message

from rules.model import Family
from torvm import heard, relays, torrc
from torvm.connection import Connection, secret
from torvm.countries import Countries
from torvm.listeners import Listener
from torvm.port import GUARDS, HOLD, LISTEN, RELEASE, SPEAK, GoneError
from torvm.said import (
    Circuit,
    CircuitsSeen,
    Done,
    Listening,
    Live,
    Reconfigured,
    Refused,
    RelaysSeen,
    Said,
)
from torvm.severed import sever
from torvm.streams import Streams

log = logging.getLogger(__name__)

# It writes whole events, with every relay of a circuit, into the log.
logging.getLogger("stem").setLevel(logging.CRITICAL)

# None of them has a word of a client that tor does not quote: `torvm.streams`.
EVENTS = "CIRC STATUS_CLIENT STATUS_GENERAL CONF_CHANGED NETWORK_LIVENESS WARN"
PLACES = " ".join(heard.ASKED.values())
SELF = f"version status/bootstrap-phase status/circuit-established {PLACES}"

Entries = Mapping[str, str]


class Control:
    """A tor that runs; it is greeted at once.  Raises `OSError` if none listens.

    ``cookie`` is the file whose contents only tor and its group know.
    """

    def __init__(self, path: str, cookie: str) -> None:
        self._connection = Connection(path)
        self._cookie = cookie
        self._said: list[Said] = []
        self._places: frozenset[Listener] = frozenset()
        self._ready = select.epoll()
        self._ready.register(self._connection, select.EPOLLIN)
        self._streams = Streams(path, self._ready)
        self.uid = self._connection.uid
        # tor answers from its main loop only, when the cookie is there.
        self._ask("PROTOCOLINFO 1", self._greeted)

    def fileno(self) -> int:
        """Return what is readable when tor said something, or takes more."""
        return self._ready.fileno()

    @property
    def waits_since(self) -> float:
        """When the first question without an answer was asked; `math.inf`: none."""
        return self._connection.waits_since

    def close(self) -> None:
        """Leave tor alone; it goes on."""
        self._streams.close()
        self._connection.close()
        self._ready.close()

    def handle(self) -> list[Said]:
        """Take what tor said since."""
        try:
            for untrusted_event in self._connection.events():
                if (said := _event(untrusted_event)) is not None:
                    self._said.append(said)
            self._ready.modify(self._connection, self._connection.awaited())
        except OSError as error:
            raise GoneError(str(error)) from error
        taken = [*self._said, *self._streams.handle()]
        self._said.clear()
        return taken

    def hold(self) -> None:
        """Close every connection and every listener."""
        self._order(HOLD, torrc.HELD)

    def release(self, families: frozenset[Family]) -> None:
        """Let tor out by uplinks of these IP versions."""
        self._order(RELEASE, torrc.released(families))

    def listen(self, places: Iterable[Listener]) -> None:
        """Listen here and nowhere else."""
        self._order(LISTEN, torrc.listening(places))

    def forget_guards(self) -> None:
        """Choose other relays to enter the network by."""
        self._order(GUARDS, "DROPGUARDS")

    def transports(self, ports: Mapping[str, int]) -> None:
        """Speak these transports by TCP ports of 127.0.0.1."""
        self._order(SPEAK, torrc.speaking(ports))

    def halt(self) -> None:
        """End it."""
        self._order("halt", "SIGNAL HALT")

    def look_at_self(self) -> None:
        """Ask tor how it is, and the kernel how large."""

        def answered(entries: Entries) -> None:
            ready, memory = heard.ready(entries), self._connection.memory()
            self._said.append(replace(ready, memory=memory))

        self._get(SELF, answered)

    def look_at_listeners(self) -> None:
        """Ask where tor listens."""

        def answered(entries: Entries) -> None:
            before, self._places = self._places, heard.places(entries)
            sever(before - self._places)
            self._said.append(Listening(self._places))

        self._get(PLACES, answered)

    def look_at_circuits(self) -> None:
        """Ask for all circuits."""

        def answered(entries: Entries) -> None:
            lines = filter(None, entries.get("circuit-status", "").splitlines())
            events = (_event(f"650 CIRC {line}\r\n".encode()) for line in lines)
            found = tuple(each for each in events if isinstance(each, Circuit))
            self._said.append(CircuitsSeen(found))

        self._get("circuit-status", answered)

    def look_at_relays(self) -> None:
        """Ask where relays listen, those that are built in among them."""

        def answered(entries: Entries) -> None:
            options = entries.get("config/defaults", "").splitlines()
            listed = relays.of_consensus(entries.get("ns/all", ""))
            self._said.append(RelaysSeen(relays.of_directories(options), listed))

        self._get("config/defaults ns/all", answered)

    def look_at_countries(self, fingerprints: frozenset[str]) -> None:
        """Ask where these relays, one or more, are."""
        Countries(self._get, self._said.append).ask(fingerprints)

    def _greeted(self, message: Message) -> None:
        if not message.is_ok():
            raise GoneError("not a tor")
        cookie = secret(self._cookie)
        self._ask(f"AUTHENTICATE {cookie.hex()}", partial(self._admitted, cookie))

    def _admitted(self, cookie: bytes, message: Message) -> None:
        if not message.is_ok():
            raise GoneError("tor does not know us")
        self._streams.begin(cookie)
        self._order("events", f"SETEVENTS {EVENTS}")
        self.look_at_self()

    def _order(self, what: str, command: str) -> None:
        def answered(message: Message) -> None:
            if message.is_ok():
                self._said.append(Done(what))
            else:
                self._said.append(Refused(what, heard.reason(str(message))))

        self._ask(command, answered)

    def _get(self, keys: str, answered: Callable[[Entries], None]) -> None:
        """Ask for values; there are none if tor does not know one of the keys."""

        def parsed(message: Message) -> None:
            if not message.is_ok():
                answered({})
                return
            stem.response.convert("GETINFO", message)
            found = message.entries.items()
            answered({key: value.decode("ascii", "replace") for key, value in found})

        self._ask(f"GETINFO {keys}", parsed)

    def _ask(self, command: str, reply: Callable[[Message], None]) -> None:
        def received(untrusted_message: bytes) -> None:
            try:
                reply(_message(untrusted_message))
            except (stem.ProtocolError, stem.SocketError, ValueError) as error:
                raise GoneError(f"malformed answer: {type(error).__name__}") from error

        try:
            self._connection.ask(command, received)
            self._ready.modify(self._connection, self._connection.awaited())
        except OSError as error:
            raise GoneError(str(error)) from error


def _message(untrusted_message: bytes) -> Message:
    return stem.socket.recv_message(io.BytesIO(untrusted_message))


def _event(untrusted_message: bytes) -> Said | None:
    """Read an event; what is not understood says nothing."""
    try:
        event = _message(untrusted_message)
        stem.response.convert("EVENT", event)
    except (stem.ProtocolError, stem.SocketError, ValueError) as error:
        log.debug("event not understood: %s", type(error).__name__)
        return None
    if isinstance(event, stem.response.events.LogEvent):
        return heard.warning(event.message)
    return _meaning(event)


def _meaning(event: object) -> Said | None:
    match event:
        case stem.response.events.NetworkLivenessEvent():
            return Live(event.status == "UP")
        case stem.response.events.CircuitEvent():
            words = {"purpose": event.purpose or "", **event.keyword_args}
            return heard.circuit(event.id, event.status, event.path, words)
        case stem.response.events.StatusEvent():
            return heard.status(event.runlevel, event.action, event.arguments)
        case stem.response.events.ConfChangedEvent():
            changed = (*event.changed, *event.unset)
            return Reconfigured(frozenset(name.lower() for name in changed))
        case _:
            return None
