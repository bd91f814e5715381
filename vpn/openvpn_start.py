# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver of OpenVPN, put together from what the controller gave.

``$CREDENTIALS_DIRECTORY`` (systemd.exec(5)) holds ``config``, the profile, and
``auth`` with a user name and a password, if there is one.
"""

import os
import random
from dataclasses import replace
from pathlib import Path

from agent.berth import BERTHS, Berth
from vpn.endpoints import Rotation
from vpn.hopeless import Hopeless
from vpn.lookup import Lookup
from vpn.openvpn_attempts import Attempts
from vpn.openvpn_choice import Choice
from vpn.openvpn_daemon import Daemon
from vpn.openvpn_door import Door
from vpn.openvpn_driver import OpenVpn
from vpn.openvpn_login import Login, read_login
from vpn.openvpn_profile import Profile, parse
from vpn.openvpn_words import ProfileError

NAME = "openvpn"
SOCKET = "management"


def driver() -> OpenVpn | Hopeless:
    """Return the driver of the profile, or one that says what is wrong with it."""
    try:
        profile = read_profile(
            Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"))
        )
    except OSError as error:
        return Hopeless(f"config: {error.strerror}")
    except ProfileError as error:
        return Hopeless(str(error))
    berth = Berth(NAME)
    berth.end()  # one that hangs since before does not come to the door
    # The daemon's own directory is no place for what we make, and change, by name.
    door = Door(BERTHS / f"{NAME}.{SOCKET}", berth.uid)
    daemon = Daemon(berth, door, profile)
    return OpenVpn(profile, daemon, Choice(Attempts(rotation(profile)), Lookup()))


def read_profile(secrets: Path) -> Profile:
    """Read the profile and the login, which goes before that of the profile.

    `ProfileError` says what is wrong with either.
    """
    profile = parse((secrets / "config").read_bytes())
    login = _login(secrets / "auth") or profile.login
    if profile.asks_login and login is None:
        raise ProfileError(
            'config: auth-user-pass: expected auth = "FILE" in the policy'
        )
    return replace(profile, login=login)


def rotation(profile: Profile) -> Rotation:
    """Return the servers in the order in which they are tried."""
    endpoints = list(profile.endpoints)
    if profile.servers.shuffled:
        random.shuffle(endpoints)
    return Rotation(tuple(endpoints))


def _login(path: Path) -> Login | None:
    return read_login(path.read_bytes()) if path.exists() else None
