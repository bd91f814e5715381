# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent of a domain with an upstream proxy."""

import os
import sys
from pathlib import Path

from agent import start
from agent.personality import Personality
from rules.facts import Gateway


def personality() -> Personality:
    """Return the personality, whose uplink is the vif of another domain.

    The imports are here so that the guard is loaded before them.
    """
    from agent.berth import Berth  # noqa: PLC0415
    from agent.from_dom0 import FromDom0  # noqa: PLC0415
    from agent.machine import Course  # noqa: PLC0415
    from agent.sysctl import write  # noqa: PLC0415
    from upstream_proxy.config import Config, ConfigError, parse  # noqa: PLC0415
    from upstream_proxy.driver import UpstreamProxy  # noqa: PLC0415
    from upstream_proxy.states import UPSTREAM_PROXY  # noqa: PLC0415

    # The relay answers the agent's own questions at the port of every resolver.
    write("ipv4/ip_unprivileged_port_start", 53)
    secrets = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))
    config: Config | str
    try:
        config = parse((secrets / "config").read_bytes())
    except ConfigError as error:
        config = str(error)
    except OSError as error:
        config = f"config: {error.strerror}"
    driver = UpstreamProxy(config, Berth("upstream-proxy"))
    return Personality(
        Course(UPSTREAM_PROXY, driver.observe),
        FromDom0(),
        pin_gateway=True,
        kind=Gateway.PROXY,
        driver=driver,
    )


if __name__ == "__main__":
    sys.exit(start.main(personality, Gateway.PROXY))
