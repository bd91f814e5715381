# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider's OpenVPN servers, each of another kind (openvpn(8))."""

import os
import time
from dataclasses import dataclass

from controller.lab.certificates import Authority
from controller.lab.exits import INSIDE, SERVER, Exit
from controller.lab.hosts import Hosts, run
from controller.ports import PlatformError
from controller.readable import readable

PROGRAM = "openvpn"
READY = b"Initialization Sequence Completed"
PATIENCE = 20.0  # seconds until it says so
AUTH = "somebody\ncorrect horse\n"
"""The two lines of a file for ``auth =``: the user and the password."""

SERVER_LINES = """\
local {address}
port {port}
proto {proto}
dev tun0
dev-type tun
topology subnet
server {network} {mask}
server-ipv6 {network6}
push "dhcp-option DNS {resolver}"
push "dhcp-option DNS6 {resolver6}"
push "dhcp-option DOMAIN {domain}"
push "redirect-gateway def1 ipv6"
dh none
keepalive 2 10
disable-dco
duplicate-cn
daemon
writepid {files}/pid
log {files}/said
verb 3
"""
# A provider that knows people by their passwords gives them no certificate.
WITHOUT_CERTIFICATE = """\
verify-client-cert none
username-as-common-name
script-security 2
auth-user-pass-verify {files}/check via-file
"""
CLIENT_LINES = """\
client
dev tun
nobind
persist-tun
persist-key
remote-cert-tls server
verb 3
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a server is reached, and how it knows who comes."""

    name: str
    number: int  # of its address
    inner: int  # of the networks in its tunnel
    proto: str
    port: int
    password: bool = False
    days: int = 30  # its certificate is good for


UDP = Kind("openvpn-udp", 41, 65, "udp", 1194)
TCP = Kind("openvpn-tcp", 42, 66, "tcp", 443)
UDP_PASSWORD = Kind("openvpn-udp-password", 43, 67, "udp", 1194, password=True)
TCP_PASSWORD = Kind("openvpn-tcp-password", 44, 68, "tcp", 443, password=True)
EXPIRED = Kind("openvpn-expired", 45, 69, "udp", 1194, days=0)


class OpenVpnServer:
    """One server; all of them have the same authority, and take the same client."""

    def __init__(self, hosts: Hosts, kind: Kind = UDP) -> None:
        self.host = Exit(hosts, kind.name, kind.number, kind.inner)
        self.kind = kind
        self._provider = hosts.files / "exits" / "openvpn"
        self._authority = Authority(self._provider, hosts.router)

    def up(self) -> None:
        """Make the host and start the server there."""
        self.host.make()
        self.start()

    def start(self) -> None:
        """Start the server, again after `kill`; it listens on return."""
        files = self.host.files
        check = files / "check"
        (files / "auth").write_text(AUTH)
        check.write_text(f'#!/bin/sh\nexec cmp -s "$1" {files}/auth\n')
        check.chmod(0o700)
        config = files / "config"
        config.write_text(self._config())
        said = files / "said"
        said.unlink(missing_ok=True)
        os.mkfifo(said, 0o600)
        # It goes into the background before it listens, but it says when it does.
        saying = os.open(said, os.O_RDONLY | os.O_NONBLOCK)
        try:
            run(self.host.net, PROGRAM, "--config", config)
            _hear(saying, READY)
        finally:
            os.close(saying)

    def kill(self) -> None:
        """SIGKILL the server: its host stays, and answers nothing on its port."""
        self.host.kill(PROGRAM)

    @property
    def remote(self) -> str:
        """The line of a profile that is for this server."""
        return f"remote {self.host.exits[0]} {self.kind.port} {self.kind.proto}\n"

    @property
    def client(self) -> str:
        """The lines of a profile that are for everybody who uses such servers."""
        known = {"ca": self._authority.certificate, "tls-crypt": self._secret()}
        if self.kind.password:
            return f"{CLIENT_LINES}auth-user-pass\n{_inline(known)}"
        own = self._authority.identity("client", "clientAuth")
        return CLIENT_LINES + _inline(known | {"cert": own.certificate, "key": own.key})

    def _config(self) -> str:
        four, six = self.host.inside(SERVER)
        lines = SERVER_LINES + (WITHOUT_CERTIFICATE if self.kind.password else "")
        certificate = self._authority.certificate
        own = self._authority.identity(self.kind.name, "serverAuth", self.kind.days)
        return lines.format(
            address=self.host.exits[0],
            port=self.kind.port,
            proto={"udp": "udp4", "tcp": "tcp4-server"}[self.kind.proto],
            network=four.network.network_address,
            mask=four.netmask,
            network6=six.network,
            resolver=self.host.resolvers[0],
            resolver6=self.host.resolvers[1],
            domain=INSIDE,
            files=self.host.files,
        ) + _inline(
            {
                "ca": certificate,
                "tls-crypt": self._secret(),
                "cert": own.certificate,
                "key": own.key,
            }
        )

    def _secret(self) -> str:
        """Return the key by which the provider's servers know clients (tls-crypt)."""
        path = self._provider / "tls-crypt"
        if not path.exists():
            self._provider.mkdir(mode=0o700, parents=True, exist_ok=True)
            run(self.host.hosts.router, PROGRAM, "--genkey", "tls-crypt", path)
        return path.read_text()


def profile(*servers: OpenVpnServer) -> str:
    """Return the file that a provider hands out for servers of one kind."""
    return "".join(each.remote for each in servers) + servers[0].client


def _inline(files: dict[str, str]) -> str:
    """Return files as sections of a configuration."""
    return "".join(f"<{name}>\n{text}</{name}>\n" for name, text in files.items())


def _hear(saying: int, wanted: bytes) -> None:
    """Read until a program says something; `PlatformError` if it does not."""
    heard, deadline = b"", time.monotonic() + PATIENCE
    while wanted not in heard:
        left = deadline - time.monotonic()
        came = os.read(saying, 4096) if readable(saying, left) else b""
        if not came:
            last = heard.decode("ascii", "replace").strip().rpartition("\n")[2]
            raise PlatformError(f'uplink = "lab": {PROGRAM}: {last}')
        heard += came
