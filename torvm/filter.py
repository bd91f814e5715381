# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client may say at its control port, and what it is told (control-spec, 3).

The agent answers by itself: no word of a client reaches tor's own control socket,
and nothing that tor says there reaches a client.  What is told is true of that
client alone.  It is as much as Tor Browser asks for at its start, for its check of
the SOCKS port and for a new identity; all else is filtered.
"""

import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST = 1024  # bytes of a line; the longest that anybody needs names some events
COMPLETE, ABOUT = 100, 10  # percent

# There are such events, and none of them is about one client alone, so none comes.
# Tor Browser asks for them and gives up if it may not.
EVENTS = frozenset({"CIRC", "STREAM", "STATUS_CLIENT", "NOTICE", "WARN", "ERR"})
EXTENDED = "EXTENDED"  # control-spec, 3.4: has had no meaning for long

VERSION = re.compile(r"[0-9A-Za-z.-]{1,40}")

DONE = "250 OK"
FILTERED = "510 Command filtered"
STRANGER = "514 Authentication required"
TOO_LONG = "500 Line too long"
CLOSING = "250 closing connection"


@dataclass(frozen=True, slots=True)
class Known:
    """What a client may know; ``version`` is tor's word, empty without a tor.

    ``progress`` is in %, ``socks`` where this client may speak SOCKS.
    """

    version: str = ""
    progress: int = 0
    circuits: bool = False
    socks: str = ""

    def values(self) -> Mapping[str, str]:
        """Return what GETINFO may ask for (control-spec, 3.9)."""
        version = VERSION.match(self.version)
        return {
            **({"version": version[0]} if version else {}),
            "status/bootstrap-phase": _phase(self.progress),
            "status/circuit-established": "1" if self.circuits else "0",
            "net/listeners/socks": f'"{self.socks}"' if self.socks else "",
        }


def _phase(progress: int) -> str:
    """Return how far tor is; not exactly, for that would tell whether by a bridge.

    The tag is a word of our own below 100 %, as control-spec (5.5.1) lets it be.
    """
    if progress >= COMPLETE:
        return 'NOTICE BOOTSTRAP PROGRESS=100 TAG=done SUMMARY="Done"'
    about = progress - progress % ABOUT
    return f'NOTICE BOOTSTRAP PROGRESS={about} TAG=connecting SUMMARY="Connecting"'


@dataclass(slots=True)
class Talk:
    """One connection of a client, without its socket.

    ``unsent`` is to be sent to it.  ``wants``: it has asked for another identity,
    and hears nothing until that is done.  ``over``: it is to be closed.
    ``refused`` counts what was filtered.
    """

    admitted: bool = False
    wants: bool = False
    over: bool = False
    refused: int = 0
    unsent: bytes = b""
    _lines: deque[bytes] = field(default_factory=deque)
    _rest: bytes = b""

    @property
    def busy(self) -> bool:
        """Whether a line waits for its answer."""
        return bool(self._lines) and not (self.over or self.wants)

    def hear(self, untrusted_data: bytes) -> None:
        """Take what it sent, in pieces of any size."""
        *lines, self._rest = (self._rest + untrusted_data).split(b"\n")
        self._lines.extend(lines)
        if len(self._rest) > LONGEST:
            self._lines.append(self._rest)
            self._rest = b""

    def answer(self, known: Known) -> None:
        """Answer the next line, if one waits."""
        if not self.busy:
            return
        untrusted_line = self._lines.popleft()
        if len(untrusted_line) > LONGEST:
            self._end(TOO_LONG)
            return
        # Whatever is no ASCII is in no word that is known.
        untrusted_text = untrusted_line.decode("ascii", "replace").rstrip("\r")
        untrusted_verb, _, untrusted_words = untrusted_text.partition(" ")
        verb = untrusted_verb.upper()
        if verb == "QUIT":
            self._end(CLOSING)
        elif verb == "AUTHENTICATE":
            # With whatever: who may come in is decided by the vif and by the rules.
            self.admitted = True
            self._say(DONE)
        elif verb == "PROTOCOLINFO":
            self._say(*_protocol(known))
        elif not self.admitted:
            self._refuse(STRANGER)
        elif verb.startswith("+"):
            # What follows would be the data of a command that is not taken.
            self._refuse(FILTERED)
        else:
            self._obey(verb, untrusted_words.split(), known)

    def moved(self) -> None:
        """Tell it that it has another identity now."""
        self.wants = False
        self._say(DONE)

    def _obey(self, verb: str, untrusted_words: list[str], known: Known) -> None:
        asked, named = set(untrusted_words), {w.upper() for w in untrusted_words}
        values = known.values()
        if verb == "GETINFO" and asked and asked <= values.keys():
            told = (f"250-{word}={values[word]}" for word in untrusted_words)
            self._say(*told, DONE)
        elif verb == "SETEVENTS" and named <= EVENTS | {EXTENDED}:
            self._say(DONE)
        elif verb == "SIGNAL" and named == {"NEWNYM"}:
            self.wants = True
        else:
            self.refused += 1
            self._say(FILTERED)

    def _refuse(self, line: str) -> None:
        self.refused += 1
        self._end(line)

    def _end(self, line: str) -> None:
        self._say(line)
        self.over = True

    def _say(self, *lines: str) -> None:
        self.unsent += "".join(f"{line}\r\n" for line in lines).encode("ascii")


def _protocol(known: Known) -> tuple[str, ...]:
    """Return the answer to PROTOCOLINFO (control-spec, 3.21)."""
    version = known.values().get("version")
    return (
        "250-PROTOCOLINFO 1",
        "250-AUTH METHODS=NULL",
        *((f'250-VERSION Tor="{version}"',) if version else ()),
        DONE,
    )
