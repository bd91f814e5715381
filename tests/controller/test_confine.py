# SPDX-License-Identifier: GPL-2.0-or-later
"""A confined program's sockets and names are its domain's, and nothing is left."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.qubesdb import SOCKET
from controller import confine, namespaces
from controller.confine import (
    COULD_NOT_ENFORCE,
    ConfineError,
    Confinement,
    launch,
    rights_of_a_person,
    rights_of_an_agent,
    wait,
)
from controller.platforms.processes import open_log
from controller.view import VIRTUAL_DNS, Secrets, View
from tests.controller.own_machine import own_machine

pytestmark = pytest.mark.kernel

ROOT = rights_of_a_person(0, 0)
ETH_ALL = socket.htons(3)  # linux/if_ether.h
BIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
DAEMONS = [
    "/run/nscd/socket",
    "/var/run/nscd/socket",
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/avahi-daemon/socket",
    "/run/dbus/system_bus_socket",
    "/run/user/0/bus",
    "/run/some-daemon-of-the-future/socket",
]
CONNECT = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
sys.exit(s.connect_ex(sys.argv[1].replace("@", chr(0))))
"""
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Path]:
    """A namespace, whose host is another namespace and has /run and /etc for itself."""
    host, path = tmp_path / "host", tmp_path / "net"
    for each in (host, path):
        namespaces.create(each)
    try:
        with namespaces.inside(host), own_machine():
            os.system("ip link set lo up")
            yield path
    finally:
        for each in (host, path):
            namespaces.kill_all(each)
            namespaces.remove(each)


def confined(net: Path, **view: object) -> Confinement:
    return Confinement(net, View("work", **view), ROOT)  # type: ignore[arg-type]


def said(confinement: Confinement, *argv: str, env: dict[str, str] = BIN) -> str:
    """Return what the program printed; it must succeed."""
    reading, writing = os.pipe()
    pid = launch(confinement, argv, env=env, output=writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    assert wait(pid) == 0, text
    return text


def code(confinement: Confinement, *argv: str) -> int:
    return wait(launch(confinement, argv, env=BIN))


def listen(path: str) -> socket.socket:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    listener.settimeout(0)
    return listener


def outside(*argv: str) -> int:
    return os.spawnve(os.P_WAIT, argv[0], argv, BIN)


def test_a_program_has_the_secrets_it_is_given(net: Path, tmp_path: Path) -> None:
    """In memory of its own, which is the control of the next test."""
    file = tmp_path / "auth"
    file.touch(mode=0o600)
    file.write_text("hunter2")
    secrets = {Path("/run/secrets"): Secrets(0, {"auth": file})}

    assert said(confined(net, secrets=secrets), "/bin/cat", "/run/secrets/auth") == (
        "hunter2"
    )


@pytest.mark.parametrize("how", ["fifo", "directory", "device", "readable", "link"])
def test_a_secret_that_became_something_else_is_neither_read_nor_waited_for(
    net: Path, tmp_path: Path, how: str
) -> None:
    """The policy file was read long ago, and who starts an agent again must go on."""
    file = tmp_path / "auth"
    match how:
        case "fifo":
            os.mkfifo(file, 0o600)
        case "directory":
            file.mkdir(mode=0o700)
        case "device":
            os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        case "readable":
            file.write_text("hunter2")
            file.chmod(0o644)
        case _:
            file.symlink_to("/etc/passwd")
    secrets = {Path("/run/secrets"): Secrets(0, {"auth": file})}
    with pytest.raises(ConfineError, match="expected a file of mode 0600"):
        code(confined(net, secrets=secrets), "/bin/true")


@pytest.mark.parametrize("path", DAEMONS)
def test_a_daemon_of_the_host_cannot_be_reached(net: Path, path: str) -> None:
    with listen(path):
        assert outside(*PYTHON, CONNECT, path) == 0
        assert code(confined(net), *PYTHON, CONNECT, path) != 0


def test_a_runtime_directory_elsewhere_is_hidden_too(net: Path, tmp_path: Path) -> None:
    path = tmp_path / "state" / "socket"
    with listen(str(path)):
        assert code(confined(net), *PYTHON, CONNECT, str(path)) == 0
        hidden = confined(net, hidden=(path.parent,))
        assert code(hidden, *PYTHON, CONNECT, str(path)) != 0


def test_an_abstract_socket_of_the_host_cannot_be_reached(net: Path) -> None:
    with listen("\0ravelin-test"):
        assert outside(*PYTHON, CONNECT, "@ravelin-test") == 0
        assert code(confined(net), *PYTHON, CONNECT, "@ravelin-test") != 0


def test_the_working_directory_leads_nowhere_hidden(net: Path) -> None:
    with listen("/run/daemon/socket"):
        os.chdir("/run/daemon")
        assert outside(*PYTHON, CONNECT, "socket") == 0
        assert code(confined(net), *PYTHON, CONNECT, "socket") != 0


def test_what_is_let_in_is_there(net: Path, tmp_path: Path) -> None:
    path = tmp_path / "qubesdb"
    with listen(str(path)):
        inside = confined(net, let_in={Path("/run/qubes/qubesdb.sock"): path})
        assert code(inside, *PYTHON, CONNECT, SOCKET) == 0


def test_a_link_is_not_let_in(net: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/root")
    inside = confined(net, let_in={Path("/run/link"): tmp_path / "link"})
    with pytest.raises(ConfineError, match="link"):
        launch(inside, ["/bin/true"], env=BIN)


def nothing() -> None:
    pass


def no_files() -> None:
    for name in ("resolv.conf", "nsswitch.conf", "hosts", "hostname"):
        Path("/etc", name).unlink(missing_ok=True)


def resolved() -> None:
    stub = Path("/run/systemd/resolve/stub-resolv.conf")
    stub.parent.mkdir(parents=True)
    stub.write_text("nameserver 127.0.0.53\n")
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")


def dangling() -> None:
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").symlink_to("/nowhere/resolv.conf")


RESOLV = "".join(f"nameserver {each}\n" for each in VIRTUAL_DNS)


@pytest.mark.parametrize("prepare", [nothing, no_files, resolved, dangling])
def test_names_come_from_the_virtual_dns_and_the_host_keeps_its_files(
    net: Path, prepare: Callable[[], None]
) -> None:
    prepare()
    before = sorted(Path("/etc").iterdir()), Path("/etc/passwd").read_bytes()
    assert said(confined(net), "/bin/cat", "/etc/resolv.conf") == RESOLV
    assert "127.0.1.1 work" in said(confined(net), "/bin/cat", "/etc/hosts")
    assert "hosts: files dns" in said(confined(net), "/bin/cat", "/etc/nsswitch.conf")
    assert said(confined(net), "/bin/hostname") == "work\n"
    after = sorted(Path("/etc").iterdir()), Path("/etc/passwd").read_bytes()
    assert after == before
    assert socket.gethostname() != "work"


def test_a_resolv_conf_replaced_by_the_host_stays_outside(net: Path) -> None:
    """As NetworkManager does it, by rename; a bind mount would not survive it."""
    again = "read line; cat /etc/resolv.conf; echo $line"
    stdin, go = os.pipe()
    reading, writing = os.pipe()
    keep = os.dup(0), os.dup(1)
    os.dup2(stdin, 0), os.dup2(writing, 1)
    pid = launch(confined(net), ["/bin/sh", "-c", again], env=BIN)
    os.dup2(keep[0], 0), os.dup2(keep[1], 1)
    for each in (*keep, writing, stdin):
        os.close(each)
    Path("/etc/new").write_text("nameserver 192.0.2.66\n")
    Path("/etc/new").rename("/etc/resolv.conf")
    os.write(go, b"go\n")
    os.close(go)
    with os.fdopen(reading) as pipe:
        assert pipe.read() == RESOLV + "go\n"
    assert wait(pid) == 0
    assert outside("/bin/grep", "-q", "192.0.2.66", "/etc/resolv.conf") == 0


def test_nothing_of_etc_can_be_changed_from_inside(net: Path) -> None:
    assert code(confined(net), "/bin/sh", "-c", "echo >/etc/x") != 0


GETENT = ["/usr/bin/getent", "ahosts"]
LOOKUP = [*PYTHON, "import socket, sys; socket.getaddrinfo(sys.argv[1], 80)"]
NSCD = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
print("ready", flush=True)
while True:
    asking, _ = s.accept()
    print("asked", flush=True)  # before it goes on
    asking.close()
"""
DNS = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    query, client = s.recvfrom(512)
    print("asked", flush=True)
    s.sendto(query[:2] + bytes([0x81, 0x83]) + query[4:], client)  # NXDOMAIN
"""


@contextmanager
def server(script: str, address: str) -> Iterator[Callable[[], int]]:
    """Serve in the present namespace; what is yielded tells how many asked so far."""
    argv = [*PYTHON, script, address]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.set_blocking(process.stdout.fileno(), False)
        seen = bytearray()

        def count() -> int:
            assert process.stdout is not None
            seen.extend(process.stdout.read() or b"")
            return seen.count(b"asked")

        yield count
        process.kill()


@pytest.mark.parametrize("lookup", [GETENT, LOOKUP], ids=["getent", "python"])
def test_every_lookup_asks_the_virtual_dns_alone(net: Path, lookup: list[str]) -> None:
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    Path("/run/nscd").mkdir()
    with ExitStack() as stack:
        nscd = stack.enter_context(server(NSCD, "/run/nscd/socket"))
        host = stack.enter_context(server(DNS, "127.0.0.1"))
        assert outside(*lookup, "outside.example") != 0
        assert (nscd() > 0, host() > 0) == (True, True)
        before = nscd(), host()
        with namespaces.inside(net):
            os.system("ip link set lo up; ip addr add 10.139.1.1/32 dev lo")
            virtual = stack.enter_context(server(DNS, "10.139.1.1"))
            capture = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, ETH_ALL)
            stack.enter_context(capture)
        assert code(confined(net), *lookup, "inside.example") != 0
        assert virtual() > 0
        assert (nscd(), host()) == before
        # The answers come from there to there, as the loopback is the wire here.
        assert destinations(capture) == {"10.139.1.1"}


def destinations(capture: socket.socket) -> set[str]:
    capture.settimeout(0)
    found = set()
    try:
        while True:
            packet = capture.recv(2048)
            found.add(socket.inet_ntoa(packet[16:20]) if packet[0] == 0x45 else "?")
    except BlockingIOError:
        return found


@pytest.mark.parametrize("disposable", [False, True], ids=["plain", "disposable"])
@pytest.mark.parametrize(
    ("script", "expected"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_the_exit_code_is_that_of_the_program(
    net: Path, script: str, expected: int, *, disposable: bool
) -> None:
    where = Confinement(net, View("work"), ROOT, own_processes=disposable)
    assert code(where, "/bin/sh", "-c", script) == expected


def test_a_program_that_is_not_there_is_127_as_in_a_shell(net: Path) -> None:
    assert code(confined(net), "/no/such/program") == 127


@pytest.mark.parametrize("disposable", [False, True], ids=["plain", "disposable"])
def test_a_signal_to_the_waiting_parent_goes_on_to_the_program(
    net: Path, *, disposable: bool
) -> None:
    where = Confinement(net, View("work"), ROOT, own_processes=disposable)
    reading, writing = os.pipe()
    script = "trap 'exit 5' TERM; echo; while :; do read x; done"
    parent = os.fork()
    if parent == 0:
        try:
            stdin, _ = os.pipe()
            os.dup2(stdin, 0)
            os.dup2(writing, 1)
            pid = launch(where, ["/bin/bash", "-c", script], env=BIN)
            os._exit(wait(pid))
        finally:
            os._exit(99)
    assert os.read(reading, 1) == b"\n"
    for each in (reading, writing):
        os.close(each)
    # The program speaks before its parent may have come to wait for it.
    while int(status(parent, "SigCgt"), 16) & 1 << signal.SIGTERM - 1 == 0:
        os.sched_yield()
    os.kill(parent, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(parent, 0)[1]) == 5


def status(pid: int | str, key: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(key))


@pytest.mark.parametrize("disposable", [False, True], ids=["plain", "disposable"])
def test_only_a_disposable_takes_its_children_with_it(
    net: Path, *, disposable: bool
) -> None:
    where = Confinement(net, View("work"), ROOT, own_processes=disposable)
    assert code(where, "/bin/sh", "-c", "setsid sleep 600 & exit 0") == 0
    assert len(namespaces.processes(net)) == (0 if disposable else 1)


def test_a_disposable_sees_its_own_processes_alone(net: Path) -> None:
    where = Confinement(net, View("work"), ROOT, own_processes=True)
    pids = [name for name in said(where, "/bin/ls", "/proc").split() if name.isdigit()]
    assert len(pids) == 2  # the first process, and ls


def test_a_disposable_leaves_no_mount_and_no_file(net: Path) -> None:
    mounts, files = mounted(), sorted(Path("/run").iterdir())
    where = Confinement(net, View("work"), ROOT, own_processes=True)
    assert code(where, "/bin/sh", "-c", "echo >/run/left") == 0
    assert mounted() <= mounts  # other tests may end theirs meanwhile
    assert sorted(Path("/run").iterdir()) == files


def mounted() -> set[str]:
    return set(Path("/proc/self/mounts").read_text().splitlines())


SHOW = ["/bin/cat", "/proc/self/status"]


def shown(confinement: Confinement) -> dict[str, str]:
    lines = said(confinement, *SHOW).splitlines()
    return {key: value.strip() for key, _, value in (x.partition(":") for x in lines)}


NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 10, 12, 13


def test_an_agent_begins_with_the_network_a_uid_of_its_own_and_nothing_else(
    net: Path,
) -> None:
    """What it gives up at once is shown in tests/agent/test_leases.py."""
    found = shown(Confinement(net, View("sys-net"), rights_of_an_agent(62001)))
    assert found["Uid"].split() == found["Gid"].split() == ["62001"] * 4
    assert found["Groups"] == ""
    for each in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        wanted = 1 << NET_BIND_SERVICE | 1 << NET_ADMIN | 1 << NET_RAW
        assert int(found[each], 16) == wanted, each
    assert found["NoNewPrivs"] == "1"


def test_an_agent_that_is_told_to_reload_before_it_listens_goes_on(net: Path) -> None:
    """SIGHUP is ignored until its program says otherwise; a person's is as usual."""
    agent = shown(Confinement(net, View("sys-net"), rights_of_an_agent(62001)))
    assert int(agent["SigIgn"], 16) & 1 << signal.SIGHUP - 1
    usual = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup(1) has it ignored
    try:
        assert code(confined(net), "/bin/sh", "-c", "kill -HUP $$; exit 0") == 129
    finally:
        signal.signal(signal.SIGHUP, usual)


def test_root_inside_cannot_leave_or_change_the_network(net: Path) -> None:
    found = shown(confined(net))
    net_admin, sys_module, sys_ptrace, sys_admin, mknod = 12, 16, 19, 21, 27
    bounding = int(found["CapBnd"], 16)
    for each in (net_admin, sys_module, sys_ptrace, sys_admin, mknod):
        assert not bounding & 1 << each
    assert int(found["CapEff"], 16) == bounding
    assert found["NoNewPrivs"] == "1"


def test_a_user_may_still_use_sudo_within_the_bounding_set(net: Path) -> None:
    found = shown(Confinement(net, View("work"), rights_of_a_person(1, 1)))
    assert found["Uid"].split() == ["1"] * 4
    assert int(found["CapEff"], 16) == 0
    assert found["NoNewPrivs"] == "0"


def test_no_descriptor_is_inherited(net: Path) -> None:
    with socket.socket() as mine:
        mine.set_inheritable(True)
        assert said(confined(net), "/bin/ls", "/proc/self/fd").split() == [
            *("0", "1", "2"),
            "3",  # of ls itself
        ]


def test_a_domain_without_netvm_has_nothing_but_a_loopback(net: Path) -> None:
    assert said(confined(net), "/bin/ls", "/sys/class/net").split() == ["lo"]


def test_nothing_starts_if_it_cannot_be_confined(net: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    broken = confined(net, let_in={Path("/run/x"): tmp_path / "absent"})
    with pytest.raises(ConfineError, match="absent"):
        launch(broken, ["/usr/bin/touch", str(mark)], env=BIN)
    assert not mark.exists()
    assert COULD_NOT_ENFORCE == 3


def test_who_writes_without_end_is_ended_before_all_room_is_taken(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log is cut short now and then, which is too seldom for that."""
    monkeypatch.setattr(confine, "MOST_WRITTEN", 1 << 20)
    log = tmp_path / "log"
    with open_log(log) as output:
        pid = launch(confined(net), ["/usr/bin/yes"], env=BIN, output=output)

    assert wait(pid) == 128 + signal.SIGXFSZ
    assert log.stat().st_size == 1 << 20


def test_no_thread_or_child_is_left_behind() -> None:
    assert threading.active_count() == 1
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
