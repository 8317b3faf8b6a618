"""Importing one module of diffusers without the hundred others that its packages import beside it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_PACKAGES = (
    "diffusers.models.unets", "diffusers.models.transformers", "diffusers.models.autoencoders",
    "diffusers.hooks",
)  # fmt: skip
"""They import all they have, networks and hooks, and with these peft, scipy.stats and torch's compiler."""
_COMPILER = "torch._dynamo"
"""diffusers marks some layers for it where it can be imported, which takes a second; it does without."""
_SPARED = {
    "_peft_available": "peft", "_transformers_available": "transformers", "_scipy_available": "scipy.stats",
}  # fmt: skip
"""What diffusers imports for seconds where it is installed, and networks do without, by its own flags."""
_MARRED = (
    "diffusers.loaders.lora_base", "diffusers.loaders.single_file_utils", "diffusers.hooks",
    "diffusers.schedulers",
)  # fmt: skip
"""What lacks these, or marks for the compiler, afterwards: not for others to find."""


def light_import(name: str) -> ModuleType:
    """The module of that name; of diffusers with what itself imports only (0.8 s of CPU time, not 3.3)."""
    if name in sys.modules or not name.startswith("diffusers."):
        return import_module(name)
    try:
        _import_models()
        with _dropped(), _bare_packages(), _without_spared(), _without_compiler():
            return import_module(name)
    except Exception:  # noqa: BLE001 - another version may need its packages whole
        return import_module(name)


@contextmanager
def _bare_packages() -> Iterator[None]:
    """Meanwhile the packages are there with nothing in them but their path.

    Taken away again afterwards: who imports a package gets it whole, with the modules that are loaded.
    """
    placed: list[str] = []
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
    with _without_compiler():
        import_module("diffusers.models")


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Meanwhile torch's compiler, unless it is there already, is an ImportError for whoever wants it.

    What is to be kept from it is then not marked so.
    """
    if _COMPILER in sys.modules:
        yield
        return
    compiler = import_module("torch.compiler")
    disable = vars(compiler)["disable"]
    sys.modules[_COMPILER] = None  # type: ignore[assignment]
    vars(compiler)["disable"] = _unmarked
    try:
        yield
    finally:
        vars(compiler)["disable"] = disable
        del sys.modules[_COMPILER]


def _unmarked(function: Any = None, *args: Any, **named: Any) -> Any:
    return function or (lambda given: given)


@contextmanager
def _without_spared() -> Iterator[None]:
    """Meanwhile diffusers takes packages for not installed that it does not need and nobody has loaded."""
    for package in ("diffusers.utils", "diffusers.loaders"):  # decide by them what they have for others
        import_module(package)
    known = vars(import_module("diffusers.utils.import_utils"))
    flags = [flag for flag, name in _SPARED.items() if name not in sys.modules]
    before = {flag: known[flag] for flag in flags if flag in known}
    known.update(dict.fromkeys(before, False))
    try:
        yield
    finally:
        known.update(before)


@contextmanager
def _dropped() -> Iterator[None]:
    """Afterwards what was imported in part is as if it had not been: others get it whole."""
    before = set(sys.modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name not in before]:
            if name.startswith(_MARRED):
                del sys.modules[name]
                parent, _, own = name.rpartition(".")
                vars(sys.modules.get(parent, ModuleType(parent))).pop(own, None)
