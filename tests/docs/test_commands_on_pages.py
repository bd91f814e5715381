# SPDX-License-Identifier: GPL-2.0-or-later
"""Every ``ravelin …`` on a page is a command that ravelin has."""

import re
import shlex
from contextlib import suppress
from pathlib import Path

import pytest

from controller.command import parse
from controller.verbs import VERBS
from tests.docs.pages import PAGES, blocks, name, prose

VERB = re.compile(r"`(?:sudo )?ravelin ([a-z]+)")
INLINE = re.compile(r"`(?:sudo )?ravelin ([a-z][^`]*)`")
COMMAND = re.compile(r"(?:sudo )?(?:bin/)?ravelin (.*)")
NAMES = {verb.name for verb in VERBS}
TARGETS = {
    "bench",
    "check",
    "demo",
    "demo-tor",
    "install",
    "setup",
    "test",
    "uninstall",
}
MAKE = re.compile(r"\bmake ([a-z-]+)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_in_a_block_can_be_read(page: Path) -> None:
    for block in blocks(page):
        for line in block.commands():
            found = COMMAND.match(line)
            if found is not None:
                words = shlex.split(found[1], comments=True)
                assert parse(words).verb in NAMES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_verb_in_a_sentence_is_one(page: Path) -> None:
    assert [verb for verb in VERB.findall(prose(page)) if verb not in NAMES] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_command_in_a_sentence_has_a_word_too_many(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One may be named in part, as `ravelin firewall` is."""
    for words in INLINE.findall(prose(page)):
        with suppress(SystemExit):
            parse(shlex.split(words))
    assert "unrecognized" not in capsys.readouterr().err


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_target_of_make_is_one(page: Path) -> None:
    lines = [line for block in blocks(page) for line in block.commands()]
    words = re.findall(r"`([^`\n]+)`", prose(page))
    found = {target for text in lines + words for target in MAKE.findall(text)}

    assert found <= TARGETS


def test_the_targets_are_those_of_the_makefile() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()

    heads = re.findall(r"^([a-z -]+):(?!=)", makefile, re.MULTILINE)

    assert {target for head in heads for target in head.split()} >= TARGETS
