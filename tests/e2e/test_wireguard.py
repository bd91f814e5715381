# SPDX-License-Identifier: GPL-2.0-or-later
"""Two AppVMs share one WireGuard tunnel, and nothing of theirs goes beside it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import (
    ECHO,
    HTTPS,
    RESOLVER4,
    VIRTUAL4,
    WEB4,
    stilled,
    until,
)
from tests.e2e.vpn_room import PATIENCE, PROVIDER, SECRET, SECRET_NAME, impostor, kill
from tests.e2e.wireguard_room import (
    IN_TUNNEL,
    Room,
    connected,
    leaked,
    tunnelled,
)
from tests.lab.sniffer import EVERY, Sniffer
from tests.lab.wireguard import base64

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with connected() as made:
        yield made


@pytest.fixture
def vpn(_running: Room) -> Iterator[Room]:
    """The room, with the tunnel up."""
    _running.comes_up()
    yield _running
    _running.machine.hang_up()


def test_both_appvms_leave_by_the_one_tunnel(vpn: Room) -> None:
    """The web server takes both for the address that the provider gave out."""
    assert vpn.seen_from("work") == IN_TUNNEL
    trusted = vpn.machine.curl("personal", f"https://{WEB4}/")

    assert trusted.out.split()[1] == IN_TUNNEL
    assert list(vpn.provider.peer().values()).count(f"{IN_TUNNEL}/32") == 1


def test_names_are_asked_through_the_tunnel_alone(vpn: Room) -> None:
    """Only the provider's resolver knows that name, and only it was asked."""
    for domain in ("work", "personal"):
        assert vpn.machine.answers(domain, SECRET_NAME) == {SECRET}

    assert SECRET_NAME not in vpn.machine.internet.questions.read_text()


def test_a_foreign_resolver_is_not_reached(vpn: Room) -> None:
    """D1: a question to the network's own resolver is refused, and so not answered."""
    assert vpn.machine.tries("work", "dns", RESOLVER4, 53) == "refused"
    assert vpn.machine.tries("work", "dns", VIRTUAL4, 53) == "reached"  # the control


def test_each_appvm_has_its_own_rules_at_this_hop(vpn: Room) -> None:
    assert not vpn.machine.reaches("personal", WEB4)
    assert vpn.machine.reaches("personal", WEB4, HTTPS)  # the positive control
    assert vpn.machine.reaches("work", WEB4)
    assert not vpn.machine.reaches("work", WEB4, HTTPS)


def test_a_rule_that_is_taken_back_cuts_its_flow(vpn: Room) -> None:
    stream = vpn.machine.stream("work")
    assert stream.lives()

    vpn.machine.does(
        "firewall", "work", "del", "accept", "proto=tcp", f"dstports={ECHO}"
    )

    assert vpn.machine.is_cut(stream, "sys-vpn")
    vpn.machine.does(
        "firewall", "work", "add", "accept", "proto=tcp", f"dstports={ECHO}"
    )


def test_a_flow_does_not_go_on_in_clear_behind_another_gateway(vpn: Room) -> None:
    """A live switch cuts it; what the client sends of it again belongs to no flow."""
    stream = vpn.machine.stream("work")
    assert stream.lives()
    try:
        with Sniffer(vpn.machine.internet.net, EVERY) as seen:
            vpn.machine.does("prefs", "work", "netvm", "sys-net")
            assert vpn.machine.is_cut(stream, "sys-net")
            # The positive control: another flow of the same client is seen there.
            assert vpn.seen_from("work").startswith("192.0.2.")
    finally:
        vpn.machine.does("prefs", "work", "netvm", "sys-vpn")

    clear = [p for p in seen.packets if p.interface.startswith("netvm")]
    assert [p for p in clear if p.port == 80]
    assert [p for p in clear if p.port == ECHO] == []
    until(vpn.flows, PATIENCE)


def test_the_daemon_has_no_right_at_all(vpn: Room) -> None:
    """No capability, a user of its own, and none of its keys on disk or in words."""
    process = Path(f"/proc/{vpn.daemon()}")
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines()
    )

    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
        assert int(status[kind], 16) == 0, kind
    assert int(status["Uid"].split()[0]) >= 61184
    secret = base64(vpn.client.private).encode()
    words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert secret not in words
    assert vpn.client.private.hex().encode() not in words


def test_status_names_the_server_and_counts(vpn: Room) -> None:
    vpn.says(None)

    report = vpn.vpn()["report"]
    assert isinstance(report, dict)
    assert report["server"] == f"{PROVIDER}:{vpn.provider.port}"
    assert report["by"] == "wireguard-go"


def test_a_killed_daemon_comes_again_by_itself(vpn: Room) -> None:
    before = vpn.daemon()

    kill(before)

    until(vpn.flows, PATIENCE)
    assert vpn.daemon() != before


def test_a_killed_agent_comes_again_and_so_does_the_tunnel(vpn: Room) -> None:
    before = vpn.agent()

    kill(before)

    until(lambda: vpn.agent() != before, PATIENCE)
    until(vpn.flows, PATIENCE)


def test_a_deleted_device_is_made_again(vpn: Room) -> None:
    vpn.machine.tool("sys-vpn", "ip", "link", "delete", "wg0")

    until(vpn.flows, PATIENCE)


def test_an_impostor_of_the_device_is_removed_and_the_tunnel_works(vpn: Room) -> None:
    """R7: the agent is held still, or it would be there before the impostor."""
    with stilled(vpn.agent()):
        impostor(vpn, "wg0", IN_TUNNEL)
        assert not vpn.flows()

    until(vpn.flows, PATIENCE)
    assert "eve" not in vpn.machine.tool("sys-vpn", "ip", "link")


def test_an_uplink_that_flaps_is_used_again(vpn: Room) -> None:
    vpn.machine.tool("sys-vpn", "ip", "link", "set", "eth0", "down")
    vpn.machine.tool("sys-vpn", "ip", "link", "set", "eth0", "up")

    until(vpn.flows, PATIENCE)


def test_a_server_that_moves_is_not_followed(vpn: Room) -> None:
    """Whoever holds its key could lead the tunnel elsewhere: the address is pinned."""
    port = vpn.provider.port
    public = f"public_key={vpn.client.public.hex()}"
    speak = ("set=1", public, "update_only=true", "persistent_keepalive_interval=1")
    try:
        vpn.provider.move(port + 1)
        vpn.provider.tell(*speak)
        with vpn.sniffer() as seen:
            until(lambda: not vpn.flows() and not vpn.is_up(), PATIENCE * 3)
    finally:
        vpn.provider.move(port)

    ports = {p.port for p in tunnelled(seen)}
    assert ports == {port}
    assert leaked(seen) == []
    until(vpn.flows, PATIENCE * 3)
