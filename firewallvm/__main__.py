# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a FirewallVM."""

import sys

from agent import start
from agent.from_dom0 import FromDom0
from agent.machine import plain
from agent.personality import Personality
from firewallvm.states import FIREWALLVM


def personality() -> Personality:
    """Return the FirewallVM, whose uplink is the vif of another domain."""
    return Personality(plain(FIREWALLVM), FromDom0(), pin_gateway=True)


if __name__ == "__main__":
    sys.exit(start.main(personality))
