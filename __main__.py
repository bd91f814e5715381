# SPDX-License-Identifier: GPL-2.0-or-later
"""Start one program of Ravelin: ``python3 -I DIRECTORY PROGRAM …``.

``-I`` ignores the working directory, the user's site-packages and PYTHON*
variables; the directory itself comes first, so a package of the same name
elsewhere (Debian has another ``rules``) is never taken for ours.

A program that is not ours is the agent of a personality that a distribution
brings (`controller.personality`), which is looked for in the directory and
where the system's Python keeps its packages.
"""

import runpy
import signal
import sys

PROGRAMS = {
    "controller": "controller",
    "firewallvm": "firewallvm",
    "launcher": "agent.launcher",
    "netvm": "netvm",
    "torvm": "torvm",
    "transport": "torvm.transport_exec",
    "vpn": "vpn",
    "wireguard": "vpn.wireguard_exec",
}


def module_of(program: str) -> str:
    """Return the module of a program, or end with a usage line."""
    if program in PROGRAMS:
        return PROGRAMS[program]
    # Only now: whoever has no such personality does not wait for this.
    from controller.personality import known  # noqa: PLC0415

    brought = {each.program for each in known().values()} - set(PROGRAMS)
    if program not in brought:
        names = "|".join((*PROGRAMS, *sorted(brought)))
        sys.exit(f"usage: python3 -I {sys.argv[0]} {names} …")
    return program


if __name__ == "__main__":
    module = module_of(sys.argv.pop(1) if len(sys.argv) > 1 else "")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=False)
    except KeyboardInterrupt:  # while it imports; later it is a program's own
        sys.exit(128 + signal.SIGINT)
