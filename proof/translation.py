# SPDX-License-Identifier: GPL-2.0-or-later
"""What a packet's addresses and ports become (``nf_nat_core.c`` and its kin)."""

from proof.diagram import Node
from proof.fields import DPORT, DST, IPV6, SRC
from proof.hooks import Hooks
from proof.outcome import Nat, Translation
from proof.resolve import number_of
from proof.routes import Address, Link, Routing
from proof.substitute import Field, Meaning
from proof.values import Value
from proof.view import choice

WITH_PORTS = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite
_PORT = 16  # bits


def addresses_of(routing: Routing, link: Link, version: int) -> list[Address]:
    """Return the addresses of an interface that are not only for its link."""
    return [
        one.address
        for one in routing.addresses
        if one.index == link.index
        and one.address.version == version
        and not (version == IPV6 and one.address.is_link_local)
    ]


def sources(routing: Routing, link: Link, version: int) -> list[Address]:
    """Return what a packet that leaves by an interface may be masqueraded as.

    An interface without an address borrows one of another (inet_select_addr(),
    ipv6_dev_get_saddr()).
    """
    own = addresses_of(routing, link, version)
    if own:
        return own
    others = [one for one in routing.links if one.name != "lo"]
    return [a for one in others for a in addresses_of(routing, one, version)]


def source_port(hooks: Hooks) -> Field:
    """Return the field for the port that a translated packet is sent from."""
    text = f"{hooks.name}: the port that it sends from"
    return Field(choice(hooks.common, text, _PORT, text))


def bound_target(hooks: Hooks, link: Link, nat: Nat) -> dict[str, Meaning] | None:
    """Return what target and port become; None: the packet is dropped.

    A redirected packet goes to the first address of the interface it came by
    (``nf_nat_redirect.c``).
    """
    found: dict[str, Meaning] = {}
    if nat.kind is Translation.REDIRECT:
        own = addresses_of(hooks.net.routing, link, hooks.version)
        if not own:
            return None
        found[DST] = int(own[0])
    elif nat.address is not None:
        found[DST] = _meaning(hooks, nat.address, DST)
    if nat.port is not None:
        found[DPORT] = _meaning(hooks, nat.port, DPORT)
    return found


def bound_source(
    hooks: Hooks, link: Link, nat: Nat
) -> list[tuple[Node, dict[str, Meaning]]]:
    """Return what the source may become: a doubt and fields for each; none: dropped."""
    space = hooks.common.space
    if nat.kind is not Translation.MASQUERADE:
        if nat.address is None:
            return [(space.true, {})]
        return [(space.true, {SRC: _meaning(hooks, nat.address, SRC)})]
    options = sources(hooks.net.routing, link, hooks.version)
    return [
        (hooks.doubt(f"packets through {link.name} are sent as {one}"), {SRC: int(one)})
        for one in options
    ]


def _meaning(hooks: Hooks, value: Value, name: str) -> Meaning:
    number = number_of(value)
    if number is not None:
        return number
    text = f"{hooks.name}: a translation to what is not known"
    space = hooks.common.space
    width = space.tops[space.levels[name]].bit_length()
    return Field(choice(hooks.common, f"{text}: {name}", width, text))
