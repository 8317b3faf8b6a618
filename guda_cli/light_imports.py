"""Importing one module of diffusers without the hundred others that its packages import beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_PACKAGES = ("diffusers.models.unets", "diffusers.models.transformers", "diffusers.models.autoencoders")
"""They import every network they have, and with these peft, scipy.stats and torch's compiler."""
_COMPILER = "torch._dynamo"
"""diffusers marks some layers for it where it can be imported, which takes a second; it does without."""


def light_import(name: str) -> ModuleType:
    """The module of that name; of diffusers with what itself imports only (0.8 s of CPU time, not 3.3)."""
    if name in sys.modules or not name.startswith("diffusers."):
        return import_module(name)
    try:
        with _bare_packages():
            return import_module(name)
    except Exception:  # noqa: BLE001 - another version may need its packages whole
        return import_module(name)


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Meanwhile the packages are there with nothing in them but their path.

    Taken away again afterwards: who imports a package gets it whole, with the modules that are loaded.
    """
    placed: list[str] = []
    _import_models()
    try:
        for name in _PACKAGES:
            if name not in sys.modules and (spec := find_spec(name)) is not None:
                package = ModuleType(name)
                package.__path__ = list(spec.submodule_search_locations or ())
                package.__spec__ = spec
                sys.modules[name] = package
                placed.append(name)
        yield
    finally:
        for name in placed:
            del sys.modules[name]
            parent, _, own = name.rpartition(".")
            vars(sys.modules[parent]).pop(own, None)


def _import_models() -> None:
    """The package that the networks' packages lie in, without torch's compiler."""
    import_module("torch")
    if _COMPILER in sys.modules or "diffusers.models" in sys.modules:
        import_module("diffusers.models")
        return
    sys.modules[_COMPILER] = None  # type: ignore[assignment]  # an ImportError for whoever wants it
    try:
        import_module("diffusers.models")
    finally:
        del sys.modules[_COMPILER]
