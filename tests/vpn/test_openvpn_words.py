# SPDX-License-Identifier: GPL-2.0-or-later
"""A line is cut into words as OpenVPN itself cuts it."""

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vpn.openvpn_words import LONGEST, ProfileError, lines, quoted, split

LETTERS = st.text(alphabet="ab- \t\"'\\#;é", max_size=24)
# OpenVPN makes the end of the line part of the word, which is refused here.
LETTERS = LETTERS.filter(lambda line: not line.endswith("\\"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("remote a 1", ["remote", "a", "1"]),
        ("  remote\ta\r", ["remote", "a"]),
        ('"a b" c', ["a b", "c"]),
        ("'a \\ b'c", ["a \\ b", "c"]),
        ('"a"b', ["a", "b"]),
        ('a"b', ['a"b']),
        ("a'b c'", ["a'b", "c'"]),
        ("a\\ b", ["a b"]),
        ('"a\\"b\\\\"', ['a"b\\']),
        ("\\ a", ["a"]),
        ('""', [""]),
        ("", []),
        ("# a", []),
        ("a;b ;c", ["a;b"]),
        ("\\#a", []),
        ("a '' b", ["a", "", "b"]),
    ],
)
def test_a_line_has_these_words(line: str, words: list[str]) -> None:
    assert split(line) == words


@pytest.mark.parametrize("line", ['"a', "'a", "a\\", '"a\\"', "a\\b", "\\'a'", '"\\n"'])
def test_a_line_that_openvpn_refuses_has_no_words(line: str) -> None:
    with pytest.raises(ValueError, match="backslash"):
        split(line)


def answer_of_openvpn(directory: Path, line: str) -> str:
    """The first thing OpenVPN has to say about a file of one line."""
    file = directory / "one.conf"
    file.write_text(line + "\n")
    done = subprocess.run(
        ["/usr/sbin/openvpn", "--config", str(file)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout.partition("\n")[0]


@settings(
    deadline=None,
    max_examples=100,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(LETTERS)
def test_the_real_openvpn_cuts_the_same_words(tmp_path: Path, line: str) -> None:
    """Both refuse the same lines, and agree on the words of all others.

    OpenVPN repeats an option that it does not know, and one word after
    ``proto``, which may have no more than one.
    """
    option = answer_of_openvpn(tmp_path, line)
    protocol = answer_of_openvpn(tmp_path, f"proto {line}")
    try:
        words = split(line)
    except ValueError:
        assert re.search("backslash|No closing|parse state", option)
        assert re.search("backslash|No closing|parse state", protocol)
        return
    if words:
        first = lines(line.encode())
        assert f"one.conf:1: {next(first).name} (2." in option
    if len(words) == 1:
        assert f"Bad protocol: '{words[0]}'." in protocol
    else:
        assert "Bad protocol" not in protocol


@given(st.text(max_size=60))
def test_what_is_quoted_is_read_as_it_was(word: str) -> None:
    """Or cannot be quoted at all, as a line break cannot."""
    try:
        text = quoted(word)
    except ValueError:
        assert not word.isprintable()
    else:
        assert split(text) == [word]


def test_a_word_has_a_length_that_openvpn_can_read() -> None:
    assert split(quoted("é" * 127)) == ["é" * 127]
    with pytest.raises(ValueError, match="at most 255"):
        quoted("é" * 128)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("--up x", ["up"]),
        ("-- x", ["--"]),
        ("'--up' x", ["up"]),
        ("----up", ["--up"]),
        ("<ca>\n--up x\n</ca>\nb", ["ca", "b"]),
        ('"<ca>"\nx\n\t</ca>x\nb', ["ca", "b"]),
        ("<ca> x\nb", ["<ca>", "b"]),
        ("\ufeffa", ["a"]),
        ("a\u2028b", ["a\u2028b"]),
    ],
)
def test_a_file_has_these_options(text: str, names: list[str]) -> None:
    assert [line.name for line in lines(text.encode())] == names


def test_lines_are_counted_over_blocks_and_blanks() -> None:
    text = b"\n# x\na\n<ca>\n1\n2\n</ca>\r\nb\n"
    assert [(line.number, line.name, line.block) for line in lines(text)] == [
        (3, "a", None),
        (4, "ca", ("1", "2")),
        (8, "b", None),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\nb" + b"x" * LONGEST, "2: 'b" + "x" * 59 + "'...: a line over 255 bytes"),
        (b"a" + b" a" * 16, "1: 'a': over 16 words in a line"),
        (b"a\n\xff", "2: expected text in UTF-8"),
        (b"a\n\x1b[2J", "2: '\\x1b': expected no such character"),
        (b"a\n<ca>\nb", "2: '<ca>' is not closed"),
        (b"x" * (1 << 20) + b"x", "1: 1048577 bytes, expected a profile"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(ProfileError) as refusal:
        list(lines(data))
    assert str(refusal.value) == message
