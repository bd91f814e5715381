# SPDX-License-Identifier: GPL-2.0-or-later
"""Carry the flows of clients, and their questions for names, to a proxy.

A program of its own: the agent starts it as a user without rights, and the kernel
lets that user reach the proxy and nothing else.  It knows no name and no rule.
Descriptor 3 is its configuration, 4 the agent, who is told whether the proxy
answers.

SOCKS5 is RFC 1928 with the login of RFC 1929, HTTP the method CONNECT of
RFC 9110, 9.3.6.  Names are asked over TCP (RFC 7766), through the proxy.
"""

import asyncio
import base64
import json
import os
import socket
import struct
import sys
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

CONFIG, AGENT, DNS = 3, 4, 53
ORIGINAL = 80  # SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST (linux/netfilter_ipv4.h)
PATIENCE = 10.0  # seconds for the proxy to open a flow
PULSE, HURRY = 5.0, 0.5  # seconds between two looks at the proxy, up and down
FLOWS, QUESTIONS = 512, 64  # at once, of each client
MAX_HEAD = 8192  # bytes of a proxy's HTTP answer
CHUNK = 1 << 16
HEADER = 12  # bytes of a DNS message
ANSWER, TRUNCATED, FAILED = 0x80, 0x02, 2
MAX_UDP = 1232  # bytes of an answer that every path carries (DNS flag day 2020)

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Target = tuple[str, int]


class RefusedError(OSError):
    """The proxy answered, and said no."""


@dataclass(frozen=True, slots=True)
class Relay:
    """One proxy, and how many flows and questions each client has now."""

    config: dict[str, Any]
    flows: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)

    async def dial(self, target: Target) -> Ends:
        """Return a flow to ``target`` through the proxy, or raise `OSError`."""
        speak = _socks if self.config["speech"] == "socks5" else _connect
        try:
            async with asyncio.timeout(PATIENCE):
                ends = await asyncio.open_connection(*self.config["proxy"])
                with ExitStack() as on_failure:
                    on_failure.callback(ends[1].close)
                    await speak(ends, target, self.config["login"])
                    on_failure.pop_all()
                return ends
        except (EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            raise RefusedError("it does not answer") from error

    async def carry(self, *ends: Any) -> None:  # noqa: ANN401 - reader and writer
        """Carry a flow of a client to where it was going."""
        _, writer = ends
        client = writer.get_extra_info("peername")[0]
        if self.flows[client] < FLOWS:
            self.flows[client] += 1
            try:
                with suppress(OSError):  # also if it is cut before that is known
                    target = self._meant(_original(writer.get_extra_info("socket")))
                    await _join(ends, await self.dial(target))
            finally:
                self.flows[client] -= 1
        writer.transport.abort()

    async def ask(self, question: bytes) -> bytes:
        """Return the resolver's answer to a question; `OSError` if there is none."""
        reader, writer = await self.dial((self.config["resolver"], DNS))
        with closing(writer):
            writer.write(struct.pack("!H", len(question)) + question)
            try:
                async with asyncio.timeout(PATIENCE):
                    size = await reader.readexactly(2)
                    return await reader.readexactly(*struct.unpack("!H", size))
            except (EOFError, TimeoutError) as error:
                raise RefusedError("the resolver does not answer") from error

    async def watch(self, agent: socket.socket) -> None:
        """Tell the agent how the proxy is, again and again; end when it goes."""
        loop = asyncio.get_running_loop()
        gone = asyncio.ensure_future(loop.sock_recv(agent, 1))
        while not gone.done():
            word = await self._state()
            await loop.sock_sendall(agent, f"{word}\n".encode("ascii", "replace"))
            pause = PULSE if word == "up" else HURRY
            await asyncio.wait({gone}, timeout=pause)

    async def _state(self) -> str:
        try:
            _, writer = await self.dial((self.config["resolver"], DNS))
        except OSError as error:
            return f"proxy: {error.strerror or error}"
        writer.close()
        return "up"

    def _meant(self, target: Target) -> Target:
        """Return the resolver in place of a virtual one; refuse what is inside."""
        if target[0] in self.config["virtual"] and target[1] == DNS:
            return self.config["resolver"], DNS
        if any(ip_address(target[0]) in ip_network(n) for n in self.config["internal"]):
            raise RefusedError("it is another domain of this machine")
        return target


class Names(asyncio.DatagramProtocol):
    """Answers questions for names over UDP."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Ask on behalf of a client, if it has not asked too much."""
        if len(data) >= HEADER and self._relay.questions[addr[0]] < QUESTIONS:
            self._relay.questions[addr[0]] += 1
            task = asyncio.ensure_future(self._answer(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, untrusted: bytes, sender: tuple[Any, ...]) -> None:
        try:
            answer = await self._relay.ask(untrusted)
            if len(answer) > MAX_UDP:
                # It is asked again over TCP (RFC 1035, 4.2.1).
                answer = _said(untrusted, TRUNCATED, 0)
        except OSError:
            answer = _said(untrusted, 0, FAILED)
        finally:
            self._relay.questions[sender[0]] -= 1
        self._transport.sendto(answer, sender)


def _said(question: bytes, flag: int, code: int) -> bytes:
    """Return an answer without a record (RFC 1035, 4.1.1)."""
    flags = (question[2] | ANSWER | flag, question[3] & 0xF0 | code)
    return question[:2] + bytes(flags) + question[4:]


async def _socks(ends: Ends, target: Target, login: list[str] | None) -> None:
    reader, writer = ends
    method = 0 if login is None else 2
    writer.write(bytes((5, 1, method)))
    if await reader.readexactly(2) != bytes((5, method)):
        raise RefusedError("it wants another login")
    if login is not None:
        words = b"".join(bytes((len(x.encode()),)) + x.encode() for x in login)
        writer.write(b"\1" + words)
        if (await reader.readexactly(2))[1]:
            raise RefusedError("it refuses the login")
    address = ip_address(target[0])
    kind = 1 if address.version == 4 else 4  # noqa: PLR2004
    port = struct.pack("!H", target[1])
    writer.write(bytes((5, 1, 0, kind)) + address.packed + port)
    _, code, _, bound = await reader.readexactly(4)
    if code:
        raise RefusedError(f"it refuses the flow ({code})")
    size = {1: 4, 4: 16}.get(bound) or (await reader.readexactly(1))[0]
    await reader.readexactly(size + 2)


async def _connect(ends: Ends, target: Target, login: list[str] | None) -> None:
    reader, writer = ends
    host = f"[{target[0]}]" if ":" in target[0] else target[0]
    lines = [f"CONNECT {host}:{target[1]} HTTP/1.1", f"Host: {host}:{target[1]}"]
    if login is not None:
        words = base64.b64encode(":".join(login).encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {words}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    code = head.split(b"\r\n")[0].split(b" ")[1:2]
    if len(head) > MAX_HEAD or not code or not code[0].startswith(b"2"):
        said = b"".join(code).decode("ascii", "replace")
        raise RefusedError(f"it refuses the flow ({said})")


def _original(flow: socket.socket) -> Target:
    """Return where a redirected flow was going."""
    if flow.family == socket.AF_INET:
        found = flow.getsockopt(socket.IPPROTO_IP, ORIGINAL, 16)
        port, packed = struct.unpack_from("!2xH4s", found)
    else:
        found = flow.getsockopt(socket.IPPROTO_IPV6, ORIGINAL, 28)
        port, packed = struct.unpack_from("!2xH4x16s", found)
    return str(ip_address(packed)), port


async def _join(one: Any, other: Ends) -> None:  # noqa: ANN401
    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
        sink.write_eof()

    try:
        await asyncio.gather(pump(one[0], other[1]), pump(other[0], one[1]))
    finally:
        other[1].transport.abort()


def _bound(family: socket.AddressFamily, at: tuple[str, int]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.setblocking(False)  # noqa: FBT003
    made.bind(at)
    return made


async def main(config: dict[str, Any], agent: socket.socket) -> None:
    """Serve clients until the agent goes."""
    relay = Relay(config)
    loop = asyncio.get_running_loop()
    tcp, dns = config["tcp"], config["dns"]
    # Everywhere: the rules of the domain say who reaches it (rules/redirects.py).
    v4, v6 = (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")  # noqa: S104
    for family, address in (v4, v6):
        await asyncio.start_server(relay.carry, address, tcp, family=family)
    places = [(*v4, dns), (*v6, dns), (socket.AF_INET, config["self"], DNS)]
    for family, address, port in places:
        bound = _bound(family, (address, port))
        await loop.create_datagram_endpoint(lambda: Names(relay), sock=bound)
    await relay.watch(agent)


if __name__ == "__main__":
    with os.fdopen(CONFIG) as file:
        given = json.load(file)
    with socket.socket(fileno=AGENT) as told:
        told.setblocking(False)  # noqa: FBT003
        asyncio.run(main(given, told))
    sys.exit(0)
