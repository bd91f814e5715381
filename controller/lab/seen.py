# SPDX-License-Identifier: GPL-2.0-or-later
"""Say which address each of some sites sees, asked from inside a domain.

A program of its own: ``python3 -I seen.py www.example.com …`` prints a list of
addresses, as JSON; an empty one for a site that could not be reached.  A tunnel
may still be on its way, so it is tried for a while.  Nothing but the standard
library, because it runs where Ravelin is not.
"""

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

PATIENCE = 60.0  # seconds for a site
ATTEMPT = 15.0  # seconds for one connection: an onion service takes some
PAUSE = 0.5  # seconds after a refusal


def seen(site: str) -> str:
    """Return the address that a site sees, or nothing."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((site, 80), ATTEMPT) as made:
                made.sendall(f"GET /ip HTTP/1.1\r\nHost: {site}\r\n\r\n".encode())
                page = made.makefile(newline="").read()
        except OSError:
            time.sleep(PAUSE)
        else:
            return page.partition("\r\n\r\n")[2].strip()
    return ""


if __name__ == "__main__":
    sites = sys.argv[1:]
    with ThreadPoolExecutor(max(len(sites), 1)) as pool:
        sys.stdout.write(json.dumps(list(pool.map(seen, sites))))
