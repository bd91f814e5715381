# SPDX-License-Identifier: GPL-2.0-or-later
"""Properties of services on the system bus, kept current without blocking.

The only module that knows dbus-python.  That library brings its messages into a
foreign loop through GLib alone, whose main context need not be *run*: it is
iterated, without waiting, when the connection is readable.  The iteration is one
call into libglib, which dbus-python is linked to; there is no PyGObject.

Nothing here waits for the bus.  Connecting, the greeting and every question are
messages sent and answered later, so a bus or a service that hangs (or is not
there, or comes late, or comes again) costs its own values and no time.

What a service says is untrusted: `Bus.value` returns whatever arrived.
"""

import ctypes
import logging
import math
import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dbus.connection import Connection
from dbus.exceptions import DBusException
from dbus.lowlevel import HANDLER_RESULT_NOT_YET_HANDLED, ErrorMessage, Message
from dbus.lowlevel import MethodCallMessage as Call
from dbus.mainloop.glib import DBusGMainLoop

from agent.timer import Timer

log = logging.getLogger(__name__)

RECONNECT = 0.5  # seconds between two attempts to reach the bus
ANSWER = 5.0  # seconds a service has to answer
SLACK = 0.1  # libdbus reports a missing answer before it is missed here
AGAIN = 10.0  # seconds until a service that failed to answer is asked again
BURST = 1000  # messages taken in one go, so that a flood starves nobody

BUS = "org.freedesktop.DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"
ABSENT = frozenset({f"{BUS}.Error.ServiceUnknown", f"{BUS}.Error.NameHasNoOwner"})

_libglib = ctypes.CDLL("libglib-2.0.so.0")


@dataclass(frozen=True, slots=True)
class Property:
    """Where a property is: service, object path, interface and name."""

    service: str
    path: str
    interface: str
    name: str

    def match_rules(self) -> tuple[str, str]:
        """Name the two signals after which the value may be another."""
        owner = f"sender='{BUS}',member='NameOwnerChanged',arg0='{self.service}'"
        changed = (
            f"sender='{self.service}',path='{self.path}',"
            f"member='PropertiesChanged',arg0='{self.interface}'"
        )
        return f"type='signal',{owner}", f"type='signal',{changed}"


def _system_bus() -> str:
    default = "unix:path=/run/dbus/system_bus_socket"
    return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS", default)


class Bus:
    """The latest values of some properties.

    Wait on `fileno`, call `handle` when it is readable: there is no deadline to
    keep.  ``address`` is a D-Bus server address, by default the system bus's.
    """

    def __init__(
        self, properties: tuple[Property, ...], address: str | None = None
    ) -> None:
        self._address = address or _system_bus()
        self._properties = properties
        self._loop = DBusGMainLoop()
        self._timer = Timer()
        self._epoll = select.epoll()
        self._epoll.register(self._timer, select.EPOLLIN)
        self._connection: Connection | None = None
        self._connect_at = 0.0
        self._values: dict[Property, object] = {}
        self._ask_at: dict[Property, float] = {}
        self._answer_by: dict[Property, float] = {}
        self.handle()

    def fileno(self) -> int:
        """Return the descriptor, the same for the life of this object."""
        return self._epoll.fileno()

    def value(self, wanted: Property) -> object | None:
        """Return what the service says, in Python's types; `None` if nothing.

        Byte arrays are `bytes`, structs `tuple`, arrays `list`, as subclasses.
        """
        return self._values.get(wanted)

    def refresh(self) -> None:
        """Ask for every value again."""
        self._all_are_due()
        self.handle()

    def handle(self) -> None:
        """Take what arrived and ask what is due.  Never waits, never raises."""
        if self._connection is None and time.monotonic() >= self._connect_at:
            self._connect()
        if self._connection is not None:
            self._dispatch(self._connection)
        self._timer.arm(self._next())

    def close(self) -> None:
        """Leave the bus."""
        self._disconnect()
        self._epoll.close()
        self._timer.close()

    def _dispatch(self, connection: Connection) -> None:
        for _ in range(BURST):
            # None: GLib's default context; 0: do not wait.
            if not _libglib.g_main_context_iteration(None, 0) and not self._ask():
                break
        else:
            self._all_are_due()  # what is left over must wake us again
        if not connection.get_is_connected():
            log.info("the system bus is gone")
            self._disconnect()

    def _next(self) -> float:
        if self._connection is None:
            return self._connect_at
        answers = self._answer_by
        asks = (at for asked, at in self._ask_at.items() if asked not in answers)
        return min([*asks, *answers.values()], default=math.inf)

    def _connect(self) -> None:
        try:
            connection = Connection(self._address, mainloop=self._loop)
        except DBusException as error:
            log.debug("no system bus: %s", error)
            self._connect_at = time.monotonic() + RECONNECT
            return
        self._connection = connection
        connection.set_exit_on_disconnect(False)
        connection.add_message_filter(self._on_message)
        self._epoll.register(connection.get_unix_fd(), select.EPOLLIN)
        # The bus takes messages in order: no change is lost between a match rule
        # and the first question.
        self._ask_bus("Hello")
        for wanted in self._properties:
            for rule in wanted.match_rules():
                self._ask_bus("AddMatch", rule)
        self._all_are_due()

    def _all_are_due(self) -> None:
        self._ask_at = dict.fromkeys(self._properties, time.monotonic())

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._connect_at = time.monotonic() + RECONNECT
        self._values = {}
        self._ask_at = {}
        self._answer_by = {}

    def _ask_bus(self, method: str, *arguments: str) -> None:
        call = Call(BUS, "/org/freedesktop/DBus", BUS, method)
        call.append(*arguments)
        self._send(call, lambda _reply: None)

    def _send(self, call: Call, on_reply: Callable[[Message], None]) -> None:
        if self._connection is None:
            return
        try:
            self._connection.send_message_with_reply(call, on_reply, ANSWER)
        except DBusException as error:  # disconnected meanwhile, `handle` sees it
            log.debug("the system bus: %s", error)

    def _on_message(self, connection: Connection, message: Message) -> int:
        if connection is self._connection and message.get_member() in (
            "NameOwnerChanged",
            "PropertiesChanged",
        ):
            self._all_are_due()
        return int(HANDLER_RESULT_NOT_YET_HANDLED)

    def _ask(self) -> bool:
        """Ask for what is due and not asked for already; return whether any."""
        now = time.monotonic()
        for wanted, by in list(self._answer_by.items()):
            if by <= now:
                del self._answer_by[wanted]
        due = [
            wanted
            for wanted, at in self._ask_at.items()
            if at <= now and wanted not in self._answer_by
        ]
        for wanted in due:
            del self._ask_at[wanted]
            self._answer_by[wanted] = now + ANSWER + SLACK
            call = Call(wanted.service, wanted.path, PROPERTIES, "Get")
            call.append(wanted.interface, wanted.name)
            call.set_auto_start(False)  # looking must not start a service
            self._send(call, partial(self._on_reply, self._connection, wanted))
        return bool(due)

    def _on_reply(self, asked: Connection, wanted: Property, reply: Message) -> None:
        if asked is not self._connection:
            return
        self._answer_by.pop(wanted, None)
        self._values.pop(wanted, None)
        if not isinstance(reply, ErrorMessage):
            for untrusted_value in reply.get_args_list(byte_arrays=True):
                self._values[wanted] = untrusted_value
        elif reply.get_error_name() not in ABSENT:
            log.debug("%s: %s", wanted.name, reply.get_error_name())
            self._ask_at.setdefault(wanted, time.monotonic() + AGAIN)
