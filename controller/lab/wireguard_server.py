# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider's WireGuard server, by wireguard-go.

It is configured by its UAPI socket (wireguard.com/xplatform).  The socket is in
a /run of its own, because others may have a ``wg0`` too.  Network namespaces are
not among the mounts that the server keeps: one that is removed would live on.
"""

import os
import socket
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

from controller import namespaces
from controller.lab import wires
from controller.lab.exits import CLIENT, SERVER, Exit
from controller.lab.hosts import Hosts, run
from controller.ports import PlatformError

PORT = 51820
KEY = 32  # bytes
DEVICE = "wg0"
SOCKET = ("run", "wireguard", f"{DEVICE}.sock")
PROGRAM = "wireguard-go"
NUMBERS = (31, 32)  # of the servers' addresses
INNER = 64  # the same tunnel wherever it ends
PATIENCE = 20.0  # seconds for an answer of wireguard-go
# A namespace that ends meanwhile takes its mount away by itself.
START = (
    "findmnt --raw --noheadings --output TARGET --types nsfs | xargs -r umount --lazy"
    ' || [ -z "$(findmnt --noheadings --types nsfs)" ]'
    f" && mount -t tmpfs none /run && exec {PROGRAM} {DEVICE}"
)


@dataclass(frozen=True, slots=True)
class Keys:
    """A pair of Curve25519 keys, 32 bytes each."""

    private: bytes
    public: bytes


class WireGuardServer:
    """One of the provider's servers; they differ in ``host`` and in their keys."""

    def __init__(self, hosts: Hosts, which: int = 0) -> None:
        number = NUMBERS[which]
        self.host = Exit(hosts, f"wireguard{which + 1}", number, INNER)
        self._keys = hosts.files / "exits" / "wireguard"

    def up(self) -> None:
        """Make the host and start the server there."""
        self.host.make()
        self.start()

    def start(self) -> None:
        """Start the server, again after `kill`; it listens on return."""
        run(self.host.net, "unshare", "--mount", "sh", "-c", START)
        with namespaces.inside(self.host.net):
            wires.configure(DEVICE, self.host.inside(SERVER))
        own, peer = self._pair(self.host.name), self._pair("client")
        (pid,) = self.host.pids(PROGRAM)
        tell(
            pid,
            f"private_key={own.private.hex()}",
            f"listen_port={PORT}",
            "replace_peers=true",
            f"public_key={peer.public.hex()}",
            f"preshared_key={self._shared().hex()}",
            *(f"allowed_ip={each}" for each in self._own()),
        )

    def kill(self) -> None:
        """SIGKILL the server: its host stays, and answers nothing on its port."""
        self.host.kill(PROGRAM)

    @property
    def peer(self) -> str:
        """The section of a profile that is for this server."""
        public = self._pair(self.host.name).public
        return (
            f"\n[Peer]\nPublicKey = {_text(public)}\nPresharedKey = "
            f"{_text(self._shared())}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
            f"Endpoint = {self.host.exits[0]}:{PORT}\n"
        )

    @property
    def interface(self) -> str:
        """The section of a profile that is for the client."""
        return (
            f"[Interface]\nPrivateKey = {_text(self._pair('client').private)}\n"
            f"Address = {', '.join(self._own())}\n"
            f"DNS = {', '.join(map(str, self.host.resolvers))}\n"
        )

    def _pair(self, name: str) -> Keys:
        """Return the keys of a name, which are made when first asked for."""
        key, public = self._keys / f"{name}.key", self._keys / f"{name}.pub"
        if not public.exists():
            self._keys.mkdir(mode=0o700, parents=True, exist_ok=True)
            net, kind = self.host.hosts.router, ("-outform", "DER", "-out")
            run(net, "openssl", "genpkey", "-algorithm", "X25519", *kind, key)
            run(net, *("openssl", "pkey", "-in", key, "-pubout"), *kind, public)
        # Both forms end in the key itself (RFC 8410).
        return Keys(key.read_bytes()[-KEY:], public.read_bytes()[-KEY:])

    def _shared(self) -> bytes:
        path = self._keys / "shared"
        if not path.exists():
            path.write_bytes(os.urandom(KEY))
        return path.read_bytes()

    def _own(self) -> tuple[str, ...]:
        """Return the addresses of the client, and nothing but them, as networks."""
        inside = self.host.inside(CLIENT)
        return tuple(f"{each.ip}/{each.max_prefixlen}" for each in inside)


def profile(*servers: WireGuardServer) -> str:
    """Return the file that a provider hands out for its servers."""
    return servers[0].interface + "".join(server.peer for server in servers)


def tell(pid: int, *lines: str) -> None:
    """Configure the device of a wireguard-go that was started as ours are.

    `PlatformError` if it refuses.
    """
    with socket.socket(socket.AF_UNIX) as uapi:
        uapi.settimeout(PATIENCE)
        uapi.connect(str(Path("/proc", str(pid), "root", *SOCKET)))
        uapi.sendall("".join(f"{each}\n" for each in ("set=1", *lines, "")).encode())
        said = uapi.recv(4096).decode()
    if "errno=0" not in said.split():
        raise PlatformError(f'uplink = "lab": {PROGRAM}: {said.strip()}')


def _text(key: bytes) -> str:
    return b64encode(key).decode()
