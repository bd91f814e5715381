# SPDX-License-Identifier: GPL-2.0-or-later
"""A room of its own (network, mounts, bus) for the real DNS daemons of a NetVM."""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import dbus.bus

CACHE = Path(__file__).parents[2] / ".cache" / "daemons"
DEADLINE = 20.0  # seconds; only a failing test waits that long

BUS_CONFIG = """<!DOCTYPE busconfig PUBLIC
 "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path={path}</listen>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="signal"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
  </policy>
</busconfig>
"""

NETWORK_MANAGER_CONF = """[main]
plugins=keyfile
dns=default
rc-manager=unmanaged
auth-polkit=false
no-auto-default=*
[keyfile]
path=/run/room/connections
"""

# The uplink is one end of a veth.  /sys is read-only, or NetworkManager waits for
# udev for ever.  The end of standard input is the end of the room.
SET_UP = """set -e
mount -t tmpfs tmpfs /run
mkdir -p /run/room /run/systemd/resolve /run/NetworkManager
mount --bind "$1" /run/room
mount --bind /run/room/resolve /run/systemd/resolve
: >/run/empty
mount --bind /run/empty /etc/resolv.conf
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/NetworkManager
mount -t sysfs -o ro sysfs /sys
ip link set lo up
ip link add wan type veth peer name peer
ip link set wan up
ip link set peer up
echo ready
exec cat
"""

NOBODY = 65534
CAPABILITIES = "+setpcap,+net_raw,+net_bind_service"


class Room:
    """Starts daemons inside; files in ``path`` are seen on both sides.

    ``resolv_conf`` is the reader's alone: systemd-resolved would take its servers
    for global ones, and no others would count.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.resolv_conf = path / "resolv.conf"
        self.changes = path / "resolve" / "resolv.conf"
        self.address = f"unix:path={path}/bus"
        self._running: list[subprocess.Popen[str]] = []
        for directory in ("resolve", "connections"):
            (path / directory).mkdir()
        os.chown(path / "resolve", NOBODY, NOBODY)
        path.chmod(0o755)
        self.resolv_conf.write_text("")
        (path / "bus.conf").write_text(BUS_CONFIG.format(path="/run/room/bus"))
        (path / "NetworkManager.conf").write_text(NETWORK_MANAGER_CONF)
        unshare = ["unshare", "-nm", "--propagation", "private"]
        self._holder = subprocess.Popen(
            [*unshare, "sh", "-c", SET_UP, "sh", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    def start(self, *command: str) -> subprocess.Popen[str]:
        log = (self.path / "log").open("a")
        with log:
            process = subprocess.Popen(
                self._inside(command),
                stdout=log,
                stderr=log,
                text=True,
                env=self._env(),
            )
        self._running.append(process)
        return process

    def run(self, *command: str) -> str:
        return subprocess.run(
            self._inside(command),
            check=True,
            capture_output=True,
            text=True,
            env=self._env(),
        ).stdout

    def bus(self) -> subprocess.Popen[str]:
        return self.start("dbus-daemon", "--config-file=/run/room/bus.conf", "--nofork")

    def resolved(self) -> subprocess.Popen[str]:
        # Its own user does not exist here; as nobody it need not change.
        become = [
            "setpriv",
            f"--reuid={NOBODY}",
            "--clear-groups",
            f"--inh-caps={CAPABILITIES}",
            f"--ambient-caps={CAPABILITIES}",
        ]
        return self.start(*become, binary("systemd-resolved"))

    def network_manager(self) -> subprocess.Popen[str]:
        options = ["--config", "/run/room/NetworkManager.conf"]
        options += ["--config-dir", "/run/room/none", "--state-file", "/run/room/state"]
        return self.start(binary("NetworkManager"), "--no-daemon", *options)

    def nmcli(self, *words: str) -> str:
        return self.run(binary("nmcli"), "--wait", "60", *words)

    def wait_for_name(self, name: str) -> None:
        """Return when a service has its name on the bus, which may start yet."""
        end = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < end, f"{name} never came"
            with suppress(dbus.DBusException):
                if dbus.bus.BusConnection(self.address).name_has_owner(name):
                    return

    def end(self, process: subprocess.Popen[str]) -> None:
        self._running.remove(process)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()

    def close(self) -> None:
        for process in reversed(list(self._running)):
            self.end(process)
        self._holder.communicate()

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        return ["nsenter", "-t", str(self._holder.pid), "-n", "-m", "--", *command]

    def _env(self) -> Mapping[str, str]:
        libraries = {str(path.parent) for path in CACHE.rglob("lib*.so*")}
        return os.environ | {
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/run/room/bus",
            "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
        }


def binary(name: str) -> str:
    for folder in ("usr/bin", "usr/sbin", "lib/systemd", "usr/lib/systemd"):
        path = CACHE / folder / name
        if path.is_file():
            return str(path)
    raise AssertionError(f"no {name} in {CACHE}")


def wait_until(
    true: Callable[[], object], watched: Callable[[], Mapping[int, Callable[[], None]]]
) -> None:
    """Serve the descriptors as the agent does until it is true, or fail."""
    end = time.monotonic() + DEADLINE
    while not true():
        handlers = watched()
        left = end - time.monotonic()
        assert left > 0, "not so within the deadline"
        readable, _, _ = select.select(list(handlers), [], [], left)
        for fd in readable:
            handlers[fd]()


@contextmanager
def dns_room(path: Path) -> Iterator[Room]:
    assert (CACHE / "complete").exists(), "no real daemons here: run `make setup`"
    room = Room(path)
    try:
        yield room
    finally:
        room.close()
