# SPDX-License-Identifier: GPL-2.0-or-later
"""Which client a circuit carried is known from what tor says of both."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from rules.facts import Client
from rules.model import Address
from torvm.said import Circuit, Stream, StreamsLost
from torvm.usage import Usage

A = Client("vif1.0", 1, "00:16:3e:5e:6c:01", IPv4Address("10.137.0.1"))
B = Client("vif2.0", 2, "00:16:3e:5e:6c:02", IPv4Address("10.137.0.2"))


def whose(address: Address) -> Client | None:
    return {A.ip: A, B.ip: B}.get(IPv4Address(str(address)))


def opened(usage: Usage, stream: str, client: Client, circuit: str) -> None:
    usage.stream(Stream(stream, "NEW", "", client.ip), whose)
    usage.stream(Stream(stream, "SENTCONNECT", circuit), whose)


def test_a_stream_is_known_by_who_opened_it() -> None:
    """Only the first event of a stream says where it is from."""
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "7"))
    opened(usage, "1", A, "7")

    assert usage.of(A) == {"7"}
    assert usage.of(B) == frozenset()
    assert usage.shared() == frozenset()


def test_a_circuit_is_remembered_for_its_client_until_it_ends() -> None:
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "7"))
    opened(usage, "1", A, "7")
    usage.stream(Stream("1", "CLOSED", "7"), whose)
    assert usage.of(A) == {"7"}
    usage.circuit(Circuit("7", "CLOSED", "7"))

    assert usage.of(A) == frozenset()


def test_what_was_not_understood_is_nobodys() -> None:
    """Also not that of who began before, and it is counted."""
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "7"))
    usage.take(Stream("1", "NEW", "", A.ip), whose)
    usage.take(StreamsLost(), whose)
    usage.take(Stream("1", "SENTCONNECT", "7"), whose)

    assert usage.of(A) == frozenset()
    assert usage.missed == 1


def test_a_circuit_that_is_over_is_not_remembered() -> None:
    """tor says of streams and of circuits on two connections."""
    usage = Usage()
    opened(usage, "1", A, "7")

    assert usage.of(A) == frozenset()


def test_two_clients_on_one_circuit_are_seen() -> None:
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "7"))
    opened(usage, "1", A, "7")
    opened(usage, "2", B, "7")

    assert usage.shared() == {"7"}


def test_two_circuits_that_carry_one_stream_are_one() -> None:
    """X9: with conflux the numbers differ and the clients share it all the same."""
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "SET"))
    usage.circuit(Circuit("8", "BUILT", "SET"))
    opened(usage, "1", A, "7")
    opened(usage, "2", B, "8")

    assert usage.shared() == {"SET"}


def test_the_list_of_all_circuits_makes_good_what_was_missed() -> None:
    usage = Usage()
    usage.circuit(Circuit("7", "BUILT", "7"))
    opened(usage, "1", A, "7")
    usage.follow([Circuit("9", "BUILT", "9")])

    assert usage.open == 1
    assert usage.of(A) == frozenset()


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from([A, B]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_it_is_shared_just_if_two_clients_were_on_it(
    streams: list[tuple[int, Client, int]],
) -> None:
    usage = Usage()
    users: dict[str, set[Client]] = {}
    for number, (_, client, circuit) in enumerate(streams):
        usage.circuit(Circuit(str(circuit), "BUILT", str(circuit % 3)))
        opened(usage, str(number), client, str(circuit))
        users.setdefault(str(circuit % 3), set()).add(client)

    assert usage.shared() == {key for key, found in users.items() if len(found) > 1}
