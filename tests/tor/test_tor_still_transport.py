# SPDX-License-Identifier: GPL-2.0-or-later
"""A transport that stands still: its agent asks it, and ends it; no client may ask."""

import os
import re
import signal
import subprocess

import pytest

from controller import namespaces
from tests.tor.chain import TorChain
from tests.tor.test_tor_proxies import OBFS4
from tests.tor.test_tor_transports import user
from torvm.answering import ANSWER, HOST, QUESTION

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

SILENT = "the bridges' transport runs, but does not answer"
SHORT = 2.0  # seconds, for what does not come
ASK = """
import socket, sys
address, port, patience, question = sys.argv[1:]
with socket.create_connection((address, int(port)), float(patience)) as made:
    made.sendall(bytes.fromhex(question))
    print(made.recv(100).hex())
"""


@pytest.fixture
def bridged(changed: TorChain) -> TorChain:
    """The chain, whose tor goes by obfs4."""
    changed.become('bridges = "tor.bridges"')
    assert changed.through("anon") in changed.exits
    return changed


def heard(tor: TorChain, domain: str, uid: int, address: str, port: int) -> str:
    """Ask as the agent does, from inside a domain, as a user; return the answer."""
    who = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
    words = (address, str(port), str(SHORT), QUESTION.hex())
    with namespaces.inside(tor.net(domain)):
        done = subprocess.run(
            [*who, "/usr/bin/python3", "-I", "-c", ASK, *words],
            check=False,
            capture_output=True,
            text=True,
        )
    return done.stdout.strip()


def test_the_agent_reaches_a_transport_and_a_client_does_not(bridged: TorChain) -> None:
    """The control is the question of the agent's user."""
    listening = bridged.run("sys-tor", "ss", "-Htlnp")
    pid = bridged.process(OBFS4)
    found = re.search(rf"{HOST}:([0-9]+) .*pid={pid},", listening)
    assert found, listening
    port = int(found[1])

    agent = user(bridged, "torvm")
    assert heard(bridged, "sys-tor", agent, HOST, port) == ANSWER.hex()
    for address in (HOST, *map(str, bridged.ip("sys-tor"))):
        assert heard(bridged, "anon", 0, address, port) == ""


def test_one_that_stands_still_is_ended_and_clients_flow_again(
    bridged: TorChain,
) -> None:
    """The control: as long as it stands still nothing comes through."""
    still = bridged.process(OBFS4)
    os.kill(still, signal.SIGSTOP)
    assert bridged.fetch("anon", patience=SHORT) == ""
    bridged.blames(SILENT)

    assert bridged.through("anon") in bridged.exits
    assert bridged.process(OBFS4) != still
    bridged.blames("")
