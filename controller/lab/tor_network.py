# SPDX-License-Identifier: GPL-2.0-or-later
"""A private Tor network in the embedded internet, with real tors.

Three authorities, which are exits too, and two relays: onion services and
conflux take five.  They vote every ten seconds, the least tor takes, and for the
first time when all have told of themselves.  Beside them are a bridge that speaks
obfs4 and a host with an onion service, which is also the client that knows when
the network is ready.  All of them are in one of `controller.lab.hosts`, with an
address each; their keys are made anew.

The network needs 0.5 GB of memory.
"""

import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from controller.lab.addresses import RESOLVERS, Address, remote
from controller.lab.hosts import Hosts, clear, find, run
from controller.lab.tor_ready import agreed, fetched, published
from controller.lab.torrc import (
    CLIENT,
    DIR_PORT,
    EXITS,
    LISTED,
    NUMBERS,
    OBFS4_PORT,
    OR_PORT,
    lines,
)
from controller.ports import PlatformError

HOST = "tor"
PATIENCE = 120.0  # seconds until a client can use it
STARTING = 3.0  # seconds until all are known to each other, or the next vote has them
PAGE = "www.example.com"


@dataclass(frozen=True, slots=True)
class Network:
    """What somebody who uses the network needs to know.

    ``options`` are lines for the torrc of a client, ``bridge`` is what follows
    the word ``Bridge`` there; ``exits`` are the addresses that sites see.
    """

    options: str
    bridge: str
    onion: str
    exits: tuple[Address, ...]


class TorNetwork:
    """The Tor network of an internet; any process finds a running one again."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._files = hosts.files / HOST
        self.net = hosts.net(HOST)

    def up(self) -> Network:
        """Start it, in place of any other, and wait until a client can use it.

        That takes some 15 s.  `PlatformError` has what is missing or late.
        """
        deadline = time.monotonic() + PATIENCE
        self._prepare()
        first = time.time() + STARTING
        for name in (*LISTED, "bridge"):
            self._start(name, first)
        onion = self._data("onion")
        try:
            for name in EXITS:
                agreed(self._data(name), len(LISTED), deadline)
            # Before, it would find no consensus and ask ever more rarely.
            self._start("onion", first)
            published(onion, len(LISTED), deadline)
            fetched(onion, PAGE, deadline)
            fetched(onion, self._name(), deadline)
        except OSError as error:
            raise PlatformError(f'uplink = "lab": the Tor network: {error}') from error
        (self._files / "ready").touch()
        return self.network()

    @property
    def ready(self) -> bool:
        """Whether `up` has succeeded and `down` was not called."""
        return (self._files / "ready").exists() and self.net.exists()

    def network(self) -> Network:
        """Return what is to be known of the network that is ready."""
        bridge = self._data("bridge")
        fingerprint = (bridge / "fingerprint").read_text().split()[1]
        written = (bridge / "pt_state/obfs4_bridgeline.txt").read_text()
        words = written.rpartition("<FINGERPRINT>")[2].strip()
        at = f"{remote(NUMBERS['bridge'])[0]}:{OBFS4_PORT}"
        return Network(
            options=self._options.read_text(),
            bridge=f"obfs4 {at} {fingerprint} {words}",
            onion=self._name(),
            exits=tuple(each for number in EXITS.values() for each in remote(number)),
        )

    def down(self) -> None:
        """End it and remove its files."""
        clear(self.net)
        shutil.rmtree(self._files, ignore_errors=True)

    @property
    def _options(self) -> Path:
        return self._files / "options"

    @property
    def _bandwidths(self) -> Path:
        return self._files / "bandwidths"

    def _data(self, name: str) -> Path:
        return self._files / name

    def _name(self) -> str:
        return (self._data("onion") / "service/hostname").read_text().strip()

    def _prepare(self) -> None:
        """Make the host, the keys of the authorities and the lines for all."""
        self.down()
        self._hosts.add(HOST, tuple(NUMBERS.values()))
        for name in NUMBERS:
            self._data(name).mkdir(mode=0o700, parents=True)
        for name in EXITS:
            resolvers = (f"nameserver {each}\n" for each in RESOLVERS)
            (self._data(name) / "resolv.conf").write_text("".join(resolvers))
        self._make_certificates()
        with ThreadPoolExecutor(len(LISTED)) as pool:
            known = dict(zip(LISTED, pool.map(self._fingerprint, LISTED), strict=True))
        told = (self._authority(name, known[name]) for name in EXITS)
        self._options.write_text(CLIENT + "".join(told))
        # What they measure of themselves makes one the rendezvous point of all,
        # which fails whenever it is the guard as well.
        measured = "".join(f"node_id=${each} bw=1000\n" for each in known.values())
        self._bandwidths.write_text(f"{int(time.time())}\n{measured}")

    def _make_certificates(self) -> None:
        """Give all authorities keys, which they make at the same time."""
        making = []
        for name in EXITS:
            keys = self._data(name) / "keys"
            keys.mkdir(mode=0o700)
            argv = [find("tor-gencert"), "--create-identity-key", "-m", "12"]
            argv += ["--passphrase-fd", "0", "-a", _directory(name)]
            # Its only words are dots, and complaints end up where ours do.
            making.append(
                subprocess.Popen(  # noqa: S603 - the words are ours
                    argv,
                    cwd=keys,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        for process in making:
            process.communicate(b"lab\n")
        if any(process.returncode for process in making):
            raise PlatformError('uplink = "lab": tor-gencert failed')

    def _authority(self, name: str, fingerprint: str) -> str:
        """Return the line by which all know an authority."""
        certificate = (self._data(name) / "keys/authority_certificate").read_text()
        identity = certificate.partition("\nfingerprint ")[2].split()[0]
        return (
            f"DirAuthority {name} orport={OR_PORT} no-v2 v3ident={identity} "
            f"{_directory(name)} {fingerprint}\n"
        )

    def _fingerprint(self, name: str) -> str:
        """Make the keys of a relay; return the hash of its identity, 40 hex digits."""
        # An authority must be told of one, be it nobody, to say who it is.
        nobody = f"x orport=1 no-v2 127.0.0.1:1 {'f' * 40}"
        said = run(
            self.net,
            *("tor", "--ignore-missing-torrc", "-f", "/dev/null", "--quiet"),
            *("--defaults-torrc", "/dev/null", "--list-fingerprint"),
            *("--nickname", name, "--DataDirectory", self._data(name)),
            *("--ORPort", OR_PORT, "--DirAuthority", nobody),
        )
        return "".join(said.split()[1:])

    def _start(self, name: str, first: float) -> None:
        data = self._data(name)
        obfs4 = find("obfs4proxy") if name == "bridge" else ""
        written = lines(
            name, data=data, bandwidths=self._bandwidths, obfs4=obfs4, first=first
        )
        torrc = data / "torrc"
        torrc.write_text(self._options.read_text() + written)
        run(self.net, "tor", "--quiet", "--defaults-torrc", "/dev/null", "-f", torrc)


def _directory(name: str) -> str:
    return f"{remote(EXITS[name])[0]}:{DIR_PORT}"
