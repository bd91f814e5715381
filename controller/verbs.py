# SPDX-License-Identifier: GPL-2.0-or-later
"""The command's verbs, as data.

The parser, the completions, the manual page and ``docs/reference/command.md``
are all made from `VERBS`, so none of them can say something else.
"""

from dataclasses import dataclass
from enum import Enum

VERSION = "0.1.0"
SHELLS = ("bash", "fish", "zsh")


class Values(Enum):
    """What may stand in a place, for completion."""

    ANY = "anything"
    NUMBER = "a number"
    DOMAIN = "a running domain"
    FILE = "a file"
    COMMAND = "a command"
    RULE = "a word of a rule"


class Count(Enum):
    """How often an argument stands; the value is that of argparse."""

    ONE = None
    OPTIONAL = "?"
    MANY = "+"
    ANY = "*"


@dataclass(frozen=True, slots=True)
class Argument:
    """A word in a fixed place; ``words`` are the ones it may be."""

    name: str
    help: str
    count: Count = Count.ONE
    values: Values = Values.ANY
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """A word that starts with a dash; ``value`` names the word after it.

    ``dest`` is how the request has it, ``kind`` what its value may be.
    """

    names: tuple[str, ...]
    help: str
    value: str | None = None
    dest: str = "number"
    kind: Values = Values.NUMBER


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing to do."""

    name: str
    help: str
    arguments: tuple[Argument, ...] = ()
    options: tuple[Option, ...] = ()
    actions: tuple["Verb", ...] = ()


JSON = Option(("--json",), "print the data as JSON")
QUIET = Option(("-q", "--quiet"), "say nothing but data and errors")
SHARED = (JSON, QUIET)
SOCKET = Option(
    ("--socket",),
    "the daemon's socket: admin.sock, in a directory that is its own",
    "PATH",
    kind=Values.FILE,
)
VERSION_OPTION = Option(("--version",), "print the version")

DOMAIN = Argument("DOMAIN", "a domain's name", values=Values.DOMAIN)
RULE = (
    "the words of qvm-firewall: action dsthost proto dstports icmptype in this order, "
    "or key=value"
)
RAW = Option(("--raw",), "print the rules as Admin API lines")

ACTIONS = (
    Verb(
        "add",
        "Add a rule at the end, and enforce it.",
        (Argument("RULE", RULE, Count.MANY, Values.RULE),),
        (Option(("--before",), "add it before this rule", "N"),),
    ),
    Verb(
        "del",
        "Delete the rule with these words or this number.",
        (Argument("RULE", RULE, Count.ANY, Values.RULE),),
        (Option(("--rule-no",), "the number of the rule, from 0", "N"),),
    ),
    Verb("list", "List the rules (this is what no action means).", (), (RAW,)),
    Verb("reset", "Accept everything again."),
)

VERBS = (
    Verb(
        "up",
        "Start the domains of a policy file and enforce it.",
        (Argument("POLICY", "a policy file, in TOML", values=Values.FILE),),
    ),
    Verb("down", "Stop every domain."),
    Verb(
        "status",
        "Show every domain, its netvm and its state (this is what no verb means).",
        (),
        (Option(("--names",), "print the names only, one a line"),),
    ),
    Verb("plan", "Show what apply would change; exit 1 if there is anything."),
    Verb(
        "apply",
        "Make the running domains what the policy file that is up says by now.",
        (),
        (
            Option(
                ("--confirm",),
                "roll back after SECONDS, unless `ravelin confirm` comes before",
                "SECONDS",
                "confirm",
            ),
        ),
    ),
    Verb("confirm", "Let what `apply --confirm` has changed stay."),
    Verb(
        "run",
        "Run a command in a domain; exit as it does.",
        (
            DOMAIN,
            Argument("COMMAND", "after --, the command", Count.ANY, Values.COMMAND),
        ),
        (Option(("--disposable",), "in a copy of DOMAIN that ends with the command"),),
    ),
    Verb(
        "prefs",
        "Show the settings of a domain, or change its netvm.",
        (
            DOMAIN,
            Argument("PROPERTY", "what to show", Count.OPTIONAL, words=("netvm",)),
            Argument("VALUE", "the new netvm, or none", Count.OPTIONAL, Values.DOMAIN),
        ),
    ),
    Verb(
        "firewall",
        "List or change the rules of a domain, as qvm-firewall does.",
        (DOMAIN,),
        (RAW,),
        ACTIONS,
    ),
    Verb(
        "explain",
        "Say what becomes of a new flow and which rule decides; exit 1 if denied.",
        (
            DOMAIN,
            Argument(
                "PROTO",
                "the protocol; without, tcp if DESTINATION has a port",
                Count.OPTIONAL,
                words=("tcp", "udp", "icmp"),
            ),
            Argument("DESTINATION", "HOST, HOST:PORT or [IP6]:PORT; no port is a ping"),
        ),
        (Option(("--resolve",), "have DOMAIN itself ask for the addresses of HOST"),),
    ),
    Verb(
        "verify",
        "Prove from the live kernels that nothing leaks, or show the packet that does.",
        (),
        (
            Option(
                ("--graph",),
                "draw what was proved as SVG (needs graphviz)",
                "FILE",
                "graph",
                Values.FILE,
            ),
            Option(("--no-replay",), "send no packet that refutes a claim"),
        ),
    ),
    Verb("restart", "Stop a domain and start it again.", (DOMAIN,)),
    Verb(
        "tor",
        "Show who uses which circuit of Tor, or give a domain other ones.",
        (
            Argument("ACTION", "what to do", words=("circuits", "new-identity")),
            Argument(
                "DOMAIN",
                "whose; of circuits, without, everybody's",
                Count.OPTIONAL,
                Values.DOMAIN,
            ),
        ),
        (Option(("--addresses",), "with the addresses of the relays"),),
    ),
    Verb("log", "Show what was decided, oldest first."),
    Verb(
        "completion",
        "Print the completion of a shell.",
        (Argument("SHELL", "the shell", words=SHELLS),),
    ),
)

ABOUT = "Isolate domains and decide what each of them may reach."
EXITS = (
    "done, or accepted",
    "it differs, is denied, or is refuted",
    "the command or the policy file cannot be read",
    "it could not be enforced or proved, or nothing is up",
)
