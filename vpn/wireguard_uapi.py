# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of wireguard-go (WireGuard's cross-platform userspace API).

A question is ``get=1`` or ``set=1`` with lines ``key=value``, and an empty line;
the answer is such lines, then ``errno=N`` and an empty line.
"""

import socket
from collections import deque
from collections.abc import Iterator
from ipaddress import ip_address

from vpn.endpoints import Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_profile import Key

MOST = 1 << 20  # bytes of an answer
MOST_QUESTIONS = 100
GET = b"get=1\n\n"
END = b"\n\n"


class UapiError(OSError):
    """wireguard-go refused, or is not one that speaks this."""


def set_text(setting: Setting) -> bytes:
    """Return the question that makes a device exactly this."""
    return (
        b"set=1\n" + "".join(f"{line}\n" for line in _lines(setting)).encode() + b"\n"
    )


def steer_text(public: Key, target: Target) -> bytes:
    """Return the question that sends to a peer at ``target``."""
    words = f"public_key={public.value.hex()}\nupdate_only=true\n"
    return f"set=1\n{words}endpoint={_endpoint(target)}\n\n".encode()


def read(untrusted_answer: bytes) -> list[PeerState]:
    """Return the peers of an answer without its last empty line.

    Raises `UapiError` for an error, and for what is no answer.
    """
    peers: list[dict[str, str]] = []
    error = ""
    for line in untrusted_answer.decode("ascii", "replace").split("\n"):
        key, _, value = line.partition("=")
        if key == "public_key":
            peers.append({})
        if key == "errno":
            error = value
        elif peers:
            peers[-1][key] = value
    if error != "0":
        raise UapiError(f"wireguard-go answers with error {error[:10]!r}")
    try:
        return [_peer(peer) for peer in peers]
    except (KeyError, ValueError):
        raise UapiError("wireguard-go answers what nobody understands") from None


def _lines(setting: Setting) -> Iterator[str]:
    yield f"private_key={setting.private.value.hex()}"
    yield f"listen_port={setting.port}"
    yield "replace_peers=true"
    if setting.peer is None or setting.target is None:
        return
    peer = setting.peer
    yield f"public_key={peer.public.value.hex()}"
    if peer.preshared is not None:
        yield f"preshared_key={peer.preshared.value.hex()}"
    yield f"endpoint={_endpoint(setting.target)}"
    yield f"persistent_keepalive_interval={peer.keepalive}"
    yield "replace_allowed_ips=true"
    for network in peer.allowed:
        yield f"allowed_ip={network}"


def _endpoint(target: Target) -> str:
    host = f"[{target.address}]" if target.address.version == 6 else target.address  # noqa: PLR2004
    return f"{host}:{target.port}"


def _peer(words: dict[str, str]) -> PeerState:
    seconds = int(words.get("last_handshake_time_sec", "0"))
    nanoseconds = int(words.get("last_handshake_time_nsec", "0"))
    endpoint = words.get("endpoint", "")
    host, _, port = endpoint.rpartition(":")
    return PeerState(
        public=Key(bytes.fromhex(words["public_key"])),
        endpoint=Target(ip_address(host.strip("[]")), int(port)) if endpoint else None,
        handshake=seconds * 10**9 + nanoseconds,
        received=int(words.get("rx_bytes", "0")),
        sent=int(words.get("tx_bytes", "0")),
    )


class Conversation:
    """Questions and answers over a connected socket, without waiting.

    One question at a time is on its way: behind a ``set`` wireguard-go may lose
    what has come already.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)  # noqa: FBT003
        self._socket = connected
        self._questions: deque[bytes] = deque()
        self._is_asked = False
        self._unsent = b""
        self._received = b""

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Say nothing more."""
        self._socket.close()

    def ask(self, question: bytes) -> None:
        """Ask; answers come in the order of the questions."""
        if len(self._questions) >= MOST_QUESTIONS:
            raise UapiError("wireguard-go does not answer")
        self._questions.append(question)
        self._send()

    def answers(self) -> Iterator[list[PeerState]]:
        """Yield the answers that came.  `OSError` if it is gone or refuses."""
        self._send()
        try:
            while chunk := self._socket.recv(65536):
                self._received += chunk
                if len(self._received) > MOST:
                    raise UapiError("wireguard-go talks too much")
            raise ConnectionResetError("wireguard-go has closed its socket")
        except BlockingIOError:
            pass
        while END in self._received:
            answer, _, self._received = self._received.partition(END)
            self._is_asked = False
            self._send()
            yield read(answer)

    def _send(self) -> None:
        if not self._is_asked and self._questions:
            self._unsent, self._is_asked = self._questions.popleft(), True
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
