# SPDX-License-Identifier: GPL-2.0-or-later
"""The picture shows every domain, every link, and the way of what leaks."""

import subprocess
from pathlib import Path

import pytest

from controller import graph, shown
from proof.claims import Status

DATA = {
    "domains": [
        {"name": "net", "label": "red", "personality": "netvm", "netvm": None},
        {"name": "work", "label": "blue", "personality": None, "netvm": "net"},
        {"name": 'a"b\\', "label": "green", "personality": None, "netvm": "net"},
        {"name": "vault", "label": "black", "personality": None, "netvm": None},
    ],
    "results": [
        {"claim": "a", "status": "proved", "domains": ["net"], "hops": []},
        {"claim": "b", "status": "proved", "domains": ["work"], "hops": []},
        *[
            {
                "claim": claim,
                "status": "refuted",
                "domains": ["work"],
                "packet": "tcp 1 > 2",
                "hops": [{"domain": "net", "verdict": "sent"}],
            }
            for claim in "cd"
        ],
        {"claim": "d", "status": "possible", "domains": ['a"b\\'], "hops": []},
        {"claim": "e", "status": "proved", "domains": ["vault"], "hops": []},
    ],
}
GREEN, RED, ORANGE = "#2e7d32", "#c62828", "#ef6c00"


def edges(text: str) -> list[str]:
    return [line for line in text.splitlines() if " -> " in line]


def test_a_link_has_the_colour_of_the_worst_answer_about_its_domain() -> None:
    net, work, odd, vault, leak = edges(graph.dot(DATA))

    assert net.startswith('"net" -> "outside"')
    assert GREEN in net
    assert work.startswith('"work" -> "net"')
    assert RED in work
    assert "2 refuted, 1 proved" in work
    assert odd.startswith('"a\\"b\\\\" -> "net"')
    assert ORANGE in odd
    assert vault.startswith('"vault" -> "vault"')
    assert GREEN in vault
    assert leak.startswith('"work" -> "net"')
    assert "tcp 1 > 2\\npasses net" in leak


def test_what_nothing_was_proved_of_is_not_green() -> None:
    assert GREEN not in "".join(edges(graph.dot({**DATA, "results": []})))


def test_graphviz_draws_it(tmp_path: Path) -> None:
    file = tmp_path / "home.svg"

    graph.draw(DATA, file)

    drawn = file.read_text()
    assert "<svg" in drawn
    assert ">vault<" in drawn


def test_without_graphviz_it_is_said_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "PROGRAM", "no-such-program")

    with pytest.raises(OSError, match="the package graphviz has it"):
        graph.draw(DATA, tmp_path / "home.svg")


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not drawn"):
        graph.draw(DATA, tmp_path / "no" / "home.svg")


def test_the_language_of_graphviz_is_understood_whatever_the_names() -> None:
    names = ["a b", 'x"y', "\\", "node", "é\n"]
    domains = [
        {"name": name, "label": "red", "personality": None, "netvm": names[0]}
        for name in names
    ]

    text = graph.dot({"domains": domains, "results": []})

    done = subprocess.run(["dot", "-Tplain"], input=text, text=True, check=False)
    assert done.returncode == 0


def test_the_words_for_answers_are_those_of_the_prover() -> None:
    assert {status.value for status in Status} == {*shown.STATUSES}
