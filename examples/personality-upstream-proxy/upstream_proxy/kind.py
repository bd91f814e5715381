# SPDX-License-Identifier: GPL-2.0-or-later
"""What dom0 must know of the personality: the entry point names this value."""

from controller.personality import Personality

UPSTREAM_PROXY = Personality(
    "upstream-proxy",
    "upstream_proxy",
    daemons=("upstream-proxy",),
    needs=("config",),
    only_tcp=True,
)
