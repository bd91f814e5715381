# SPDX-License-Identifier: GPL-2.0-or-later
"""The real wireguard-go, without any right, against a real server.

::

    net: device wg0 10.64.0.2, eth0 192.0.2.2 -- 192.0.2.1 provider: wgs… 10.64.0.1
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import if_nametoindex

import pytest

from agent.berth import CARRIERS, Berth
from controller import namespaces
from tests.lab.wireguard import Keys, Server, server
from vpn.endpoints import Endpoint, Target
from vpn.wireguard_device import PeerState, Setting
from vpn.wireguard_exec import MACHINES, NoFilterError, install, program
from vpn.wireguard_go import WireguardGo, has_header
from vpn.wireguard_profile import Key, Peer

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
DAEMON = 61602
PATIENCE = 20.0  # seconds; only a failing test waits that long
PROVIDER = ip_address("192.0.2.1")
CLIENT = "10.64.0.2"

Ip = Callable[[str], str]


@pytest.fixture
def provider(net: Path, tmp_path: Path, ip: Ip) -> Iterator[Server]:
    """A server in a namespace of its own, at the far end of eth0."""
    assert net.exists()
    there = tmp_path / "provider"
    namespaces.create(there)
    ip(f"link add eth0 type veth peer name wan netns {there}")
    ip("address add 192.0.2.2/24 dev eth0")
    for link in ("lo", "eth0"):
        ip(f"link set {link} up")
    with namespaces.inside(there):
        ip("address add 192.0.2.1/24 dev wan")
        ip("link set wan up")
    try:
        # The name of its socket is one of the whole machine's.
        with server(there, name=f"wgs{os.getpid()}") as made:
            yield made
    finally:
        namespaces.remove(there)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for name in ("berth", "meeting"):
        (tmp_path / name).mkdir()
    for each in (tmp_path / "berth", *(tmp_path / "berth").parents):
        if each.is_relative_to(tmp_path.parents[1]):
            each.chmod(0o755)
    return tmp_path


@contextmanager
def launcher(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom agent.launcher import become\n"
        f"become('wireguard', Path({str(directory / 'berth')!r}))"
    )
    argv = ["setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups"]
    argv += ["--bounding-set=-all", "--inh-caps=-all", "/usr/bin/python3", "-I"]
    made = subprocess.Popen([*argv, "-c", code], stderr=subprocess.DEVNULL)
    try:
        yield made
    finally:
        made.kill()
        made.wait()


@pytest.fixture
def device(
    net: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WireguardGo]:
    assert net.exists()
    monkeypatch.setenv(CARRIERS, f"wireguard={DAEMON}")
    berth = Berth("wireguard", directory / "berth")
    made = WireguardGo(berth, "wg0", directory / "meeting")
    yield made
    made.close()
    berth.close()


def until(device: WireguardGo, found: Callable[[], object]) -> None:
    """Handle what the device is readable for until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, "not so within the deadline"
        select.select([device], [], [], 0.05)
        device.handle()


def begin(device: WireguardGo) -> None:
    """Make the device and its daemon, as the loop does."""
    device.make()
    use("wg0")
    start(device)


def use(name: str) -> None:
    for words in (f"address add {CLIENT}/24 dev {name}", f"link set {name} up"):
        subprocess.run(["ip", *words.split()], check=True)


def start(device: WireguardGo) -> None:
    def started() -> bool:
        device.start()
        return device.ready

    until(device, started)


def setting(provider: Server, client: Keys, port: int = 0) -> Setting:
    target = Target(PROVIDER, port or provider.port)
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


def goes_through() -> bool:
    """Say whether something sent to the far end of the tunnel comes back."""
    words = ["ping", "-c", "1", "-W", "1", "10.64.0.1"]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


def test_it_carries_data_and_has_no_right(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory) as daemon:
        begin(device)
        device.set(setting(provider, client))
        until(device, lambda: shaken(device))

        assert goes_through()
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        caps = [line for line in status.splitlines() if line.startswith("Cap")]
        assert {int(line.split()[1], 16) for line in caps} == {0}
        assert Path(f"/proc/{daemon.pid}/exe").readlink().name == "wireguard-go"
        # Nobody else can ask it for its keys: its socket has no name any more.
        assert list((directory / "meeting").iterdir()) == []


def test_what_it_tells_is_what_the_server_counts(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory):
        begin(device)
        device.set(setting(provider, client))
        until(device, lambda: shaken(device))
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
        assert not goes_through()
        assert not shaken(device)


def test_a_killed_daemon_leaves_the_device_and_the_next_one_uses_it(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory) as daemon:
        begin(device)
        before = device.link
        device.set(setting(provider, client))
        until(device, lambda: shaken(device))
        daemon.send_signal(signal.SIGKILL)
        until(device, lambda: not device.ready)
    assert device.link == before
    assert not goes_through()

    with launcher(directory):
        start(device)
        device.set(setting(provider, client))
        until(device, lambda: shaken(device))

        assert device.link == before
        assert goes_through()


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
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory):
        begin(device)
        device.set(setting(provider, client))
        until(device, lambda: shaken(device))
        for _ in range(5):
            device.look()

        device.set(setting(provider, client, port=9))
        until(device, lambda: not device._due)

        assert device.peer is None
        device.look()
        until(device, lambda: device.peer)
        assert device.peer is not None
        assert device.peer.handshake == 0


def test_a_server_that_is_heard_elsewhere_is_steered_back(
    device: WireguardGo, provider: Server, directory: Path
) -> None:
    client = Keys()
    provider.accept(client.public, f"{CLIENT}/32")
    with launcher(directory):
        begin(device)
        told = setting(provider, client)
        device.set(told)
        until(device, lambda: shaken(device))
        port = provider.port
        provider.move(port + 1)
        speak = f"public_key={client.public.hex()}"
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
        until(device, lambda: at(port))


@pytest.mark.usefixtures("net")
def test_without_the_filter_it_does_not_start(tmp_path: Path) -> None:
    """The positive control of the filter: it wants CAP_NET_ADMIN for the MTU."""
    from vpn import tun  # noqa: PLC0415

    made = tun.create("wg0", DAEMON, header=has_header())
    near = socket.socket(socket.AF_UNIX)
    near.bind(str(tmp_path / "uapi"))
    near.listen(1)
    argv = ["setpriv", f"--reuid={DAEMON}", "--bounding-set=-all", "--inh-caps=-all"]
    files = {"WG_TUN_FD": str(made.file), "WG_UAPI_FD": str(near.fileno())}
    done = subprocess.run(
        [*argv, "/usr/bin/wireguard-go", "-f", "wg0"],
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
from vpn.wireguard_exec import install
install(os.uname().machine)
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


def test_a_machine_whose_calls_are_not_known_is_refused() -> None:
    with pytest.raises(NoFilterError, match="not on riscv64"):
        install("riscv64")


@pytest.mark.parametrize("name", MACHINES)
def test_a_filter_has_whole_instructions_and_ends_in_an_answer(name: str) -> None:
    code = program(MACHINES[name])

    assert len(code) % 8 == 0
    assert code[-8:-6] == b"\x06\x00"


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("0.0.20220316", True),
        ("0.0.20230223", True),
        ("0.0.20231211", False),
        ("none", False),
    ],
)
def test_the_version_tells_how_packets_are_framed(
    tmp_path: Path, text: str, *, header: bool
) -> None:
    file = tmp_path / "wireguard-go"
    file.write_bytes(b"\0\1" + text.encode() + b"golang.org/x/sys v0.0.0-20210927")

    assert has_header(file) is header


def test_the_version_of_this_machine_is_known() -> None:
    assert sys.platform == "linux"
    assert isinstance(has_header(), bool)
