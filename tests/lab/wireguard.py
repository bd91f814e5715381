# SPDX-License-Identifier: GPL-2.0-or-later
"""A real WireGuard server for tests: wireguard-go in some network namespace.

It is told by its own socket, in words that are written here and not by the product.
"""

import os
import secrets
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller import namespaces

SOCKETS = Path("/var/run/wireguard")
# That of Debian 13 (fetch-daemons.sh), which is another one than that of Debian 12.
TRIXIE = Path(__file__).parents[2] / ".cache/daemons/trixie/usr/bin/wireguard-go"
PATIENCE = 20.0  # seconds; only a failing test waits that long
PRIME = 2**255 - 19


def public_of(private: bytes) -> bytes:
    """Return the public key of a private one: X25519 (RFC 7748, 5)."""
    number = bytearray(private)
    number[0] &= 248
    number[31] = number[31] & 127 | 64
    k, x1 = int.from_bytes(number, "little"), 9
    x2, z2, x3, z3, swap = 1, 0, x1, 1, 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        aa, bb, da, cb = a * a, b * b, d * a, c * b
        e = aa - bb
        x3, z3 = (da + cb) ** 2 % PRIME, x1 * (da - cb) ** 2 % PRIME
        x2, z2 = aa * bb % PRIME, e * (aa + 121665 * e) % PRIME
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def base64(key: bytes) -> str:
    return b64encode(key).decode()


@dataclass
class Keys:
    """A pair; another one each time."""

    private: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def public(self) -> bytes:
        return public_of(self.private)


@dataclass
class Server:
    """A server that runs; ``net`` is the file of its namespace."""

    net: Path
    name: str
    port: int
    process: subprocess.Popen[bytes]
    keys: Keys = field(default_factory=Keys)

    def tell(self, *lines: str) -> dict[str, str]:
        """Ask by the socket of the device; return the last value of each key."""
        with socket.socket(socket.AF_UNIX) as talk:
            talk.settimeout(PATIENCE)
            talk.connect(str(SOCKETS / f"{self.name}.sock"))
            talk.sendall("\n".join([*lines, "", ""]).encode())
            answer = b""
            while not answer.endswith(b"\n\n"):
                part = talk.recv(65536)
                assert part, f"{self.name} hung up after {answer!r}"
                answer += part
        words = dict(x.split("=", 1) for x in answer.decode().split("\n") if "=" in x)
        assert words["errno"] == "0", words
        return words

    def accept(self, public: bytes, *addresses: str) -> None:
        """Let one client in, with these addresses, and nobody else."""
        allowed = (f"allowed_ip={address}" for address in addresses)
        self.tell("set=1", "replace_peers=true", f"public_key={public.hex()}", *allowed)

    def peer(self) -> dict[str, str]:
        """Return what is known of the client."""
        return self.tell("get=1")

    def move(self, port: int) -> None:
        """Listen on another port."""
        self.port = port
        self.tell("set=1", f"listen_port={port}")

    def profile(self, client: Keys, endpoint: str, *lines: str, **more: str) -> str:
        """Return the file that a provider would hand out.

        ``lines`` are added to [Interface]; ``more`` replaces values by key.
        """
        words = {
            "Address": "10.64.0.2/32",
            "DNS": "10.64.0.1",
            "PublicKey": base64(self.keys.public),
            "AllowedIPs": "0.0.0.0/0, ::/0",
            "Endpoint": f"{endpoint}:{self.port}",
            "PrivateKey": base64(client.private),
        } | more
        own = [f"{key} = {words[key]}" for key in ("PrivateKey", "Address", "DNS")]
        peer = [f"{x} = {words[x]}" for x in ("PublicKey", "AllowedIPs", "Endpoint")]
        interface = ["[Interface]", *(x for x in own if words[x.split()[0]]), *lines]
        return "\n".join([*interface, "[Peer]", *peer, ""])


@contextmanager
def server(
    net: Path, port: int = 51820, *own: str, name: str = "wgs0", listen: bool = True
) -> Iterator[Server]:
    """Have a server for a while, whose device has the addresses ``own``."""
    SOCKETS.mkdir(parents=True, exist_ok=True)
    path = SOCKETS / f"{name}.sock"
    with tempfile.TemporaryFile() as log:
        # In a session of its own, as daemons are: Linux shares the processors out
        # among sessions (sched(7)), which doubles what its packets cost to hand on.
        process = namespaces.spawn(
            ["wireguard-go", "-f", name],
            net=net,
            env=os.environ | {"LOG_LEVEL": "error"},
            stdout=log.fileno(),
            stderr=log.fileno(),
        )
        try:
            made = Server(net, name, port, process)
            _await(lambda: _listens(path))
            listening = [f"listen_port={port}"] if listen else []
            made.tell("set=1", f"private_key={made.keys.private.hex()}", *listening)
            with namespaces.inside(net):
                for address in own or ("10.64.0.1/24",):
                    _ip("address", "add", address, "dev", name)
                _ip("link", "set", name, "up")
            yield made
        finally:
            process.kill()
            process.wait()
            path.unlink(missing_ok=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as talk:
        return talk.connect_ex(str(path)) == 0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "not so within the deadline"
        os.sched_yield()
