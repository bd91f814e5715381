# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs a command in a domain, and with which environment."""

import pwd
from collections.abc import Mapping
from pathlib import Path

# They name what is not to be reached from inside, or what does not apply there.
DROPPED = ("DBUS_", "LISTEN_", "NOTIFY_SOCKET", "SUDO_", "SYSTEMD_", "XDG_RUNTIME_DIR")

Person = pwd.struct_passwd


class UnknownPersonError(LookupError):
    """Nobody has that name or uid."""


def someone(user: str | None, environ: Mapping[str, str]) -> Person:
    """Return the named user, else who called sudo (``SUDO_UID``), else root."""
    try:
        if user is not None:
            return pwd.getpwnam(user)
        return pwd.getpwuid(int(environ.get("SUDO_UID", "0")))
    except (KeyError, ValueError) as error:
        wanted = user or f"uid {environ.get('SUDO_UID')}"
        raise UnknownPersonError(f"{wanted}: no such user") from error


def session_directory(person: Person) -> Path:
    """Return the directory of the person's session, which may not exist."""
    return Path(f"/run/user/{person.pw_uid}")


def environment(person: Person, environ: Mapping[str, str]) -> dict[str, str]:
    """Return ``environ`` as the person's own, without ways to daemons outside."""
    kept = {k: v for k, v in environ.items() if not k.startswith(DROPPED)}
    return kept | {
        "HOME": person.pw_dir,
        "LOGNAME": person.pw_name,
        "SHELL": person.pw_shell,
        "USER": person.pw_name,
        "XDG_RUNTIME_DIR": str(session_directory(person)),
    }
