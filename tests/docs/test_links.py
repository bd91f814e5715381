# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page points at is there: links, paths of the tree, other pages."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name, prose

LINK = re.compile(r"\[[^]\[]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*/?")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
OURS = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}


def anchors(page: Path) -> set[str]:
    """Return how each heading of a page is addressed."""
    words = (re.sub(r"[^\w\s-]", "", h.lower()) for h in HEADING.findall(prose(page)))
    return {re.sub(r"\s", "-", each.strip()) for each in words}


def broken(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


def missing(page: Path) -> list[str]:
    """Return the paths in backticks that are of our tree but not in it."""
    return [
        word
        for word in CODE.findall(prose(page))
        if PATH.fullmatch(word)
        and (("/" in word and word.partition("/")[0] in OURS) or word.endswith(".md"))
        and not (ROOT / word).exists()
        and not (page.parent / word).exists()
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_in_backticks_is_in_the_tree(page: Path) -> None:
    assert missing(page) == []


def test_a_broken_link_and_a_wrong_path_are_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A b\n[x](#a-b) [x](#c) [x](no.md) [x](page.md#a-b)\n"
        "`rules/decide.py` `rules/no.py` `qubes/firewall.py` `no.md`\n"
    )

    assert broken(page) == ["#c", "no.md"]
    assert missing(page) == ["rules/no.py", "no.md"]


def test_every_page_is_on_the_map() -> None:
    map_page = ROOT / "docs/README.md"
    linked = {
        (map_page.parent / link).resolve() for link in LINK.findall(prose(map_page))
    }

    assert [
        name(page)
        for page in PAGES
        if page.parent != ROOT and page != map_page and page not in linked
    ] == []
