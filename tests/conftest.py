# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a property may take is no property: the machine may be busy."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")
