# SPDX-License-Identifier: GPL-2.0-or-later
"""A real OpenVPN server, with a PKI made by openssl alone."""

import os
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from controller import namespaces

OPENVPN = "/usr/sbin/openvpn"
INSIDE, OWN = "10.8.0.1", "10.8.0.2"  # the server's and the client's end
USER, PASSWORD = "alice", "pa\"ss\\ wo'rd"
CONTROL = "tls-crypt crypt.key"  # the key of the control channel, as openvpn(8) has it
READY = "Initialization Sequence Completed"
EC = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
LONG_AGO = ("20200101000000Z", "20200201000000Z")
NOW = ("20200101000000Z", "20491231000000Z")
CA_CONFIG = """\
[ca]
default_ca = lab
[lab]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[server]
extendedKeyUsage = serverAuth
keyUsage = digitalSignature
[client]
extendedKeyUsage = clientAuth
keyUsage = digitalSignature
"""


@dataclass(frozen=True)
class Pki:
    """An authority in a directory; `issue` makes a key and a certificate."""

    place: Path

    def __post_init__(self) -> None:
        self.place.mkdir()
        (self.place / "ca.cnf").write_text(CA_CONFIG)
        (self.place / "index.txt").touch()
        (self.place / "serial").write_text("01\n")
        self._openssl(
            f"req -x509 {EC} -keyout ca.key -out ca.crt -days 9000 -subj /CN=lab"
        )
        self.key("tls-crypt", "crypt.key")

    def issue(self, name: str, kind: str, valid: tuple[str, str] = NOW) -> None:
        """Make ``name.crt`` and ``name.key`` for a ``server`` or ``client``."""
        start, end = valid
        self._openssl(f"req {EC} -keyout {name}.key -out {name}.csr -subj /CN={name}")
        self._openssl(
            f"ca -batch -config ca.cnf -cert ca.crt -keyfile ca.key -in {name}.csr"
            f" -out {name}.crt -notext -extensions {kind}"
            f" -startdate {start} -enddate {end}"
        )

    def many_names(self, name: str) -> None:
        """Make a certificate of nobody's, with some 10,000 letters of names in it."""
        names = "".join(f"/OU={n:064}" for n in range(150))
        files = f"-keyout {name}.key -out {name}.crt"
        self._openssl(f"req -x509 {EC} {files} -days 9000 -subj {names}")

    def key(self, kind: str, name: str) -> None:
        """Make a key of the control channel, of a kind of ``--genkey``."""
        run([OPENVPN, "--genkey", kind, name], self.place)

    def client_key(self, server_key: str, name: str) -> None:
        """Make a client's key that only who has the server's can open."""
        argv = [OPENVPN, "--tls-crypt-v2", server_key]
        run([*argv, "--genkey", "tls-crypt-v2-client", name], self.place)

    def read(self, name: str) -> str:
        return (self.place / name).read_text()

    def _openssl(self, words: str) -> None:
        run(["openssl", *words.split()], self.place)


def run(argv: Sequence[str], place: Path) -> None:
    done = subprocess.run(argv, cwd=place, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def profile(
    pki: Pki,
    *servers: str,
    cert: str = "client",
    more: str = "",
    control: str = CONTROL,
) -> str:
    """The file that a provider hands out."""
    remotes = "".join(f"remote {server}\n" for server in servers)
    keys = ""
    if control:
        name, file, *direction = control.split()
        keys = f"<{name}>\n{pki.read(file)}</{name}>\n"
        more += "".join(f"key-direction {each}\n" for each in direction)
    return f"""\
client
dev tun
{remotes}{more}
<ca>
{pki.read("ca.crt")}</ca>
<cert>
{pki.read(f"{cert}.crt")}</cert>
<key>
{pki.read(f"{cert}.key")}</key>
{keys}"""


@dataclass
class Server:
    """The daemon of a provider; ``more`` are lines of its configuration."""

    pki: Pki
    net: Path
    address: str
    port: int = 1194
    proto: str = "udp"
    cert: str = "server"
    control: str = CONTROL
    asks_login: bool = False
    more: tuple[str, ...] = ()
    inside: tuple[str, ...] = ("server 10.8.0.0 255.255.255.0",)
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, within: float = 20.0) -> None:
        """Start it; when this returns it can be connected to."""
        lines = [
            f"dev ovpns{self.port}",
            "dev-type tun",
            *self.inside,
            "topology subnet",
            f"proto {self.proto if self.proto == 'udp' else 'tcp-server'}",
            f"local {self.address}",
            f"port {self.port}",
            *(f"{word} {word}.crt" for word in ("ca",)),
            f"cert {self.cert}.crt",
            f"key {self.cert}.key",
            "dh none",
            self.control,
            # How long it may say nothing: longer than a busy machine stands still.
            "keepalive 1 5",
            "suppress-timestamps",
            "verb 3",
            *self.more,
        ]
        if self.asks_login:
            check = self.pki.place / "check"
            check.write_text(
                f"#!/bin/sh\nprintf '%s\\n' '{USER}'"
                f' {quoted(PASSWORD)} | cmp -s - "$1"\n'
            )
            check.chmod(0o755)
            lines += [
                "script-security 2",
                f"auth-user-pass-verify {check} via-file",
                "tmp-dir .",
            ]
        config = self.pki.place / f"server{self.port}{self.proto}.conf"
        config.write_text("\n".join(lines) + "\n")
        argv = [OPENVPN, "--cd", str(self.pki.place), "--config", str(config)]
        self._process = namespaces.spawn(argv, net=self.net, stdout=subprocess.PIPE)
        self.wait_for(READY, within)

    def wait_for(self, text: str, within: float = 20.0) -> None:
        """Read its log until it says so."""
        assert self._process is not None
        assert self._process.stdout is not None
        fd, said, end = self._process.stdout.fileno(), b"", time.monotonic() + within
        while text.encode() not in said:
            ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            assert chunk, said.decode()
            said += chunk

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


def quoted(word: str) -> str:
    """A word for sh(1)."""
    escaped = word.replace("'", "'\\''")
    return f"'{escaped}'"


@contextmanager
def running(server: Server, within: float = 20.0) -> Iterator[Server]:
    """Have the server, and the resolver that it names."""
    server.start(within)
    try:
        with resolver(server.net, "in.tunnel", "198.51.100.80"):
            yield server
    finally:
        server.kill()


@contextmanager
def resolver(net: Path, name: str, address: str) -> Iterator[None]:
    """Have the provider's resolver answer in the tunnel, whenever there is one."""
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root"]
    argv += ["--no-resolv", "--no-hosts", "--pid-file=", "--bind-dynamic"]
    argv += ["--except-interface=lo", "--interface=ovpns*"]
    argv += [f"--address=/{name}/{address}"]
    quiet = subprocess.DEVNULL
    process = namespaces.spawn(argv, net=net, stdout=quiet, stderr=quiet)
    try:
        yield
    finally:
        process.kill()
        process.wait()
