# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy file that was read, and where in it a mistake stands that only shows now."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from controller.assertions import Assertion
from controller.domains import Domains
from controller.locate import line_of
from controller.ports import PlatformError, UplinkError


@dataclass(frozen=True, slots=True)
class Filed:
    """A policy file that was read: its text, and what that says."""

    file: Path
    text: str
    domains: Domains
    asserted: tuple[Assertion, ...]


@contextmanager
def placed(filed: Filed | None) -> Iterator[None]:
    """Say at which line of the policy an uplink stands that cannot be had."""
    try:
        yield
    except UplinkError as error:
        if filed is None:
            raise
        line = line_of(filed.text, ("domains", error.domain, "uplink"))
        raise PlatformError(f"{filed.file}:{line}: {error}") from error
