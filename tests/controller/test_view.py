# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's nsswitch.conf loses what asks outside; sessions lose their D-Bus."""

from pathlib import Path

import pytest

from controller.view import nsswitch, session

DEBIAN = "passwd:         files systemd\nhosts:          files dns\n"


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        pytest.param("", "hosts: files dns\n", id="no file"),
        pytest.param(DEBIAN, "hosts: files dns\npasswd: files systemd\n", id="Debian"),
        pytest.param(
            "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns # x\n",
            "hosts: files dns\n",
            id="systemd-resolved",
        ),
        pytest.param(
            "hosts: files mdns4_minimal [NOTFOUND=return] dns mdns4\n",
            "hosts: files dns\n",
            id="avahi",
        ),
        pytest.param(
            "# c\npasswd: files mymachines [SUCCESS=merge] systemd\n",
            "hosts: files dns\npasswd: files systemd\n",
            id="an action goes with its module",
        ),
        pytest.param(
            "group: files [SUCCESS=merge] systemd\nnonsense\n",
            "hosts: files dns\ngroup: files [SUCCESS=merge] systemd\n",
            id="other actions stay",
        ),
    ],
)
def test_lookups_of_hosts_ask_dns_and_nothing_outside(host: str, inside: str) -> None:
    assert nsswitch(host) == inside


def test_a_session_lets_windows_and_sound_in_but_no_bus(tmp_path: Path) -> None:
    for name in ("wayland-0", "pulse", "bus", "dbus-1", "gvfs", "systemd", "gnupg"):
        (tmp_path / name).touch()
    assert sorted(path.name for path in session(tmp_path)) == ["pulse", "wayland-0"]


def test_nobody_logged_in_means_an_empty_session(tmp_path: Path) -> None:
    assert session(tmp_path / "absent") == {}
