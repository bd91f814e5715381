# SPDX-License-Identifier: GPL-2.0-or-later
"""The expressions that load into a register, or write to the packet.

Sources: ``nft_meta.c``, ``nft_ct.c``, ``nft_payload.c``, ``nft_exthdr.c`` and
``nft_fib.c`` in ``net/netfilter``.
"""

from dataclasses import replace

from proof.fields import Load
from proof.loads import CT_MARK_KEY, META_MARK, ct, exthdr, fib, meta, payload
from proof.netlink import Attributes, need, number
from proof.rule import WORD, RuleRun
from proof.values import Opaque

_META_SREG, _CT_SREG, _PAYLOAD_SREG, _EXTHDR_DREG = 3, 4, 5, 1  # NFTA_…
_TRANSPORT = 2  # NFT_PAYLOAD_TRANSPORT_HEADER; what is further in comes after
_CHECKSUM = 16  # its offset in a TCP header: nothing before it is written
_OF_TCP = 1  # NFT_EXTHDR_OP_TCPOPT
_OPTIONS = "a packet whose TCP options were rewritten"


def load_meta(this: RuleRun, values: Attributes) -> None:
    """Load what is known about a packet, or set its mark."""
    key = number(need(values, 2, "meta"), "meta")
    if _META_SREG in values:
        if key == META_MARK:
            this.env = replace(this.env, mark=this.read(values, _META_SREG, WORD))
        return
    found = meta(this.tools.fields, this.place.family, values)
    if key == META_MARK and this.env.mark is not None:
        found = replace(found, value=this.env.mark)
    _load(this, values, found)


def load_ct(this: RuleRun, values: Attributes) -> None:
    """Load what conntrack knows, or set its mark."""
    key = number(need(values, 2, "ct"), "ct")
    if _CT_SREG in values:
        if key == CT_MARK_KEY:
            this.env = replace(this.env, ct_mark=this.read(values, _CT_SREG, WORD))
        return
    found = ct(this.tools.fields, values)
    if this.env.untracked:
        found = _unknown(this, found, "conntrack after notrack")
    elif key == CT_MARK_KEY and this.env.ct_mark is not None:
        found = replace(found, value=this.env.ct_mark)
    _load(this, values, found)


def load_payload(this: RuleRun, values: Attributes) -> None:
    """Load bytes of the packet, or write some."""
    if _PAYLOAD_SREG in values:
        this.env = replace(this.env, rewritten=True)
        return
    found = _still(this, payload(this.tools.fields, values))
    base, offset, size = (number(values.get(n), "payload") for n in (2, 3, 4))
    if this.env.options and base >= _TRANSPORT and offset + size > _CHECKSUM:
        found = _unknown(this, found, _OPTIONS)
    _load(this, values, found)


def load_exthdr(this: RuleRun, values: Attributes) -> None:
    """Load bytes of an extension header or option, or write some.

    Of TCP only bytes within an option are written, and the checksum with them
    (nft_exthdr_tcp_set_eval()).
    """
    of_tcp = number(values.get(6), "exthdr") == _OF_TCP
    if _EXTHDR_DREG not in values:
        env = this.env
        this.env = replace(
            env, rewritten=env.rewritten or not of_tcp, options=env.options or of_tcp
        )
        return
    found = _still(this, exthdr(this.tools.fields, values))
    if this.env.options and of_tcp:
        found = _unknown(this, found, _OPTIONS)
    _load(this, values, found)


def load_fib(this: RuleRun, values: Attributes) -> None:
    """Load what the routing tables say of the packet."""
    _load(this, values, _still(this, fib(this.tools.fields, values)))


def _still(this: RuleRun, found: Load) -> Load:
    if this.env.rewritten:
        return _unknown(this, found, "a packet that was rewritten")
    return found


def _unknown(this: RuleRun, found: Load, reason: str) -> Load:
    return Load((Opaque(reason),) * len(found.value), this.doubt(reason))


def _load(this: RuleRun, values: Attributes, found: Load) -> None:
    this.keep(found.present)
    this.write(values, 1, found.value)
