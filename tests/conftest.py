"""What all tests share."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker's threads on every core wait for each other: the tests took three times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
