# SPDX-License-Identifier: GPL-2.0-or-later
"""From a profile on disk to a driver."""

import logging
import os
from pathlib import Path

from agent.berth import Berth
from vpn import wireguard_go, wireguard_kernel
from vpn.hopeless import Hopeless
from vpn.wireguard_device import Device
from vpn.wireguard_driver import WireguardDriver
from vpn.wireguard_file import MOST_BYTES, ProfileError
from vpn.wireguard_go import WireguardGo
from vpn.wireguard_kernel import WireguardKernel
from vpn.wireguard_profile import parse

log = logging.getLogger(__name__)

NAME = "wireguard"
DEVICE = "wg0"
NONE = "neither the kernel nor a program here has WireGuard: install wireguard-go"


def driver() -> WireguardDriver | Hopeless:
    """Return the driver of the profile ``config``, or one that says what is wrong.

    The profile is in ``$CREDENTIALS_DIRECTORY`` (systemd.exec(5)).
    """
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / "config"
    try:
        with path.open("rb") as file:
            profile = parse(file.read(MOST_BYTES + 1), "config")
    except OSError as error:
        return Hopeless(f"config: {error.strerror}")
    except ProfileError as error:
        return Hopeless(str(error))
    made = device()
    return Hopeless(NONE) if made is None else WireguardDriver(profile, made)


def device() -> Device | None:
    """Return the kernel's WireGuard, else wireguard-go, else None."""
    if wireguard_kernel.is_there():
        return WireguardKernel(DEVICE)
    if not wireguard_go.is_installed():
        return None
    log.info("no WireGuard in this kernel, using wireguard-go")
    return WireguardGo(Berth(NAME), DEVICE)
