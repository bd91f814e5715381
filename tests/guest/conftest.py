# SPDX-License-Identifier: GPL-2.0-or-later
"""What is inside runs in the guest, which test_guest.py boots, and nowhere else."""

import os

collect_ignore = [] if os.environ.get("RAVELIN_GUEST") else ["inside"]
