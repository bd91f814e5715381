# SPDX-License-Identifier: GPL-2.0-or-later
"""Cold start, a client's change, a client more: how long, and without any fork."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from controller import namespaces
from tests.bench.dom0 import STATUS
from tests.bench.figures import Figure, at_most, spread
from tests.bench.generations import commits
from tests.bench.scene import (
    VIF_MAC,
    Gateway,
    Scene,
    address,
    contents,
    keys_of_client,
)

NARROW = "action=accept dst4={}/32 proto=tcp dstports=80-80"
WIDE = "action=drop dst4={}/32"
"""Of an address and port the kernel finds the flows, of an address it does not."""
COLD, CHANGE = "Cold start", "One change"
FORK = "import os, sys\ntry: os.fork()\nexcept BlockingIOError: sys.exit(7)\n"


def prepared(scene: Scene, name: str, clients: int, *, extra: int = 0) -> Gateway:
    """Return a FirewallVM with all its cables; its agent is not started yet.

    ``extra`` clients are known to dom0 and have no cable.
    """
    last = clients + extra
    keys = contents(range(1, clients + 1), coming=range(clients + 1, last + 1))
    made = scene.gateway(name, "firewallvm", keys)
    scene.uplink(made.net, "eth0", scene.net(f"{name}-up"), "gw0", VIF_MAC)
    made.lay(range(1, clients + 1))
    return made


def cold(scene: Scene, clients: int, rounds: int) -> Iterator[Figure]:
    """Start the agent where all vifs exist already."""
    guards, rules, vifs = [], [], []
    for turn in range(rounds):
        gateway = prepared(scene, f"cold{turn}", clients)
        with commits(gateway.net) as moments:
            begin = gateway.dom0.spawn()
            end = gateway.dom0.enforced(clients)
        guards.append(moments[0] - begin)
        rules.append(moments[-1] - begin)
        vifs.append(end - begin)
        gateway.dom0.close()
    what = f"{clients} clients with 10 rules each, exec to"
    guard = 1000 * median(guards)
    yield at_most(COLD, "exec to the guard in the kernel", guard, "ms", 150)
    yield at_most(COLD, f"{what} every rule live", median(rules), "s", 1.5)
    last = f"{what} the last vif up and reported"
    yield Figure(COLD, last, median(vifs), "s")


def change(
    gateway: Gateway, clients: int, rounds: int, first: int = 0, rule: str = NARROW
) -> list[float]:
    """Change a rule of one client after the other; return milliseconds."""
    taken = []
    for turn in range(first, first + rounds):
        number = 1 + turn * 37 % clients
        place = f"203.0.{turn // 250 % 250}.{turn % 250 + 1}"
        changed = {"0003": rule.format(place)}
        taken.append(1000 * gateway.dom0.commit(address(number), changed))
    return taken


def attach(gateway: Gateway, clients: int, rounds: int) -> list[float]:
    """Attach clients whose cable is there, each alone; return milliseconds."""
    taken = []
    for number in range(clients + 1, clients + rounds + 1):
        gateway.lay([number])
        wanted = b"clients=%d " % number
        who = keys_of_client(number)
        taken.append(1000 * gateway.dom0.timed(who.items(), STATUS, wanted))
    return taken


def forbidding_works(gateway: Gateway) -> bool:
    """Whether a program of the agent's uid really cannot fork under the limit."""
    ids = [f"--re{kind}={gateway.dom0.start.uid}" for kind in ("uid", "gid")]
    argv = ["setpriv", *ids, "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    argv += ["prlimit", "--nproc=1", sys.executable, "-c", FORK]
    return subprocess.run(argv, check=False).returncode == 7


def with_a_flow(gateway: Gateway, clients: int, rounds: int) -> Iterator[Figure]:
    """Measure the same where there is a live flow.

    What drops a whole address has the agent look at each flow.  That walks the
    conntrack table that all namespaces of a machine share, and locks each bucket of
    it (ctnetlink_dump_table).  A machine of more than 4 GB has 262144 of them, 11 ms;
    a VM of up to 1 GB at most 8192, 0.3 ms (nf_conntrack_init_start).
    """
    buckets = Path("/proc/sys/net/netfilter/nf_conntrack_buckets").read_text().strip()
    note = f"a look walks {buckets} buckets, and 8192 at most in a VM of up to 1 GB"
    flow = f"-p tcp -s {address(1)} -d 198.19.0.1 --sport 9 --dport 443"
    with namespaces.inside(gateway.net):
        conntrack("-I", f"{flow} --state ESTABLISHED -t 9999")
    taken = change(gateway, clients, rounds, first=rounds)
    what = f"a rule of one of {clients} clients, while there are flows"
    yield at_most(CHANGE, what, median(taken), "ms", 10)
    taken = change(gateway, clients, rounds, first=rounds, rule=WIDE)
    what = f"a drop for one of {clients} clients, of all that goes to an address"
    yield at_most(CHANGE, what, median(taken), "ms", 10, note)
    taken = attach(gateway, clients + rounds, rounds)
    what = f"attach one client to {clients}, while there are flows"
    yield at_most(CHANGE, what, median(taken), "ms", 20)
    with namespaces.inside(gateway.net):
        conntrack("-D", flow)  # which fails if it is not there any more


def conntrack(verb: str, words: str) -> None:
    """Run conntrack(8) where we are."""
    argv = ["conntrack", verb, *words.split()]
    subprocess.run(argv, check=True, capture_output=True)


def changes(scene: Scene, clients: int, rounds: int) -> Iterator[Figure]:
    """Measure one change among many clients."""
    gateway = prepared(scene, "changes", clients, extra=2 * rounds)
    gateway.dom0.spawn()
    gateway.dom0.enforced(clients)
    change(gateway, clients, 2)  # until it has heard of all that it did at the start
    taken = change(gateway, clients, rounds)
    what = f"a rule of one of {clients} clients, from commit to acknowledged"
    yield at_most(CHANGE, what, median(taken), "ms", 10, spread(taken))
    taken = attach(gateway, clients, rounds)
    what = f"attach one client to {clients}, from its key to reported"
    yield at_most(CHANGE, what, median(taken), "ms", 20, spread(taken))
    yield from with_a_flow(gateway, clients, rounds)
    if not forbidding_works(gateway):
        raise RuntimeError("the limit of processes limits nothing")
    note = "it runs under a limit of one process and one thread (RLIMIT_NPROC)"
    yield at_most(CHANGE, "processes forked per attach", 0, "", 0, note)
    gateway.dom0.close()
