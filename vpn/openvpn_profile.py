# SPDX-License-Identifier: GPL-2.0-or-later
"""A provider's profile: read to an allow-list, and written anew for the daemon.

A profile is code to OpenVPN: it runs programs, reads files, and asks for other
ways out.  So nothing of the text reaches the daemon.  Each option is one of
`openvpn_options`, or the whole profile is refused.  Pure.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from rules.model import shown
from vpn.endpoints import Endpoint
from vpn.openvpn_login import Login, login_of
from vpn.openvpn_options import BLOCKS, OURS, SERVERS, USED, unknown
from vpn.openvpn_pem import normal
from vpn.openvpn_servers import Servers
from vpn.openvpn_words import Line, ProfileError, lines, written

_INLINE = "[inline]"  # stands for the file name, before a block of the same name


@dataclass(frozen=True, slots=True)
class Profile:
    """What a profile asks for.

    ``options`` go to the daemon in this order, ``blocks`` maps a name to PEM.
    ``asks_login``: the server wants a user name and a password; ``login`` are
    those in the profile, if any.
    """

    servers: Servers = field(default_factory=Servers)
    options: tuple[tuple[str, ...], ...] = ()
    blocks: Mapping[str, str] = field(default_factory=dict, repr=False)
    asks_login: bool = False
    login: Login | None = None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """The servers, in the order of the profile."""
        return self.servers.endpoints

    def value(self, name: str) -> str | None:
        """Return the first argument of an option, of the last if there are many."""
        found = [words[1] for words in self.options if words[0] == name and words[1:]]
        return found[-1] if found else None


def parse(untrusted_file: bytes, name: str = "config") -> Profile:
    """Read a profile; `ProfileError` says ``name:line: what, what was expected``."""
    profile = Profile()
    try:
        for line in lines(untrusted_file):
            try:
                profile = _taken(profile, line)
            except ProfileError:
                raise
            except ValueError as error:
                raise ProfileError(f"{line.number}: {error}") from None
    except ProfileError as error:
        raise ProfileError(f"{name}:{error}") from None
    try:
        _check(profile)
    except ValueError as error:
        raise ProfileError(f"{name}: {error}") from None
    return profile


def _taken(profile: Profile, line: Line) -> Profile:
    """Return the profile with one more option, or raise `ValueError`."""
    if line.name in _SPECIAL:
        return _SPECIAL[line.name](profile, line)
    if line.name in SERVERS:
        return replace(profile, servers=profile.servers.taken(line))
    if line.block is not None:
        return _with_block(profile, line)
    if line.name in BLOCKS:
        return _before_block(profile, line)
    if line.name in OURS:
        return profile
    return _used(profile, line)


def _used(profile: Profile, line: Line) -> Profile:
    if line.name not in USED:
        raise ValueError(unknown(line.name))
    if problem := USED[line.name].problem(line.arguments):
        raise ValueError(f"{line.name}: {problem}")
    option = (line.name, *line.arguments)
    try:
        written(option)  # so that what is wrong is said here, with its line
    except ValueError as error:
        raise ValueError(f"{line.name}: {error}") from None
    return replace(profile, options=(*profile.options, option))


def _with_block(profile: Profile, line: Line) -> Profile:
    if line.name not in BLOCKS:
        raise ValueError(unknown(line.name))
    if line.name in profile.blocks:
        raise ValueError(f"<{line.name}>: expected only once")
    try:
        pem = normal(line.block or (), BLOCKS[line.name])
    except ValueError as error:
        raise ValueError(f"<{line.name}>: {error}") from None
    return replace(profile, blocks={**profile.blocks, line.name: pem})


def _before_block(profile: Profile, line: Line) -> Profile:
    """Read ``ca [inline]`` and the like: the block says it all but a direction."""
    if line.arguments[:1] != (_INLINE,):
        raise ValueError(
            f"{line.name} reads a file; expected <{line.name}> and its content here"
        )
    if line.name == "tls-auth" and line.arguments[1:]:
        return _taken(profile, Line(line.number, "key-direction", line.arguments[1:]))
    return profile


def _device(profile: Profile, line: Line) -> Profile:
    kind = line.arguments[0] if line.arguments else ""
    if line.block is not None or not kind.startswith("tun"):
        raise ValueError(f"{line.name} {shown(kind)}: expected tun")
    return profile


def _setenv(profile: Profile, line: Line) -> Profile:
    """Read ``setenv``: of no effect without scripts, but ``opt`` is an option."""
    match line.arguments:
        case ("opt", name, *arguments):
            return _taken(profile, Line(line.number, name, tuple(arguments)))
        case _:
            return profile


def _dhcp_option(profile: Profile, line: Line) -> Profile:
    """Read ``dhcp-option``; other things than resolvers are of no use to clients."""
    if line.arguments[:1] not in {("DNS",), ("DNS6",)}:
        return profile
    if not all(map(_is_address, line.arguments[1:])):
        raise ValueError(f"{line.name}: expected {USED[line.name].words}")
    return _used(profile, line)


def _user_pass(profile: Profile, line: Line) -> Profile:
    if line.arguments not in {(), (_INLINE,)}:
        raise ValueError(f'{line.name} reads a file; expected auth = "FILE" in policy')
    login = profile.login if line.block is None else login_of(line.block)
    return replace(profile, asks_login=True, login=login)


_SPECIAL: Mapping[str, Callable[[Profile, Line], Profile]] = {
    "auth-user-pass": _user_pass,
    "dev": _device,
    "dev-type": _device,
    "dhcp-option": _dhcp_option,
    "setenv": _setenv,
}
"""Options that are more than a form."""


def _is_address(untrusted_text: str) -> bool:
    try:
        return bool(ip_address(untrusted_text))
    except ValueError:
        return False


def _check(profile: Profile) -> None:
    """Raise `ValueError` if something is missing that every tunnel needs."""
    names = {*profile.blocks, *(words[0] for words in profile.options)}
    if not profile.endpoints:
        raise ValueError("no server; expected remote HOST PORT")
    if not names & {"ca", "peer-fingerprint"}:
        raise ValueError("nothing to know the server by; expected <ca>")
    if ("cert" in names) != ("key" in names):
        raise ValueError("expected both <cert> and <key>, or neither")
    if "cert" not in names and not profile.asks_login:
        raise ValueError("expected <cert> and <key>, or auth-user-pass")
