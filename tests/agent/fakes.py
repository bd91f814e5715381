# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel, a QubesDB and a clock that the agent cannot tell from real ones.

`effects` is what was done to the kernel and what was told, in order.
"""

import math
import re
import select
import selectors
import signal
from collections import Counter
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import cast

from agent.crowd import Crowd
from agent.cut import Cutter
from agent.database import Database
from agent.enforce import Enforcer
from agent.from_dom0 import FromDom0
from agent.leases import Leases
from agent.loop import Agent
from agent.machine import plain
from agent.names import Names
from agent.network import Network
from agent.personality import Dns, Personality
from agent.ports import FirewallError, Link, LiveFlow
from agent.qubesdb import Disconnected, QubesDb
from agent.signals import Signals
from agent.systemd import Notifier
from controller.qubesdb_store import Store
from firewallvm.states import FIREWALLVM
from rules.decide import Packet
from rules.facts import CLIENT_GROUP, UPLINK_GROUP, Client, Facts, Tunnel, Uplink
from rules.model import Address
from rules.objects import Chain, Key, Map, Object, Set
from rules.routing import Routing
from rules.transaction import Edit

Content = list[str] | dict[str, str]
EMPTY: Mapping[str, Object] = {
    "chain": Chain(()),
    "set": Set("", frozenset()),
    "map": Map("", {}),
}
_LINE = re.compile(
    r"(add|flush|delete) (table|chain|set|map|rule|element) (\S+ \S+)(?: (\S+))?(.*)"
)


class FakeFirewall:
    """Understands the nft text that `rules.transaction` writes, and keeps to it."""

    def __init__(self, effects: list[str]) -> None:
        self.effects = effects
        self.loads: list[str] = []
        self.refused: list[str] = []
        self.kinds: dict[Key, str] = {}
        self.content: dict[Key, Content] = {}
        self.refuses: Callable[[str], bool] = lambda _: False
        self.released = 0
        self.tampered = False

    def touched(self) -> bool:
        tampered, self.tampered = self.tampered, False
        return tampered

    def load(self, script: str) -> None:
        if self.refuses(script):
            self.refused.append(script)
            raise FirewallError("line 1: syntax error")
        before = dict(self.kinds), {k: c.copy() for k, c in self.content.items()}
        line = ""
        try:
            for line in script.splitlines():
                if line and "egress-" not in line:
                    self._do(line)
        except (KeyError, AssertionError) as error:
            self.kinds, self.content = before
            raise FirewallError(f"{line}: {error!r}") from error
        self.loads.append(script)
        self.effects.append("guard" if "egress-" in script else "rules")

    def put(self, edits: Sequence[Edit]) -> None:
        lines = [
            f"{verb} element {edit.key.table} {edit.key.name} {{ {', '.join(texts)} }}"
            for edit in edits
            for verb, texts in (("delete", edit.gone), ("add", edit.come))
            if texts
        ]
        self.load("".join(f"{line}\n" for line in lines))

    def names(self, table: str) -> dict[Key, Object]:
        return {
            key: EMPTY[kind] for key, kind in self.kinds.items() if key.table == table
        }

    def release(self) -> None:
        self.released += 1

    def rules(self, table: str, chain: str) -> list[str]:
        found = self.content[Key(table, chain)]
        assert isinstance(found, list)
        return found

    def elements(self, table: str, name: str) -> dict[str, str]:
        found = self.content[Key(table, name)]
        assert isinstance(found, dict)
        return found

    def client_chains(self) -> dict[str, list[str]]:
        return {
            key.name: content
            for key, content in sorted(self.content.items(), key=lambda i: i[0].name)
            if key.name.startswith("q_") and isinstance(content, list)
        }

    def _do(self, line: str) -> None:
        found = _LINE.fullmatch(line)
        assert found, line
        verb, kind, table, name, rest = found.groups()
        key = Key(table, name)
        match verb, kind:
            case "add", "chain" | "set" | "map":
                assert self.kinds.setdefault(key, kind) == kind
                content = self.content.setdefault(key, [] if kind == "chain" else {})
                if isinstance(content, list):
                    content += [each for each in rest.strip(" {;}").split("; ") if each]
            case "flush", _:
                self.content[key].clear()
            case "delete", "chain" | "set" | "map":
                users = [c for k, c in self.content.items() if k != key]
                verdicts = (v for c in users if isinstance(c, dict) for v in c.values())
                assert f"goto {name}" not in verdicts, "in use"
                del self.content[key], self.kinds[key]
            case "add", "rule":
                chain = self.content[key]
                assert isinstance(chain, list)
                chain.append(rest.strip())
            case _, "element":
                self._element(verb, key, rest.strip().strip("{}"))
            case _:
                assert (verb, kind) == ("add", "table"), line

    def _element(self, verb: str, key: Key, text: str) -> None:
        content = self.content[key]
        assert isinstance(content, dict)
        for element in text.split(", "):
            name, _, value = (part.strip() for part in element.partition(" : "))
            if verb == "delete":
                del content[name]
            else:
                assert content.get(name, value) == value, "exists"
                if value.startswith("goto q_"):
                    assert Key(key.table, value.removeprefix("goto ")) in self.content
                content[name] = value


@dataclass
class FakeLinks:
    """Interfaces by name; ``refuses`` fails whatever names one of these."""

    effects: list[str] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    own: dict[int, frozenset[tuple[Address, int]]] = field(default_factory=dict)
    ways: dict[int, tuple[Address, ...]] = field(default_factory=dict)
    attached: list[tuple[Client, tuple[Address, ...]]] = field(default_factory=list)
    connected: list[tuple[Uplink, bool]] = field(default_factory=list)
    adopted: list[Uplink] = field(default_factory=list)
    tunnels: list[tuple[Tunnel, frozenset[Address]]] = field(default_factory=list)
    routing: Routing | None = None
    refuses: dict[str, OSError] = field(default_factory=dict)
    changed: bool = False

    def appear(self, name: str, index: int, group: int = 0) -> None:
        self.links[name] = Link(index, name, "00:16:3e:5e:6c:00", group, up=False)
        self.changed = True

    def vanish(self, name: str) -> None:
        del self.links[name]
        self.changed = True

    def fileno(self) -> int:
        return 1_000_001

    def ready(self) -> bool:
        return self.changed

    def handle(self) -> bool:
        changed, self.changed = self.changed, False
        self._check("events")
        return changed

    def by_name(self, name: str) -> Link | None:
        return self.links.get(name)

    def addresses(self, index: int) -> frozenset[tuple[Address, int]]:
        return self.own.get(index, frozenset())

    def gateways(self, index: int) -> tuple[Address, ...]:
        return self.ways.get(index, ())

    def route(self, routing: Routing) -> None:
        self._check("route")
        self.effects.append("route")
        self.routing = routing

    def attach(self, client: Client, gateways: Iterable[Address]) -> None:
        self._check(client.vif)
        self.effects.append(f"up {client.vif}")
        self.attached.append((client, tuple(gateways)))
        self._put(client.vif, CLIENT_GROUP)

    def connect(self, uplink: Uplink, *, pinned: bool) -> None:
        self._check(uplink.name)
        self.effects.append(f"up {uplink.name}")
        self.connected.append((uplink, pinned))
        self._put(uplink.name, UPLINK_GROUP)

    def tunnel(self, tunnel: Tunnel, resolvers: Collection[Address]) -> None:
        self._check(tunnel.name)
        self.effects.append(f"tunnel {tunnel.name}")
        self.tunnels.append((tunnel, frozenset(resolvers)))
        self._put(tunnel.name, 0)

    def rest(self, tunnel: Tunnel) -> None:
        self._check(tunnel.name)
        self.effects.append(f"down {tunnel.name}")
        self.links[tunnel.name] = replace(self.links[tunnel.name], up=False)

    def adopt(self, uplink: Uplink) -> None:
        self._check(uplink.name)
        self.effects.append(f"adopt {uplink.name}")
        self.adopted.append(uplink)
        self._put(uplink.name, UPLINK_GROUP)

    def _put(self, name: str, group: int) -> None:
        self.links[name] = replace(self.links[name], group=group, up=True)

    def _check(self, name: str) -> None:
        if name in self.refuses:
            raise self.refuses[name]


@dataclass
class FakeConntrack:
    """The live flows."""

    effects: list[str] = field(default_factory=list)
    live: list[LiveFlow] = field(default_factory=list)
    asked: list[frozenset[Address]] = field(default_factory=list)
    ended: list[tuple[Address, Packet]] = field(default_factory=list)
    finds: bool = True
    deletions: list[int] = field(default_factory=list)
    refuses: OSError | None = None
    most: int = 100

    def full(self) -> tuple[int, int]:
        return len(self.live), self.most

    def count(self, *sources: Address) -> Mapping[Address, Mapping[bytes, int]]:
        self.asked.append(frozenset(sources))
        found = {source: Counter[bytes]() for source in sources}
        for (source, to), number in Counter((f.src, f.dst) for f in self.live).items():
            if source in found:
                found[source][to.packed] += number
        return found

    def flows(self, *sources: Address) -> Iterator[LiveFlow]:
        self.asked.append(frozenset(sources))
        return iter([flow for flow in self.live if flow.src in sources])

    def delete(self, *flows: LiveFlow) -> None:
        self.deletions.append(len(flows))
        if flows and self.refuses:
            raise self.refuses
        for flow in flows:
            self.live.remove(flow)
            self.effects.append(f"cut {flow.src}")

    def end(self, source: Address, packets: Iterable[Packet]) -> bool:
        packets = set(packets) if self.live else set()
        self.ended += [(source, packet) for packet in packets]
        self.live = [
            flow
            for flow in self.live
            if flow.src != source
            or Packet(flow.dst, flow.proto, flow.port) not in packets
            or not self.finds
        ]
        return self.finds or not packets

    def flush(self, *addresses: Address) -> None:
        self.live = [
            flow
            for flow in self.live
            if flow.src not in addresses and flow.answered_by not in addresses
        ]
        self.effects.extend(f"flush {address}" for address in addresses)


class FakeDb:
    """A QubesDB, its keys in the controller's own store.

    ``meanwhile`` is what dom0 does during the next requests of the agent.
    """

    def __init__(self, effects: list[str] | None = None) -> None:
        self.effects = [] if effects is None else effects
        self.store = Store()
        self.up = True
        self.connected = False
        self.meanwhile: list[Callable[[], None]] = []
        self.reads: list[str] = []
        self._watches: dict[str, None] = {}
        self._events: list[str] = []

    # dom0's side

    def put(self, path: str, value: str = "") -> None:
        self.store.write(path, value.encode())
        self._fire(path)

    def drop(self, path: str) -> None:
        if self.store.remove(path):
            self._fire(path)

    def commit(self, owner: str, *rules: str, policy: str = "drop") -> None:
        """Replace a list the way dom0 does, and commit it."""
        base = f"/qubes-firewall/{owner}"
        self.drop(f"{base}/")
        self.put(f"{base}/policy", policy)
        for number, rule in enumerate(rules):
            self.put(f"{base}/{number:04}", rule)
        self.put(base)

    def fail(self) -> None:
        self.up = self.connected = False
        self._events.clear()

    def told(self, path: str) -> str | None:
        value = self.store.read(path)
        return None if value is None else value.decode()

    # the agent's side

    def connect(self) -> None:
        self.close()
        if not self.up:
            raise Disconnected("nobody listens")
        self.connected = True

    def close(self) -> None:
        self.connected = False
        self._events.clear()

    def fileno(self) -> int:
        return 1_000_002 if self.connected else -1

    def ready(self) -> bool:
        return not self.connected or bool(self._events)

    def read(self, path: str) -> bytes | None:
        self._ask()
        self.reads.append(path)
        return self.store.read(path)

    def multiread(self, prefix: str) -> dict[str, bytes]:
        self._ask()
        self.reads.append(f"{prefix}*")
        keys = self.store.keys(prefix)
        return {key: self.store.read(key) or b"" for key in keys}

    def write(self, path: str, data: bytes) -> None:
        self._ask()
        self.store.write(path, data)
        self.effects.append(f"tell {path}")
        self._fire(path)

    def remove(self, path: str) -> None:
        self._ask()
        if self.store.remove(path):
            self.effects.append(f"untell {path}")
            self._fire(path)

    def watch(self, path: str) -> None:
        self._watches[path] = None

    def take_events(self) -> tuple[str, ...]:
        if not self.connected:
            raise Disconnected("not connected")
        events, self._events = tuple(self._events), []
        return events

    def _ask(self) -> None:
        if not self.connected:
            raise Disconnected("not connected")
        if self.meanwhile:
            self.meanwhile.pop(0)()

    def _fire(self, path: str) -> None:
        covers = (
            path.startswith(watch) if watch.endswith("/") else path == watch
            for watch in self._watches
        )
        if self.connected and any(covers):
            self._events.append(path)


@dataclass
class FakeNames:
    """Names whose answers the test gives."""

    known: dict[str, frozenset[Address]] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    servers: tuple[Address, ...] = ()
    hurried: int = 0
    deadline: float = math.inf
    handled: int = 0
    news: bool = False

    def answer(self, name: str, *addresses: Address) -> None:
        self.known[name] = frozenset(addresses)
        self.news = True

    def fileno(self) -> int:
        return 1_000_003

    def ready(self) -> bool:
        return self.news

    def want(self, names: frozenset[str]) -> None:
        self.wanted = names

    def use(self, servers: tuple[Address, ...]) -> None:
        self.servers = servers

    def hurry(self) -> None:
        self.hurried += 1

    def waiting(self) -> int:
        return len(self.wanted - self.known.keys())

    def answers(self) -> Mapping[str, frozenset[Address]]:
        return {name: self.known.get(name, frozenset()) for name in self.wanted}

    def next_deadline(self) -> float:
        return self.deadline

    def handle(self) -> bool:
        self.handled += 1
        self.deadline = math.inf
        news, self.news = self.news, False
        return news


@dataclass
class FakeLeases:
    """Knows whom it is to answer."""

    served: Facts = field(default_factory=Facts)

    def fileno(self) -> int:
        return -1

    def handle(self) -> bool:
        return False

    def serve(self, facts: Facts, gateways: tuple[Address, ...]) -> None:  # noqa: ARG002
        self.served = facts


@dataclass
class FakeNotifier:
    """Hears what systemd would."""

    clock: Callable[[], float]
    effects: list[str]
    period: float = math.inf
    due: float = math.inf
    said: list[str] = field(default_factory=list)

    def ready(self, status: str) -> None:
        self._say("ready", status)

    def reloading(self) -> None:
        self._say("reloading")

    def alive(self) -> None:
        if self.clock() >= self.due:
            self.due = self.clock() + self.period
            self._say("alive")

    def _say(self, *words: str) -> None:
        self.said.append(words[0])
        self.effects.append(words[0])


@dataclass
class Script(selectors.BaseSelector):
    """A selector that plays a test's steps, one for each time nothing is ready.

    A wait lasts as long as it was asked to, by the clock; after the last step
    SIGTERM comes.  ``waits`` are the timeouts that were not 0.
    """

    steps: list[Callable[[], None]] = field(default_factory=list)
    now: float = 1000.0
    waits: list[float | None] = field(default_factory=list)
    turns: int = 0
    _keys: dict[object, selectors.SelectorKey] = field(default_factory=dict)
    _poll: dict[object, Callable[[], bool]] = field(default_factory=dict)

    def clock(self) -> float:
        return self.now

    def watch(self, fd: int, ready: Callable[[], bool]) -> None:
        self._poll[fd] = ready

    def register(
        self, fileobj: object, events: int, data: object = None
    ) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()  # type: ignore[attr-defined]
        assert fd >= 0
        key = selectors.SelectorKey(fileobj, fd, events, data)  # type: ignore[arg-type]
        self._keys[fd] = key
        if isinstance(fileobj, Signals):
            self._poll[fd] = lambda: bool(select.select([fd], [], [], 0)[0])
        elif not isinstance(fileobj, int):
            self._poll[fd] = fileobj.ready  # type: ignore[attr-defined]
        return key

    def unregister(self, fileobj: object) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[object, selectors.SelectorKey]:  # type: ignore[override]
        return self._keys

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        assert self.turns < 500, "it never rests"
        found = self._ready()
        if found or timeout == 0:
            return found
        self.waits.append(timeout)
        if self.steps:
            self.steps.pop(0)()
        else:
            signal.raise_signal(signal.SIGTERM)
        found = self._ready()
        if not found and timeout is not None:
            self.now += timeout
        return found

    def _ready(self) -> list[tuple[selectors.SelectorKey, int]]:
        return [(k, k.events) for fd, k in self._keys.items() if self._poll[fd]()]


@dataclass
class World:
    """An agent among fakes.  `play` runs it until the steps are done."""

    personality: Personality = field(
        default_factory=lambda: Personality(
            plain(FIREWALLVM), FromDom0(), pin_gateway=True
        )
    )
    effects: list[str] = field(default_factory=list)
    script: Script = field(default_factory=Script)

    def __post_init__(self) -> None:
        self.firewall = FakeFirewall(self.effects)
        self.links = FakeLinks(self.effects)
        self.conntrack = FakeConntrack(self.effects)
        self.db = FakeDb(self.effects)
        self.names = FakeNames()
        self.leases = FakeLeases()
        self.notifier = FakeNotifier(self.script.clock, self.effects)
        self.script.watch(1_000_002, self.db.ready)
        self.agent = Agent(
            personality=self.personality,
            database=Database(cast("QubesDb", self.db)),
            links=self.links,
            enforcer=Enforcer(self.firewall),
            network=Network(
                self.links, self.firewall, pin_gateway=self.personality.pin_gateway
            ),
            cutter=Cutter(self.conntrack),
            crowd=Crowd(self.conntrack, self.script.clock),
            names=cast("Names", self.names),
            leases=cast("Leases", self.leases),
            notifier=cast("Notifier", self.notifier),
            clock=self.script.clock,
            _selector=self.script,
        )

    def play(self, *steps: Callable[[], None]) -> None:
        self.script.steps.extend(steps)
        self.agent.run()


def rest() -> None:
    """Let time pass until the agent wakes by itself."""


@dataclass
class FixedResolvers:
    """Resolvers that the test names."""

    said: Dns

    def dns(self, from_dom0: tuple[Address, ...]) -> Dns:  # noqa: ARG002
        return self.said

    def watched(self) -> Mapping[int, Callable[[], None]]:
        return {}
