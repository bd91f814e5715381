# SPDX-License-Identifier: GPL-2.0-or-later
"""tor through a proxy: nothing leaves but to the proxy, and status blames it.

microsocks speaks SOCKS 5 and tinyproxy HTTP, both as Debian packages them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.lab.addresses import remote
from tests.e2e.machine import until
from tests.lab.sniffer import TCP, UDP
from tests.tor.chain import CIRCUITS, TorChain
from tests.tor.outside import listens, running
from tests.tor.test_tor_daily_use import row

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.filterwarnings("ignore:setDaemon:DeprecationWarning"),
]

OBFS4 = "/usr/bin/obfs4proxy"
PROXY, PORT = str(remote(63)[0]), 1080
USER, PASSWORD = "me", 'p"a\\ss w#rd:1%'
TINYPROXY = f"""
Port {PORT}
Listen {PROXY}
Timeout 600
LogLevel Critical
MaxClients 50
DisableViaHeader Yes
"""


@pytest.fixture(scope="module")
def outside(_tor_chain: TorChain) -> tuple[TorChain, Path]:
    """The chain, and the namespace of a host for proxies."""
    net = _tor_chain.internet.hosts.add("proxies", (63,))
    return _tor_chain, net


@contextmanager
def proxy(tor: TorChain, net: Path, kind: str, password: str) -> Iterator[str]:
    """Run a proxy that wants a password, if there is one; give its address."""
    argv: tuple[str, ...]
    if kind == "socks5":
        login = ("-u", USER, "-P", password) if password else ()
        argv = ("/usr/bin/microsocks", "-i", PROXY, "-p", str(PORT), *login)
    else:
        file = tor.runtime / "tinyproxy.conf"
        login_line = f"BasicAuth {USER} {password}\n" if password else ""
        file.write_text(TINYPROXY + login_line)
        argv = ("/usr/bin/tinyproxy", "-d", "-c", str(file))
    with running(net, *argv):
        until(lambda: listens(net, PROXY, PORT))
        yield f'proxy = "{kind}://{PROXY}:{PORT}"'


def judged(tor: TorChain, *lines: str) -> set[tuple[str, int | None]]:
    """Reach a site by a tor with these lines; return where its TCP went."""
    with tor.uplink() as uplink:
        tor.become(*lines)
        assert tor.through("anon") in tor.exits
    there = [n for n, p in enumerate(uplink.packets) if str(p.destination) == PROXY]
    after = uplink.packets[there[0] :]
    assert [p for p in after if p.protocol == UDP] == []
    return {(str(p.destination), p.port) for p in after if p.protocol == TCP}


@pytest.mark.parametrize(
    ("kind", "password"),
    [("socks5", PASSWORD), ("http", "secret")],
)
def test_a_site_is_reached_by_a_proxy_that_wants_a_password(
    outside: tuple[TorChain, Path], kind: str, password: str
) -> None:
    tor, net = outside
    tor.secret("login", f"{USER}\n{password}\n")
    with proxy(tor, net, kind, password) as line:
        assert judged(tor, line, 'auth = "login"') == {(PROXY, PORT)}
    assert password not in logs(tor)


def logs(tor: TorChain) -> str:
    """Return all that the programs in sys-tor have written down."""
    return "".join(p.read_text() for p in (tor.runtime / "log").glob("sys-tor*"))


@pytest.mark.parametrize("kind", ["socks5", "http"])
def test_a_wrong_password_is_what_status_says(
    outside: tuple[TorChain, Path], kind: str
) -> None:
    tor, net = outside
    tor.secret("login", f"{USER}\nwrong\n")
    with proxy(tor, net, kind, "right") as line:
        tor.become(line, 'auth = "login"', state="connecting")
        said = "the proxy refuses the user and the password"
        assert until(lambda: row(tor)["problem"] == said, within=CIRCUITS)
        assert tor.fetch("anon", patience=2.0) == ""


def test_obfs4_goes_through_the_proxy_and_nowhere_else(
    outside: tuple[TorChain, Path],
) -> None:
    tor, net = outside
    with proxy(tor, net, "socks5", "") as line:
        lines = (line, 'bridges = "tor.bridges"')
        assert judged(tor, *lines) == {(PROXY, PORT)}
        # The next agent cannot know its ports, so it ends with this one.
        before = tor.process(OBFS4)
        tor.end("torvm")
        assert until(lambda: tor.running(OBFS4) != before)
        assert until(
            lambda: row(tor)["state"] == "up",
            CIRCUITS,
            lambda: (row(tor), logs(tor)[-9000:]),
        )
        assert tor.through("anon") in tor.exits
