# SPDX-License-Identifier: GPL-2.0-or-later
"""Whom a site of the lab's internet sees, asked from inside a namespace."""

import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from controller import namespaces

NOBODY = ""


def seen_by(site: IPv4Address | IPv6Address, net: Path, *, patience: float = 20) -> str:
    """Return the address that a site sees, or `NOBODY` if nothing came back."""
    host = f"[{site}]" if site.version == 6 else str(site)
    asking = ["curl", "--silent", "--max-time", str(patience), f"http://{host}/ip"]
    with namespaces.inside(net):
        done = subprocess.run(asking, capture_output=True, text=True, check=False)
    return done.stdout.strip()
