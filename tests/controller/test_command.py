# SPDX-License-Identifier: GPL-2.0-or-later
"""One table of verbs makes the parser, the completions and the pages."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from controller.command import build, parse
from controller.completion import completion
from controller.manual import MAN, REFERENCE, man, reference
from controller.verbs import SHELLS, VERBS, VERSION

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "means"),
    [
        ([], {"verb": "status", "json": False, "names": False}),
        (["--json"], {"verb": "status", "json": True}),
        (["status", "--json"], {"verb": "status", "json": True}),
        (
            ["-q", "up", "home.toml"],
            {"verb": "up", "policy": "home.toml", "quiet": True},
        ),
        (
            ["run", "--disposable", "work", "--", "sh", "-c", "a -- b", "--", "-q"],
            {
                "domain": "work",
                "disposable": True,
                "command": ["sh", "-c", "a -- b", "--", "-q"],
                "quiet": False,
            },
        ),
        (["run", "work", "ls"], {"command": ["ls"], "disposable": False}),
        (["run", "-q", "work", "ls"], {"command": ["ls"], "quiet": True}),
        (["prefs", "work"], {"property": None, "value": None}),
        (["prefs", "work", "netvm"], {"property": "netvm", "value": None}),
        (["prefs", "work", "netvm", ""], {"property": "netvm", "value": ""}),
        (["firewall", "work"], {"action": "list", "raw": False}),
        (["firewall", "--raw", "work", "list"], {"action": "list", "raw": True}),
        (["firewall", "work", "list", "--raw"], {"action": "list", "raw": True}),
        (
            ["firewall", "work", "add", "--before", "2", "drop", "proto=icmp"],
            {"action": "add", "number": 2, "rule": ["drop", "proto=icmp"]},
        ),
        (
            ["firewall", "work", "del", "--rule-no", "0"],
            {"action": "del", "number": 0, "rule": []},
        ),
        (["firewall", "work", "del", "drop"], {"rule": ["drop"], "number": None}),
        (["firewall", "work", "reset", "--json"], {"action": "reset", "json": True}),
        (["explain", "work", "a:80"], {"proto": None, "destination": "a:80"}),
        (["explain", "work", "udp", "a:53"], {"proto": "udp", "destination": "a:53"}),
        (
            ["explain", "--resolve", "work", "a:80"],
            {"resolve": True, "domain": "work", "destination": "a:80"},
        ),
        (["explain", "work", "a:80"], {"resolve": False}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_mean(words: list[str], means: dict[str, object]) -> None:
    found = vars(parse(words))

    assert {name: found[name] for name in means} == means


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["statsu"], "statsu: unknown verb, did you mean status?"),
        (["up"], "POLICY"),
        (["up", "--", "x"], "POLICY"),
        (["down", "--", "x"], "only run has a command"),
        (["run", "work", "--"], "expected run DOMAIN -- COMMAND"),
        (["run", "work"], "expected run DOMAIN -- COMMAND"),
        (["firewall", "work", "del"], "either --rule-no N or a RULE"),
        (["firewall", "work", "del", "--rule-no", "1", "drop"], "either --rule-no"),
        (["firewall", "work", "add"], "RULE"),
        (["firewall", "work", "add", "--before", "-1", "drop"], "--before"),
        (["firewall", "work", "del", "--rule-no", "x"], "'x': expected a number"),
        (["firewall", "work", "del", "0"], "expected --rule-no 0"),
        (["run", "work", "curl", "-v", "x"], "expected run DOMAIN -- COMMAND"),
        (["run", "work", "grep", "-q", "x"], "expected run DOMAIN -- COMMAND"),
        (["run", "work", "ls", "-q"], "expected run DOMAIN -- COMMAND"),
        (["firewall", "work", "move"], "move"),
        (["prefs", "work", "mac"], "mac"),
        (["explain", "work", "sctp", "a:80"], "sctp"),
        (["completion", "tcsh"], "tcsh"),
        (["status", "--jso"], "--jso"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_words_that_mean_nothing_exit_2_and_say_why(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(words)

    heard = capsys.readouterr()
    assert says in heard.err
    assert heard.out == ""


def test_help_and_version_are_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse(["--help"])
    text = capsys.readouterr().out
    assert [verb.name for verb in VERBS if verb.name not in text] == []
    with pytest.raises(SystemExit, match="0"):
        parse(["--version"])
    assert capsys.readouterr().out == f"ravelin {VERSION}\n"


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == VERSION


@pytest.mark.parametrize(("path", "text"), [(MAN, man()), (REFERENCE, reference())])
def test_a_page_is_what_the_verbs_make(path: Path, text: str) -> None:
    """Otherwise: ``python3 -m controller.manual``."""
    assert (ROOT / path).read_text() == text


def test_the_pages_have_every_verb_and_option_of_the_parser() -> None:
    usage = build().format_help()
    page = reference()

    options = {word.strip(",") for word in usage.split() if word.startswith("--")}
    assert [o for o in options - {"--help"} if o not in page] == []
    assert [v.name for v in VERBS if f"## {v.name}\n" not in page] == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_is_a_script_its_shell_can_read(
    shell: str, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text("\n".join(completion(shell)) + "\n")
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")

    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


COMPLETIONS = [
    ("ravelin st", ["status"]),
    ("ravelin fire", ["firewall"]),
    ("ravelin firewall wo", ["work"]),
    ("ravelin firewall work re", ["reset"]),
    ("ravelin firewall work add --before 1 dr", ["drop"]),
    ("ravelin run --disposable wo", ["work"]),
    ("ravelin prefs work ne", ["netvm"]),
    ("ravelin prefs work netvm sys", ["sys-net"]),
    ("ravelin status --na", ["--names"]),
    ("ravelin --socket x completion z", ["zsh"]),
    ("ravelin explain work ud", ["udp"]),
    ("ravelin explain --re", ["--resolve"]),
    ("ravelin explain --resolve work ud", ["udp"]),
    ("ravelin log wo", []),
]
STUB = "ravelin() { [ \"$*\" = 'status --names' ] && printf 'sys-net\\nwork\\n'; }\n"


CUT = [  # as bash hands a word over that has a "=" in it
    ("ravelin firewall work add proto '='", ["tcp", "udp", "icmp"]),
    ("ravelin firewall work add proto '=' u", ["udp"]),
]


@pytest.mark.parametrize(("line", "offers"), COMPLETIONS + CUT)
def test_bash_completes(line: str, offers: list[str]) -> None:
    words = " ".join(line.split())
    script = "\n".join(completion("bash"))
    ask = (
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        "_ravelin; printf '%s\\n' \"${COMPREPLY[@]}\""
    )

    heard = subprocess.run(
        ["bash", "--norc", "-c", f"{STUB}{script}\n{ask}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert heard.stdout.split() == offers


@pytest.mark.parametrize(("line", "offers"), COMPLETIONS)
def test_fish_completes(line: str, offers: list[str], tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not here")
    script = "\n".join(completion("fish"))
    stub = "function ravelin; printf 'sys-net\\nwork\\n'; end\n"

    heard = subprocess.run(
        ["fish", "--no-config", "-c", f"{stub}{script}\ncomplete -C '{line}'"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )

    assert [found.split("\t")[0] for found in heard.stdout.splitlines()] == offers
