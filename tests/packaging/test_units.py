# SPDX-License-Identifier: GPL-2.0-or-later
"""The units of the agents: the rights of an agent, and directives that exist."""

import shutil
import subprocess
from pathlib import Path

import pytest

from agent.hardening import VALUES
from controller.confine import rights_of_an_agent
from controller.supervise import WATCHDOG

UNITS = sorted((Path(__file__).parents[2] / "packaging/systemd").glob("*.service"))
# Those we use of systemd.unit(5), systemd.service(5), systemd.exec(5) and
# systemd.kill(5), as of systemd 252. A name that is not here is mistyped or new.
KNOWN = {
    "Unit": """After Before Conflicts Description Documentation StartLimitIntervalSec
        Wants""",
    "Service": """AmbientCapabilities CapabilityBoundingSet DynamicUser ExecReload
        ExecStart LockPersonality NoNewPrivileges PrivateDevices PrivateTmp
        ProtectClock ProtectControlGroups ProtectHome ProtectHostname
        ProtectKernelLogs ProtectKernelModules ProtectSystem Restart RestartSec
        RestrictAddressFamilies RestrictNamespaces RestrictRealtime
        RestrictSUIDSGID SystemCallArchitectures TimeoutStartSec Type
        WatchdogSec""",
    "Install": "WantedBy",
}
EACH = pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)


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


def test_there_is_a_unit_for_each_agent() -> None:
    assert [unit.stem for unit in UNITS] == ["ravelin-firewallvm", "ravelin-netvm"]


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


@EACH
def test_a_unit_has_the_rights_of_an_agent_and_no_more(unit: Path) -> None:
    found = directives(unit)
    rights = rights_of_an_agent(1000)

    caps = found["Service", "CapabilityBoundingSet"]
    words = caps.lower().replace("cap_", "+").split()
    assert f"--bounding-set={','.join(['-all', *sorted(words)])}" in {
        ",".join([x.partition(",")[0], *sorted(x.split(",")[1:])]) for x in rights
    }
    assert found["Service", "AmbientCapabilities"] == caps
    assert found["Service", "NoNewPrivileges"] == "yes"
    assert found["Service", "DynamicUser"] == "yes"


@EACH
def test_the_kernel_parameters_stay_writable(unit: Path) -> None:
    assert VALUES
    assert ("Service", "ProtectKernelTunables") not in directives(unit)


@EACH
def test_the_guard_comes_before_the_network(unit: Path) -> None:
    found = directives(unit)

    assert found["Unit", "Before"] == found["Unit", "Wants"] == "network-pre.target"


@EACH
def test_an_agent_is_watched_as_the_controller_watches_it(unit: Path) -> None:
    found = directives(unit)

    assert found["Service", "Type"] == "notify"
    assert float(found["Service", "WatchdogSec"]) == WATCHDOG
    assert found["Service", "ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert found["Service", "Restart"] == "always"
