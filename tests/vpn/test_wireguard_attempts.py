# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver with a real wireguard-go at a real server that it does not reach."""

import select
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path

import pytest

from rules.facts import Facts, Gateway, Uplink
from tests.lab.sniffer import Sniffer
from tests.lab.wireguard import Keys, Server, base64
from tests.vpn.wireguard_room import CLIENT, HERE, PATIENCE, PROVIDER, launcher, use
from vpn import endpoints
from vpn.states import VPN, Progress, Tunnel, observe
from vpn.wireguard_driver import WireguardDriver
from vpn.wireguard_go import WireguardGo
from vpn.wireguard_profile import parse

pytestmark = pytest.mark.kernel

UPLINK = Uplink("eth0", 2, frozenset({ip_address(HERE)}), gateways=(PROVIDER,))
FACTS = Facts(uplinks=(UPLINK,), configured=True, kind=Gateway.TUNNEL)
SILENT = "no handshake: not reachable, or a key is wrong on one side"

Drive = Callable[[str, Callable[[WireguardDriver], object]], WireguardDriver]


@pytest.fixture
def drive(
    device: WireguardGo, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Drive]:
    """Keep a tunnel of a profile, as the loop does, until something is so.

    A server has half a second at first, and then ever more, as always.
    """
    monkeypatch.setattr(endpoints, "FIRST_PATIENCE", 0.5)

    def until(
        profile: str, found: Callable[[WireguardDriver], object]
    ) -> WireguardDriver:
        driver = WireguardDriver(parse(profile.encode(), "config"), device)
        use("wg0")
        state, end = Tunnel.DOWN, time.monotonic() + PATIENCE
        while not found(driver):
            assert time.monotonic() < end, driver.trouble()
            facts = driver.facts(FACTS)
            state = VPN.step(state, observe(facts, driver.progress))
            driver.follow(state.value, facts)
            patience = min(driver.next_deadline() - time.monotonic(), 0.05)
            select.select([driver], [], [], max(0.0, patience))
            driver.handle()
        return driver

    with launcher(directory):
        yield until


def is_proven(driver: WireguardDriver) -> bool:
    return driver.progress is Progress.PROVEN


def good(provider: Server, client: Keys, **wrong: str) -> str:
    """The profile of a client that the server knows, with something ``wrong``."""
    provider.accept(client.public, f"{CLIENT}/32")
    return provider.profile(client, str(PROVIDER), DNS="", **wrong)


def secret_of(provider: Server, client: Keys, secret: Keys) -> None:
    """Have the server want a preshared key of that client."""
    peer = f"public_key={client.public.hex()}"
    shared = f"preshared_key={secret.private.hex()}"
    provider.tell("set=1", peer, "update_only=true", shared)


def test_with_the_keys_that_fit_it_comes_up(provider: Server, drive: Drive) -> None:
    """The positive control of all below, with a preshared key too."""
    client, secret = Keys(), Keys()
    profile = good(provider, client)
    secret_of(provider, client, secret)
    profile += f"PresharedKey = {base64(secret.private)}\n"

    assert drive(profile, is_proven).trouble() == ""


def wrong_server(provider: Server) -> str:
    return good(provider, Keys(), PublicKey=base64(Keys().public))


def not_known_there(provider: Server) -> str:
    return good(provider, Keys(), PrivateKey=base64(Keys().private))


def other_secret(provider: Server) -> str:
    client = Keys()
    profile = good(provider, client)
    secret_of(provider, client, Keys())
    return profile + f"PresharedKey = {base64(Keys().private)}\n"


def secret_missing_here(provider: Server) -> str:
    client = Keys()
    profile = good(provider, client)
    secret_of(provider, client, Keys())
    return profile


def secret_missing_there(provider: Server) -> str:
    return good(provider, Keys()) + f"PresharedKey = {base64(Keys().private)}\n"


WRONG = (
    wrong_server,
    not_known_there,
    other_secret,
    secret_missing_here,
    secret_missing_there,
)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_any_wrong_key_is_silence_and_silence_is_said_to_be_one(
    provider: Server, drive: Drive, wrong: Callable[[Server], str]
) -> None:
    """WireGuard answers nobody with a wrong key, so that is all there is to tell."""
    told = f"{PROVIDER}:{provider.port}: {SILENT}"
    with Sniffer(provider.net, "wan") as seen:

        def is_said(driver: WireguardDriver) -> bool:
            # On a busy machine not even the daemon speaks in the first half second.
            return driver.trouble() == told and handshakes(seen) > 0

        driver = drive(wrong(provider), is_said)

    assert not is_proven(driver)


def handshakes(seen: Sniffer) -> int:
    """Return how many were begun: 148 bytes of UDP (whitepaper, 5.4.2)."""
    return len([packet for packet in seen.packets if len(packet.raw) == 42 + 148])


def test_a_server_that_is_silent_is_not_hurried_after(
    provider: Server, drive: Drive
) -> None:
    """Attempts are their patience and a pause apart, and both double."""
    begun: list[float] = []

    with Sniffer(provider.net, "wan") as seen:

        def third(driver: WireguardDriver) -> bool:
            health = driver._attempt.health if driver._attempt else None
            if health is not None and health.begun not in begun:
                begun.append(health.begun)
            return len(begun) >= 3 and handshakes(seen) >= 2

        drive(wrong_server(provider), third)

    first, second, *_ = (later - earlier for earlier, later in pairwise(begun))
    assert first >= 0.5 + 1.0
    assert second >= 1.0 + 2.0
    # On a busy machine the daemon comes to ask again, as it does after 5 seconds.
    assert handshakes(seen) <= 2 * len(begun)
