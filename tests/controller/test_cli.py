# SPDX-License-Identifier: GPL-2.0-or-later
"""The command: what it sends, what it prints where, and how it exits."""

import json
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest

from controller import cli, report
from controller.__main__ import main as program
from controller.admin import (
    MAX_REQUEST,
    Answer,
    Exit,
    Failure,
    Reply,
    Request,
    decode_request,
    encode,
)
from controller.client import NotAllowedError
from controller.explain import explain
from controller.manual import reference
from controller.plan import plan
from controller.policy import read
from controller.question import question
from controller.table import table
from controller.traffic import Traffic

EXAMPLE = Path(__file__).parents[2] / "examples" / "home.toml"
HOME = read(EXAMPLE.read_text(), file="home.toml", qids={}, now=1000)
DEADLINE = 20  # seconds


@dataclass(slots=True)
class Daemon:
    """Answers every request, and remembers them; ``replies`` has those to verbs."""

    path: Path
    reply: Reply
    heard: list[Request] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    listening: socket.socket = field(
        default_factory=lambda: socket.socket(socket.AF_UNIX)
    )

    def start(self, path: Path) -> None:
        self.listening.bind(str(path))
        self.listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                line = connection.recv(MAX_REQUEST).removesuffix(b"\n")
                self.heard.append(decode_request(line))
                reply = self.replies.get(self.heard[-1].verb, self.reply)
                connection.sendall(encode(reply))

    def stop(self) -> None:
        if self.path.exists():
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()


Ran = Callable[..., tuple[int, str, str]]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    found = Daemon(tmp_path / "s", Answer({"changes": []}))
    yield found
    found.stop()


@pytest.fixture
def ravelin(daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run the command; return its exit status, stdout and stderr."""

    def run(*words: str, reply: Reply | None = None) -> tuple[int, str, str]:
        if reply is not None:
            daemon.reply = reply
            if not daemon.path.exists():
                daemon.start(daemon.path)
        arguments = ["--socket", str(daemon.path), *words]
        status = cli.main(arguments, start=lambda path, _: daemon.start(path))
        heard = capsys.readouterr()
        return status, heard.out, heard.err

    return run


TRAFFIC = {"work": Traffic(12_345_678, 999, receiving=1500.4, sending=0.0)}
STATUS = Answer(report.status(HOME, dict.fromkeys(HOME.by_name, "UP"), {}, {}, TRAFFIC))
TREE = """\
NAME             PERSONALITY  NETVM          IP          IP6
sys-net          netvm        -              10.137.0.1  fd09:24ef:4179::a89:1
  sys-firewall   firewall     sys-net        10.137.0.2  fd09:24ef:4179::a89:2
    work         -            sys-firewall   10.137.0.4  fd09:24ef:4179::a89:4
    personal     -            sys-firewall   10.137.0.5  fd09:24ef:4179::a89:5
  sys-firewall2  firewall     sys-net        10.137.0.3  fd09:24ef:4179::a89:3
    untrusted    -            sys-firewall2  10.137.0.6  fd09:24ef:4179::a89:6
vault            -            -              10.137.0.7  fd09:24ef:4179::a89:7
"""


@pytest.mark.parametrize("words", [[], ["status"]], ids=["no verb", "status"])
def test_status_is_a_tree(ravelin: Ran, words: list[str]) -> None:
    status, out, err = ravelin(*words, reply=STATUS)

    assert (status, err) == (0, "")
    at = out.index("STATE")
    lines = out.splitlines()
    assert [line[:at].rstrip() for line in lines] == TREE.splitlines()
    rest = [line[at:].split() for line in lines[1:]]
    assert all((words[0], words[-1]) == ("UP", "-") for words in rest)
    assert "  UP     12.3 MB, 1.5 kB/s  999 B  -" in out


def test_names_are_one_a_line(ravelin: Ran) -> None:
    _, out, _ = ravelin("status", "--names", reply=STATUS)

    assert sorted(out.split()) == sorted(HOME.by_name)


def test_a_problem_of_one_domain_is_shown_and_exits_3(ravelin: Ran) -> None:
    problems = {"work": "rule 2 cannot be read"}
    reply = Answer(report.status(HOME, {}, problems, {}, {}))

    status, out, _ = ravelin(reply=reply)

    assert status == Exit.NOT_ENFORCED
    assert out.count("rule 2 cannot be read") == 1


def test_json_is_the_data_as_it_came(ravelin: Ran) -> None:
    status, out, err = ravelin("status", "--json", reply=STATUS)

    assert (status, json.loads(out), err) == (0, STATUS.data, "")


def test_nothing_up_is_said_with_how_to_start(ravelin: Ran) -> None:
    assert ravelin("apply") == (
        Exit.NOT_ENFORCED,
        "",
        "ravelin: nothing is up; `ravelin up POLICY.toml` starts it\n",
    )


def test_up_starts_the_daemon_and_names_the_file_wherever_it_is(
    ravelin: Ran, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLE.parent)
    daemon.reply = Answer(report.plan(plan(None, HOME)))

    status, out, _ = ravelin("up", "home.toml")

    assert status == 0
    assert out.startswith("+ sys-net: netvm red, uplink lab\n")
    assert daemon.heard == [Request("up", {"policy": str(EXAMPLE)})]


def test_a_package_that_is_missing_is_named(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "controller.service", None)

    status = program(["--socket", str(daemon.path), "up", str(EXAMPLE)])

    assert status == Exit.NOT_ENFORCED
    (line,) = capsys.readouterr().err.splitlines()
    assert "controller.service" in line
    assert "docs/how-to/install.md" in line


def test_a_bad_policy_starts_nothing(
    ravelin: Ran, daemon: Daemon, tmp_path: Path
) -> None:
    file = tmp_path / "home.toml"
    file.write_text("[domains.work]\nnetwm = 'x'\n")

    status, out, err = ravelin("up", str(file))

    assert (status, out) == (Exit.USAGE, "")
    assert err == f"ravelin: {file}:2: work: unknown key netwm, did you mean netvm?\n"
    assert not daemon.path.exists()


def test_a_missing_policy_is_named(ravelin: Ran) -> None:
    status, _, err = ravelin("up", "/no/such.toml")

    assert status == Exit.USAGE
    assert err == "ravelin: /no/such.toml:1: No such file or directory, expected TOML\n"


def test_a_failure_goes_to_stderr_with_its_exit_status(ravelin: Ran) -> None:
    reply = Failure(Exit.NOT_ENFORCED, "sys-net: no table\nwork: unlinked")

    assert ravelin("apply", reply=reply) == (
        Exit.NOT_ENFORCED,
        "",
        "ravelin: sys-net: no table\nravelin: work: unlinked\n",
    )


def test_a_plan_that_differs_exits_1(ravelin: Ran) -> None:
    assert ravelin("plan", reply=Answer(report.plan(plan(HOME, HOME)))) == (0, "", "")

    status, out, _ = ravelin("plan", reply=Answer(report.plan(plan(None, HOME))))

    assert status == Exit.DIFFERS
    assert "+ work: rule 0: accept specialtarget=dns\n" in out


@pytest.mark.parametrize(
    ("port", "status", "last"),
    [("443", 0, "leaves into the embedded internet"), ("80", 1, "no rule of work")],
)
def test_an_explanation_ends_with_the_verdict(
    ravelin: Ran, port: str, status: int, last: str
) -> None:
    names = {"www.example.com": frozenset({ip_address("203.0.113.80")})}
    asked = question(None, f"www.example.com:{port}")
    routes = explain(HOME, "work", asked, names=names, now=1000)

    found, out, _ = ravelin(
        "explain", "work", "x", reply=Answer(report.explanation(routes))
    )

    assert found == status
    assert last in out.splitlines()[-1]


RESOLVE = ("explain", "--resolve", "work", "tcp", "a.example:443")


def explained(*, whom: bool) -> Answer:
    asked = {"domain": "work", "host": "a.example"} if whom else None
    return Answer({"accepted": True, "asked": asked, "routes": []})


def printing(*lines: str, status: int = 0) -> Answer:
    script = f"printf '%s\\n' \"$@\"; exit {status}"
    return Answer({"argv": ["/bin/sh", "-c", script, "sh", *lines]})


def test_resolve_has_the_domain_asked_and_explains_what_it_is_told(
    ravelin: Ran, daemon: Daemon
) -> None:
    lines = ("192.0.2.7       STREAM a.example", "2001:db8::7     DGRAM  ")
    daemon.replies["run"] = printing(*lines)
    status, out, err = ravelin(*RESOLVE, reply=explained(whom=True))

    assert (status, out) == (0, "work itself was asked for a.example\n")
    assert err == "ravelin: work is asked for a.example\n"
    run, explain = daemon.heard
    assert run.words("command") == ("/usr/bin/getent", "ahosts", "a.example")
    assert explain.maybe_words("told") == ("192.0.2.7", "2001:db8::7")


def test_a_name_that_nobody_knows_is_explained_without_an_address(
    ravelin: Ran, daemon: Daemon
) -> None:
    daemon.replies["run"] = printing(status=2)
    ravelin(*RESOLVE, reply=explained(whom=True))

    assert daemon.heard[-1].maybe_words("told") == ()


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "work", "tcp", "a.example:443"),
        ("explain", "--resolve", "work", "tcp", "192.0.2.7:443"),
        ("explain", "--resolve", "work", "2001:db8::7"),
    ],
    ids=["not wished", "an IPv4 address", "an IPv6 address"],
)
def test_nobody_is_asked_without_need(
    ravelin: Ran, daemon: Daemon, words: tuple[str, ...]
) -> None:
    _, out, _ = ravelin(*words, reply=explained(whom=False))

    (explain,) = daemon.heard
    assert (explain.maybe_words("told"), out) == (None, "")


def test_a_domain_that_talks_nonsense_is_named_and_nothing_is_explained(
    ravelin: Ran, daemon: Daemon
) -> None:
    daemon.replies["run"] = printing("\x1b[2J is at home")
    status, out, err = ravelin(*RESOLVE, reply=explained(whom=True))

    assert (status, out) == (Exit.NOT_ENFORCED, "")
    assert "work was asked for a.example: '\\x1b[2J is at home': no line of" in err
    assert [each.verb for each in daemon.heard] == ["run"]


@pytest.mark.parametrize("host", ["-s", "a b", "127.1", "a..b", "x" * 300])
def test_what_is_no_name_is_not_asked_for(
    ravelin: Ran, daemon: Daemon, host: str
) -> None:
    words = ("explain", "--resolve", "work", "tcp", f"{host}:443")
    status, _, err = ravelin(*words, reply=explained(whom=True))

    assert (status, daemon.heard) == (Exit.USAGE, [])
    assert "no name that can be asked for" in err or "usage:" in err


def test_who_cannot_be_entered_is_not_asked(ravelin: Ran, daemon: Daemon) -> None:
    daemon.replies["run"] = Failure(Exit.USAGE, "work: no such domain")
    status, _, err = ravelin(*RESOLVE, reply=explained(whom=True))

    assert (status, err) == (Exit.USAGE, "ravelin: work: no such domain\n")


def test_rules_are_listed_as_qvm_firewall_does(ravelin: Ran) -> None:
    text = (
        "[domains.a]\nfirewall = ['accept www.example.com tcp 443 expire=1060', "
        "'drop dst4=10.0.0.0/8 comment=no LAN', 'drop proto=icmp icmptype=8 expire=9']"
    )
    domain = read(text, file="x", qids={}, now=1000).named("a")
    reply = Answer(report.rules(domain, now=1000))

    _, listed, _ = ravelin("firewall", "a", reply=reply)
    _, raw, _ = ravelin("firewall", "a", "list", "--raw", reply=reply)

    assert [line.split() for line in listed.splitlines()[1:]] == [
        ["0", "accept", "www.example.com", "tcp", "443", "-", "-", "+60s", "-"],
        ["1", "drop", "10.0.0.0/8", "-", "-", "-", "-", "-", "no", "LAN"],
        ["2", "drop", "-", "icmp", "-", "-", "8", "expired", "-"],
    ]
    assert raw.splitlines()[1] == "action=drop dst4=10.0.0.0/8 comment=no LAN"


def test_a_change_of_rules_is_sent_and_what_changed_is_printed(
    ravelin: Ran, daemon: Daemon
) -> None:
    change = {"sign": "+", "domain": "work", "text": "rule 1: drop"}

    status, out, _ = ravelin(
        "firewall",
        "work",
        "add",
        "--before",
        "1",
        "drop",
        reply=Answer({"changes": [change]}),
    )

    assert (status, out) == (0, "+ work: rule 1: drop\n")
    assert daemon.heard == [
        Request(
            "firewall",
            {
                "domain": "work",
                "action": "add",
                "rule": ("drop",),
                "number": 1,
            },
        )
    ]


def test_settings_are_shown_one_or_all(ravelin: Ran) -> None:
    reply = Answer(report.prefs(HOME.named("work")))

    _, one, _ = ravelin("prefs", "work", "netvm", reply=reply)
    _, every, _ = ravelin("prefs", "work", reply=reply)

    assert one == "sys-firewall\n"
    assert "netvm        sys-firewall\n" in every


def test_the_log_is_a_table(ravelin: Ran) -> None:
    entry = {"time": "12:00:00", "domain": "work", "text": "denied \x1b[31m"}

    _, out, _ = ravelin("log", reply=Answer({"events": [entry]}))

    assert out.splitlines()[1] == "12:00:00  work    denied ?[31m"


def test_what_was_asked_and_named_does_not_drive_the_terminal(ravelin: Ran) -> None:
    route = {"destination": "\x1b[2J", "verdict": "unknown", "hops": []}
    change = {"sign": "+", "domain": "work", "text": "\x1b[2J"}

    _, explained, _ = ravelin("explain", "work", "x", reply=Answer({"routes": [route]}))
    _, planned, _ = ravelin("plan", reply=Answer({"changes": [change]}))

    assert explained.splitlines()[0] == "?[2J: unknown"
    assert planned == "+ work: ?[2J\n"


def test_run_exits_as_the_command_does(ravelin: Ran) -> None:
    def argv(script: str) -> Answer:
        return Answer({"argv": ["/bin/sh", "-c", script]})

    words = ("run", "work", "--", "x")
    assert ravelin(*words, reply=argv("exit 7"))[0] == 7
    assert ravelin(*words, reply=argv("kill -TERM $$"))[0] == 128 + 15
    assert ravelin(*words, reply=Answer({}))[0] == Exit.NOT_ENFORCED


def test_a_user_who_is_not_root_is_told_to_be(
    ravelin: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> Reply:
        raise NotAllowedError

    monkeypatch.setattr(cli, "ask", refused)

    _, _, err = ravelin("down")

    assert err.startswith("ravelin: need root: sudo ravelin --socket")


@pytest.mark.parametrize(
    ("name", "word"),
    [("stdout", "status"), ("stdout", "--help"), ("stderr", "apply")],
)
def test_who_reads_may_have_enough(
    ravelin: Ran, daemon: Daemon, monkeypatch: pytest.MonkeyPatch, name: str, word: str
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    daemon.replies["apply"] = Failure(Exit.DIFFERS, "refused")

    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, name, stream)
        found = ravelin(word, reply=STATUS)

    assert found == (Exit.DIFFERS if word == "apply" else Exit.OK, "", "")


def test_a_disk_that_is_full_is_said_once(
    ravelin: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        status, _, err = ravelin("status", reply=STATUS)

    assert status == Exit.NOT_ENFORCED
    assert err.startswith("ravelin: [Errno 28] No space left on device")


def test_the_socket_is_beside_whoever_asks(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(daemon.path.parent)
    started: list[Path] = []

    def start(path: Path, _: object) -> None:
        started.append(path)
        daemon.start(path)

    cli.main(["--socket", daemon.path.name, "up", str(EXAMPLE)], start=start)

    assert started == [daemon.path]


def test_completion_needs_no_daemon(ravelin: Ran) -> None:
    status, out, _ = ravelin("completion", "bash")

    assert status == 0
    assert out.endswith("complete -F _ravelin ravelin\n")


def test_a_usage_error_exits_2(ravelin: Ran) -> None:
    assert ravelin("down", "now")[0] == Exit.USAGE


def test_colours_are_for_the_first_column_and_do_not_shift_the_others() -> None:
    plain = table(["A", "B"], [["long", "x"], ["s", "y"]])
    shown = table(["A", "B"], [["long", "x"], ["s", "y"]], ["red", "black"])

    assert plain == ["A     B", "long  x", "s     y"]
    assert shown[1:] == ["\x1b[31mlong\x1b[0m  x", "\x1b[90ms   \x1b[0m  y"]


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [
        ({}, True),
        ({"NO_COLOR": ""}, True),  # as https://no-color.org has it
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
    ids=str,
)
def test_colours_are_for_terminals_that_want_them(
    ravelin: Ran,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    *,
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "linux")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    _, out, _ = ravelin("status", reply=STATUS)

    assert ("\x1b[" in out) == coloured


def test_the_reference_page_names_every_key_of_the_data() -> None:
    page = reference()
    work = HOME.named("work")
    routes = explain(HOME, "work", question(None, "192.0.2.1"), names={}, now=0)
    data = [
        STATUS.data,
        report.prefs(work),
        report.rules(work, now=0),
        report.plan(plan(None, HOME)),
        report.explanation(routes, {"domain": "work", "host": "a.example"}),
    ]

    keys = set(_keys(json.loads(json.dumps(data))))

    assert [key for key in keys if f"`{key}`" not in page] == []


def _keys(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        yield from tree
    for child in tree.values() if isinstance(tree, dict) else ():
        yield from _keys(child)
    for child in tree if isinstance(tree, list) else ():
        yield from _keys(child)
