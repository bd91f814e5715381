# SPDX-License-Identifier: GPL-2.0-or-later
"""What stands before a Tor network: proxies of Debian, and parts it has no package for.

microsocks and tinyproxy are the real ones.  Debian packages neither a server of
meek nor a broker of snowflake, so these are small ones of ours that say what the
protocols say and no more.  Behind the broker is Debian's snowflake-proxy; its
relay, which is not packaged either, is one that only counts.
"""

import base64
import hashlib
import json
import queue
import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from controller import namespaces

WAIT = 0.1  # seconds that a server of meek waits for something to hand back
LARGEST = 1 << 16  # bytes of a body
OFFER, ANSWER = 5.0, 30.0  # seconds that a broker waits for either
MAGIC = 0x2112A442  # RFC 8489, 5
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3


class Handler(BaseHTTPRequestHandler):
    """Answers bodies with bodies, on one connection for many."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        answer = self.server.answer(self.path, dict(self.headers), body)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:  # type: ignore[override]
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves in a namespace from ``with`` to its end; a connection has a thread."""

    daemon_threads = True

    def __init__(self, net: Path, address: str, port: int) -> None:
        self.net = net
        with namespaces.inside(net):
            super().__init__((address, port), Handler)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,))
        self._thread.start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went."""

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Meek(Server):
    """The server of meek before a bridge (its protocol: a body each way, a session).

    ``hosts`` are the names that it was asked as: not those of the front.
    """

    def __init__(
        self, net: Path, address: str, port: int, bridge: tuple[str, int]
    ) -> None:
        self.hosts: set[str] = set()
        self._bridge = bridge
        self._sessions: dict[str, socket.socket] = {}
        super().__init__(net, address, port)

    def answer(self, _: str, headers: dict[str, str], body: bytes) -> bytes:
        self.hosts.add(headers["Host"])
        made = self._session(headers["X-Session-Id"])
        with suppress(OSError):
            made.sendall(body)
            if select.select([made], [], [], WAIT)[0]:
                return made.recv(LARGEST)
        return b""

    def _session(self, number: str) -> socket.socket:
        if number not in self._sessions:
            with namespaces.inside(self.net):
                self._sessions[number] = socket.create_connection(self._bridge)
        return self._sessions[number]

    def __exit__(self, *reason: object) -> None:
        super().__exit__(*reason)
        for each in self._sessions.values():
            each.close()


class Broker(Server):
    """The broker of snowflake: an offer of a client to a proxy, its answer back."""

    def __init__(self, net: Path, address: str, port: int) -> None:
        self.offers: queue.Queue[str] = queue.Queue()
        self.answers: queue.Queue[str] = queue.Queue()
        self.hosts: set[str] = set()
        super().__init__(net, address, port)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> bytes:
        match path:
            case "/client":
                self.hosts.add(headers["Host"])
                said = self._client(body)
            case "/proxy":
                said = self._proxy()
            case _:
                self.answers.put(json.loads(body)["Answer"])
                said = {"Status": "success"}
        return json.dumps(said).encode()

    def _client(self, body: bytes) -> dict[str, str]:
        self.offers.put(json.loads(body.partition(b"\n")[2])["offer"])
        with suppress(queue.Empty):
            return {"answer": self.answers.get(timeout=ANSWER)}
        return {"error": "no snowflake proxies currently available"}

    def _proxy(self) -> dict[str, str]:
        with suppress(queue.Empty):
            offer = self.offers.get(timeout=OFFER)
            return {"Status": "client match", "Offer": offer, "NAT": "unknown"}
        return {"Status": "no match"}


class Relay:
    """A WebSocket (RFC 6455) that takes what comes; ``came`` is set with the first."""

    def __init__(self, net: Path, address: str, port: int) -> None:
        self.came = threading.Event()
        with namespaces.inside(net):
            self._listening = socket.create_server((address, port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                made, _ = self._listening.accept()
                with made, suppress(OSError):
                    self._take(made)

    def _take(self, made: socket.socket) -> None:
        made.settimeout(ANSWER)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (part := made.recv(LARGEST)):
                return  # it went before it had said anything
            head += part
        lines = (line.partition(b":") for line in head.split(b"\r\n"))
        words = {name.lower(): value.strip() for name, _, value in lines}
        digest = hashlib.sha1(words[b"sec-websocket-key"] + GUID).digest()
        made.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
            + base64.b64encode(digest)
            + b"\r\n\r\n"
        )
        if made.recv(LARGEST):
            self.came.set()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()


class Stun:
    """A STUN server (RFC 8489): it tells who asks the address that it sees."""

    def __init__(self, net: Path, address: str, port: int) -> None:
        with namespaces.inside(net):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, port))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            asked, peer = self._socket.recvfrom(LARGEST)
            if not asked:
                return
            port = peer[1] ^ MAGIC >> 16
            host = int.from_bytes(socket.inet_aton(peer[0])) ^ MAGIC
            value = b"\0\1" + port.to_bytes(2) + host.to_bytes(4)
            attribute = b"\0\x20\0\x08" + value  # XOR-MAPPED-ADDRESS
            self._socket.sendto(b"\1\1\0\x0c" + asked[4:20] + attribute, peer)

    def close(self) -> None:
        # It wakes who reads, and complains that there is no peer.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@contextmanager
def running(net: Path, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program in a namespace meanwhile."""
    quiet = subprocess.DEVNULL
    with namespaces.inside(net):
        made = subprocess.Popen(argv, stdout=quiet, stderr=quiet)
    try:
        yield made
    finally:
        made.kill()
        made.wait()


def listens(net: Path, address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    with namespaces.inside(net), suppress(OSError):
        socket.create_connection((address, port), timeout=1).close()
        return True
    return False
