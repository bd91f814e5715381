# SPDX-License-Identifier: GPL-2.0-or-later
"""The real wireguard-go, without any right, against a real server."""

import secrets
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from socket import if_nametoindex

import pytest

from controller import namespaces
from tests.e2e.machine import stilled
from tests.lab.pinging import answered
from tests.lab.wireguard import TRIXIE, Keys, Server, public_of
from tests.vpn.wireguard_room import (
    CLIENT,
    DAEMON,
    PATIENCE,
    PROVIDER,
    ROOT,
    launcher,
    use,
)
from vpn import wireguard_go
from vpn.endpoints import Endpoint, Target
from vpn.tun import Framing
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_go import WireguardGo, framing
from vpn.wireguard_profile import Key, Peer

pytestmark = pytest.mark.kernel

FAR = "10.64.0.1"  # the server's end of the tunnel
PROGRAMS = {"of this machine": wireguard_go.PROGRAM, "of Debian 13": TRIXIE}
INITIATION, KEEPALIVE = 148, 32  # bytes (whitepaper, 5.4)


@pytest.fixture(params=PROGRAMS.values(), ids=PROGRAMS)
def program(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    path: Path = request.param
    monkeypatch.setattr(wireguard_go, "PROGRAM", path)
    return path


@pytest.fixture
def device(program: Path, device: WireguardGo) -> WireguardGo:
    """Each of both, for they frame packets otherwise."""
    assert program.exists()
    return device


def until(device: WireguardGo, found: Callable[[], object]) -> None:
    """Handle what the device is readable for until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, (device.ready, device.peer)
        select.select([device], [], [], 0.05)
        device.handle()


def begin(device: WireguardGo) -> None:
    """Make the device and its daemon, as the loop does."""
    device.make()
    use("wg0")
    start(device)


def start(device: WireguardGo) -> None:
    def started() -> bool:
        device.start()
        return device.ready

    until(device, started)


def setting(provider: Server, client: Keys) -> Setting:
    target = Target(PROVIDER, provider.port)
    peer = Peer(
        Key(provider.keys.public),
        Endpoint(target.address, target.port),
        (ip_network("0.0.0.0/0"),),
        keepalive=1,
    )
    return Setting(Key(client.private), 0, peer, target)


def shaken(device: WireguardGo) -> bool:
    device.look()
    return device.peer is not None and device.peer.handshake > 0


@contextmanager
def connected(
    device: WireguardGo, provider: Server, directory: Path
) -> Iterator[tuple["subprocess.Popen[bytes]", Setting]]:
    """Have it shake hands with the server; gives the daemon and what it was told."""
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory) as daemon:
        begin(device)
        told = setting(provider, client)
        device.set(told)
        until(device, lambda: shaken(device))
        yield daemon, told


def goes_through() -> bool:
    """Say whether anything sent to the far end of the tunnel comes back."""
    return answered(FAR)


def is_cut_off() -> bool:
    """Say whether nothing does, for a second."""
    return not answered(FAR, within=0)


def test_it_carries_data_and_has_no_right(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    with connected(device, provider, directory) as (daemon, _):
        assert goes_through()
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        caps = [line for line in status.splitlines() if line.startswith("Cap")]
        assert {int(line.split()[1], 16) for line in caps} == {0}
        assert Path(f"/proc/{daemon.pid}/exe").readlink().name == "wireguard-go"
        # Nobody else can ask it for its keys: its socket has no name any more.
        assert not (directory / "berth" / "uapi").exists()


def test_one_that_does_not_answer_is_ended(
    device: WireguardGo,
    provider: Server,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stands still, and its device may be taken away without its noticing."""
    monkeypatch.setattr(wireguard_go, "SILENCE", 2.0)

    def ended() -> bool:
        device.look()
        return not device.ready

    with connected(device, provider, directory) as (daemon, _), stilled(daemon.pid):
        until(device, ended)
        assert daemon.wait(PATIENCE) == -signal.SIGKILL


def test_bulk_arrives_whole_in_both_directions(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    """One of segments is handed 64 KiB at once, with the header's words on them."""
    bulk = secrets.token_bytes(8 << 20)

    def give_back(listening: socket.socket) -> None:
        with listening, listening.accept()[0] as end:
            while some := end.recv(1 << 16):
                end.sendall(some)

    with connected(device, provider, directory), ThreadPoolExecutor() as both:
        with namespaces.inside(provider.net):
            listening = socket.create_server((FAR, 0))
        listening.settimeout(PATIENCE)
        both.submit(give_back, listening)
        with socket.create_connection(listening.getsockname(), PATIENCE) as near:
            both.submit(near.sendall, bulk)
            found = bytearray()
            while len(found) < len(bulk) and (some := near.recv(1 << 16)):
                found += some
    assert found == bulk


def test_that_of_debian_13_is_handed_segments() -> None:
    """Without them it works too, with a fourth of the throughput."""
    assert framing(TRIXIE) is Framing.SEGMENTS


def test_what_it_tells_is_what_the_server_counts(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    with connected(device, provider, directory):
        assert goes_through()

        def counted() -> PeerState:
            device.look()
            until(device, lambda: device.peer)
            assert device.peer is not None
            return device.peer

        until(device, lambda: counted().received >= 92 + 128)
        assert counted().public.value == provider.keys.public
        assert counted().endpoint == Target(PROVIDER, provider.port)


def test_a_wrong_key_is_no_handshake(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    """The server does not even answer; that it would is the test before."""
    provider.accept(Keys().public, f"{CLIENT}/32")
    with launcher(directory):
        begin(device)
        device.set(setting(provider, Keys()))

        def sent() -> bool:
            device.look()
            return device.peer is not None and device.peer.sent > 0

        until(device, sent)
        assert is_cut_off()
        assert not shaken(device)


def test_a_killed_daemon_leaves_the_device_and_the_next_one_uses_it(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    with connected(device, provider, directory) as (daemon, told):
        before = device.link
        daemon.send_signal(signal.SIGKILL)
        until(device, lambda: not device.ready)
    assert device.link == before
    assert is_cut_off()

    with launcher(directory):
        start(device)
        device.set(told)
        until(device, lambda: shaken(device))

        assert device.link == before
        assert goes_through()


def test_a_launcher_that_went_meanwhile_is_not_missed(
    device: WireguardGo, directory: Path
) -> None:
    """Another one comes; the agent does not fall with the first."""
    with launcher(directory) as gone:
        device.make()
        use("wg0")
        until(device, lambda: device._berth.waiting)
        gone.kill()
        gone.wait()
        device.start()
        assert not device.ready

    with launcher(directory):
        start(device)


def test_without_its_device_the_daemon_ends(
    device: WireguardGo, directory: Path
) -> None:
    """It is how it is stopped: an agent that comes again makes the device anew."""
    with launcher(directory) as daemon:
        begin(device)
        device.look()
        until(device, lambda: not device._due)
        subprocess.run(["ip", "link", "delete", "wg0"], check=True)

        assert daemon.wait(PATIENCE) == 0
        until(device, lambda: not device.ready)
        assert device.link is None


def test_one_that_hangs_without_its_device_is_ended(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    """It would be there for ever, and no launcher come."""
    with (
        connected(device, provider, directory) as (daemon, _),
        stilled(daemon.pid),
    ):
        subprocess.run(["ip", "link", "delete", "wg0"], check=True)
        until(device, lambda: device.link is None)
        device.make()

        daemon.wait(PATIENCE)


def test_what_it_refuses_ends_it_rather_than_go_on_unknown(
    device: WireguardGo, directory: Path
) -> None:
    with launcher(directory) as daemon:
        begin(device)
        device._ask(b"set=1\nprivate_key=nonsense\n\n")

        until(device, lambda: daemon.poll() == 0)
        until(device, lambda: not device.ready)


def test_an_answer_about_an_earlier_setting_is_not_taken_for_this_one(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    """Else the handshake of the server before would prove the one after."""
    with connected(device, provider, directory) as (_, told):
        for _ in range(5):
            device.look()

        device.set(replace(told, target=Target(PROVIDER, 9)))
        until(device, lambda: not device._due)

        assert device.peer is None
        device.look()
        until(device, lambda: device.peer)
        assert device.peer is not None
        assert device.peer.handshake == 0


def test_a_server_that_is_heard_elsewhere_is_steered_back(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    with connected(device, provider, directory) as (_, told):
        port = provider.port
        # A server says nothing before the client has used the keys (whitepaper, 5.1).
        used = INITIATION + KEEPALIVE
        until(device, lambda: int(provider.peer()["rx_bytes"]) >= used)
        provider.move(port + 1)
        speak = f"public_key={public_of(told.private.value).hex()}"
        provider.tell("set=1", speak, "persistent_keepalive_interval=1")

        def at(wanted: int) -> bool:
            device.look()
            heard = device.peer.endpoint if device.peer else None
            return heard is not None and heard.port == wanted

        until(device, lambda: at(port + 1))  # the positive control: it roams
        assert told.peer is not None
        assert told.target is not None
        provider.move(port)
        device.steer(told.peer.public, told.target)
        assert device.peer is not None
        assert device.peer.endpoint == told.target  # or each answer would ask anew
        device._peer = None
        until(device, lambda: at(port))


@pytest.mark.usefixtures("net")
def test_without_the_filter_it_does_not_start(tmp_path: Path, program: Path) -> None:
    """The positive control of the filter: it wants CAP_NET_ADMIN for the MTU."""
    from vpn import tun  # noqa: PLC0415

    made = tun.create("wg0", DAEMON, framing(program))
    near = socket.socket(socket.AF_UNIX)
    near.bind(str(tmp_path / "uapi"))
    near.listen(1)
    argv = ["setpriv", f"--reuid={DAEMON}", "--bounding-set=-all", "--inh-caps=-all"]
    files = {"WG_TUN_FD": str(made.file), "WG_UAPI_FD": str(near.fileno())}
    done = subprocess.run(
        [*argv, str(program), "-f", "wg0"],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        pass_fds=(made.file, near.fileno()),
        env=files,
    )
    made.delete()
    near.close()

    assert done.returncode != 0
    assert "MTU" in done.stdout + done.stderr


ANSWERS = """
import fcntl, os, socket, struct, sys
sys.path.insert(0, sys.argv[1])
from agent.filtered import install
from vpn.wireguard_exec import FILTERS
install(FILTERS, os.uname().machine)
s = socket.socket()
def mtu(value=0, ask=0x8921):
    answer = fcntl.ioctl(s, ask, struct.pack("16si20x", b"lo", value))
    return struct.unpack("16si20x", answer)[1]
print(mtu())
mtu(1400, 0x8922)
print(mtu())
print(os.stat("/").st_ino > 0)
try:
    os.lstat("/")
except PermissionError:
    print("denied")
"""


@pytest.mark.usefixtures("net")
def test_the_filter_answers_its_calls_and_no_other() -> None:
    """The MTU stays what it was, though setting it "succeeds"; reading is real."""
    argv = ["setpriv", f"--reuid={DAEMON}", "--bounding-set=-all", "/usr/bin/python3"]
    done = subprocess.run(
        [*argv, "-I", "-c", ANSWERS, str(ROOT)],
        check=True,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["65536", "65536", "True", "denied"]
    assert if_nametoindex("lo") == 1
