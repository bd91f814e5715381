# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules as text, byte for byte as Qubes OS writes them.

Source: ``qubes/firewall.py`` (order and spelling of the options) and
``doc/vm-interface.rst`` (the form in QubesDB).
"""

from collections.abc import Iterator

from rules.model import Anywhere, Family, Name, Network, Rule, family


def api_line(rule: Rule) -> str:
    """Return the rule as the Admin API and ``qvm-firewall --raw`` write it."""
    target = list(_target(rule))
    if rule.expire is not None:
        target.insert(1, f"expire={rule.expire}")
    if rule.comment is not None:
        target.append(f"comment={rule.comment}")
    return " ".join(target)


def qdb_value(rule: Rule) -> str:
    """Return the rule as dom0 writes it to ``/qubes-firewall/IP/NNNN``.

    Expiry and comment stay in dom0: the writer leaves expired rules out.
    """
    return " ".join(_target(rule))


def _target(rule: Rule) -> Iterator[str]:
    yield f"action={rule.action.value}"
    match rule.destination:
        case Anywhere():
            pass
        case Name(host):
            yield f"dsthost={host}"
        case Network(prefix):
            match family(prefix):
                case Family.IPV4:
                    yield f"dst4={prefix}"
                case Family.IPV6:
                    yield f"dst6={prefix}"
    if rule.proto is not None:
        yield f"proto={rule.proto.value}"
    if rule.special is not None:
        yield f"specialtarget={rule.special.value}"
    if rule.ports is not None:
        yield f"dstports={rule.ports.first}-{rule.ports.last}"
    if rule.icmp_type is not None:
        yield f"icmptype={rule.icmp_type}"
