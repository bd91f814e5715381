# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole machine of Debian's, emulated: its own kernel, and systemd.

It has what the machine of the tests lacks: a kernel with WireGuard, older than the
one here, and a systemd that runs units.  QEMU emulates the processor (TCG), for
there is no virtualization to be had inside one; that is some ten times slower.
The machine has no network, no disk and ends with the tests that it runs.  They are
run in two halves at the same time, for it has two processors.
"""

import os
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/guest"
PACE = "8"  # how much slower it is, for the deadlines of the tests inside
PATIENCE = 1200.0  # seconds; only a failing test waits that long
USED = "/run/wireguard-is-used"  # locked as long as the second half of the tests runs
TOOLS = ("mypy*", "*mypyc*", "ruff*", "grimp*", "pip", "setuptools")
QEMU = (
    *("qemu-system-x86_64", "-machine", "q35", "-cpu", "max", "-smp", "2"),
    *("-accel", "tcg,thread=multi,tb-size=512", "-m", "2048", "-no-reboot"),
    *("-display", "none", "-nodefaults"),
)
KERNEL_WORDS = "console=ttyS0 panic=-1 quiet rdinit=/lib/systemd/systemd"
JOB = """\
cd /ravelin
export PYTHONPATH=/site PACE={pace} RAVELIN_GUEST=1
echo "kernel $(uname -r), $(systemctl --version | head -n 1)"
run() {{
    python3 -m pytest -v --color=no -p no:cacheprovider --timeout 900 "$@"
}}
exec 9>{used}
flock 9
run {beside} >/dev/ttyS2 2>&1 &
exec 9>&-
run {tests}
wait
"""
UNIT = """\
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/bin/sh /job
StandardOutput=file:/dev/ttyS1
StandardError=inherit
"""


@dataclass(frozen=True)
class Ran:
    """What the guest said; ``outcomes`` has the word of pytest for each test."""

    said: str
    outcomes: dict[str, str]


def run(tests: Sequence[str], beside: Sequence[str]) -> Ran:
    """Boot it, run two halves of tests of this tree in it, and return when it is off.

    The first half is systemd's; the second one, ``beside``, is in namespaces of its
    own, and locks `USED`.
    """
    # `make test` may make it at this moment.
    words = ["flock", f"{CACHE}.lock", str(ROOT / "tests/guest/make"), str(CACHE)]
    subprocess.run(words, check=True)
    with tempfile.TemporaryDirectory(prefix="rvg") as place:
        job = Path(place)
        _lay(job / "job", tests, beside)
        with (job / "initrd").open("wb") as initrd:
            initrd.write((CACHE / "base.cpio").read_bytes())
            initrd.flush()
            pack = "find . | cpio --quiet -o -H newc"
            subprocess.run(pack, shell=True, check=True, cwd=job / "job", stdout=initrd)
        lines = [job / name for name in ("console", "said", "beside")]
        words = [*QEMU, *(x for line in lines for x in ("-serial", f"file:{line}"))]
        words += ["-kernel", str(CACHE / "vmlinux"), "-initrd", str(initrd.name)]
        words += ["-append", KERNEL_WORDS]
        with suppress(subprocess.TimeoutExpired):  # what it did not say is missing
            subprocess.run(words, check=True, timeout=PATIENCE)
        console, *said = (line.read_text(errors="replace") for line in lines)
        text = "\n".join([*said, console[-4000:]])
        return Ran(text, _outcomes(text))


def _lay(place: Path, tests: Sequence[str], beside: Sequence[str]) -> None:
    """Lay this tree, the package, the tools of the tests and the job into a directory.

    All is compiled here, which is cheaper, and where agents may not.
    """
    wants = place / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(parents=True)
    files = subprocess.check_output(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
    )
    _copy(ROOT, place / "ravelin", "--null", "--files-from=-", files=files)
    here = Path(sysconfig.get_path("purelib"))
    _copy(here, place / "site", *(f"--exclude={x}" for x in TOOLS), ".")
    install = {"DESTDIR": str(place), "PREFIX": "/usr"}
    words = ["packaging/install", "install"]
    subprocess.run(words, check=True, cwd=ROOT, env=os.environ | install)
    _compile(place)
    halves = {"tests": " ".join(tests), "beside": " ".join(beside)}
    (place / "job").write_text(JOB.format(pace=PACE, used=USED, **halves))
    (place / "etc/systemd/system/job.service").write_text(UNIT)
    (wants / "job.service").symlink_to("../job.service")


def _compile(place: Path) -> None:
    python = ("/usr/bin/python3", "-I", "-m", "compileall", "-q")
    subprocess.run([*python, "-s", place, "-p", "/", place / "ravelin"], check=True)


def _copy(source: Path, place: Path, *which: str, files: bytes = b"") -> None:
    place.mkdir()
    with subprocess.Popen(
        ["tar", "-C", source, "-c", *which],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as packing:
        assert packing.stdin is not None
        with subprocess.Popen(["tar", "-C", place, "-x"], stdin=packing.stdout) as done:
            packing.stdin.write(files)
            packing.stdin.close()
        assert done.returncode == 0
    assert packing.returncode == 0


def _outcomes(said: str) -> dict[str, str]:
    found = {}
    for line in said.splitlines():
        name, _, rest = line.strip().partition(" ")
        if "::" in name and rest.split()[:1]:
            found[name] = rest.split()[0]
    return found
