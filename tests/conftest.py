# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a property may take is no property: the machine may be busy.

What takes long to start is there once, for all folders.
"""

from hypothesis import HealthCheck, settings

from tests.lab.tor_network import tor_network

__all__ = ["tor_network"]

settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")
