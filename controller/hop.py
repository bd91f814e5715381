# SPDX-License-Identifier: GPL-2.0-or-later
"""One domain on the way of a packet, and what becomes of the packet there."""

from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What becomes of the packet at one domain."""

    ACCEPT = "accept"
    DENY = "deny"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hop:
    """The verdict at ``domain``; ``rule`` is the deciding rule's text, if any."""

    domain: str
    verdict: Verdict
    rule: str | None
    reason: str
