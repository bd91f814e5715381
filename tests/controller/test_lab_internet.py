# SPDX-License-Identifier: GPL-2.0-or-later
"""``uplink = "lab"``: a NetVM finds an internet that needs no network at all."""

import socket
import ssl
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from dns.message import make_query
from dns.query import tcp, udp
from dns.rcode import NOERROR, NXDOMAIN, Rcode

from controller import namespaces
from controller.lab import hosts
from controller.lab.addresses import FORBIDDEN, INTRANET, RESOLVERS, WEB, remote
from controller.platforms import lab
from controller.platforms.lab import Internet, Lab
from controller.ports import PlatformError

pytestmark = pytest.mark.kernel

Address = IPv4Address | IPv6Address
ADDRESSES = ("192.0.2.2", "2001:db8:1::2")  # of the first NetVM
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runtime")


@pytest.fixture(scope="module")
def internet(runtime: Path) -> Iterator[Internet]:
    made = Internet(runtime)
    made.up()
    yield made
    made.down()


@pytest.fixture(scope="module")
def netvm(internet: Internet, runtime: Path) -> Iterator[Path]:
    net = runtime / "netvm"
    namespaces.create(net)
    internet.attach(net)
    yield net
    namespaces.remove(net)


def answers(netvm: Path, name: str, kind: str) -> tuple[Rcode, set[str]]:
    with namespaces.inside(netvm):
        reply = udp(make_query(name, kind), str(RESOLVERS[0]), timeout=20)
    return reply.rcode(), {str(each) for rrset in reply.answer for each in rrset}


def get(
    netvm: Path, server: Address, port: int, tls: ssl.SSLContext | None, path: str = "/"
) -> str:
    with namespaces.inside(netvm):
        made = socket.create_connection((str(server), port), timeout=20)
    with made, tls.wrap_socket(made, server_hostname=str(server)) if tls else made as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: here.example\r\n\r\n".encode())
        return s.makefile(newline="").read().partition("\r\n\r\n")[2]


@pytest.mark.parametrize("port", [80, 8080, 443])
@pytest.mark.parametrize("server", [*WEB, *FORBIDDEN, INTRANET], ids=str)
def test_every_server_says_whom_it_sees(
    internet: Internet, netvm: Path, server: Address, port: int
) -> None:
    tls = (
        ssl.create_default_context(cafile=internet.certificate) if port == 443 else None
    )
    own = ADDRESSES[0] if server.version == 4 else ADDRESSES[1]
    peer, seen, host = get(netvm, server, port, tls).splitlines()
    assert peer.startswith(f"peer {own} ")
    assert (seen, host) == (f"server {server} {port}", "host here.example")


@pytest.mark.parametrize(
    ("server", "own"), [*zip(WEB, ADDRESSES, strict=True)], ids=str
)
def test_one_page_is_nothing_but_the_address_of_who_asks(
    netvm: Path, server: Address, own: str
) -> None:
    assert get(netvm, server, 80, None, "/ip") == f"{own}\n"


@pytest.mark.parametrize("port", [7, 4433])
@pytest.mark.parametrize("server", [*WEB, *FORBIDDEN], ids=str)
def test_udp_is_answered_with_the_senders_address(
    netvm: Path, server: Address, port: int
) -> None:
    family = socket.AF_INET if server.version == 4 else socket.AF_INET6
    with namespaces.inside(netvm):
        asking = socket.socket(family, socket.SOCK_DGRAM)
    with asking:
        asking.settimeout(20)
        asking.connect((str(server), port))
        asking.send(b"payload")
        address, own = asking.getsockname()[:2]
        assert asking.recv(100) == f"{address} {own} payload".encode()


@pytest.mark.parametrize(
    ("name", "kind", "meaning"),
    [
        ("example.com", "A", WEB[:1]),
        ("www.example.com", "AAAA", WEB[1:]),
        ("intranet.example.com", "A", (INTRANET,)),
        ("v4only.example.com", "AAAA", ()),
        ("v6only.example.com", "A", ()),
        ("rotating.example.com", "A", (WEB[0], FORBIDDEN[0])),
    ],
)
def test_names_mean_what_the_table_says(
    netvm: Path, name: str, kind: str, meaning: tuple[Address, ...]
) -> None:
    assert answers(netvm, name, kind) == (NOERROR, {str(each) for each in meaning})


@pytest.mark.parametrize("name", ["no.example.com", "example.org"])
def test_other_names_do_not_exist(netvm: Path, name: str) -> None:
    assert answers(netvm, name, "A") == (NXDOMAIN, set())


@pytest.mark.parametrize("resolver", RESOLVERS, ids=str)
def test_the_resolver_has_both_families_and_tcp(netvm: Path, resolver: Address) -> None:
    with namespaces.inside(netvm):
        reply = tcp(make_query("example.com", "A"), str(resolver), timeout=20)
    assert reply.answer


def test_a_changed_name_is_seen_by_the_very_next_question(
    internet: Internet, netvm: Path
) -> None:
    for number in range(1, 40):
        meaning = ip_address(f"198.51.100.{number}")
        internet.set_names({"changing.example.com": [meaning], "www.example.com": []})
        assert answers(netvm, "changing.example.com", "A")[1] == {str(meaning)}
    assert answers(netvm, "www.example.com", "A")[0] == NXDOMAIN
    internet.set_names({})
    assert answers(netvm, "www.example.com", "A")[0] == NOERROR


def test_a_remote_host_has_addresses_of_its_own(
    internet: Internet, netvm: Path
) -> None:
    net = internet.hosts.add("somebody", (99,))
    assert get(net, WEB[0], 80, None, "/ip") == "203.0.113.99\n"
    assert get(net, WEB[1], 80, None, "/ip") == "2001:db8:113::99\n"
    for address in remote(99):
        with namespaces.inside(net):
            server = socket.create_server(
                (str(address), 0), family=FAMILY[address.version]
            )
        with server, namespaces.inside(netvm):
            socket.create_connection(server.getsockname()[:2], timeout=20).close()


def test_every_question_is_on_record(internet: Internet, netvm: Path) -> None:
    answers(netvm, "on-record.example.com", "A")
    assert (
        "query[A] on-record.example.com from 192.0.2.2"
        in internet.questions.read_text()
    )


def test_the_record_of_questions_does_not_grow_without_end(
    internet: Internet, netvm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks and asks would fill the memory of /run."""
    answers(netvm, "before.example.com", "A")
    internet.trim_log()
    assert "before.example.com" in internet.questions.read_text()

    monkeypatch.setattr(lab, "LOG_LIMIT", 100)
    internet.trim_log()
    answers(netvm, "after.example.com", "A")

    record = internet.questions.read_bytes()
    assert b"query[A] after.example.com" in record
    assert not any(word in record for word in (b"before.example.com", b"\0"))
    Internet(netvm.parent / "none").trim_log()


@pytest.mark.usefixtures("netvm")
def test_the_first_ipv6_packet_of_a_netvm_is_answered(
    internet: Internet, tmp_path: Path
) -> None:
    net = tmp_path / "second"
    namespaces.create(net)
    try:
        assert internet.attach(net) == "netvm3"
        assert "peer 2001:db8:1::3 " in get(net, WEB[1], 80, None)
    finally:
        namespaces.remove(net)


def test_nothing_is_left_whoever_takes_it_down(tmp_path: Path) -> None:
    net = tmp_path / "netvm"
    namespaces.create(net)
    try:
        first = Internet(tmp_path)
        first.up()
        first.attach(net)
        assert first.running
        Internet(tmp_path).down()
        with namespaces.inside(net):
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
        assert [path.name for path in tmp_path.iterdir()] == ["netvm"]
        assert str(tmp_path / "lab") not in Path("/proc/self/mounts").read_text()
        Internet(tmp_path).down()
    finally:
        namespaces.remove(net)


def test_up_replaces_what_a_crash_left(tmp_path: Path) -> None:
    internet = Internet(tmp_path)
    try:
        internet.up()
        namespaces.kill_all(internet.net)
        assert not internet.running
        internet.up()
        assert internet.running
    finally:
        internet.down()


def test_down_copes_with_a_file_that_never_became_a_namespace(tmp_path: Path) -> None:
    internet = Internet(tmp_path)
    internet.net.parent.mkdir()
    internet.net.touch()
    internet.down()
    assert not list(tmp_path.iterdir())


def test_a_missing_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "PROGRAMS", str(tmp_path))
    internet = Internet(tmp_path)
    with pytest.raises(PlatformError, match="openssl is not installed"):
        internet.up()
    internet.down()
    assert not list(tmp_path.iterdir())


def test_the_internet_lasts_from_the_first_netvm_to_the_last(tmp_path: Path) -> None:
    internet = Internet(tmp_path)
    uplink = Lab(internet, lambda name: tmp_path / name)
    names = ("one", "two")
    for name in names:
        namespaces.create(tmp_path / name)
    try:
        for name in (*names, *names):  # again changes nothing
            way = uplink.attach(name)
            assert (way.interface, way.resolvers[0]) == ("eth0", str(RESOLVERS[0]))
        assert internet.ports == {"netvm2", "netvm3"}
        uplink.detach("one")
        assert internet.running
        uplink.detach("two")
        assert not internet.running
    finally:
        internet.down()
        for name in names:
            namespaces.remove(tmp_path / name)
