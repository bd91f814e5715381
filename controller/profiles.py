# SPDX-License-Identifier: GPL-2.0-or-later
"""What providers' files say about the chain they are in.

The agent reads them for itself; this is only to refuse what cannot work while
there is still a line of the policy file to name.
"""

from collections.abc import Iterator

from controller.domains import Domain, Domains, DomainsError, Personality, Problem
from vpn.endpoints import TCP
from vpn.openvpn_profile import parse
from vpn.openvpn_words import ProfileError


def check(domains: Domains) -> None:
    """Refuse profiles that cannot work where they are.

    `DomainsError` names all of them.
    """
    problems = tuple(
        problem
        for domain in domains
        if domain.personality == Personality.OPENVPN
        for problem in _problems(domain, domains)
    )
    if problems:
        raise DomainsError(problems)


def _problems(domain: Domain, domains: Domains) -> Iterator[Problem]:
    config = dict(domain.files)["config"]
    try:
        profile = parse(config.read_bytes(), config.name)
    except (ProfileError, OSError):
        return  # its agent says so, and what is wrong
    if any(endpoint.proto == TCP for endpoint in profile.endpoints):
        return
    for hop in domains.path(domain.name):
        if hop.personality is not None and hop.personality.only_tcp:
            text = (
                f"config: {config.name} has servers over UDP alone, and {hop.name} "
                f"({hop.personality.value}) carries TCP alone, expected a profile "
                "with proto tcp"
            )
            yield Problem(domain.name, "config", text)
