# SPDX-License-Identifier: GPL-2.0-or-later
"""The control protocol as Debian's tor speaks it, in its sandbox.

It runs as a user without rights, in a network namespace with nothing but a
loopback interface.
"""

import math
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import dns.message
import pytest

from controller import namespaces
from rules.model import Family
from tests.e2e.machine import until
from tests.torvm import garbled
from torvm import heard
from torvm.control import Control
from torvm.lingering import Lingering
from torvm.listeners import Kind, Listener
from torvm.port import GUARDS, HOLD, LISTEN, RELEASE, SPEAK, GoneError
from torvm.said import (
    CircuitsSeen,
    CountriesSeen,
    Done,
    Established,
    Listening,
    Ready,
    Reconfigured,
    Refused,
    RelaysSeen,
    Said,
    Stream,
    StreamsLost,
)
from torvm.torrc import Torrc

pytestmark = pytest.mark.kernel

USER = 61700
PATIENCE = 30.0  # seconds; only a failing test waits that long
LOOPBACK, V6 = ip_address("127.0.0.1"), ip_address("::1")
PLACES = frozenset(
    {
        Listener(Kind.TRANS, LOOPBACK, 10000),
        Listener(Kind.DNS, LOOPBACK, 10000),
        Listener(Kind.SOCKS, V6, 10001),
        Listener(Kind.DNS, LOOPBACK, 53),
    }
)
NOWHERE = Listener(Kind.TRANS, ip_address("192.0.2.77"), 10002)
BOTH = frozenset(Family)
LIST = Path("/usr/share/tor/geoip")  # Debian's tor-geoipdb: first, last, country
NAMES, ROUND = 50_000, 500
LEAST = 100  # bytes of a name of an onion service


@dataclass
class Running:
    """A tor that runs, and what it said so far."""

    control: Control
    process: "subprocess.Popen[bytes]"
    torrc: Torrc
    heard: list[Said]

    def until(self, found: Callable[[Said], bool]) -> Said:
        """Return what tor says next that is so; what comes with it is kept."""
        deadline = time.monotonic() + PATIENCE
        while True:
            while self.heard:
                said = self.heard.pop(0)
                if found(said):
                    return said
            left = deadline - time.monotonic()
            assert left > 0, "tor does not say so"
            assert select.select([self.control], [], [], left)[0]
            self.heard += self.control.handle()

    def listening(self) -> frozenset[Listener]:
        self.control.look_at_listeners()
        said = self.until(lambda said: isinstance(said, Listening))
        assert isinstance(said, Listening)
        return said.places

    def out(self, *places: Listener) -> None:
        """Let it out and have it listen."""
        self.control.release(BOTH)
        self.control.listen(places)
        self.until(lambda said: said == Done(LISTEN))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    # Its user must get through, and unix sockets have short paths.
    made = Path("/run") / f"tor-test-{os.getpid()}"
    made.mkdir(mode=0o755)
    for name in ("run", "state"):
        (made / name).mkdir(mode=0o700)
        os.chown(made / name, USER, USER)
    namespaces.create(tmp_path / "net")
    yield made
    namespaces.remove(tmp_path / "net")
    shutil.rmtree(made)


@pytest.fixture
def tor(folder: Path, tmp_path: Path) -> Iterator[Running]:
    torrc = Torrc(f"{folder}/run", f"{folder}/state/tor")
    text = os.memfd_create("torrc", 0)
    os.write(text, torrc.text().encode())
    os.lseek(text, 0, os.SEEK_SET)
    argv = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    argv += ["--bounding-set=-all", "--inh-caps=-all", "/usr/bin/tor", "--hush"]
    argv += ["-f", f"/proc/self/fd/{text}", "--defaults-torrc", "/dev/null"]
    with namespaces.inside(tmp_path / "net"):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("53")
        process = subprocess.Popen(argv, pass_fds=[text])
    os.close(text)
    running = Running(greeted(torrc, process), process, torrc, [])
    running.until(lambda said: isinstance(said, Ready))
    yield running
    running.control.close()
    process.kill()
    process.wait()


def greeted(torrc: Torrc, process: "subprocess.Popen[bytes]") -> Control:
    """Return a connection, once tor listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            return Control(torrc.socket, torrc.cookie)
    raise AssertionError("tor does not listen")


def test_it_says_who_and_how_it_is(tor: Running) -> None:
    tor.control.look_at_self()
    said = tor.until(lambda said: isinstance(said, Ready))

    assert isinstance(said, Ready)
    assert said.version.startswith("0.4.")
    assert (said.progress, said.circuits, said.listening) == (0, False, frozenset())
    assert tor.control.uid == USER


def test_held_it_listens_nowhere_let_out_where_it_is_told(tor: Running) -> None:
    tor.control.listen(PLACES)
    tor.until(lambda said: said == Done(LISTEN))
    assert tor.listening() == frozenset()
    tor.control.release(BOTH)
    tor.until(lambda said: said == Done(RELEASE))
    assert tor.listening() == PLACES
    tor.control.hold()
    tor.until(lambda said: said == Done(HOLD))

    assert tor.listening() == frozenset()


def test_listeners_come_and_go_and_the_others_stay(tor: Running) -> None:
    first, second, *_ = sorted(PLACES, key=str)
    tor.out(first)
    assert tor.listening() == {first}
    tor.control.listen([first, second])
    tor.until(lambda said: said == Done(LISTEN))
    assert tor.listening() == {first, second}
    tor.control.listen([second])
    tor.until(lambda said: said == Done(LISTEN))

    assert tor.listening() == {second}


def test_one_address_that_is_not_there_costs_the_others_too(tor: Running) -> None:
    """Why listeners are read back, and told again, after every refusal."""
    tor.out(*PLACES)
    tor.control.listen([NOWHERE])
    said = tor.until(lambda said: isinstance(said, Refused))

    assert isinstance(said, Refused)
    assert said.what == LISTEN
    assert "bind" in said.reason
    assert "192.0.2.77" not in said.reason
    assert tor.listening() != PLACES


@pytest.mark.parametrize("name", garbled.NAMES.values(), ids=garbled.NAMES)
def test_what_a_client_asks_for_is_no_word_of_tor(
    tor: Running, tmp_path: Path, name: bytes
) -> None:
    """The control is that tor did say it, where nothing else is asked or heard.

    That of Debian 13 refuses such a name by DNS, and says it by SOCKS alone.
    """
    places = {
        Listener(Kind.DNS, LOOPBACK, 10000),
        Listener(Kind.SOCKS, LOOPBACK, 10001),
    }
    tor.out(*places)
    garbled.ask(tmp_path / "net", (LOOPBACK, 10000), b"www.example.com")
    tor.until(lambda said: isinstance(said, Stream))
    garbled.ask(tmp_path / "net", (LOOPBACK, 10000), name)

    def lost(said: Said) -> bool:
        assert said != Established(circuits=False)
        return isinstance(said, StreamsLost)

    with garbled.connecting(tmp_path / "net", (LOOPBACK, 10001), name):
        tor.until(lost)
    assert tor.listening() == places
    tor.control.listen(PLACES)
    tor.until(lambda said: said == Done(LISTEN))
    assert tor.listening() == PLACES


def test_a_name_that_ends_its_event_begins_no_other_one(
    tor: Running, tmp_path: Path
) -> None:
    """By SOCKS a name may be long enough for it; the control is that tor says it."""
    place = Listener(Kind.SOCKS, LOOPBACK, 10001)
    tor.out(place)
    found: list[Said] = []

    def says(said: Said, status: str) -> bool:
        found.append(said)
        return isinstance(said, Stream) and said.status == status

    # The forged name ends the first of these events itself.
    for name, last in ((garbled.FORGED, "CLOSED"), (b"www.example.com", "NEW")):
        with garbled.connecting(tmp_path / "net", (LOOPBACK, 10001), name):
            tor.until(partial(says, status=last))
    numbers = {said.number for said in found if isinstance(said, Stream)}

    assert len(numbers) == 2
    assert "600" not in numbers
    assert StreamsLost() not in found


def test_whoever_changes_its_options_is_heard(tor: Running) -> None:
    """SIGHUP reads the file again, in which it is held."""
    tor.out(*PLACES)
    tor.until(lambda said: isinstance(said, Reconfigured))
    tor.listening()
    tor.heard.clear()
    os.kill(tor.process.pid, signal.SIGHUP)
    said = tor.until(lambda said: isinstance(said, Reconfigured))

    assert isinstance(said, Reconfigured)
    assert "disablenetwork" in said.options
    assert tor.listening() == frozenset()


def test_the_directories_that_are_built_in_are_known(tor: Running) -> None:
    tor.control.look_at_relays()
    said = tor.until(lambda said: isinstance(said, RelaysSeen))

    assert isinstance(said, RelaysSeen)
    assert len(said.built_in) > 20
    assert said.listed == frozenset()


def test_circuits_and_countries_are_told(tor: Running) -> None:
    tor.control.look_at_circuits()
    assert tor.until(lambda said: isinstance(said, CircuitsSeen)) == CircuitsSeen(())
    # A relay that nobody knows costs no other its answer.
    tor.control.look_at_countries(frozenset({"0" * 40, "1" * 40}))
    said = tor.until(lambda said: isinstance(said, CountriesSeen))
    assert said == CountriesSeen({}, {})


def test_countries_are_those_of_the_list_that_comes_with_tor(
    tor: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real relays are in it, and none of a private network: one stands for them."""
    lines = (line for line in LIST.read_text().splitlines() if line[0] != "#")
    first, _, country = next(x.split(",") for x in lines if not x.endswith("??"))
    place = ip_address(int(first))
    monkeypatch.setattr(heard, "address_of_status", lambda _: place)
    tor.control.look_at_countries(frozenset({"0" * 40}))
    said = tor.until(lambda said: isinstance(said, CountriesSeen))

    assert said == CountriesSeen({"0" * 40: country.lower()}, {"0" * 40: place})


def test_transports_and_guards_are_accepted_in_the_sandbox(tor: Running) -> None:
    """E27 left open whether the static form of a transport works there."""
    tor.control.transports({"obfs4": 4711})
    tor.until(lambda said: said == Done(SPEAK))
    tor.control.transports({})
    tor.until(lambda said: said == Done(SPEAK))
    tor.control.forget_guards()

    tor.until(lambda said: said == Done(GUARDS))


def test_one_that_stands_still_owes_an_answer(tor: Running) -> None:
    """Which is how it is told from one that has nothing to say."""
    tor.listening()
    assert tor.control.waits_since == math.inf
    tor.process.send_signal(signal.SIGSTOP)
    tor.control.look_at_self()
    assert not any(isinstance(said, Ready) for said in tor.control.handle())
    assert tor.control.waits_since <= time.monotonic()
    tor.process.send_signal(signal.SIGCONT)
    tor.until(lambda said: isinstance(said, Ready))

    assert tor.control.waits_since == math.inf


def test_the_kernel_says_how_large_it_is(tor: Running) -> None:
    """It keeps every name of an onion service that it has an address for."""

    def memory() -> int:
        tor.control.look_at_self()
        said = tor.until(lambda said: isinstance(said, Ready))
        assert isinstance(said, Ready)
        return said.memory

    before = memory()
    assert before > 10 << 20
    for number in range(0, NAMES, ROUND):
        names = (f"0.0.0.0=x{each}.onion" for each in range(number, number + ROUND))
        tor.control._order("names", f"MAPADDRESS {' '.join(names)}")
        tor.until(lambda said: said == Done("names"))

    assert memory() > before + NAMES * LEAST


def test_it_can_be_ended(tor: Running) -> None:
    tor.control.halt()
    with pytest.raises(GoneError):
        tor.until(lambda _: False)

    assert tor.process.wait(PATIENCE) == 0


def test_the_signal_of_its_unit_ends_it(tor: Running) -> None:
    """SIGTERM is one that its sandbox blocks, by chance (packaging/systemd)."""
    tor.process.send_signal(signal.SIGINT)

    assert tor.process.wait(PATIENCE) == 0


def test_who_does_not_know_the_secret_is_turned_away(
    tor: Running, tmp_path: Path
) -> None:
    (tmp_path / "cookie").write_bytes(bytes(32))
    stranger = Control(tor.torrc.socket, str(tmp_path / "cookie"))
    turned_away = Running(stranger, tor.process, tor.torrc, [])
    with pytest.raises(GoneError, match="does not know us"):
        turned_away.until(lambda _: False)
    stranger.close()


@pytest.mark.parametrize("what", ["a FIFO", "a link"])
def test_a_secret_that_is_no_file_of_its_own_is_neither_waited_for_nor_told(
    tor: Running, tmp_path: Path, what: str
) -> None:
    """A tor that was taken over has the directory, and would be told what is read.

    The control is every other test here, with the link it would have worked.
    """
    place = tmp_path / "cookie"
    if what == "a FIFO":
        os.mkfifo(place)
    else:
        place.symlink_to(tor.torrc.cookie)
    stranger = Control(tor.torrc.socket, str(place))
    turned_away = Running(stranger, tor.process, tor.torrc, [])
    with pytest.raises(GoneError):
        turned_away.until(lambda said: isinstance(said, Ready))
    stranger.close()


def test_connections_to_a_place_that_is_closed_end_and_others_do_not(
    tor: Running, tmp_path: Path
) -> None:
    """tor would keep them for as long as the other side of Tor does."""
    stays = Listener(Kind.SOCKS, LOOPBACK, 10003)
    goes = Listener(Kind.SOCKS, LOOPBACK, 10005)
    tor.out(stays, goes)
    assert tor.listening() == {stays, goes}
    with namespaces.inside(tmp_path / "net"):
        one, two = (
            socket.create_connection((str(x.address), x.port), PATIENCE)
            for x in (stays, goes)
        )
    with one, two:
        for each in (one, two):
            each.sendall(b"\5\1\0")
            assert each.recv(2) == b"\5\0"
        tor.control.listen({stays})
        tor.until(lambda said: said == Done(LISTEN))
        with namespaces.inside(tmp_path / "net"):  # where its agent would be
            assert tor.listening() == {stays}

        with pytest.raises(ConnectionResetError):
            two.recv(1)
        assert not select.select([one], [], [], 0)[0]


def test_nobody_else_reaches_its_socket(tor: Running) -> None:
    """The control is every other test here."""
    code = (
        "import os, socket, sys; os.setuid(61701); "
        "sys.exit(socket.socket(socket.AF_UNIX).connect_ex(sys.argv[1]) == 13)"
    )
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code, tor.torrc.socket], check=False
    )
    assert done.returncode == 1


ASKED = "secret.example.com"


def test_who_comes_next_is_not_told_what_another_one_asked(tor: Running) -> None:
    """A DNSPort that is given up lingers until its questions are answered."""
    with given_up(tor, keep=True) as (client, others):
        for line in streams(tor):
            command(tor, f"CLOSESTREAM {line.split()[0]} 1")
        answer = dns.message.from_wire(client.recv(512))

        assert answer.question[0].name.to_text() == f"{ASKED}."
        assert [each.recv(512) for each in others] == [b"\5\0"] * len(others)


def test_without_that_it_would_be(tor: Running) -> None:
    """The control: a connection gets the number of the socket, and the answer.

    So it is with tor 0.4.9 and libevent 2.1.12; tor may also end thereby.
    """
    heard = b""
    with given_up(tor, keep=False) as (_, others), suppress(OSError):
        for line in streams(tor):
            command(tor, f"CLOSESTREAM {line.split()[0]} 1")
        deadline = time.monotonic() + PATIENCE
        while ASKED[:6].encode() not in heard and time.monotonic() < deadline:
            for each in select.select(others, [], [], PATIENCE)[0]:
                heard += each.recv(512)

    assert ASKED[:6].encode() in heard or tor.process.poll() is not None


Ends = tuple[socket.socket, list[socket.socket]]


@contextmanager
def given_up(tor: Running, *, keep: bool) -> Iterator[Ends]:
    """Take the DNSPort of who has no answer yet; give it, and who comes after."""
    names, socks = Listener(Kind.DNS, LOOPBACK, 10000), Listener(Kind.SOCKS, V6, 10001)
    lingering = Lingering().follow({names, socks}, 0.0).follow({socks}, 0.0)
    tor.out(names, socks)
    with ExitStack() as stack:
        client = stack.enter_context(closing(inside(tor, socket.SOCK_DGRAM)))
        client.connect((str(LOOPBACK), 10000))
        client.send(dns.message.make_query(ASKED, "A").to_wire())
        until(lambda: any(ASKED in line for line in streams(tor)))

        tor.control.listen({socks} | (lingering.places if keep else frozenset()))
        tor.until(lambda said: said == Done(LISTEN))
        others = [stack.enter_context(closing(inside(tor))) for _ in range(20)]
        with suppress(OSError):
            for each in others:
                each.connect((str(V6), 10001))
                each.sendall(b"\5\1\0")
        yield client, others


def inside(tor: Running, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return a socket in the network of tor."""
    with namespaces.inside(Path(f"/proc/{tor.process.pid}/ns/net")):
        family = socket.AF_INET if kind == socket.SOCK_DGRAM else socket.AF_INET6
        made = socket.socket(family, kind)
    made.settimeout(PATIENCE)
    return made


def streams(tor: Running) -> list[str]:
    """Return what tor says of its streams: a number, a state, a circuit, a place."""
    said = command(tor, "GETINFO stream-status")
    words = (line.partition("stream-status=")[2] or line for line in said)
    return [line for line in words if line and line[0].isdigit() and ":" in line]


def command(tor: Running, line: str) -> list[str]:
    """Tell tor something by a connection of its own; return the lines it answers."""
    secret = Path(tor.torrc.cookie).read_bytes().hex()
    with socket.socket(socket.AF_UNIX) as made, made.makefile("rw") as lines:
        made.settimeout(PATIENCE)
        made.connect(tor.torrc.socket)
        lines.write(f"AUTHENTICATE {secret}\r\n{line}\r\nQUIT\r\n")
        lines.flush()
        return lines.read().splitlines()
