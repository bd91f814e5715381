# SPDX-License-Identifier: GPL-2.0-or-later
"""What a vif receives its domain has sent, and a rate is since the last look."""

import pytest

from controller.ports import Link
from controller.traffic import Meter, Traffic
from tests.controller.fake_world import FakePlatform

MAC = "00:16:3e:5e:6c:00"
LINKS = {
    "work": Link("work", "fw", "vif2.0", MAC),
    "fw": Link("fw", "net", "vif1.0", MAC),
}


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform(
        bytes={"fw": {"vif2.0": (1000, 5000), "lo": (9, 9)}, "net": {"vif1.0": (1, 2)}}
    )


def test_the_first_time_there_is_no_rate(platform: FakePlatform) -> None:
    assert Meter(platform).read(LINKS, 10.0) == {
        "work": Traffic(received=5000, sent=1000),
        "fw": Traffic(received=2, sent=1),
    }


def test_a_rate_is_that_since_the_last_look(platform: FakePlatform) -> None:
    meter = Meter(platform)
    meter.read(LINKS, 10.0)
    platform.bytes["fw"]["vif2.0"] = (1500, 9000)

    found = meter.read(LINKS, 12.0)["work"]

    assert found == Traffic(9000, 1500, receiving=2000.0, sending=250.0)


def test_another_vif_begins_anew(platform: FakePlatform) -> None:
    meter = Meter(platform)
    meter.read(LINKS, 10.0)
    platform.bytes["fw"] = {"vif7.0": (5, 6)}
    other = {**LINKS, "work": Link("work", "fw", "vif7.0", MAC)}

    assert meter.read(other, 12.0)["work"] == Traffic(received=6, sent=5)


def test_a_link_that_is_not_there_has_no_traffic(platform: FakePlatform) -> None:
    platform.bytes.clear()
    assert Meter(platform).read(LINKS, 10.0) == {}
