# SPDX-License-Identifier: GPL-2.0-or-later
"""Start one program of Ravelin: ``python3 -I DIRECTORY PROGRAM …``.

``-I`` ignores the working directory, the user's site-packages and PYTHON*
variables; the directory itself comes first, so a package of the same name
elsewhere (Debian has another ``rules``) is never taken for ours.
"""

import runpy
import sys

PROGRAMS = {
    "controller": "controller",
    "firewallvm": "firewallvm",
    "launcher": "agent.launcher",
    "netvm": "netvm",
    "torvm": "torvm",
    "vpn": "vpn",
}

if len(sys.argv) < 2 or sys.argv[1] not in PROGRAMS:  # noqa: PLR2004
    sys.exit(f"usage: python3 -I {sys.argv[0]} {'|'.join(PROGRAMS)} …")
program = sys.argv.pop(1)
runpy.run_module(PROGRAMS[program], run_name="__main__", alter_sys=False)
