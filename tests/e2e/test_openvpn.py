# SPDX-License-Identifier: GPL-2.0-or-later
"""Two AppVMs share one OpenVPN tunnel, and nothing of theirs goes beside it."""

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
from tests.e2e.openvpn_room import IN_TUNNEL, PORT, Room, room
from tests.e2e.vpn_room import PATIENCE, PROVIDER, SECRET, SECRET_NAME, kill

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def _running() -> Iterator[Room]:
    with room() as made:
        made.give_good()
        made.machine.up()
        made.comes_up()
        yield made
        made.machine.does("down")


@pytest.fixture
def vpn(_running: Room) -> Iterator[Room]:
    """The room, with the tunnel up."""
    until(_running.flows, PATIENCE)
    yield _running
    _running.machine.hang_up()


def test_both_appvms_leave_by_the_one_tunnel(vpn: Room) -> None:
    """The web server takes both for the address that the provider gave out."""
    assert vpn.seen_from("work") == IN_TUNNEL
    trusted = vpn.machine.curl("personal", f"https://{WEB4}/")

    assert trusted.out.split()[1] == IN_TUNNEL
    assert len(vpn.daemons()) == 1


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

    rule = ("accept", "proto=tcp", f"dstports={ECHO}")
    vpn.machine.does("firewall", "work", "del", *rule)

    assert vpn.machine.is_cut(stream, "sys-vpn")
    vpn.machine.does("firewall", "work", "add", *rule)


def test_the_daemon_has_no_right_at_all(vpn: Room) -> None:
    """No capability, a user of its own, and no key in its words."""
    process = Path(f"/proc/{vpn.daemon()}")
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines()
    )

    for kind in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"):
        assert int(status[kind], 16) == 0, kind
    assert int(status["Uid"].split()[0]) >= 61184
    key = vpn.pki.read("client.key").splitlines()[1].encode()
    words = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    assert key not in words


def test_status_names_the_server_and_counts(vpn: Room) -> None:
    vpn.says(None)

    report = vpn.vpn()["report"]
    assert isinstance(report, dict)
    assert report["server"] == f"{PROVIDER} port {PORT}/udp"
    assert report["cipher"] == "AES-256-GCM"


def test_a_killed_agent_comes_again_and_so_does_the_tunnel(vpn: Room) -> None:
    """Its daemon ends with it, so there are never two."""
    agent, daemon = vpn.agent(), vpn.daemon()

    kill(agent)

    until(lambda: vpn.agent() != agent, PATIENCE)
    until(vpn.flows, PATIENCE)
    assert daemon not in vpn.daemons()
    assert len(vpn.daemons()) == 1


def test_an_impostor_of_the_device_is_removed_and_the_tunnel_works(vpn: Room) -> None:
    """R7: the agent is held still, or it may be there before the impostor."""
    script = "link delete ovpn0\nlink add ovpn0 type veth peer name impostor\n"
    script += "link set ovpn0 up\nlink set impostor up\n"
    batch = vpn.machine.policy.parent / "impostor"
    batch.write_text(script)

    with stilled(vpn.agent()):
        vpn.machine.tool("sys-vpn", "ip", "-batch", str(batch))

    until(vpn.flows, PATIENCE)
    assert "impostor" not in vpn.machine.tool("sys-vpn", "ip", "link")
