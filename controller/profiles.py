# SPDX-License-Identifier: GPL-2.0-or-later
"""What providers' files say about the chain they are in.

The agent reads them for itself; this is only to refuse what cannot work while
there is still a line of the policy file to name.
"""

from collections.abc import Iterator

from controller.domains import Domain, Domains, DomainsError, Problem
from controller.personality import Personality
from vpn.endpoints import TCP
from vpn.openvpn_profile import parse
from vpn.openvpn_words import MOST_BYTES, ProfileError


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
    hops = domains.path(domain.name)
    narrow = [hop for hop in hops if hop.personality and hop.personality.only_tcp]
    if not narrow:
        return
    config = dict(domain.files)["config"]
    try:
        with config.open("rb") as file:
            profile = parse(file.read(MOST_BYTES + 1), config.name)
    except (ProfileError, OSError):
        return  # its agent says so, and what is wrong
    if any(endpoint.proto == TCP for endpoint in profile.endpoints):
        return
    for hop in narrow:
        text = (
            f"config: {config.name} has servers over UDP alone, and {hop.name} "
            "carries TCP alone, expected a profile with proto tcp"
        )
        yield Problem(domain.name, "config", text)
