# SPDX-License-Identifier: GPL-2.0-or-later
"""The servers of the embedded internet: one process, the standard library.

Run as a program in the internet's namespace: ``servers.py PEM ADDRESS…``.  It
exits 0 once it listens on every address, and leaves a child that serves

* HTTP on TCP 80 and 8080, HTTPS on 443 with the key and certificate of PEM:
  ``/ip`` is the address of who asks, and every other page has the lines ``peer
  ADDRESS PORT``, ``server ADDRESS PORT`` and ``host NAME``, in plain text;
* an echo on TCP 7 (RFC 862);
* ``ADDRESS PORT PAYLOAD`` on UDP 7 and 4433: the sender as seen from here.
"""

import asyncio
import os
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

PLAIN_PORTS = (80, 8080)
TLS_PORT = 443
ECHO_PORT = 7
UDP_PORTS = (7, 4433)
PATIENCE = 30.0  # seconds a client has to send its request
BROKEN = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def mirror(made: socket.socket) -> None:
    """Tell the sender of a datagram who it seems to be, and what it said."""
    with suppress(OSError):
        data, peer = made.recvfrom(65535)
        made.sendto(f"{peer[0]} {peer[1]} ".encode() + data, peer)


async def reflect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one HTTP request with who sent it, and to whom."""
    request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    wanted, *lines = request.decode("latin-1").splitlines()
    headers = (line.partition(":") for line in lines)
    host = next((v.strip() for name, _, v in headers if name.lower() == "host"), "")
    peer, server = (writer.get_extra_info(end)[:2] for end in ("peername", "sockname"))
    own = f"{peer[0]}\n"
    full = f"peer {peer[0]} {peer[1]}\nserver {server[0]} {server[1]}\nhost {host}\n"
    body = own if wanted.split()[1:2] == ["/ip"] else full
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\nConnection: close\r\n\r\n{body}".encode("latin-1"))


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back whatever comes."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def patient(handler: Handler) -> Handler:
    """Close the connection after the handler, whatever the client did to it."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(*BROKEN):
            await handler(reader, writer)
            await writer.drain()
        writer.close()

    return handle


def bound(kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    """Return a socket of its own for one local address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    if kind is socket.SOCK_STREAM:
        made.listen(128)
    return made


async def serve(
    streams: Sequence[tuple[socket.socket, Handler, ssl.SSLContext | None]],
    datagrams: Sequence[socket.socket],
) -> None:
    """Serve on sockets that are bound already, for ever."""
    for made in datagrams:
        made.settimeout(0)
        asyncio.get_running_loop().add_reader(made, mirror, made)
    for made, handler, tls in streams:
        await asyncio.start_server(patient(handler), sock=made, ssl=tls)
    await asyncio.Event().wait()


def main(pem: str, *addresses: str) -> None:
    """Bind everything, then leave a child that serves."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    services: list[tuple[int, Handler, ssl.SSLContext | None]] = [
        *((port, reflect, None) for port in PLAIN_PORTS),
        (TLS_PORT, reflect, tls),
        (ECHO_PORT, echo, None),
    ]
    streams = [
        (bound(socket.SOCK_STREAM, address, port), handler, context)
        for address in addresses
        for port, handler, context in services
    ]
    datagrams = [
        bound(socket.SOCK_DGRAM, address, port)
        for address in addresses
        for port in UDP_PORTS
    ]
    if os.fork() == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for standard in range(3):
            os.dup2(quiet, standard)
        asyncio.run(serve(streams, datagrams))


if __name__ == "__main__":
    main(*sys.argv[1:])
