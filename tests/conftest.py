"""What all tests share."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# A busy machine is no fault of the code under test.
settings.register_profile("holdfast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("holdfast")

# Where SIGINT is ignored, as in a shell's background job, so it is in every program that a test wants to interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
