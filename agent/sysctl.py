# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel parameters of the network namespace we are in: ``/proc/sys/net``.

They are files, never dotted names: ``vif3.0`` is one component of a path.  With
CAP_NET_ADMIN in the namespace no root is needed (net/sysctl_net.c).
"""

import logging
from errno import EIO
from pathlib import Path

from agent.hardening import VALUES, Role
from agent.ports import NetlinkError

log = logging.getLogger(__name__)

ROOT = Path("/proc/sys/net")


def harden(role: Role, interface: str = "default") -> tuple[str, ...]:
    """Write the values of a role and read them back.

    Some values change others (leaving a value is not enough to keep it), so all
    are read after all were written.  Returns the keys that this kernel does not
    have; `NetlinkError` for a value that it refuses or does not keep.
    """
    wanted = {key.format(interface): value for key, value in VALUES[role].items()}
    missing = tuple(key for key, value in wanted.items() if not write(key, value))
    for key, value in wanted.items():
        if key not in missing and read(key) != value:
            raise NetlinkError(EIO, f"{key}: the kernel does not keep {value}")
    if missing:
        log.debug("%s: this kernel has no %s", interface, ", ".join(missing))
    return missing


def write(key: str, value: int) -> bool:
    """Set a key such as ``ipv4/conf/vif3.0/proxy_arp``; False if there is none."""
    try:
        # Without O_CREAT, which procfs answers with "permission denied".
        with (ROOT / key).open("r+b", buffering=0) as file:
            file.write(b"%d" % value)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise NetlinkError(error.errno, f"{key} = {value}: {error.strerror}") from error
    return True


def read(key: str) -> int | None:
    """Return the value of a key, None if there is none."""
    try:
        return int((ROOT / key).read_bytes())
    except FileNotFoundError:
        return None
