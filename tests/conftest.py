"""Hypothesis profiles: the default one repeats itself exactly; HYPOTHESIS_PROFILE=thorough looks much further."""

import os

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "database": None, "print_blob": False, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", derandomize=True, max_examples=40, **COMMON)
settings.register_profile("thorough", max_examples=600, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
