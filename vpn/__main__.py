# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a VPN: RAVELIN_PERSONALITY says which."""

import os
import sys
from typing import Protocol

from agent import start
from agent.from_dom0 import FromDom0
from agent.machine import Course
from agent.personality import Driver, Personality
from rules.facts import Facts, Gateway
from rules.internal import INTERNAL
from vpn.states import VPN, Progress, Seen, observe


class Driven(Driver, Protocol):
    """A driver of a tunnel."""

    @property
    def progress(self) -> Progress:
        """What it says of its tunnel."""


def personality() -> Personality:
    """Return the VPN, whose uplink is the vif of another domain."""
    driven = _driver(os.environ.get("RAVELIN_PERSONALITY", ""))

    def seen(facts: Facts) -> Seen:
        return observe(facts, driven.progress)

    return Personality(
        Course(VPN, seen),
        FromDom0(),
        INTERNAL,
        pin_gateway=True,
        kind=Gateway.TUNNEL,
        driver=driven,
    )


def _driver(word: str) -> Driven:
    # After the guard: netlink is slow to import.
    match word:
        case "wireguard":
            from vpn import wireguard_start  # noqa: PLC0415

            return wireguard_start.driver()
        case "openvpn":
            from vpn import openvpn_start  # noqa: PLC0415

            return openvpn_start.driver()
        case _:
            expected = "expected wireguard or openvpn"
            raise ValueError(f"RAVELIN_PERSONALITY: {word!r}, {expected}")


if __name__ == "__main__":
    sys.exit(start.main(personality, Gateway.TUNNEL))
