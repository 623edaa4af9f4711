"""What all tests share."""

from __future__ import annotations

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:
    # Every worker's threads on every core wait for each other: the tests took three times as long.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background jobs ignore Ctrl-C, and what they start inherits that: tests that press it would wait
# for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
