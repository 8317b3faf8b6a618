"""Every test here runs on one thread without denormals."""

from tests.diffusion.tiny import quick_cpu  # noqa: F401
