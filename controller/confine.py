# SPDX-License-Identifier: GPL-2.0-or-later
"""Start programs inside a domain: its network, a view of its own, few rights.

What is promised: whatever a program does with sockets and names happens in its
domain.  What is not: it has its user's files, and where its processes are not
its own (``own_processes``) it can reach through /proc into another program of
the same user.  A program meant to be contained belongs in a virtual machine.

Rights of ``ravelin run``: those of the user, or of root without everything that
could leave the domain or change its network.  The bounding set is the limit of
what sudo inside can give too, therefore no_new_privs is set for root alone: for
a user it would break sudo and contain nothing more.  CAP_NET_RAW stays, because
Debian's ping has it as file capability and would not start otherwise; it can
do no harm that the provider's anti-spoofing does not stop.
"""

import os
import resource
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from controller import namespaces
from controller.syscalls import CLONE_NEWPID, INERT, die_with_parent, mount, unshare
from controller.view import View, enter

SETPRIV = "/usr/bin/setpriv"  # util-linux, which Debian always has
KEPT = (
    "audit_write",
    "chown",
    "dac_override",
    "fowner",
    "fsetid",
    "kill",
    "net_bind_service",
    "net_raw",
    "setgid",
    "setpcap",
    "setuid",
    "sys_chroot",
)
# The terminal sends SIGINT and SIGQUIT to the program itself.
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
COULD_NOT_ENFORCE = 3  # exit code, as of every verb
FIRST = 3  # of the descriptors that are not stdin, stdout or stderr
# Bytes of one file that an agent or a daemon writes.  Its log is one, which is only cut
# short now and then; the longest that one needs, tor's list of relays, is far shorter.
MOST_WRITTEN = 1 << 26


class ConfineError(OSError):
    """The program was not started, because it could not be confined."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """Where and as whom a program runs.

    ``net`` is the file of the domain's network namespace.  ``rights`` are
    options of setpriv(1).  With ``own_processes`` it gets a PID namespace, so
    everything it started ends when it ends.
    """

    net: Path
    view: View
    rights: tuple[str, ...]
    own_processes: bool = False


def rights_of_an_agent(uid: int) -> tuple[str, ...]:
    """Return the rights that an agent starts with, an uid and gid of its own.

    They are those of a DHCP client.  It opens what it answers clients by and
    keeps CAP_NET_ADMIN (`agent.leases`).  It ends with the controller, so there
    is never a second one.
    """
    return rights_of_a_dhcp_client(uid)


def rights_of_a_daemon(uid: int, agent: int) -> tuple[str, ...]:
    """Return the rights of a personality's daemon: none, and its agent's group."""
    return (
        f"--reuid={uid}",
        f"--regid={uid}",
        f"--groups={agent}",
        "--inh-caps=-all",
        "--ambient-caps=-all",
        "--bounding-set=-all",
        "--no-new-privs",
        "--pdeathsig=KILL",
    )


def rights_of_a_dhcp_client(uid: int) -> tuple[str, ...]:
    """Return the rights of a DHCP client: the network's, raw sockets, port 68."""
    caps = "-all,+net_admin,+net_raw,+net_bind_service"
    return (
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        f"--inh-caps={caps}",
        f"--ambient-caps={caps}",
        f"--bounding-set={caps}",
        "--no-new-privs",
        "--pdeathsig=KILL",
    )


def rights_of_a_person(uid: int, gid: int) -> tuple[str, ...]:
    """Return the rights of a command that someone runs in a domain."""
    bounding = ",".join(("-all", *(f"+{name}" for name in KEPT)))
    return (
        f"--reuid={uid}",
        f"--regid={gid}",
        "--init-groups",
        "--inh-caps=-all",
        f"--bounding-set={bounding}",
        *(("--no-new-privs",) if uid == 0 else ()),
    )


def launch(
    confinement: Confinement,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    output: int | None = None,
) -> int:
    """Start a program and return its pid, once nothing can go wrong but the program.

    Stdin, stdout and stderr are ours; with ``output`` they are nothing and that
    file descriptor, the working directory is /, and no file gets longer than
    `MOST_WRITTEN`.  No other descriptor is inherited, for it could be a socket.
    `ConfineError` says what the kernel refused; then nothing was started.
    """
    untold, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        whole = (SETPRIV, *confinement.rights, "--", *argv)
        _become(confinement, whole, env, output, told)
    os.close(told)
    with os.fdopen(untold) as pipe:
        refusal = pipe.read()
    if refusal:
        os.waitpid(pid, 0)
        raise ConfineError(refusal)
    return pid


def wait(pid: int) -> int:
    """Wait for a child as a shell does; return its exit code, 128 + n for signal n.

    Meanwhile `FORWARDED` go on to it.
    """

    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    before = {each: signal.signal(each, forward) for each in FORWARDED}
    for each in (signal.SIGINT, signal.SIGQUIT):
        before[each] = signal.signal(each, signal.SIG_IGN)
    any_child = -1  # the first process of a PID namespace inherits all orphans
    try:
        while True:
            ended, status = os.waitpid(any_child if os.getpid() == 1 else pid, 0)
            if ended == pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _become(
    confinement: Confinement,
    argv: Sequence[str],
    env: Mapping[str, str],
    output: int | None,
    told: int,
) -> NoReturn:
    """Turn this forked child into the program, or write to ``told`` why not."""
    try:
        told = _inherit_only(output, told)
        _confine(confinement)
        for each in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
            signal.signal(each, signal.SIG_DFL)
        if output is not None:  # an agent that is told to reload before it listens
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_WRITTEN, MOST_WRITTEN))
        os.execve(argv[0], list(argv), env)  # noqa: S606 - no shell is the point
    except OSError as error:
        os.write(told, str(error).encode())
    finally:
        os._exit(COULD_NOT_ENFORCE)


def _inherit_only(output: int | None, told: int) -> int:
    if output is not None:
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, output, output)):
            os.dup2(descriptor, number)
        os.chdir("/")
    told = os.dup2(told, FIRST, inheritable=False)
    os.closerange(FIRST + 1, os.sysconf("SC_OPEN_MAX"))
    return told


def _confine(confinement: Confinement) -> None:
    namespaces.enter(confinement.net)
    enter(confinement.view)
    if confinement.own_processes:
        unshare(CLONE_NEWPID)
        _go_on_as_child()  # which is the first process of the namespace
        mount("proc", "/proc", "proc", INERT)
        _go_on_as_child()


def _go_on_as_child() -> None:
    die_with_parent()
    pid = os.fork()
    if pid:
        os.closerange(FIRST, FIRST + 1)  # only the program keeps launch waiting
        os._exit(wait(pid))
