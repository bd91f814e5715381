# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb does what it says, and every mistake is an answer."""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from controller import supervise
from controller.admin import SHAPES, Answer, Argument, Exit, Failure, Kind, Request
from controller.domain import Domain
from controller.handle import Handler
from controller.journal import Journal
from controller.numbers import Numbers
from controller.output import rows
from controller.personality import Personality
from controller.ports import Uplink, UplinkError
from controller.prover import Ticket
from controller.steps import Reply, Until
from controller.tasks import Task, Verify, Walk
from controller.trial import Trial
from controller.verify import beside
from tests.controller.fake_world import FakeProver, Manners, World, a_world
from tests.controller.scenes import scene

POLICY = """\
# mine
[domains.net]
personality = "netvm"
uplink = "lab"

[domains.fw]
personality = "firewall"
netvm = "net"

[domains.work]
netvm = "fw"
firewall = [
  "accept proto=tcp dstports=443",  # the web
  "accept specialtarget=dns",
]

[domains.vault]
"""
WORK = "10.137.0.3"


@dataclass
class Desk:
    """A handler, its world and its policy file."""

    world: World
    file: Path
    handler: Handler = field(init=False)
    lacks: str = ""
    prover: FakeProver = field(default_factory=FakeProver)

    def __post_init__(self) -> None:
        numbers, runtime = Numbers(self.world.runtime), self.world.runtime
        self.handler = Handler(
            self.world.deployment,
            numbers,
            Journal(),
            runtime,
            self.check,
            Trial(runtime),
            self.prover,
        )

    def check(self, domains: Iterable[Domain]) -> None:
        if self.lacks and self.lacks in {domain.name for domain in domains}:
            raise UplinkError(self.lacks, "cart: no such interface")

    def ask(self, verb: str, *, patient: bool = True, **given: Argument) -> Reply:
        nothing: dict[Kind, Argument] = {Kind.WORDS: (), Kind.FLAG: False}
        empty = {name: nothing.get(kind) for name, kind in SHAPES[verb].items()}
        request = Request(verb, {**empty, **given})
        return self.world.carry_out(self.handler.handle(request), patient=patient)

    def up(self) -> Reply:
        return self.ask("up", policy=str(self.file))

    def firewall(self, action: str, *rule: str, number: int | None = None) -> Reply:
        return self.ask(
            "firewall", domain="work", action=action, rule=rule, number=number
        )

    def log(self) -> list[tuple[object, object]]:
        events = rows(self.handler.journal.data(), "events")
        return [(event["domain"], event["text"]) for event in events]

    def rules(self) -> list[str]:
        found = self.world.contents("fw").items()
        base = f"/qubes-firewall/{WORK}/0"
        return [value.decode() for key, value in found if key.startswith(base)]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(supervise, "FIRST_DELAY", 0.001)
    file = tmp_path / "home.toml"
    file.write_text(POLICY)
    with a_world(tmp_path) as world:
        yield Desk(world, file)


def data(reply: Reply) -> object:
    assert isinstance(reply, Answer), reply
    return reply.data


def changes(reply: Reply) -> list[str]:
    found = rows(json.loads(json.dumps(data(reply))), "changes")
    return [f"{row['sign']} {row['domain']}: {row['text']}" for row in found]


def test_up_starts_and_numbers_what_the_file_says(desk: Desk) -> None:
    found = changes(desk.up())

    assert found[0] == "+ net: netvm red, uplink lab"
    assert "+ work: rule 1: accept specialtarget=dns" in found
    assert desk.world.platform.there == {"net", "fw", "work", "vault"}
    known = Numbers(desk.world.runtime).known()
    assert known == {"net": 1, "fw": 2, "work": 3, "vault": 4}


def test_what_the_platform_cannot_have_stops_nothing(desk: Desk) -> None:
    """Neither the domains nor the file change, and the numbers are not given."""
    desk.up()
    text = desk.file.read_text()
    safe = '[domains.safe]\npersonality = "netvm"\nuplink = "cart"'
    desk.file.write_text(text.replace("[domains.vault]", safe))
    desk.lacks = "safe"

    reply = desk.ask("apply")

    line = desk.file.read_text().split("\n").index('uplink = "cart"') + 1
    why = f"{desk.file}:{line}: safe: uplink: cart: no such interface"
    assert reply == Failure(Exit.NOT_ENFORCED, why)
    assert desk.world.platform.there == {"net", "fw", "work", "vault"}
    assert "safe" not in Numbers(desk.world.runtime).known()
    desk.lacks = ""
    assert changes(desk.ask("apply"))[0].startswith("- vault")


def test_an_uplink_that_is_lacking_is_named_where_it_is_on_disk(desk: Desk) -> None:
    """Not in the text that was about to be written, which is longer."""
    desk.up()
    desk.lacks = "net"

    reply = desk.ask("prefs", domain="vault", property="netvm", value="fw")
    again = desk.firewall("add", "drop", "proto=udp")

    why = f"{desk.file}:4: net: uplink: cart: no such interface"
    assert reply == again == Failure(Exit.NOT_ENFORCED, why)
    assert desk.file.read_text() == POLICY


def test_an_uplink_that_cannot_be_given_in_the_end_is_named_by_its_line(
    desk: Desk,
) -> None:
    def refuse(_uplink: object) -> Uplink:
        raise UplinkError("net", "lab: no more room")

    desk.world.deployment.uplink = refuse
    why = f"{desk.file}:4: net: uplink: lab: no more room"

    assert desk.up() == Failure(Exit.NOT_ENFORCED, why)


def test_a_second_up_with_another_file_ends_what_it_does_not_have(
    desk: Desk, tmp_path: Path
) -> None:
    desk.up()
    other = tmp_path / "other.toml"
    other.write_text(POLICY.replace("[domains.vault]", "[domains.safe]"))

    found = changes(desk.ask("up", policy=str(other)))

    assert found == ["- vault: AppVM red, netvm none", "+ safe: AppVM red, netvm none"]
    assert desk.world.deployment.domains.by_name["safe"].qid == 5
    assert desk.handler.policy == other


def test_a_file_that_is_refused_changes_nothing_at_all(
    desk: Desk, tmp_path: Path
) -> None:
    desk.up()
    before = Numbers(desk.world.runtime).known()
    bad = tmp_path / "bad.toml"
    bad.write_text(POLICY + '[domains.new]\nnetvm = "vault"\n')

    reply = desk.ask("up", policy=str(bad))

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.USAGE
    assert Numbers(desk.world.runtime).known() == before
    assert desk.handler.policy == desk.file
    assert changes(desk.ask("apply")) == []


def test_plan_says_what_apply_does_and_keeps_no_number(desk: Desk) -> None:
    desk.up()
    desk.file.write_text(POLICY + "[domains.new]\n")

    planned = changes(desk.ask("plan"))

    assert planned == ["+ new: AppVM red, netvm none"]
    assert "new" not in Numbers(desk.world.runtime).known()
    assert changes(desk.ask("apply")) == planned
    assert changes(desk.ask("plan")) == []


def test_down_leaves_nothing_and_the_daemon_goes(desk: Desk) -> None:
    desk.up()

    assert len(changes(desk.ask("down"))) == 4
    assert desk.world.platform.there == set()
    assert desk.handler.leaving
    assert desk.handler.policy is None


def test_up_behind_down_keeps_the_daemon(desk: Desk) -> None:
    desk.up()
    desk.ask("down")
    desk.up()

    assert not desk.handler.leaving
    assert desk.world.platform.there == {"net", "fw", "work", "vault"}


def test_restart_makes_one_domain_anew(desk: Desk) -> None:
    desk.up()
    desk.world.platform.said.clear()

    assert changes(desk.ask("restart", domain="vault")) == []
    assert desk.world.platform.said == ["stop vault", "start vault"]
    assert desk.log()[-1] == ("vault", "restart")


def status(desk: Desk) -> dict[object, tuple[object, object]]:
    found = rows(json.loads(json.dumps(data(desk.ask("status")))), "domains")
    return {row["name"]: (row["state"], row["problem"]) for row in found}


def test_status_of_a_fine_system_has_no_problem(desk: Desk) -> None:
    assert status(desk) == {}
    desk.up()

    assert status(desk) == {
        "net": ("up", None),
        "fw": ("up", None),
        "work": ("linked", None),
        "vault": ("no network", None),
    }


def test_status_says_what_is_wrong_with_whom(desk: Desk) -> None:
    desk.world.uplink.notes = ("no resolver", "no IPv6")
    desk.world.platform.manners["fw"] = Manners(ends="no kernel")
    reply = desk.up()
    assert isinstance(reply, Failure)
    desk.world.until(
        lambda: desk.world.supervisor.conditions()["fw"].phase is supervise.Phase.FAILED
    )

    assert status(desk) == {
        "net": ("up", "no resolver; no IPv6"),
        "fw": ("failed", "exit code 1: no kernel"),
        "work": ("linked", None),
        "vault": ("no network", None),
    }


def test_who_lets_nobody_out_says_what_is_missing(desk: Desk) -> None:
    desk.world.platform.manners["net"] = Manners(state="blocked")
    desk.up()
    missing = "its uplink has no address, or no next hop"
    assert status(desk)["net"] == ("blocked", missing)

    desk.world.deployment.notes["net"] = ("card: no DHCP client here",)
    assert status(desk)["net"] == ("blocked", "card: no DHCP client here")


def test_a_denied_client_has_a_problem_and_a_stranger_is_nobodys(desk: Desk) -> None:
    errors = {WORK: "rule 0: what", "192.0.2.1": "who", "nobody": "\x1b"}
    desk.world.platform.manners["fw"] = Manners(errors=errors)
    desk.up()

    assert status(desk)["work"] == ("linked", "denied everything: rule 0: what")


@pytest.mark.parametrize(("number", "place"), [(None, 2), (0, 0), (1, 1), (2, 2)])
def test_a_rule_is_added_to_the_file_and_enforced(
    desk: Desk, number: int | None, place: int
) -> None:
    desk.up()
    reply = desk.firewall("add", "accept", "proto=icmp", number=number)

    assert changes(reply) == [f"+ work: rule {place}: accept proto=icmp"]
    assert desk.rules()[place] == "action=accept proto=icmp"
    assert "# the web" in desk.file.read_text()
    assert changes(desk.ask("apply")) == []
    assert f"+ rule {place}: accept proto=icmp" in [text for _, text in desk.log()]


def test_a_rule_is_deleted_by_its_number_or_its_words(desk: Desk) -> None:
    desk.up()
    by_words = desk.firewall("del", "accept", "specialtarget=dns")
    assert changes(by_words) == ["- work: rule 1: accept specialtarget=dns"]

    by_number = desk.firewall("del", number=0)
    assert changes(by_number)[1:] == [
        "- work: rule 0: accept proto=tcp dstports=443-443"
    ]
    assert desk.rules() == []


def test_reset_accepts_everything_again(desk: Desk) -> None:
    desk.up()
    desk.firewall("reset")

    assert desk.rules() == ["action=accept"]
    assert "firewall = [" not in desk.file.read_text()


def test_list_changes_nothing(desk: Desk) -> None:
    desk.up()
    desk.world.platform.said.clear()
    found = rows(json.loads(json.dumps(data(desk.firewall("list")))), "rules")

    assert [row["ports"] for row in found] == ["443", None]
    assert desk.file.read_text() == POLICY


def test_a_rule_that_an_agent_refuses_is_an_error_although_it_is_in_the_file(
    desk: Desk,
) -> None:
    manners = desk.world.platform.manners["fw"] = Manners()
    desk.up()
    manners.errors[WORK] = "rule 2: no such protocol"

    reply = desk.firewall("add", "drop")

    assert reply == Failure(
        Exit.NOT_ENFORCED, "work: denied everything: rule 2: no such protocol"
    )
    assert '"drop"' in desk.file.read_text()
    # Who has nothing to do with it is not told of it.
    assert changes(desk.ask("restart", domain="vault")) == []


def test_the_netvm_is_changed_in_the_file_and_the_link_is_laid(desk: Desk) -> None:
    desk.up()
    desk.world.platform.said.clear()

    reply = desk.ask("prefs", domain="work", property="netvm", value="net")
    assert changes(reply) == ["~ work: netvm fw -> net"]
    assert desk.world.platform.said == ["detach work", "attach work to net"]

    desk.ask("prefs", domain="work", property="netvm", value="none")
    assert desk.world.platform.cables.keys() == {"fw"}
    found = data(desk.ask("prefs", domain="work"))
    assert isinstance(found, dict)
    assert found["netvm"] is None


def test_explain_uses_what_the_agents_know_of_names(desk: Desk) -> None:
    desk.file.write_text(POLICY.replace("specialtarget=dns", "dsthost=www.example.com"))
    desk.up()
    asked = {"domain": "work", "proto": "udp", "destination": "192.0.2.7:53"}
    heard = desk.world.databases._heard
    heard("fw", f"/dns/{WORK}/www.example.com", b"nonsense")

    assert data(desk.ask("explain", **asked))["accepted"] is False  # type: ignore[index]
    heard("fw", f"/dns/{WORK}/www.example.com", b"192.0.2.7 2001:db8::7")
    assert data(desk.ask("explain", **asked))["accepted"] is True  # type: ignore[index]


def test_explain_says_of_whom_a_name_was_asked_and_explains_what_was_told(
    desk: Desk,
) -> None:
    desk.up()
    asked = {"domain": "work", "proto": "tcp", "destination": "a.example:443"}
    told = ("192.0.2.7", "2001:db8::7", "192.0.2.7")
    found = data(desk.ask("explain", **asked, told=told))

    assert isinstance(found, dict)
    assert found["asked"] == {"domain": "work", "host": "a.example"}
    routes = [(row["destination"], row["verdict"]) for row in rows(found, "routes")]
    assert routes == [("192.0.2.7", "accept"), ("2001:db8::7", "accept")]
    assert len(desk.prover.tasks) == 1


def test_explain_asks_no_kernel_about_a_name_without_an_address(desk: Desk) -> None:
    desk.up()
    asked = {"domain": "work", "proto": "tcp", "destination": "a.example:80"}
    found = data(desk.ask("explain", **asked))

    assert isinstance(found, dict)
    assert (found["asked"], found["accepted"]) == (None, False)
    assert [row["verdict"] for row in rows(found, "routes")] == ["deny"]
    assert desk.prover.tasks == []


@pytest.mark.parametrize("told", [("a.example",), ("fe80::1%eth0",), ("",)])
def test_what_was_told_is_nothing_but_addresses(
    desk: Desk, told: tuple[str, ...]
) -> None:
    desk.up()
    asked = {"domain": "work", "proto": "tcp", "destination": "a.example:443"}

    reply = desk.ask("explain", **asked, told=told)

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.USAGE


ROUTE = {
    "domain": "work",
    "proto": "tcp",
    "destination": "192.0.2.7:443",
    "told": None,
}


def hop(domain: str, verdict: str) -> dict[str, object]:
    return {"domain": domain, "verdict": verdict}


@pytest.mark.parametrize(
    ("hops", "verdict", "differs"),
    [
        ([hop("fw", "sent"), hop("net", "sent")], "accept", False),
        ([hop("fw", "delivered")], "accept", False),
        ([hop("fw", "sent"), hop("net", "dropped")], "deny", True),
        ([hop("fw", "rejected")], "deny", True),
        ([], "deny", True),
        ([hop("fw", "sent")], "unknown", False),
        ([hop("fw", "unsure")], "unknown", False),
    ],
)
def test_explain_puts_the_kernels_beside_the_policy(
    desk: Desk, hops: list[dict[str, object]], verdict: str, *, differs: bool
) -> None:
    desk.up()
    way = {"destination": "192.0.2.7", "hops": hops}
    desk.prover.answer = {"ways": [way], "missing": {}}  # type: ignore[dict-item]
    found = data(desk.ask("explain", **ROUTE))

    assert isinstance(found, dict)
    (route,) = found["routes"]
    assert (route["verdict"], route["kernels"]) == ("accept", hops)
    assert (route["kernel_verdict"], route["differs"]) == (verdict, differs)
    assert found["differs"] is differs
    (task,) = desk.prover.tasks
    assert isinstance(task, Walk)
    assert [str(p.source) for p in task.packets] == [WORK]


def test_who_asks_for_an_explanation_hears_what_is_waited_for(desk: Desk) -> None:
    desk.up()

    work = desk.handler.handle(Request("explain", ROUTE))

    assert next(work) == "asking the kernels"
    assert isinstance(next(work), Until)


def test_what_a_tunnel_takes_has_left() -> None:
    path = [
        Domain("vpn", 2, personality=Personality.WIREGUARD, netvm="net"),
        Domain("net", 1, personality=Personality.NETVM),
    ]
    for out, verdict in (("wg0", "accept"), ("eth0", "unknown")):
        hops = [{**hop("vpn", "sent"), "out": out}]
        way = {"destination": "192.0.2.7", "hops": hops}
        task = Walk(scene(), "work", ())
        ticket = Ticket(task, {"ways": [way], "missing": {}})  # type: ignore[dict-item]
        data = {"routes": [{"destination": "192.0.2.7", "verdict": "accept"}]}
        (route,) = rows(beside(data, ticket, path), "routes")
        assert route["kernel_verdict"] == verdict


def test_explain_without_a_prover_says_that_the_kernels_are_not_known(
    desk: Desk,
) -> None:
    desk.up()
    found = data(desk.ask("explain", **ROUTE))

    assert isinstance(found, dict)
    (route,) = found["routes"]
    assert (route["kernel_verdict"], route["differs"]) == ("unknown", False)
    assert route["missing"] == "nobody proves anything here"


def test_a_domain_that_died_leaves_the_kernels_unknown(desk: Desk) -> None:
    desk.up()
    desk.prover.answer = {"ways": [], "missing": {"net": "No such file"}}
    found = data(desk.ask("explain", **ROUTE))

    assert isinstance(found, dict)
    assert found["routes"][0]["kernel_verdict"] == "unknown"
    assert found["routes"][0]["missing"] == "net: No such file"


@pytest.mark.parametrize("domain", ["vault", "net"])
def test_nobody_asks_kernels_about_who_has_no_netvm(desk: Desk, domain: str) -> None:
    desk.up()
    found = data(desk.ask("explain", **{**ROUTE, "domain": domain}))

    assert isinstance(found, dict)
    assert "kernels" not in found["routes"][0]
    assert desk.prover.tasks == []


def test_verify_answers_with_what_was_proved_and_who_is_linked(desk: Desk) -> None:
    desk.file.write_text(POLICY + ASSERTED)
    desk.up()
    desk.prover.answer = {"results": [], "generations": {"net": 41}}
    found = data(desk.ask("verify", no_replay=True))

    assert isinstance(found, dict)
    assert found["generations"] == {"net": 41}
    links = [(row["name"], row["netvm"]) for row in found["domains"]]
    assert links == [("net", None), ("fw", "net"), ("work", "fw"), ("vault", None)]
    (task,) = desk.prover.tasks
    assert isinstance(task, Verify)
    assert (task.replay, task.afresh) == (False, True)
    assert task.scene.serials == {"fw": 1, "work": 2}
    assert [str(each) for each in task.scene.asserted] == [
        "work to 192.0.2.0/24 udp: blocked"
    ]


def test_what_changes_during_a_proof_is_proved_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.up()
    desk.prover.answer = {"results": []}
    serials = desk.world.deployment.serials
    changed = iter([9])

    def ask(task: Task) -> Ticket:
        serials["work"] = next(changed, 9)
        return FakeProver.ask(desk.prover, task)

    monkeypatch.setattr(desk.handler.prover, "ask", ask)
    desk.ask("verify")

    first, second = desk.prover.tasks
    assert (first.scene.serials["work"], second.scene.serials["work"]) == (2, 9)


def test_without_a_prover_nothing_is_proved(desk: Desk) -> None:
    assert desk.ask("verify") == Failure(
        Exit.USAGE, "nothing is up; `ravelin up POLICY.toml` starts it"
    )
    desk.up()
    assert desk.ask("verify") == Failure(
        Exit.NOT_ENFORCED, "not proved: nobody proves anything here"
    )


def test_status_has_the_last_proof_and_what_is_on_trial(desk: Desk) -> None:
    desk.up()
    found = data(desk.ask("status"))
    assert isinstance(found, dict)
    assert (found["proof"], found["confirm"]) == (None, None)

    desk.file.write_text(OPENED)
    desk.ask("apply", confirm=60)
    scene = desk.handler.verifier.scene()
    assert scene is not None
    ticket = Ticket(Verify(scene, replay=False), {"results": [], "generations": {}})
    desk.handler.standing.take(ticket)
    found = data(desk.ask("status"))
    assert isinstance(found, dict)
    assert found["proof"]["text"] == "not proved: nothing was claimed"
    assert found["confirm"] in (59, 60)


def test_run_names_what_enters_the_domain(desk: Desk) -> None:
    desk.up()
    found = data(desk.ask("run", domain="work", command=("ls", "--", "-l")))

    assert isinstance(found, dict)
    assert found["domain"] == "work"
    runtime = str(desk.world.runtime)
    assert found["argv"][-8:] == [
        *("enter", "--runtime", runtime, "work", "--", "ls", "--", "-l")
    ]


def run(desk: Desk) -> Reply:
    return desk.ask("run", domain="work", command=("true",), disposable=True)


def test_a_disposable_is_a_copy_that_is_gone_when_it_is_discarded(desk: Desk) -> None:
    desk.up()
    before = desk.world.contents("fw").keys()
    found = data(run(desk))

    assert isinstance(found, dict)
    name = str(found["domain"])
    assert found["argv"][-4:] == ["--disposable", name, "--", "true"]
    assert desk.handler.disposables == {name} < desk.world.platform.there
    assert desk.world.platform.cables[name].provider == "fw"
    assert changes(desk.ask("apply")) == []  # it is nobody's mistake
    assert name not in Numbers(desk.world.runtime).known()

    desk.world.carry_out(desk.handler.discard(name))
    assert name not in {*desk.world.platform.there, *desk.world.platform.cables}
    assert {k for k in desk.world.contents("fw") if "handled" not in k} <= before
    assert desk.handler.disposables == set()


@pytest.mark.parametrize("what", ["start", "attach"])
def test_a_disposable_that_cannot_be_made_leaves_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    desk.up()
    monkeypatch.setattr(desk.handler.numbers, "dispid", lambda _: 77)
    broken = f"{what} disp77" + (" to fw" if what == "attach" else "")
    desk.world.platform.fails = {broken}

    assert run(desk) == Failure(Exit.NOT_ENFORCED, f"cannot {broken}")
    assert "disp77" not in desk.world.platform.there
    assert desk.handler.disposables == set()
    assert isinstance(run(desk), Answer)


def test_what_somebody_ended_is_healed_and_written_down(desk: Desk) -> None:
    desk.up()
    name = str(data(run(desk))["domain"])  # type: ignore[index]
    desk.world.platform.vanish("net")
    desk.world.platform.vanish(name)

    assert desk.world.carry_out(desk.handler.heal()) == Answer(
        {"changes": [{"sign": "-", "domain": name, "text": "AppVM red, netvm fw"}]}
    )
    assert desk.world.platform.there == {"net", "fw", "work", "vault"}
    assert ("net", "is gone, somebody else has ended it") in desk.log()
    assert desk.handler.disposables == set()
    assert data(desk.world.carry_out(desk.handler.heal())) == {"changes": []}


def test_an_expired_rule_goes_from_the_agent_and_stays_in_the_file(desk: Desk) -> None:
    desk.up()
    desk.firewall("add", "drop", "expire=+3600", number=0)
    with_rule = desk.file.read_text()
    assert desk.rules()[0] == "action=drop"

    desk.world.deployment.filled_at = 0
    desk.file.write_text(re.sub(r"expire=\d+", "expire=1000000000", with_rule))
    desk.ask("apply")

    assert "action=drop" not in desk.rules()
    found = rows(json.loads(json.dumps(data(desk.firewall("list")))), "rules")
    assert found[0]["expires"] == "expired"


ASSERTED = """
[[assert]]
from = "work"
to = "192.0.2.0/24"
proto = "udp"
expect = "blocked"
"""
OPENED = POLICY.replace("accept specialtarget=dns", "accept dst4=192.0.2.0/24")


def test_a_plan_shows_packets_and_the_assertions_that_fail(desk: Desk) -> None:
    desk.up()
    desk.file.write_text(OPENED + ASSERTED)
    found = data(desk.ask("plan"))

    assert isinstance(found, dict)
    assert [row["text"] for row in found["packets"]] == [
        "may now also reach 192.0.2.0/24 all but tcp and tcp but port 443",
        "may no longer reach dns tcp/53 and udp/53",
    ]
    assert found["failing"] == [
        (
            f"{desk.file}:19: work to 192.0.2.0/24 udp: blocked, but work reaches "
            "192.0.2.1 udp/443 (at fw, rule 1 of work: accept dst4=192.0.2.0/24)"
        )
    ]


def test_what_breaks_an_assertion_changes_nothing(desk: Desk) -> None:
    desk.file.write_text(POLICY + ASSERTED)
    desk.up()
    before = desk.rules(), desk.file.read_text(), desk.log()
    add = desk.firewall("add", "accept", "dst4=192.0.2.7")
    assert isinstance(add, Failure)
    assert add.exit_code is Exit.DIFFERS
    assert "home.toml:19: work to 192.0.2.0/24 udp: blocked, but" in add.text
    assert (desk.rules(), desk.file.read_text(), desk.log()) == before

    desk.file.write_text(OPENED + ASSERTED)
    for verb, words in (("apply", {}), ("apply", {"confirm": 60}), ("up", IN_FILE)):
        given = {k: str(desk.file) if v == "FILE" else v for k, v in words.items()}
        reply = desk.ask(verb, **given)
        assert isinstance(reply, Failure)
        assert reply.text == (
            f"{desk.file}:19: work to 192.0.2.0/24 udp: blocked, but work reaches "
            "192.0.2.1 udp/443 (at fw, rule 1 of work: accept dst4=192.0.2.0/24)"
        )
    assert (desk.rules(), desk.log()) == (before[0], before[2])
    assert desk.handler.trial.before is None


def test_a_daemon_that_was_started_for_a_policy_that_is_refused_goes(
    desk: Desk,
) -> None:
    desk.file.write_text(OPENED + ASSERTED)
    assert isinstance(desk.up(), Failure)
    assert (desk.handler.leaving, desk.world.platform.there) == (True, set())

    desk.file.write_text(POLICY + ASSERTED)
    desk.up()
    desk.file.write_text(OPENED + ASSERTED)
    assert isinstance(desk.up(), Failure)
    assert not desk.handler.leaving


def test_a_daemon_that_was_started_for_an_uplink_that_is_lacking_goes(
    desk: Desk,
) -> None:
    desk.lacks = "net"

    assert isinstance(desk.up(), Failure)
    assert desk.handler.leaving


def test_a_change_on_trial_is_in_force_and_is_put_back_with_its_file(
    desk: Desk,
) -> None:
    desk.up()
    before = desk.rules()
    desk.file.write_text(OPENED)
    found = data(desk.ask("apply", confirm=60))

    assert isinstance(found, dict)
    assert found["confirm"] == 60
    assert desk.rules()[1] == "action=accept dst4=192.0.2.0/24"
    assert 50 < (desk.handler.trial.left() or 0) <= 60

    desk.world.carry_out(desk.handler.roll_back())

    assert (desk.rules(), desk.file.read_text()) == (before, POLICY)
    assert desk.handler.trial.left() is None
    assert (desk.world.runtime / "not-confirmed.toml").read_text() == OPENED
    assert changes(desk.ask("apply")) == []


def test_while_a_change_is_on_trial_nothing_else_changes(desk: Desk) -> None:
    desk.up()
    desk.file.write_text(OPENED)
    desk.ask("apply", confirm=60)
    for reply in (
        desk.ask("apply"),
        desk.ask("apply", confirm=60),
        desk.up(),
        desk.firewall("add", "drop"),
        desk.ask("prefs", domain="work", property="netvm", value="net"),
    ):
        assert isinstance(reply, Failure)
        assert "the last change awaits confirmation: `ravelin confirm`" in reply.text
    assert desk.file.read_text() == OPENED

    assert isinstance(desk.ask("confirm"), Answer)
    assert changes(desk.firewall("add", "drop")) == ["+ work: rule 2: drop"]
    assert desk.ask("confirm") == Failure(Exit.DIFFERS, "nothing awaits confirmation")


def test_what_cannot_be_enforced_is_put_back_at_once(desk: Desk) -> None:
    desk.up()
    before = desk.rules()
    desk.file.write_text(OPENED + "\n[domains.more]\n")
    desk.world.platform.fails = {"start more"}

    assert desk.ask("apply", confirm=60) == Failure(
        Exit.NOT_ENFORCED, "cannot start more"
    )
    assert (desk.rules(), desk.file.read_text()) == (before, POLICY)
    assert desk.handler.trial.left() is None


def test_what_an_agent_refuses_is_put_back_at_once(desk: Desk) -> None:
    manners = desk.world.platform.manners["fw"] = Manners()
    desk.up()
    manners.errors[WORK] = "rule 1: no"
    desk.file.write_text(OPENED)

    assert desk.ask("apply", confirm=60) == Failure(
        Exit.NOT_ENFORCED, "work: denied everything: rule 1: no\nrolled back"
    )
    assert desk.file.read_text() == POLICY


def test_down_takes_what_nobody_has_confirmed_out_of_the_file(desk: Desk) -> None:
    desk.up()
    desk.file.write_text(OPENED)
    desk.ask("apply", confirm=60)
    desk.ask("down")

    assert desk.file.read_text() == POLICY
    assert desk.handler.trial.left() is None


def on_trial_without_room(desk: Desk) -> Path:
    """Have a change on trial whose file cannot be put back; return the obstacle."""
    desk.up()
    desk.file.write_text(OPENED)
    desk.ask("apply", confirm=60)
    obstacle = desk.world.runtime / "not-confirmed.toml"
    obstacle.mkdir()
    return obstacle


def test_what_finds_no_room_for_its_file_is_rolled_back_in_the_kernels_all_the_same(
    desk: Desk,
) -> None:
    """The file is tried again, and meanwhile nobody confirms what is not in force."""
    obstacle = on_trial_without_room(desk)
    assert desk.rules()[1] == "action=accept dst4=192.0.2.0/24"

    reply = desk.world.carry_out(desk.handler.roll_back())

    assert isinstance(reply, Failure)
    assert "Is a directory" in reply.text
    assert desk.rules()[1] == "action=accept specialtarget=dns"
    assert desk.ask("confirm") == Failure(Exit.DIFFERS, "nothing awaits confirmation")
    assert 0 < (desk.handler.trial.left() or 0) <= 60

    obstacle.rmdir()
    assert isinstance(desk.world.carry_out(desk.handler.roll_back()), Answer)
    assert (desk.file.read_text(), desk.handler.trial.left()) == (POLICY, None)


def test_down_goes_on_although_a_policy_file_cannot_be_put_back(desk: Desk) -> None:
    """The next daemon does that."""
    obstacle = on_trial_without_room(desk)

    reply = desk.ask("down")

    assert isinstance(reply, Failure)
    assert "Is a directory" in reply.text
    assert (desk.world.platform.there, desk.handler.leaving) == (set(), True)
    obstacle.rmdir()
    Trial(desk.world.runtime).put_back()
    assert desk.file.read_text() == POLICY


def test_what_somebody_writes_while_a_change_is_judged_is_not_lost(desk: Desk) -> None:
    desk.file.write_text(POLICY + ASSERTED)
    desk.up()
    before = desk.rules()
    add = {"domain": "work", "action": "add", "rule": ("drop",), "number": None}
    work = desk.handler.handle(Request("firewall", add))
    next(work)
    text = desk.file.read_text() + "# mine too\n"
    desk.file.write_text(text)

    reply = desk.world.carry_out(work)

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.DIFFERS
    assert "changed meanwhile" in reply.text
    assert (desk.file.read_text(), desk.rules()) == (text, before)
    assert changes(desk.firewall("add", "drop")) == ["+ work: rule 2: drop"]
    assert "# mine too" in desk.file.read_text()


def test_a_plan_shows_a_file_that_holds_something_else(desk: Desk) -> None:
    """What is given to a personality is given anew by `apply`, as is planned."""
    profile = desk.file.with_name("profile.conf")
    profile.touch(mode=0o600)
    vpn = ("[domains.vpn]", 'personality = "wireguard"', 'netvm = "net"')
    desk.file.write_text("\n".join((POLICY, *vpn, 'config = "profile.conf"\n')))
    desk.up()
    assert changes(desk.ask("plan")) == []

    profile.write_text("something else")

    wanted = ["~ vpn: a file of it holds something else"]
    assert changes(desk.ask("plan")) == wanted
    assert changes(desk.ask("apply")) == wanted
    assert changes(desk.ask("plan")) == []


def test_disposables_that_do_not_fit_end_with_a_change_that_is_put_back(
    desk: Desk,
) -> None:
    desk.up()
    desk.file.write_text(
        POLICY.replace('netvm = "fw"\nfirewall', 'netvm = "fw2"\nfirewall')
        + '[domains.fw2]\npersonality = "firewall"\nnetvm = "net"\n'
    )
    desk.ask("apply", confirm=60)
    name = str(data(run(desk))["domain"])  # type: ignore[index]
    assert desk.world.platform.cables[name].provider == "fw2"

    desk.world.carry_out(desk.handler.roll_back())

    assert desk.world.platform.there == {"net", "fw", "work", "vault"}
    assert desk.handler.disposables == set()


UNKNOWN = "nowhere: no such domain"
Prepare = Callable[[Desk], object]


def replaced(before: str, after: str) -> Prepare:
    def prepare(desk: Desk) -> None:
        desk.up()
        desk.file.write_text(POLICY.replace(before, after))

    return prepare


def without_file(desk: Desk) -> None:
    desk.up()
    desk.file.unlink()


def not_text(desk: Desk) -> None:
    desk.up()
    desk.file.write_bytes(b"\xff")


def broken(what: str) -> Prepare:
    def prepare(desk: Desk) -> None:
        desk.world.platform.fails = {what}

    return prepare


def failing(desk: Desk) -> None:
    desk.world.platform.manners["fw"] = Manners(ends="no kernel")


def nothing(desk: Desk) -> None:
    pass


RULE = {"domain": "work", "action": "add", "rule": ("drop",)}
NETVM = {"domain": "work", "property": "netvm", "value": "net"}
IN_FILE = {"policy": "FILE"}
FAILURES: dict[str, tuple[Prepare, str, dict[str, Argument], Exit, str]] = {
    "apply before up": (nothing, "apply", {}, Exit.USAGE, "nothing is up"),
    "plan before up": (nothing, "plan", {}, Exit.USAGE, "nothing is up"),
    "run, no such domain": (
        *(Desk.up, "run", {"domain": "nowhere"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "restart, no such domain": (
        *(Desk.up, "restart", {"domain": "nowhere"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "prefs, no such domain": (
        *(Desk.up, "prefs", {"domain": "nowhere"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "firewall, no such domain": (
        *(Desk.up, "firewall", {**RULE, "domain": "nowhere"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "explain, no such domain": (
        *(Desk.up, "explain", {"domain": "nowhere", "destination": "192.0.2.1:1"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "explain, no such place": (
        *(Desk.up, "explain", {"domain": "work", "destination": "192.0.2.1:0x"}),
        *(Exit.USAGE, "192.0.2.1:0x"),
    ),
    "a disposable NetVM": (
        *(Desk.up, "run", {"domain": "net", "disposable": True}),
        *(Exit.USAGE, "provides network"),
    ),
    "prefs, another property": (
        *(Desk.up, "prefs", {**NETVM, "property": "label"}),
        *(Exit.USAGE, "expected netvm"),
    ),
    "prefs, no such netvm": (
        *(Desk.up, "prefs", {**NETVM, "value": "nowhere"}),
        *(Exit.USAGE, UNKNOWN),
    ),
    "prefs, an AppVM as netvm": (
        *(Desk.up, "prefs", {**NETVM, "value": "vault"}),
        *(Exit.USAGE, "vault provides no network"),
    ),
    "prefs, gone from the file": (
        *(replaced("[domains.work]", "[domains.other]"), "prefs", NETVM),
        *(Exit.USAGE, "work: no such domain"),
    ),
    "firewall, gone from the file": (
        *(replaced("[domains.work]", "[domains.other]"), "firewall", RULE),
        *(Exit.USAGE, "work: no such domain"),
    ),
    "firewall, other rules in the file": (
        *(replaced("443", "80"), "firewall", RULE),
        *(Exit.USAGE, "the policy file has other rules by now"),
    ),
    "firewall, no such action": (
        *(Desk.up, "firewall", {**RULE, "action": "burn"}),
        *(Exit.USAGE, "burn: unknown action"),
    ),
    "firewall, no rule": (
        *(Desk.up, "firewall", {**RULE, "rule": ("open", "sesame")}),
        *(Exit.USAGE, "open sesame: "),
    ),
    "firewall, no such number": (
        *(Desk.up, "firewall", {**RULE, "action": "del", "number": 2}),
        *(Exit.USAGE, "no rule 2, expected 0 to 1"),
    ),
    "the file is gone": (without_file, "apply", {}, Exit.USAGE, r":1: No such file"),
    "the file is gone, firewall": (
        *(without_file, "firewall", RULE),
        *(Exit.USAGE, "No such file"),
    ),
    "the file is no text": (not_text, "apply", {}, Exit.USAGE, ":1: not UTF-8"),
    "the file is no policy": (
        *(replaced("netvm =", "netmv ="), "apply", {}),
        *(Exit.USAGE, r"home\.toml:8: fw: unknown key netmv"),
    ),
    "the platform fails": (
        *(broken("start fw"), "up", IN_FILE),
        *(Exit.NOT_ENFORCED, "^cannot start fw$"),
    ),
    "the uplink fails": (
        *(broken("uplink net"), "up", IN_FILE),
        *(Exit.NOT_ENFORCED, "^cannot uplink net$"),
    ),
    "an agent keeps failing": (
        *(failing, "up", IN_FILE),
        *(Exit.NOT_ENFORCED, "fw: exit code 1: no kernel"),
    ),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_mistake_is_an_answer(
    desk: Desk, failure: tuple[Prepare, str, dict[str, Argument], Exit, str]
) -> None:
    prepare, verb, given, code, text = failure
    prepare(desk)
    before = desk.file.read_bytes() if desk.file.exists() else None
    named = {k: str(desk.file) if v == "FILE" else v for k, v in given.items()}

    reply = desk.ask(verb, **named)

    assert isinstance(reply, Failure)
    assert reply.exit_code is code
    assert re.search(text, reply.text)
    assert (desk.file.read_bytes() if desk.file.exists() else None) == before
    if code is Exit.NOT_ENFORCED:
        assert ("dom0", reply.text) in desk.log()


def test_who_is_behind_is_named_when_waiting_was_in_vain(desk: Desk) -> None:
    desk.world.platform.manners["fw"] = Manners(silent=True)
    reply = desk.ask("up", policy=str(desk.file), patient=False)

    assert isinstance(reply, Failure)
    assert reply.exit_code is Exit.NOT_ENFORCED
    assert "gave up waiting for the agents to be ready" in reply.text
    assert "fw: starting" in reply.text


def test_every_verb_of_the_command_has_its_work(desk: Desk) -> None:
    """Those of Tor are in test_tor.py."""
    desk.up()
    for verb in SHAPES.keys() - {"hold", "down", "up", "confirm", "verify", "tor"}:
        given = {"action": "list", "destination": "192.0.2.1:1", "domain": "work"}
        wanted = {k: v for k, v in given.items() if k in SHAPES[verb]}
        assert isinstance(desk.ask(verb, **wanted), Answer)
