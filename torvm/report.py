# SPDX-License-Identifier: GPL-2.0-or-later
"""What dom0 is told of a TorVM, below ``/ravelin/report/``."""

from collections.abc import Mapping

from rules.model import Address
from torvm.doors import Doors
from torvm.session import Session


def report(
    session: Session | None, doors: Doors, served: Mapping[Address, str], circuits: int
) -> Mapping[str, str]:
    """Return how far tor is, and what was asked for.

    ``served`` are the requests for another identity, by the client's address;
    ``circuits`` how many are open.
    """
    if session is None:
        return {"bootstrap": "0"}
    done = session.bootstrap.progress
    found = {
        "bootstrap": str(done),
        "doing": session.bootstrap.summary,
        "circuits": str(circuits),
        "summary": "" if session.ready else f"{done} %",
    }
    if session.usage.missed:
        found["streams-missed"] = str(session.usage.missed)
    for address, serial in served.items():
        if address not in doors.moving:
            found[f"new-identity/{address}"] = serial
    if session.answered is not None:
        found |= session.answered.report(session.usage, doors.clients)
    return {key: value for key, value in found.items() if value}
