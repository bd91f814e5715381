# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a TorVM."""

import resource
import sys

from agent import start
from agent.personality import Personality
from rules.facts import Gateway

STATE = "/run/ravelin/state"  # as each daemon sees its own


def personality() -> Personality:
    """Return the TorVM, whose uplink is the vif of another domain.

    The imports are here so that the guard is loaded before them.
    """
    from agent.berth import DAEMONS, Berth  # noqa: PLC0415
    from agent.from_dom0 import FromDom0  # noqa: PLC0415
    from agent.machine import Course  # noqa: PLC0415
    from agent.sysctl import write  # noqa: PLC0415
    from torvm.control import Control  # noqa: PLC0415
    from torvm.daemon import Daemon  # noqa: PLC0415
    from torvm.driver import TorDriver  # noqa: PLC0415
    from torvm.fronts import Fronts  # noqa: PLC0415
    from torvm.given import given  # noqa: PLC0415
    from torvm.outward import Outward  # noqa: PLC0415
    from torvm.states import TORVM  # noqa: PLC0415
    from torvm.torrc import Torrc  # noqa: PLC0415
    from torvm.transports import Transports  # noqa: PLC0415

    files = given()
    # The control port of each client takes some, so 1024 are few.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # The agent asks tor for the names in rules, at the port of every resolver.
    write("ipv4/ip_unprivileged_port_start", 53)
    torrc = Torrc(f"{DAEMONS}/tor", f"{STATE}/tor", files.bridges, files.network)
    programs = tuple(
        Transports(program, names, Berth(program.value), f"{STATE}/pt")
        for program, names in files.transports.items()
    )
    daemon = Daemon(torrc, Berth("tor"), Control)
    driver = TorDriver(files, daemon, Outward(programs, Fronts()))
    course = Course(TORVM, driver.observe)
    return Personality(
        course,
        FromDom0(),
        pin_gateway=True,
        kind=Gateway.PROXY,
        driver=driver,
    )


if __name__ == "__main__":
    sys.exit(start.main(personality, Gateway.PROXY))
