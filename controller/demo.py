# SPDX-License-Identifier: GPL-2.0-or-later
"""``make demo``: the main job, on real packets, and nothing left behind.

It brings a policy up beside whatever else runs, tries the same destinations
from every AppVM, and compares what happened with what the policy says.  Of those
behind a tunnel it shows whom sites see; behind Tor there is nothing else to try.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from controller import client, shown
from controller.addresses import DNS4, DNS6
from controller.admin import Answer, Exit, Failure, Json, Request
from controller.lab.addresses import FORBIDDEN, INTRANET, RESOLVERS, WEB
from controller.lab.provider import Provider, Sites
from controller.output import rows
from controller.platforms.lab import Internet
from controller.ports import PlatformError
from controller.service import ADMIN, start, sweep
from controller.table import table

PROBE = Path(__file__).parent / "lab" / "probe.py"
SEEN = Path(__file__).parent / "lab" / "seen.py"
PATIENCE = 90  # seconds for all attempts of one domain
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Attempt:
    """Something to try: what it is for people, and for the probe."""

    what: str
    proto: str
    address: str
    port: int | None = None


ATTEMPTS = (
    *(Attempt("www, HTTPS", "tcp", str(a), 443) for a in WEB),
    *(Attempt("www, HTTP", "tcp", str(a), 80) for a in WEB),
    Attempt("intranet, HTTPS", "tcp", str(INTRANET), 443),
    *(Attempt("another site, HTTPS", "tcp", str(a), 443) for a in FORBIDDEN),
    *(Attempt("UDP echo", "udp", str(a), 4433) for a in WEB),
    *(Attempt("ping", "icmp", str(a)) for a in WEB),
    *(Attempt("its own DNS", "dns", str(a), 53) for a in (DNS4[0], DNS6[0])),
    Attempt("a foreign DNS", "dns", str(RESOLVERS[0]), 53),
)


def main(words: Sequence[str]) -> int:
    """Show one policy file at work; exit 1 if anything differed from it."""
    if len(words) != 1:
        sys.stderr.write("usage: ravelin demo POLICY.toml\n")
        return Exit.USAGE
    began = time.monotonic()
    for number in ENDING:
        signal.signal(number, _leave)
    with tempfile.TemporaryDirectory(prefix="ravelin-demo-", dir="/run") as directory:
        runtime = Path(directory)
        try:
            differences = _show(Path(words[0]).resolve(), runtime)
        finally:
            _end(runtime)
    _say(f"everything is gone again; {time.monotonic() - began:.1f} s in all")
    return Exit.DIFFERS if differences else Exit.OK


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _show(policy: Path, runtime: Path) -> int:
    # A copy, because `ravelin firewall` and `prefs` write into the file.
    copy = runtime / "policy.toml"
    copy.write_text(policy.read_text(encoding="utf-8"), encoding="utf-8")
    _say(f"bringing up {policy.name}, with an internet of its own")
    # A daemon begins by taking away what it finds, and a provider would be among it.
    start(runtime / ADMIN, _say, outlives_us=False)
    try:
        sites = Provider(Internet(runtime), _say).furnish(copy)
    except PlatformError as error:
        raise SystemExit(f"ravelin: {error}") from error
    _ask(runtime, Request("up", {"policy": str(copy)}))
    domains = rows(_ask(runtime, Request("status")), "domains")
    personalities = {str(d["name"]): d["personality"] for d in domains}
    netvms = {str(d["name"]): d["netvm"] for d in domains}
    differences = 0
    for name in (name for name, word in personalities.items() if word is None):
        hops = list(_path(name, netvms))
        tunnel = next((hop for hop in hops if hop in sites), None)
        if tunnel is not None:
            differences += _show_sites(runtime, name, tunnel, sites[tunnel])
        if any(personalities[hop] == "tor" for hop in hops):
            continue
        denied = "refused" if hops else "no network"
        found = list(_attempts(runtime, name, denied))
        differences += sum(said != happened for _, said, happened in found)
        _print(name, found)
    word = "nothing differs from the policy"
    _say(word if not differences else f"{differences} attempts differ from the policy")
    proof = _ask(runtime, Request("verify", {"no_replay": False}))
    proved = shown.verdict_of_all(proof) is Exit.OK
    lines = [shown.total(proof)] if proved else shown.verified(proof, colour=False)
    _say("\n".join(lines))
    return differences + (not proved)


def _end(runtime: Path) -> None:
    """Take everything down, through the daemon if it still listens."""
    for number in ENDING:  # who is impatient would leave half of it
        signal.signal(number, lambda *_: None)
    with suppress(client.NotRunningError, OSError):
        client.ask(runtime / ADMIN, Request("down"), _say)
    sweep(runtime)


def _attempts(
    runtime: Path, name: str, denied: str
) -> Iterator[tuple[Attempt, str, str]]:
    wanted = json.dumps([[a.proto, a.address, a.port] for a in ATTEMPTS])
    happened = _inside(runtime, name, PROBE, wanted)
    for attempt, word in zip(ATTEMPTS, happened, strict=True):
        accepted = _accepted(runtime, name, attempt)
        yield attempt, "reached" if accepted else denied, str(word)


def _path(name: str, netvms: Mapping[str, Json]) -> Iterator[str]:
    """Yield the domains that its packets cross, its own netvm first."""
    while (hop := netvms[name]) is not None:
        yield (name := str(hop))


def _show_sites(runtime: Path, name: str, tunnel: str, sites: Sites) -> int:
    """Print whom sites see of a domain; return how many see somebody else."""
    seen = [str(each) for each in _inside(runtime, name, SEEN, *sites)]
    wrong = [
        each not in map(str, expected)
        for each, expected in zip(seen, sites.values(), strict=True)
    ]
    _print_table(
        ("FROM", "THROUGH", "SITE", "SEES", ""),
        [
            (name, tunnel, site, each or "nobody", "DIFFERS" if differs else "")
            for site, each, differs in zip(sites, seen, wrong, strict=True)
        ],
    )
    return sum(wrong)


def _inside(runtime: Path, name: str, program: Path, *words: str) -> list[Json]:
    """Run a program of ours in a domain, and return the list that it prints."""
    command = ("/usr/bin/python3", "-I", str(program), *words)
    enter = _ask(
        runtime,
        Request("run", {"domain": name, "command": command, "disposable": False}),
    )
    argv = enter["argv"] if isinstance(enter, dict) else []
    done = subprocess.run(  # noqa: S603 (the daemon's words)
        [str(word) for word in argv],
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=True,
    )
    printed = json.loads(done.stdout)
    return list(printed)


def _accepted(runtime: Path, name: str, attempt: Attempt) -> bool:
    host = f"[{attempt.address}]" if ":" in attempt.address else attempt.address
    proto = "udp" if attempt.proto == "dns" else attempt.proto
    port = "" if attempt.port is None else f":{attempt.port}"
    destination = f"{host}{port}"
    asked = {"domain": name, "proto": proto, "destination": destination, "told": None}
    answer = _ask(runtime, Request("explain", asked))
    return isinstance(answer, dict) and answer.get("accepted") is True


def _ask(runtime: Path, request: Request) -> Json:
    match client.ask(runtime / ADMIN, request, _say):
        case Answer(data):
            return data
        case Failure(_, text):
            raise SystemExit(f"ravelin: {text}")


def _print(name: str, found: list[tuple[Attempt, str, str]]) -> None:
    _print_table(
        ("FROM", "WHAT", "TO", "POLICY", "HAPPENED", ""),
        [
            (
                name,
                attempt.what,
                attempt.address,
                said,
                happened,
                "" if said == happened else "DIFFERS",
            )
            for attempt, said, happened in found
        ],
    )


def _print_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    lines = table(head, lines)
    sys.stdout.writelines(f"{line}\n" for line in (*lines, ""))
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
