"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is. What must be quick has a test that says so.
settings.register_profile("moonpool", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("moonpool")
