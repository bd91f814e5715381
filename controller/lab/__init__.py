# SPDX-License-Identifier: GPL-2.0-or-later
"""The embedded offline internet: what `controller.platforms.lab` starts."""
