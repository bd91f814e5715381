# SPDX-License-Identifier: GPL-2.0-or-later
"""The units: the rights of an agent or of a daemon, and directives that exist."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.berth import BERTHS, DAEMONS, hosts_of
from agent.hardening import VALUES
from controller.confine import rights_of_a_daemon, rights_of_an_agent
from controller.personality import BUILT_IN
from controller.platforms.daemons import ENVIRONMENT, STATE
from controller.supervise import WATCHDOG
from tests.docs.pages import ROOT, blocks, prose
from torvm.pluggable import Program

PACKAGING = ROOT / "packaging"
PAGE = ROOT / "docs/how-to/write-a-personality.md"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))
DAEMON = PACKAGING / "systemd/ravelin-daemon@.service"
OF_TOR = PACKAGING / "systemd/ravelin-daemon@tor.service.d/stop.conf"
AGENTS = [unit for unit in UNITS if unit != DAEMON]
WITH_DAEMONS = [unit for unit in AGENTS if "ravelin-daemon@" in unit.read_text()]
# Those we use of systemd.unit(5), systemd.service(5), systemd.exec(5) and
# systemd.kill(5), as of systemd 252. A name that is not here is mistyped or new.
KNOWN = {
    "Unit": """After Before Conflicts Description Documentation StartLimitIntervalSec
        Wants""",
    "Service": """AmbientCapabilities BindPaths BindReadOnlyPaths
        CapabilityBoundingSet DeviceAllow DevicePolicy DynamicUser Environment
        ExecReload ExecStart InaccessiblePaths LoadCredential
        LockPersonality NoNewPrivileges PrivateDevices PrivateTmp ProtectClock
        ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
        ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem
        ReadWritePaths Restart RestartSec RestrictAddressFamilies
        RestrictNamespaces RestrictRealtime RestrictSUIDSGID SetCredential
        StateDirectory StateDirectoryMode SupplementaryGroups
        SystemCallArchitectures SystemCallFilter TemporaryFileSystem TimeoutStartSec
        TimeoutStopSec Type UMask User WatchdogSec""",
    "Install": "WantedBy",
}
EACH = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
EACH_AGENT = pytest.mark.parametrize("unit", AGENTS, ids=lambda path: path.stem)


def directives(unit: Path) -> dict[tuple[str, str], str]:
    """Read a unit: section and name to value."""
    found: dict[tuple[str, str], str] = {}
    section = ""
    for line in unit.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            assert (section, name) not in found
            found[section, name] = value
    return found


def test_there_is_a_unit_for_each_agent_and_one_for_daemons() -> None:
    assert [unit.stem.removeprefix("ravelin-") for unit in UNITS] == [
        *("daemon@", "firewallvm", "netvm", "torvm", "vpn@"),
    ]


@EACH
def test_every_directive_is_one_that_systemd_has(unit: Path) -> None:
    unknown = [
        name
        for section, name in directives(unit)
        if name not in KNOWN.get(section, "").split()
    ]

    assert unknown == []


@EACH
def test_systemd_itself_agrees_where_it_is_installed(unit: Path) -> None:
    """Without it the test above is what there is."""
    verify = shutil.which("systemd-analyze")
    if verify is not None:
        words = [verify, "verify", "--man=no", str(unit)]
        said = subprocess.run(
            words, capture_output=True, text=True, timeout=60, check=False
        )

        assert (said.returncode, said.stderr) == (0, "")


@EACH_AGENT
def test_a_unit_has_the_rights_of_an_agent_and_no_more(unit: Path) -> None:
    found = directives(unit)
    options = dict(x.partition("=")[::2] for x in rights_of_an_agent(1000))
    given = found["Service", "CapabilityBoundingSet"].lower().split()

    assert {f"+{each.removeprefix('cap_')}" for each in given} | {"-all"} == set(
        options["--bounding-set"].split(",")
    )
    assert found["Service", "AmbientCapabilities"].lower().split() == given
    assert found["Service", "NoNewPrivileges"] == "yes"


@EACH_AGENT
def test_an_agent_is_a_user_of_its_own(unit: Path) -> None:
    """Where daemons are to know its group the user is one that is always there."""
    found = directives(unit)
    who = found.get(("Service", "User"), ""), found.get(("Service", "DynamicUser"), "")

    assert who == (("ravelin-agent", "") if unit in WITH_DAEMONS else ("", "yes"))


def test_a_daemon_has_no_rights_and_knows_the_agents_group() -> None:
    found = directives(DAEMON)
    options = dict(x.partition("=")[::2] for x in rights_of_a_daemon(1000, 1001))

    assert options["--bounding-set"] == "-all"
    assert found["Service", "CapabilityBoundingSet"] == ""
    assert found["Service", "AmbientCapabilities"] == ""
    assert found["Service", "NoNewPrivileges"] == "yes"
    assert found["Service", "User"] == "ravelin-%i"
    assert options["--groups"] == "1001"
    assert found["Service", "SupplementaryGroups"] == "ravelin-agent"


def test_a_daemon_may_add_a_filter_of_system_calls() -> None:
    """tor's own sandbox is one, and without this systemd ends tor for it."""
    allowed = directives(DAEMON)["Service", "SystemCallFilter"].split()

    assert allowed == ["@system-service", "seccomp"]


def test_tor_is_ended_by_a_signal_that_it_listens_to() -> None:
    """Its sandbox blocks SIGTERM by chance; tests/guest shows that this one ends it."""
    assert directives(OF_TOR) == {("Service", "KillSignal"): "SIGINT"}
    assert directives(DAEMON)["Service", "TimeoutStopSec"] == "10"


def test_a_daemon_has_its_state_where_it_is_on_one_machine() -> None:
    found = directives(DAEMON)
    bound = found["Service", "BindPaths"].split()[0].partition(":")

    assert bound[0] == f"/var/lib/{found['Service', 'StateDirectory']}"
    assert bound[2] == ENVIRONMENT["STATE_DIRECTORY"]


def test_a_daemon_sees_its_own_place_alone() -> None:
    """Its group, the agent's, could read tor's cookie; tests/guest looks itself.

    And anybody may write to QubesDB, from where the rules come.
    """
    found = directives(DAEMON)
    state, own = found["Service", "BindPaths"].split()

    assert found["Service", "TemporaryFileSystem"] == "/run:ro"
    assert own == f"{DAEMONS}/%i"
    assert state.partition(":")[2] == str(STATE)
    assert found["Service", "BindReadOnlyPaths"].split()[0] == str(BERTHS)


def test_the_page_for_personalities_says_what_a_daemon_sees() -> None:
    """And adds to it by a drop-in with a list that the unit has, so it does add."""
    text, found = prose(PAGE), directives(DAEMON)
    lists = [found["Service", name] for name in ("BindPaths", "BindReadOnlyPaths")]
    inside = [Path(x.rpartition(":")[2]) for each in lists for x in each.split()]
    places = [p.parent if p.name == "%i" else p for p in inside if "run" in p.parts]
    (block,) = (each for each in blocks(PAGE) if each.info == "ini")
    name, _, path = block.body.removeprefix("[Service]\n").partition("=")

    assert [place for place in places if f"`{place}`" not in text] == []
    assert f"`{found['Service', 'DeviceAllow'].split()[0]}`" in text
    assert ("Service", name) in found
    assert path.startswith("/run/")


def lines(path: Path) -> list[list[str]]:
    """Return the words of each line of a sysusers.d or tmpfiles.d file."""
    text = path.read_text().splitlines()
    return [line.split() for line in text if not line.startswith("#")]


def test_every_daemon_has_its_user_and_its_place() -> None:
    names = {name for each in BUILT_IN for name in each.daemons}
    users = {x[1] for x in lines(PACKAGING / "sysusers.d/ravelin.conf")}
    places = {x[1]: x[2:] for x in lines(PACKAGING / "tmpfiles.d/ravelin.conf")}

    assert users == {"ravelin-agent", *(f"ravelin-{name}" for name in names)}
    for name in names:
        place = places.pop(str(DAEMONS / name))
        assert place == ["2770", f"ravelin-{name}", "ravelin-agent"]
    assert places.pop(str(BERTHS)) == ["0750", "ravelin-agent", "ravelin-agent"]
    for program in Program:
        written = places.pop(str(hosts_of(program.value)))
        assert written == ["0644", "ravelin-agent", "ravelin-agent"]
    assert set(places) == {"/run/ravelin", str(DAEMONS), str(STATE)}


def test_a_daemon_sees_the_names_that_its_agent_writes_and_no_resolver() -> None:
    found = directives(DAEMON)

    bound = found["Service", "BindReadOnlyPaths"].split()
    assert bound[1:] == [f"-{hosts_of('%i')}:/etc/hosts"]
    assert found["Service", "InaccessiblePaths"] == "-/etc/resolv.conf"


def test_systemd_makes_them_where_it_is_installed(tmp_path: Path) -> None:
    """Without it the test above is what there is."""
    tools = [shutil.which(x) for x in ("systemd-sysusers", "systemd-tmpfiles")]
    if None in tools:
        return
    (tmp_path / "etc").mkdir()
    for tool, kind in zip(tools, ("sysusers.d", "tmpfiles.d"), strict=True):
        words = [
            str(tool),
            f"--root={tmp_path}",
            str(PACKAGING / kind / "ravelin.conf"),
        ]
        words += ["--create"] if kind == "tmpfiles.d" else []
        subprocess.run(words, check=True, capture_output=True, timeout=60)
    users = dict(
        line.split(":")[0:3:2]
        for line in (tmp_path / "etc/passwd").read_text().splitlines()
    )
    made = (tmp_path / "run/ravelin/daemon/tor").stat()

    assert f"{made.st_mode & 0o7777:o}" == "2770"
    assert str(made.st_uid) == users["ravelin-tor"]
    assert str(made.st_gid) != users["ravelin-tor"]


def test_the_profile_of_a_vpn_is_a_credential_that_may_be_missing() -> None:
    """systemd.exec(5): what SetCredential= has stands in for a file not there."""
    found = directives(PACKAGING / "systemd/ravelin-vpn@.service")

    assert found["Service", "LoadCredential"] == "config:/etc/ravelin/%i.conf"
    assert found["Service", "SetCredential"] == "config:#"
    assert found["Service", "Environment"] == "RAVELIN_PERSONALITY=%i"
    assert "ravelin-daemon@%i.service" in found["Unit", "Wants"].split()


@EACH_AGENT
def test_the_kernel_parameters_stay_writable(unit: Path) -> None:
    assert VALUES
    assert ("Service", "ProtectKernelTunables") not in directives(unit)


@EACH_AGENT
def test_the_guard_comes_before_the_network(unit: Path) -> None:
    found = directives(unit)

    assert found["Unit", "Before"] == "network-pre.target"
    assert found["Unit", "Wants"].split()[0] == "network-pre.target"


@EACH_AGENT
def test_an_agent_is_watched_as_the_controller_watches_it(unit: Path) -> None:
    found = directives(unit)

    assert found["Service", "Type"] == "notify"
    assert float(found["Service", "WatchdogSec"]) == WATCHDOG
    assert found["Service", "ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["Service", "Restart"] == "always"
