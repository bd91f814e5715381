# SPDX-License-Identifier: GPL-2.0-or-later
"""How each tor of the embedded internet is configured; tor(1) has every option."""

from collections.abc import Mapping
from pathlib import Path

from controller.lab.addresses import WEB, remote

OR_PORT, DIR_PORT, OBFS4_PORT = 5000, 7000, 4443
INTERVAL = 10  # seconds from one consensus to the next, the least that tor takes
VOTING = 2  # seconds to hand votes on, and as many again for signatures

# Vanguards want more relays than there are.
CLIENT = """\
TestingTorNetwork 1
VanguardsLiteEnabled 0
"""
ALL = """\
DataDirectory {data}
PidFile {data}/pid
ControlSocket {data}/control
CookieAuthentication 0
Log notice file {data}/log
RunAsDaemon 1
GeoIPFile /dev/null
GeoIPv6File /dev/null
NumCPUs 1
SafeLogging 0
ShutdownWaitLength 0
"""
# Who is not assumed reachable publishes nothing before the first consensus.
RELAY = f"""\
Nickname {{name}}
ContactInfo none
Address {{four}}
AssumeReachable 1
ORPort {{four}}:{OR_PORT}
OutboundBindAddress {{four}}
OutboundBindAddress [{{six}}]
SocksPort 0
"""
AUTHORITY = f"""\
AuthoritativeDirectory 1
V3AuthoritativeDirectory 1
DirPort {{four}}:{DIR_PORT}
TestingV3AuthInitialVotingInterval {INTERVAL}
TestingV3AuthInitialVoteDelay {VOTING}
TestingV3AuthInitialDistDelay {VOTING}
TestingV3AuthVotingStartOffset {{offset}}
V3AuthVotingInterval {INTERVAL}
V3AuthVoteDelay {VOTING}
V3AuthDistDelay {VOTING}
TestingDirAuthVoteGuard *
TestingDirAuthVoteHSDir *
ExitRelay 1
IPv6Exit 1
ExitPolicy accept *:*
ServerDNSResolvConfFile {{data}}/resolv.conf
V3BandwidthsFile {{bandwidths}}
"""
BRIDGE = f"""\
BridgeRelay 1
ExitRelay 0
PublishServerDescriptor 0
BridgeDistribution none
ExtORPort auto
ServerTransportPlugin obfs4 exec {{obfs4}}
ServerTransportListenAddr obfs4 {{four}}:{OBFS4_PORT}
"""
ONION = f"""\
SocksPort unix:{{data}}/socks
OutboundBindAddress {{four}}
HiddenServiceDir {{data}}/service
HiddenServicePort 80 {WEB[0]}:80
"""

EXITS: Mapping[str, int] = {"exit1": 11, "exit2": 12, "exit3": 13}
RELAYS: Mapping[str, int] = {"relay1": 14, "relay2": 15}
LISTED = {**EXITS, **RELAYS}
NUMBERS = {**LISTED, "bridge": 20, "onion": 21}
LINES = {
    **dict.fromkeys(EXITS, RELAY + AUTHORITY),
    **dict.fromkeys(RELAYS, RELAY),
    "bridge": RELAY + BRIDGE,
    "onion": ONION,
}


def lines(name: str, *, data: Path, bandwidths: Path, obfs4: str, first: float) -> str:
    """Return the torrc of a tor, after what all of them have in common.

    ``data`` is its folder, ``bandwidths`` the file in which authorities read what
    the relays can do, ``obfs4`` the program of the bridge.  At ``first`` (seconds
    since the Unix epoch) authorities vote for the first time.
    """
    four, six = remote(NUMBERS[name])
    return (ALL + LINES[name]).format(
        name=name,
        data=data,
        four=four,
        six=six,
        bandwidths=bandwidths,
        obfs4=obfs4,
        offset=round(first + 2 * VOTING) % INTERVAL,
    )
