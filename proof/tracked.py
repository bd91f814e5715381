# SPDX-License-Identifier: GPL-2.0-or-later
"""What conntrack says of packets: which may be in which state, and what follows.

Sources: ``nf_conntrack_core.c``, ``nf_conntrack_proto_icmpv6.c``.
"""

from collections.abc import Mapping

from proof.diagram import Node
from proof.fields import (
    CT,
    CT_MARK,
    DPORT,
    DST,
    ESTABLISHED,
    ESTABLISHED_REPLY,
    INVALID,
    IPV6,
    NEW,
    ORIGINAL_DST,
    PROTO,
    RELATED,
    RELATED_REPLY,
    SPORT,
    SRC,
    UNTRACKED,
)
from proof.relabel import relabel
from proof.space import Space
from proof.substitute import Field, Meaning
from proof.view import STATUS

FORWARDS = (NEW, ESTABLISHED, RELATED)
"""States of packets in the direction in which the flow was opened."""
REPLIES = (ESTABLISHED_REPLY, RELATED_REPLY)
NO_FLOW = (INVALID, UNTRACKED)
STATES = (*FORWARDS, *NO_FLOW, *REPLIES)
WORDS = {
    NEW: "new",
    ESTABLISHED: "established",
    RELATED: "related",
    ESTABLISHED_REPLY: "reply",
    RELATED_REPLY: "error about a flow",
    INVALID: "invalid",
    UNTRACKED: "untracked",
}

ICMPV6 = 58
# Multicast listeners and neighbours (noct_valid_new): types 130 to 137, and 143.
_UNTRACKED_TYPES = ((130 << 8, (138 << 8) - 1), (143 << 8, (144 << 8) - 1))
DST_NAT, SRC_NAT = 1 << 5, 1 << 4  # IPS_…
DST_NAT_DONE, SRC_NAT_DONE = 1 << 8, 1 << 7


def never_tracked(space: Space, version: int) -> Node:
    """Return the packets that conntrack leaves alone by itself."""
    if version != IPV6:
        return space.false
    return space.both(
        space.within(space.levels[PROTO], (ICMPV6, ICMPV6)),
        space.within(space.levels[SPORT], *_UNTRACKED_TYPES),
    )


def translated_status(space: Space, fixed: Mapping[str, Meaning]) -> Meaning:
    """Return ``ct status`` once the target is translated to what ``fixed`` says.

    A translation to the same is none (nf_nat_setup_info()).
    """
    same: Node = space.true
    for name, meaning in fixed.items():
        numbers = [(meaning, meaning)] if isinstance(meaning, int) else []
        same = space.both(same, space.within(space.levels[name], *numbers))
    unchanged = space.only(same, space.leaf(DST_NAT_DONE))
    return space.over(unchanged, space.leaf(DST_NAT_DONE | DST_NAT))


def sent_status(
    space: Space, before: int | Node, source: Meaning | None, keeps: Node
) -> Node:
    """Return ``ct status`` once the sender is translated to ``source``; None: its port.

    A field is the sender itself: nothing asked for a translation.  Where the address
    stays, ``keeps`` are those whose port stays too.
    """
    status = space.leaf(before) if isinstance(before, int) else before

    def marked(bits: int) -> Node:
        return relabel(
            space, status, lambda n: n | bits if isinstance(n, int) else None
        )

    plain, changed = marked(SRC_NAT_DONE), marked(SRC_NAT_DONE | SRC_NAT)
    if source == Field(space.levels[SRC]):
        return plain
    maybe = space.over(space.only(keeps, plain), changed)
    if not isinstance(source, int):
        return maybe
    same = space.within(space.levels[SRC], (source, source))
    return space.over(space.only(same, maybe), changed)


def known(space: Space, ct: int) -> dict[str, Meaning]:
    """Return what conntrack's fields are once it has looked at the packet."""
    found: dict[str, Meaning] = {CT: ct}
    if ct in FORWARDS:
        found |= {
            ORIGINAL_DST: Field(space.levels[DST]),
            "ct original source": Field(space.levels[SRC]),
            "ct original source port": Field(space.levels[SPORT]),
            "ct original destination port": Field(space.levels[DPORT]),
        }
    if ct == NEW:
        found |= {STATUS: 0, CT_MARK: 0}
    return found
