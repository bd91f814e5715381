# SPDX-License-Identifier: GPL-2.0-or-later
"""The file that ``config`` names in the policy.

.. code-block:: toml

    proxy = "socks5://user:password@192.0.2.1:1080"  # or http://…
    resolver = "198.51.100.53"  # asked through the proxy, over TCP

Both are addresses: a name would have to be asked for outside of the proxy.
"""

import tomllib
from dataclasses import dataclass
from enum import Enum
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from rules.model import Address

MAX_LOGIN = 255  # bytes of each word (RFC 1929)


class ConfigError(ValueError):
    """A file that cannot be used; the message never holds a password."""


class Speech(Enum):
    """How the proxy is spoken to; the value is the scheme of its URL."""

    SOCKS5 = "socks5"
    HTTP = "http"


@dataclass(frozen=True, slots=True, repr=False)
class Config:
    """The proxy, its login if it wants one, and the resolver behind it."""

    speech: Speech
    proxy: tuple[Address, int]
    resolver: Address
    login: tuple[str, str] | None = None


def parse(untrusted: bytes) -> Config:
    """Read the file, or raise `ConfigError`."""
    try:
        tree = tomllib.loads(untrusted.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError):
        raise ConfigError("config: not TOML") from None
    if tree.keys() != {"proxy", "resolver"}:
        raise ConfigError("config: expected proxy and resolver, and nothing else")
    try:
        resolver = ip_address(str(tree["resolver"]))
    except ValueError:
        raise ConfigError("config: resolver: expected an address") from None
    return _with_proxy(str(tree["proxy"]), resolver)


def _with_proxy(untrusted_url: str, resolver: Address) -> Config:
    try:
        url = urlsplit(untrusted_url)
        speech, proxy = Speech(url.scheme), ip_address(url.hostname or "")
        if url.port is None or url.path.strip("/") or url.query or url.fragment:
            raise ValueError  # noqa: TRY301 - what it is does not matter
    except ValueError:
        raise ConfigError(
            "config: proxy: expected socks5://ADDRESS:PORT or http://ADDRESS:PORT"
        ) from None
    if url.username is None:
        return Config(speech, (proxy, url.port), resolver)
    login = (unquote(url.username), unquote(url.password or ""))
    if not all(0 < len(word.encode()) <= MAX_LOGIN for word in login):
        raise ConfigError("config: proxy: expected USER:PASSWORD of 1 to 255 bytes")
    return Config(speech, (proxy, url.port), resolver, login)
