# SPDX-License-Identifier: GPL-2.0-or-later
"""A gateway's end of a tunnel of WireGuard, and the launcher of its daemon.

::

    net: device wg0 10.64.0.2, eth0 192.0.2.2 -- 192.0.2.1 provider: wgs… 10.64.0.1
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

ROOT = Path(__file__).parents[2]
DAEMON = 61602
PATIENCE = 20.0  # seconds; only a failing test waits that long
PROVIDER = ip_address("192.0.2.1")
HERE, CLIENT = "192.0.2.2", "10.64.0.2"


@contextmanager
def launcher(directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom agent.launcher import become\n"
        f"here = Path({str(directory)!r})\n"
        "become('wireguard', here / 'berth', here / 'meeting')"
    )
    argv = ["setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups"]
    argv += ["--bounding-set=-all", "--inh-caps=-all", "/usr/bin/python3", "-I"]
    made = subprocess.Popen([*argv, "-c", code], stderr=subprocess.DEVNULL)
    try:
        yield made
    finally:
        made.kill()
        made.wait()


def use(name: str) -> None:
    for words in (f"address add {CLIENT}/24 dev {name}", f"link set {name} up"):
        subprocess.run(["ip", *words.split()], check=True)
