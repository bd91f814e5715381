# SPDX-License-Identifier: GPL-2.0-or-later
"""What was computed a moment ago is not computed again, and is never another's."""

from hypothesis import given
from hypothesis import strategies as st

from rules.remember import LastTime

LISTS = st.lists(st.tuples(st.text("ab", max_size=2), st.integers(0, 2)), unique=True)


@given(st.lists(LISTS, max_size=6))
def test_it_is_what_the_function_says_whatever_was_asked_before(
    calls: list[list[tuple[str, int]]],
) -> None:
    remembered = LastTime(lambda text, number: (text, number))

    for arguments in calls:
        assert remembered(arguments) == tuple(arguments)


def test_only_what_is_new_is_computed() -> None:
    """One that comes, one that goes, and one that changes its place."""
    computed: list[str] = []

    def function(text: str, number: int) -> str:
        computed.append(text)
        return text * number

    remembered = LastTime(function)
    remembered([("a", 1), ("b", 1), ("c", 1), ("d", 1)])
    computed.clear()

    found = remembered([("a", 1), ("c", 1), ("x", 2), ("b", 1), ("d", 1)])

    assert found == ("a", "c", "xx", "b", "d")
    assert computed == ["x"]


def test_for_the_same_arguments_it_is_the_same_object() -> None:
    remembered = LastTime(lambda text, number: text * number)
    first = remembered(iter([("a", 1), ("b", 2)]))

    assert remembered(iter([("a", 1), ("b", 2)])) is first
    assert remembered(iter([("a", 1), ("b", 3)])) is not first
