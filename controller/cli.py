# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``ravelin``: data on stdout, talk on stderr; the daemon does the rest."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from controller import output, shown, told
from controller.admin import (
    SHAPES,
    Answer,
    Exit,
    Failure,
    Json,
    Kind,
    ProtocolError,
    Request,
)
from controller.client import NotAllowedError, NotRunningError, ask
from controller.command import parse
from controller.completion import completion
from controller.hear import hear
from controller.question import QuestionError, question
from controller.table import printable

Starter = Callable[[Path, Callable[[str], None]], None]
"""Starts the daemon; returns when it listens at the path, and tells if it is slow."""


def main(words: Sequence[str], *, start: Starter) -> int:
    """Do what ``words`` say, the program's name left out; return the exit status."""
    try:
        return _carried_out(parse(words), start)
    except SystemExit as error:
        _write(sys.stdout, ())  # what argparse has written, to who may have enough
        return error.code if isinstance(error.code, int) else Exit.USAGE
    except QuestionError as error:
        text, status = str(error), int(Exit.USAGE)
    except NotRunningError as error:
        text, status = _nothing_is_up(error.socket), Exit.NOT_ENFORCED
    except NotAllowedError:
        text, status = f"need root: sudo ravelin {shlex.join(words)}", Exit.NOT_ENFORCED
    except (ProtocolError, OSError) as error:
        text, status = f"{error}; `ravelin status` tells what is up", Exit.NOT_ENFORCED
    except KeyboardInterrupt:
        text, status = "stopped waiting; what was asked goes on", 128 + signal.SIGINT
    _say(text)
    return status


def _nothing_is_up(socket: Path) -> str:
    """Tell a daemon that was never started from one that has crashed."""
    if not socket.exists():
        return "nothing is up; `ravelin up POLICY.toml` starts it"
    return (
        "the daemon has ended without `ravelin down`, and nobody looks after what it "
        "left; `ravelin up POLICY.toml` starts anew, `ravelin down` takes it away"
    )


def _say(text: str) -> None:
    _write(sys.stderr, [f"ravelin: {printable(line)}" for line in text.splitlines()])


def _write(stream: TextIO, lines: Sequence[str]) -> None:
    try:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()
    except OSError as error:
        # What could not be written, Python would write again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):  # who reads may have enough
            raise


def _carried_out(asked: Namespace, start: Starter) -> int:
    if asked.verb == "completion":
        _write(sys.stdout, completion(asked.shell))
        return Exit.OK
    if asked.verb == "up" and (mistakes := _mistakes(Path(asked.policy))):
        _say(mistakes)
        return Exit.USAGE
    socket, request = Path(asked.socket).absolute(), _request(asked)

    def tell(text: str) -> None:
        if not asked.quiet:
            _say(text)

    try:
        reply = _reply(asked, socket, request, tell)
    except NotRunningError:
        # A crash leaves the socket, and what a new daemon sweeps away first.
        crashed = asked.verb == "down" and socket.exists()
        if asked.verb != "up" and not crashed:
            raise
        start(socket, tell)
        reply = ask(socket, request, tell)
    match reply:
        case Failure(exit_code, text):
            _say(text)
            return exit_code
        case Answer(data):
            return _answered(asked, data)


def _reply(
    asked: Namespace, socket: Path, request: Request, tell: Callable[[str], None]
) -> Answer | Failure:
    """Ask the daemon, after the domain itself if it is to ask for a name."""
    if asked.verb != "explain" or not asked.resolve:
        return ask(socket, request, tell)
    host = question(asked.proto, asked.destination).host
    if not told.needs_asking(host):
        return ask(socket, request, tell)
    entry = {"domain": asked.domain, "command": told.command(host), "disposable": False}
    entered = ask(socket, Request("run", entry), tell)
    if isinstance(entered, Failure):
        return entered
    tell(f"{asked.domain} is asked for {host}")
    try:
        heard = hear(_argv(entered.data), within=told.WITHIN, longest=told.LONGEST)
        words = tuple(map(str, told.answer(*heard)))
    except (told.ToldError, OSError) as error:
        why = f"{asked.domain} was asked for {host}: {error}"
        return Failure(Exit.NOT_ENFORCED, why)
    return ask(socket, Request("explain", {**request.arguments, "told": words}), tell)


def _mistakes(path: Path) -> str:
    """Return every mistake in the file before anything is started, or nothing."""
    # Only `up` waits for this, as for the daemon.
    from controller import policy  # noqa: PLC0415

    try:
        text = policy.text_of(path)
        policy.read(text, file=str(path), qids={}, now=int(time.time()))
    except policy.PolicyError as error:
        return str(error)
    return ""


def _request(asked: Namespace) -> Request:
    """Return the request: each of its arguments is a word of the command."""
    given = {name: getattr(asked, name, None) for name in SHAPES[asked.verb]}
    for name, kind in SHAPES[asked.verb].items():
        if kind is Kind.WORDS:
            given[name] = tuple(given[name] or ())
    if asked.verb == "up":
        # The daemon has another working directory.
        given["policy"] = str(Path(asked.policy).resolve())
    return Request(asked.verb, given)


def _answered(asked: Namespace, data: Json) -> int:
    if asked.verb == "run":
        return _run(data)
    lines = [json.dumps(data, indent=2)] if asked.json else _lines(asked, data)
    _write(sys.stdout, lines)
    tree = data if isinstance(data, Mapping) else {}
    if asked.verb == "plan" and (tree.get("changes") or tree.get("failing")):
        return Exit.DIFFERS
    if asked.verb == "explain":
        return _explained(tree)
    if asked.verb == "verify":
        return _verified(asked, data)
    proof = tree.get("proof")
    refuted = isinstance(proof, Mapping) and proof.get("state") == "refuted"
    if refuted or any(row.get("problem") for row in output.rows(data, "domains")):
        return Exit.NOT_ENFORCED
    return Exit.OK


def _explained(tree: Mapping[str, Json]) -> int:
    verdicts = {row.get("kernel_verdict") for row in output.rows(tree, "routes")}
    if tree.get("differs") or "unknown" in verdicts:
        return Exit.NOT_ENFORCED
    return Exit.OK if tree.get("accepted") is True else Exit.DIFFERS


def _verified(asked: Namespace, data: Json) -> int:
    if asked.graph is not None:
        from controller import graph  # noqa: PLC0415 (only who wants a picture waits)

        graph.draw(data, Path(asked.graph))
    return shown.verdict_of_all(data)


def _lines(asked: Namespace, data: Json) -> list[str]:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    colour = sys.stdout.isatty() and not plain
    views: Mapping[str, Callable[[], list[str]]] = {
        "names": lambda: output.names(data),
        "status": lambda: [
            *output.status(data, colour=colour),
            *shown.standing(data, colour=colour),
        ],
        "raw": lambda: output.raw_rules(data),
        "list": lambda: output.rules(data, colour=colour),
        "prefs": lambda: output.settings(data, asked.property),
        "explain": lambda: shown.routes(data, colour=colour),
        "verify": lambda: shown.verified(data, colour=colour),
        "log": lambda: output.log(data),
        "tor": lambda: output.tor(data),
        "changes": lambda: output.changes(data, colour=colour),
    }
    return views[_view(asked)]()


def _view(asked: Namespace) -> str:
    if asked.verb == "status" and asked.names:
        return "names"
    if asked.verb == "firewall" and asked.action == "list":
        return "raw" if asked.raw else "list"
    if asked.verb in ("status", "explain", "verify", "log", "tor"):
        return str(asked.verb)
    return "prefs" if asked.verb == "prefs" and asked.value is None else "changes"


def _run(data: Json) -> int:
    """Run what the daemon says enters the domain, on this terminal."""
    command = subprocess.Popen(_argv(data))  # noqa: S603 (asked for)

    def forward(number: int, _: object) -> None:
        command.send_signal(number)

    # Ctrl-C is for the command alone; a handler, since SIG_IGN would be inherited.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None)}
    for each in (signal.SIGTERM, signal.SIGHUP):
        before[each] = signal.signal(each, forward)
    try:
        status = command.wait()
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return status if status >= 0 else 128 - status


def _argv(data: Json) -> list[str]:
    argv = data.get("argv") if isinstance(data, Mapping) else None
    if not isinstance(argv, list) or not argv:
        raise ProtocolError("the daemon named no command")
    return [str(word) for word in argv]
