# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a VPN: RAVELIN_PERSONALITY says which."""

import os
import sys

from agent import start
from agent.from_dom0 import FromDom0
from agent.machine import Course
from agent.personality import Personality
from rules.facts import Facts
from rules.internal import INTERNAL
from vpn.states import VPN, Seen, observe


def personality() -> Personality:
    """Return the VPN, whose uplink is the vif of another domain."""
    word = os.environ.get("RAVELIN_PERSONALITY", "")
    # After the guard: netlink is slow to import.
    match word:
        case "wireguard":
            from vpn.wireguard_start import driver  # noqa: PLC0415
        case _:
            raise ValueError(f"RAVELIN_PERSONALITY: {word!r}, expected wireguard")
    driven = driver()

    def seen(facts: Facts) -> Seen:
        return observe(facts, driven.progress)

    return Personality(
        Course(VPN, seen),
        FromDom0(),
        INTERNAL,
        pin_gateway=True,
        carrier=True,
        driver=driven,
    )


if __name__ == "__main__":
    sys.exit(start.main(personality, carrier=True))
