# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's list, compiled to chains and maps of the kernel.

A list of few rules stays a list.  Then a client is one chain, and no set, the
names of which libnftables reads back before it changes anything (``src/cache.c``:
1 ms for 1000 clients, and 5 with a map for each).  In a long list the way of a
packet does not grow with the number of rules:

1. Map ``_e0`` holds the verdict for every address, protocol and port that a
   rule names exactly.
2. Maps ``_r0`` and ``_m0_…`` lead from the address to a chain ``_c_…`` that
   decides by protocol, port or type; alike regions share one.
3. Chain ``_u0_…`` is in between where earlier rules for every destination may
   decide otherwise.
4. What is left is for the rules for every destination, and the default.

The limit: where wide prefixes with many ports hold many narrow ones, or rules
for every destination alternate with others, the steps of all regions multiply.
The list is then cut into segments where they come to `BUDGET`, visited in order,
and the way of a packet grows with their number.  It is also cut every `LENGTH`
rules, because a changed rule costs the time to compile its segment.

Names are made of contents or of places that other rules do not move, so a
changed rule changes few objects.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, islice

from rules.ground import Ground, Match
from rules.lookup import VERDICTS, Writer, segment, writer
from rules.model import Address
from rules.objects import Chain, Key, Object
from rules.segments import segments
from rules.services import FIELDS, alternatives

LINEAR = 16
"""Rules of nft, of a list that stays one."""
BUDGET = 5_000
LENGTH = 2_500
SHARD = 257


def compile_client(address: Address, ground: Ground) -> Mapping[Key, Object]:
    """Return the objects of one client, in the table of its IP version.

    ``ground`` is of the same version.  The entry is the chain `chain_name`, and
    other names begin with that one and ``_``.  A packet with a conntrack entry
    ends in ``accept`` or ``goto refuse``; no other packet may come here.
    """
    client = writer(address)
    several = (_rules(client, match) for match in ground.matches)
    rules = list(islice(chain.from_iterable(several), LINEAR + 1))
    if len(rules) <= LINEAR:
        rules.append(VERDICTS[ground.default] + ' comment "default"')
    else:
        rules.clear()
        parts = list(segments(ground.matches, BUDGET, LENGTH))
        for number, part in enumerate(parts):
            default = ground.default if number == len(parts) - 1 else None
            entry, objects = segment(address, number, part, default, SHARD)
            rules += entry
            client.objects.update(objects)
    client.objects[Key(client.table, client.name)] = Chain(tuple(rules))
    return client.objects


def _rules(client: Writer, match: Match) -> Iterator[str]:
    """Yield a rule for each prefix and protocol.

    It is cheaper to load, and to have, than the anonymous set that would hold two.
    """
    prefixes = [""]
    if match.networks is not None:
        prefixes = [f"{client.destination} {network} " for network in match.networks]
    services = [""]
    if match.protocols is not None:
        services = [_service(number, match) for number in sorted(match.protocols)]
    for prefix in prefixes:
        for service in services:
            verdict = VERDICTS[match.action]
            yield f'{prefix}{service}{verdict} comment "rule {match.source}"'


def _service(protocol: int, match: Match) -> str:
    words = f"meta l4proto {protocol} "
    if match.ports is not None:
        ranges = [(match.ports.first, match.ports.last)]
    elif match.icmp_types is not None:
        ranges = [(number, number) for number in sorted(match.icmp_types)]
    else:
        return words
    return f"{words}{FIELDS[protocol]} {alternatives(ranges)} "
