# SPDX-License-Identifier: GPL-2.0-or-later
"""What a confined program sees of the machine: its own names, and no daemons.

A network namespace alone does not keep a program's look-ups inside: nscd,
systemd-resolved, avahi and D-Bus answer on unix sockets in the file system,
which no network namespace divides.  So a program gets its own mounts:

* an empty ``/run`` with only what is let in.  A list of what to hide would have
  to name every daemon there will ever be.
* ``/etc`` read-only, with our resolv.conf, nsswitch.conf, hosts and hostname on
  top (overlayfs).  A bind mount over the file would be undone by the host: to
  rename a new resolv.conf over the old one, as NetworkManager does, removes
  the mount that another namespace has there (``detach_mounts``, fs/namespace.c).
* a ``/sys`` of its network namespace, its own host name, and no propagation:
  what the host mounts later stays outside.
"""

import errno
import fnmatch
import os
import socket
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from controller.addresses import DNS4, DNS6
from controller.syscalls import (
    CLONE_NEWNS,
    CLONE_NEWUTS,
    INERT,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    mount,
    unshare,
)

VIRTUAL_DNS = tuple(str(address) for address in (*DNS4, *DNS6))

ETC = Path("/run/ravelin-etc")
TUN = Path("/dev/net/tun")  # Documentation/networking/tuntap.rst
MOST_SECRET = 1 << 21  # bytes of a file; who reads it refuses less than that
# Modules of nsswitch.conf(5) that ask a daemon outside, or the network.
OUTSIDE = ("resolve", "mdns*", "mymachines", "myhostname", "libvirt*", "wins")
# What a program needs of /run/user/UID for windows and sound.  Left out are the
# D-Bus and systemd of the session, which start programs outside on request.
SESSION = ("wayland-*", "pipewire-*", "pulse", "gdm", "xauth_*", ".mutter-Xwayland*")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Files by name, copied when the view is entered, and the uid they are for."""

    owner: int
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class View:
    """The names a program has, and what is let in.

    ``hidden`` are directories that appear empty, beside /run.  ``let_in`` maps
    a path below /run to the file or directory outside that appears there;
    ``owned`` maps a directory made below /run to the uid it is made for.
    ``secrets`` maps a directory below /run to its owner and to the files that
    appear there, in memory that is never swapped.  ``tun``: anybody may use tun
    devices, which takes an owner or CAP_NET_ADMIN all the same.
    ``resolv_conf`` and ``hosts`` are where files of /etc lead to, in place of
    ``resolvers`` and of ours, if they are to change while the program runs.
    """

    hostname: str
    resolvers: tuple[str, ...] = VIRTUAL_DNS
    hidden: tuple[Path, ...] = ()
    let_in: Mapping[Path, Path] = field(default_factory=dict)
    owned: Mapping[Path, int] = field(default_factory=dict)
    secrets: Mapping[Path, "Secrets"] = field(default_factory=dict)
    tun: bool = False
    resolv_conf: Path | None = None
    hosts: Path | None = None


def session(directory: Path) -> dict[Path, Path]:
    """Return what programs are let in of a session's ``/run/user/UID``."""
    return {
        path: path
        for path in (directory.iterdir() if directory.is_dir() else ())
        if not path.is_symlink()
        and any(fnmatch.fnmatchcase(path.name, pattern) for pattern in SESSION)
    }


def nsswitch(text: str) -> str:
    """Return the host's nsswitch.conf(5) without the modules that ask outside."""
    kept = ["hosts: files dns"]
    for line in text.splitlines():
        database, colon, modules = line.partition("#")[0].partition(":")
        if colon and database.strip() != "hosts":
            kept.append(f"{database.strip()}: {' '.join(_inside(modules.split()))}")
    return "\n".join(kept) + "\n"


def enter(view: View) -> None:
    """Give the calling process, which must have CAP_SYS_ADMIN, this view for good.

    OSError if any of it cannot be had; the process must then not go on.
    """
    here = Path.cwd()
    unshare(CLONE_NEWNS | CLONE_NEWUTS)
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    socket.sethostname(view.hostname)
    secrets = {path: _read(x) for path, x in view.secrets.items()}
    sources = {inside: _held(outside) for inside, outside in view.let_in.items()}
    _hide((Path("/run"), Path("/var/run"), *view.hidden))
    _lay_over_etc(view)
    for directory, uid in view.owned.items():
        directory.mkdir(mode=0o700, parents=True)
        os.chown(directory, uid, -1)
    for inside, descriptor in sources.items():
        _let_in(inside, descriptor)
        os.close(descriptor)
    for directory, found in secrets.items():
        _keep(directory, view.secrets[directory].owner, found)
    if view.tun:
        _open_tun()
    # Only interface names leak if this is refused, as it is in some containers.
    with suppress(OSError):
        mount("sysfs", "/sys", "sysfs", INERT | MS_RDONLY)
    _return_to(here)


def _inside(modules: Sequence[str]) -> list[str]:
    kept: list[str] = []
    dropped = False
    for module in modules:
        if not module.startswith("["):  # an action belongs to the module before
            dropped = any(fnmatch.fnmatchcase(module, each) for each in OUTSIDE)
        if not dropped:
            kept.append(module)
    return kept


def _hide(directories: Iterable[Path]) -> None:
    for directory in dict.fromkeys(each.resolve() for each in directories):
        if directory.is_dir():  # not if it lies below one that is empty by now
            mount("tmpfs", str(directory), "tmpfs", INERT, "mode=0755,size=16m")


def _lay_over_etc(view: View) -> None:
    switch = Path("/etc/nsswitch.conf")
    host_switch = switch.read_text() if switch.exists() else ""
    files = {
        "hostname": f"{view.hostname}\n",
        "hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {view.hostname}\n",
        "nsswitch.conf": nsswitch(host_switch),
        "resolv.conf": "".join(f"nameserver {each}\n" for each in view.resolvers),
    }
    ETC.mkdir()
    for name, text in files.items():
        (ETC / name).write_text(text)
    for name, place in (("resolv.conf", view.resolv_conf), ("hosts", view.hosts)):
        if place is not None:
            (ETC / name).unlink()
            (ETC / name).symlink_to(place)
    flags = MS_RDONLY | MS_NOSUID | MS_NODEV
    mount("overlay", "/etc", "overlay", flags, f"lowerdir={ETC}:/etc")


def _held(path: Path) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        # In a person's own directory it could name what they may not read.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return descriptor


def _let_in(inside: Path, descriptor: int) -> None:
    found = os.fstat(descriptor)
    inside.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(found.st_mode):
        inside.mkdir()
    else:
        inside.touch()
    flags = MS_BIND | MS_REC | MS_NOSUID | MS_NODEV
    mount(f"/proc/self/fd/{descriptor}", str(inside), None, flags)


def _read(secrets: Secrets) -> Mapping[str, bytes]:
    return {name: _secret(path) for name, path in secrets.files.items()}


def _secret(path: Path) -> bytes:
    """Return what is in a file, of which much time has passed since it was judged.

    Whatever is there now is not waited for, as a FIFO would be.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise OSError(errno.EPERM, "expected a file of mode 0600", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MOST_SECRET)
    finally:
        os.close(descriptor)


def _keep(directory: Path, owner: int, files: Mapping[str, bytes]) -> None:
    """Write files into a ramfs, which unlike tmpfs is never swapped."""
    directory.mkdir(mode=0o700, parents=True)
    mount("ramfs", str(directory), "ramfs", INERT, "mode=0700")
    os.chown(directory, owner, owner)
    for name, content in files.items():
        path = directory / name
        path.touch(mode=0o400)
        path.write_bytes(content)
        os.chown(path, owner, owner)


def _open_tun() -> None:
    """Give /dev/net/tun the mode that udev gives it; some systems have no udev."""
    mount("tmpfs", str(TUN.parent), "tmpfs", MS_NOSUID, "mode=0755,size=4k")
    os.mknod(TUN, stat.S_IFCHR, os.makedev(10, 200))
    TUN.chmod(0o666)


def _return_to(directory: Path) -> None:
    """Look the directory up anew, lest it lead below what is hidden now."""
    try:
        os.chdir(directory)
    except FileNotFoundError:
        os.chdir("/")
