# SPDX-License-Identifier: GPL-2.0-or-later
"""The uplink carries what bridges and proxies need, each for its user, and no more."""

from ipaddress import ip_address

from rules.facts import Carried, Uid
from torvm.bridges import parse
from torvm.carried import Outside, Users, carried
from torvm.pluggable import Program
from torvm.proxy import Kind, Proxy

USERS = Users(1, {Program.OBFS4PROXY: 2, Program.SNOWFLAKE: 3})
TOR, TRANSPORT, SNOWFLAKE = Uid(1), Uid(2), Uid(3)
TCP, UDP = 6, 17
RELAY, PLAIN, BRIDGE = (
    (ip_address("203.0.113.11"), 5000),
    (ip_address("192.0.2.7"), 9001),
    (ip_address("192.0.2.1"), 443),
)
FRONT = ip_address("198.51.100.7")
PROXY = Proxy(Kind.SOCKS5, ip_address("192.0.2.9"), 1080)
THROUGH = (PROXY.address, PROXY.port)
LINES = {
    "plain": "192.0.2.7:9001",
    "obfs4": "obfs4 192.0.2.1:443 cert=abc",
    "meek": "meek_lite 192.0.2.20:80 url=https://front.example.com/",
    "snowflake": "snowflake 192.0.2.3:80 url=http://front.example.com/ "
    "ice=stun:198.51.100.9",
}
KNOWN = {"front.example.com": frozenset({FRONT})}


def found(*kinds: str, proxy: Proxy | None = None, known: bool = True) -> set[Carried]:
    lines = "\n".join(LINES[kind] for kind in kinds).encode()
    bridges = parse(lines) if kinds else ()
    return set(carried(USERS, Outside(bridges, proxy, KNOWN if known else {}), None))


def test_without_all_that_tor_goes_where_it_wants_by_tcp() -> None:
    assert found() == {Carried(TOR, TCP, None)}
    assert set(carried(USERS, Outside(), [RELAY])) == {Carried(TOR, TCP, RELAY)}


def test_each_bridge_is_reached_by_who_speaks_with_it() -> None:
    assert found("plain", "obfs4", "meek") == {
        Carried(TOR, TCP, PLAIN),
        Carried(TRANSPORT, TCP, BRIDGE),
        Carried(TRANSPORT, TCP, (FRONT, 443)),
    }


def test_snowflake_alone_may_send_udp_to_anyone_and_tcp_to_its_front() -> None:
    assert found("snowflake") == {
        Carried(SNOWFLAKE, TCP, (FRONT, 80)),
        Carried(SNOWFLAKE, UDP, None),
    }


def test_a_name_that_is_not_known_yet_opens_nothing() -> None:
    assert found("meek", known=False) == set()


def test_with_a_proxy_nobody_sends_but_to_it() -> None:
    assert found(proxy=PROXY) == {Carried(TOR, TCP, THROUGH)}
    assert found("plain", proxy=PROXY) == {Carried(TOR, TCP, THROUGH)}
    assert found("obfs4", "meek", proxy=PROXY) == {Carried(TRANSPORT, TCP, THROUGH)}
