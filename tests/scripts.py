"""Scripts of benchmarks/ as modules, for the tests of what is in them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load(name: str) -> ModuleType:
    """benchmarks/NAME.py, run anew, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    folder = str(ROOT / "benchmarks")
    sys.path += [] if folder in sys.path else [folder]  # as where a script is started
    spec.loader.exec_module(module)
    return module
