# SPDX-License-Identifier: GPL-2.0-or-later
"""The expressions that act: verdicts, translation, refusal, and those that count.

Sources: ``nft_immediate.c``, ``nft_nat.c``, ``nft_masq.c``, ``nft_redir.c``,
``nft_reject.c``, ``nft_objref.c``, ``nft_limit.c``, ``nft_dynset.c`` in
``net/netfilter``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from proof import loading, matches
from proof.bytecode import Code, Verdict, data, exceeded, limited
from proof.netlink import Attributes, need, number, text
from proof.outcome import End, Nat, Outcome, Translation
from proof.rule import RuleRun
from proof.values import Opaque, Value

WITHIN = "limit"
"""Why nobody knows whether a packet is within a rate."""

_HARMLESS_OBJECTS = {1, 7, 8}  # counter, timeout, secmark
_ADDRESS, _PORT = (3, 4), (5, 6)  # NFTA_NAT_REG_…_MIN, …_MAX
_NAT_FLAGS = 7  # NFTA_NAT_FLAGS
_NETMAP = 1 << 6  # NF_NAT_RANGE_NETMAP
_INET = 1  # NFPROTO_INET
_LENGTHS = {2: 4, 10: 16}  # bytes of an address, by NFPROTO_…
_PORT_LENGTH = 2  # bytes
_TO_VALUE, _EXPRESSION, _DYNSET_FLAGS, _EXPRESSIONS = 5, 7, 9, 10  # NFTA_DYNSET_…


def immediate(this: RuleRun, values: Attributes) -> None:
    """Set a register or give a verdict."""
    match data(need(values, 2, "immediate"), "immediate"):
        case Verdict(Code.CONTINUE):
            pass
        case Verdict() as verdict:
            this.decide(verdict, this.space.true)
            this.ended = True
        case bytes() as value:
            this.write(values, 1, tuple(value))


def nothing(this: RuleRun, values: Attributes) -> None:
    """Count or log: the packet goes on as it was."""
    del this, values


def notrack(this: RuleRun, values: Attributes) -> None:
    """Keep conntrack from looking at the packet."""
    del values
    this.env = replace(this.env, untracked=True)


def reject(this: RuleRun, values: Attributes) -> None:
    """Drop the packet and tell its sender."""
    del values
    this.end(Outcome(End.REJECT, this.env))


def nat(this: RuleRun, values: Attributes) -> None:
    """Translate, which accepts; packets of the other IP version go on."""
    source = number(need(values, 1, "nat"), "nat") == 0
    family = number(need(values, 2, "nat"), "nat")
    if family not in {_INET, this.tools.fields.protocol_of(_INET)}:
        return
    address = _register(this, values, _ADDRESS, _LENGTHS.get(family, 0))
    if number(values.get(_NAT_FLAGS), "nat") & _NETMAP and address is not None:
        address = (Opaque("a prefix to translate to"),) * len(address)
    port = _register(this, values, _PORT, _PORT_LENGTH)
    kind = Translation.SOURCE if source else Translation.DESTINATION
    _translate(this, Nat(kind, address, port))


def masq(this: RuleRun, values: Attributes) -> None:
    """Translate to an address of the interface it leaves by."""
    port = _register(this, values, (2, 3), _PORT_LENGTH)
    _translate(this, Nat(Translation.MASQUERADE, None, port))


def redir(this: RuleRun, values: Attributes) -> None:
    """Translate to an address of this host."""
    port = _register(this, values, (1, 2), _PORT_LENGTH)
    _translate(this, Nat(Translation.REDIRECT, None, port))


def _translate(this: RuleRun, what: Nat) -> None:
    this.end(Outcome(End.ACCEPT, replace(this.env, nat=(*this.env.nat, what))))


def _register(
    this: RuleRun, values: Attributes, kinds: tuple[int, int], length: int
) -> Value | None:
    """Return what to translate to, if that is one thing: out of a range any may be."""
    least, most = kinds
    if least not in values:
        return None
    value = this.read(values, least, length)
    if most in values and this.read(values, most, length) != value:
        return (Opaque("a range to translate to"),) * length
    return value


def objref(this: RuleRun, values: Attributes) -> None:
    """Use a named object: a counter changes nothing, a quota or limit may end."""
    kind = number(values.get(1), "objref")
    if kind not in _HARMLESS_OBJECTS:
        this.keep(this.doubt(f"object of type {kind}"))


def limit(this: RuleRun, values: Attributes) -> None:
    """Hold within a rate, or beyond it; which of both, other packets decide."""
    this.keep(this.too_many() if exceeded(values) else this.doubt(WITHIN))


def dynset(this: RuleRun, values: Attributes) -> None:
    """Count the packet in a set, and hold as its own limit there says.

    An element has the limit it was made with, which need not be the rule's.
    """
    place = this.place._replace(name=text(need(values, 1, "dynset")))
    entries = this.tools.sets(place).entries
    own = limited(values.get(_EXPRESSION, b""))
    limits = {own, *(element.limit for _, element in entries)}
    plain = not {_TO_VALUE, _EXPRESSIONS} & values.keys()
    inverted = number(values.get(_DYNSET_FLAGS), "dynset") != 0
    if not plain or inverted or len(limits) > 1 or own is None:
        this.keep(this.doubt("dynset"))
    else:
        this.keep(this.too_many() if own else this.doubt(WITHIN))


STEPS: Mapping[str, Callable[[RuleRun, Attributes], None]] = {
    "bitwise": matches.bitwise,
    "byteorder": matches.byteorder,
    "cmp": matches.cmp,
    "lookup": matches.lookup,
    "range": matches.range_,
    "dynset": dynset,
    "limit": limit,
    "ct": loading.load_ct,
    "exthdr": loading.load_exthdr,
    "fib": loading.load_fib,
    "meta": loading.load_meta,
    "payload": loading.load_payload,
    "counter": nothing,
    "last": nothing,
    "log": nothing,
    "immediate": immediate,
    "masq": masq,
    "nat": nat,
    "notrack": notrack,
    "objref": objref,
    "redir": redir,
    "reject": reject,
}
"""What each expression does, by the kernel's name of it."""
