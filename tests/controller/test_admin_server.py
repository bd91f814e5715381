# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's socket: whatever comes in, everybody else is still served."""

import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from selectors import DefaultSelector

import pytest

from controller import admin_server
from controller.admin import (
    MAX_REQUEST,
    Answer,
    Exit,
    Progress,
    Reply,
    Request,
    encode,
)
from controller.admin_server import AdminServer
from tests.controller.own_machine import no_more_files

STATUS = encode(Request("status"))


@dataclass
class Office:
    """A server, and what it was asked."""

    path: Path
    selector: DefaultSelector = field(default_factory=DefaultSelector)
    asked: list[tuple[Request, Callable[[Reply], None]]] = field(default_factory=list)
    clients: list[socket.socket] = field(default_factory=list)
    server: AdminServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = AdminServer(
            self.selector, self.path, lambda *asked: self.asked.append(asked)
        )

    def connect(self, path: str = "") -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.settimeout(0)
        client.connect(path or str(self.path))
        return client

    def serve(self) -> None:
        """Do all that is due now."""
        while ready := self.selector.select(0):
            for key, mask in ready:
                key.data(mask)

    def close(self) -> None:
        self.server.close()
        assert not self.selector.get_map()
        self.selector.close()
        for client in self.clients:
            client.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    found = Office(tmp_path / "admin.sock")
    yield found
    found.close()


def heard(client: socket.socket) -> bytes | None:
    """Return what a client has received, None if it was hung up on."""
    data = b""
    try:
        while part := client.recv(1 << 20):
            data += part
    except BlockingIOError:
        return data
    except ConnectionResetError:
        return None
    return data or None


def test_a_request_is_handed_on_and_its_replies_come_back(office: Office) -> None:
    client = office.connect()
    client.send(STATUS)
    office.serve()

    ((request, tell),) = office.asked
    assert request == Request("status")
    for reply in (Progress("starting"), Answer({"a": 1})):
        tell(reply)
    assert heard(client) == encode(Progress("starting")) + encode(Answer({"a": 1}))


def test_a_request_may_come_in_pieces_and_two_in_one(office: Office) -> None:
    client = office.connect()
    for byte in (STATUS + STATUS)[:-1]:
        client.send(bytes([byte]))
        office.serve()
    assert len(office.asked) == 1

    client.send(b"\n")
    office.serve()
    assert len(office.asked) == 2


GARBAGE = {
    "no JSON": b"\xff\xfe\0\n",
    "no object": b"[]\n",
    "an empty line": b"\n",
    "deep": b"[" * 60000 + b"\n",
    "no verb": b"{}\n",
    "an unknown verb": b'{"verb": "reboot", "arguments": {}}\n',
    "missing arguments": b'{"verb": "up", "arguments": {}}\n',
    "an argument too many": b'{"verb": "down", "arguments": {"now": true}}\n',
    "a wrong type": b'{"verb": "up", "arguments": {"policy": 1}}\n',
    "a long line": b"x" * (MAX_REQUEST + 1) + b"\n",
    "a line without end": b"x" * (MAX_REQUEST + 2),
}


@pytest.mark.parametrize("untrusted_data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_answered_and_hung_up_on_and_hurts_nobody(
    office: Office, untrusted_data: bytes
) -> None:
    other, client = office.connect(), office.connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    client.send(untrusted_data)
    office.serve()

    reply = json.loads((heard(client) or b"{}").partition(b"\n")[0])
    assert reply["exit"] == Exit.USAGE
    with pytest.raises(BrokenPipeError):
        client.send(STATUS)
    assert office.asked == []
    other.send(STATUS)
    office.serve()
    assert len(office.asked) == 1


def test_what_was_asked_before_garbage_is_done(office: Office) -> None:
    client = office.connect()
    client.send(STATUS + b"garbage\n" + STATUS)
    office.serve()

    assert [request.verb for request, _ in office.asked] == ["status"]
    office.asked[0][1](Answer(None))  # to nobody


def test_who_hangs_up_while_a_job_runs_is_told_nothing(office: Office) -> None:
    client = office.connect()
    client.send(STATUS)
    office.serve()
    client.close()

    office.asked[0][1](Progress("between the end and its being noticed"))
    office.serve()
    office.asked[0][1](Answer(None))

    office.connect().send(STATUS)
    office.serve()
    assert len(office.asked) == 2


BIG = Answer("x" * (1 << 20))


def test_who_reads_slowly_gets_all_and_keeps_nobody_waiting(office: Office) -> None:
    slow, quick = office.connect(), office.connect()
    for client in (slow, quick):
        client.send(STATUS)
    office.serve()

    office.asked[0][1](BIG)
    office.asked[1][1](Answer("quick"))

    assert heard(quick) == encode(Answer("quick"))
    found = b""
    while len(found) < len(encode(BIG)):
        part = heard(slow)
        assert part is not None
        found += part
        office.serve()
    assert found == encode(BIG)
    # Nothing is left to send, so nothing wakes us.
    assert office.selector.select(0) == []


def test_who_never_reads_is_hung_up_on_at_last(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_server, "MAX_UNREAD", 1 << 18)
    client = office.connect()
    client.send(STATUS)
    office.serve()

    office.asked[0][1](BIG)

    assert len(office.selector.get_map()) == 1  # only who listens


def test_while_no_file_can_be_opened_who_asks_waits(office: Office) -> None:
    office.connect().send(STATUS)
    with no_more_files():
        for key, mask in office.selector.select(0):
            key.data(mask)
    assert office.asked == []

    office.serve()
    assert len(office.asked) == 1


def test_a_disposable_is_held_as_long_as_its_command_is_connected(
    office: Office,
) -> None:
    assert office.server.held() == frozenset()
    client = office.connect()
    client.send(encode(Request("hold", {"domain": "disp7"})))
    office.serve()
    assert office.server.held() == {"disp7"}
    assert office.asked == []

    client.close()
    office.serve()
    assert office.server.held() == frozenset()


def test_the_socket_is_for_its_owner_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    path.write_text("left by a crash")
    office = Office(path)
    assert path.stat().st_mode & 0o777 == 0o600

    client = office.connect()
    office.serve()
    office.close()

    assert not path.exists()
    assert client.fileno() == -1


@pytest.mark.kernel
def test_nobody_but_root_and_who_runs_the_daemon_is_heard() -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        office = Office(Path(directory, "admin.sock"))
        office.path.chmod(0o666)  # as if somebody had opened it
        os.seteuid(65534)
        try:
            stranger = office.connect()
        finally:
            os.seteuid(0)
        root = office.connect()
        for client in (stranger, root):
            client.send(STATUS)
        office.serve()

        assert len(office.asked) == 1
        office.asked[0][1](Answer("for root"))
        assert heard(stranger) is None
        assert heard(root) == encode(Answer("for root"))
        office.close()
