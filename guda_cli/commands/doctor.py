"""`guda doctor`: is everything there that the other commands need?"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guda_cli.commands import extras, machine
from guda_cli.commands.findings import Check
from guda_cli.errors import GudaError
from guda_cli.failures import explain
from guda_cli.phrases import human_bytes
from guda_cli.session import Session, command_options

if TYPE_CHECKING:
    from guda_cli.sections import Recipe

LITTLE_DISK = 1 << 30  # bytes; less free space than this is worth a warning
MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@command_options(recipe=True)
def doctor(
    session: Session,
    full: Annotated[
        bool, typer.Option("--full", help="Also import torch and try its devices (takes seconds).")
    ] = False,
) -> None:
    """Check the installation, the machine, the store and the data.

    Says which optional packages are there, whether the current recipe needs others, and whether two threads
    are faster than one at this moment. Ends with code 3 when a check fails.
    """
    checks = [
        _python(),
        *_packages(),
        extras.avif(),
        *machine.checks(),
        *(_torch() if full else ()),
        _disk(session),
        *_store_and_recipe(session),
        _completion(),
    ]
    failed = any(check.state == "fail" for check in checks)
    session.console.data(
        {"schema": "guda.doctor/1", "ok": not failed, "checks": [asdict(check) for check in checks]}
    )
    for check in checks:
        session.console.out(f"{MARKS[check.state]:<5} {check.name:<16} {check.detail}")
        if check.fix:
            session.console.out(f"{'':22} try: {check.fix}")
    if failed:
        raise typer.Exit(3)


def _python() -> Check:
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Iterator[Check]:
    """One check a dependency that guda's own metadata names; none is imported."""
    from importlib import metadata

    try:
        requirements = metadata.requires("guda") or []
    except metadata.PackageNotFoundError:
        yield Check("guda", "warn", "runs from its sources", "pip install -e . in the folder of the sources")
        return
    for requirement in requirements:
        if ";" in requirement:  # extras
            continue
        name, spec = re.match(r"([\w.-]+)\s*(.*)", requirement).groups()  # type: ignore[union-attr]
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Check(name, "fail", "is not installed", f"pip install '{requirement}'")
            continue
        if satisfies(found, spec):
            yield Check(name, "ok", found)
        else:
            yield Check(name, "warn", f"{found}, made for {spec}", f"pip install '{requirement}'")


def satisfies(version: str, spec: str) -> bool:
    """Whether a version lies in `>=a,<b` (the only two comparisons this project uses)."""
    found = _release(version)
    for part in filter(None, spec.split(",")):
        bound = _release(part)
        if (part.startswith(">=") and found < bound) or (part.startswith("<") and found >= bound):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: '2.13.0+cpu' -> (2, 13); trailing zeros mean nothing."""
    numbers = re.search(r"\d+(?:\.\d+)*", version)
    release = [int(n) for n in numbers.group().split(".")] if numbers else []
    while release and release[-1] == 0:
        release.pop()
    return tuple(release)


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as err:
        yield Check("torch import", "fail", str(err), "pip install --force-reinstall torch")
        return
    yield Check("torch threads", "ok", f"{torch.get_num_threads()} of {os.cpu_count()} cores")
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name()})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Check("devices", "ok", ", ".join(devices))


def _disk(session: Session) -> Check:
    folder = session.store_path
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{human_bytes(free)} free at {folder}"
    if free < LITTLE_DISK:
        return Check("disk", "warn", detail, "guda store gc, or another folder with --store DIR")
    return Check("disk", "ok", detail)


def _store_and_recipe(session: Session) -> Iterator[Check]:
    """The store and, when that can be opened, the recipe and its data."""
    try:
        yield _store(session)
    except Exception as err:  # noqa: BLE001 - whatever is wrong with the store is the finding
        yield _failed("store", explain(err))
        return
    try:
        recipe, source = session.recipe_and_source(default_digits=True)
    except GudaError as err:
        yield from extras.checks(None)
        yield _failed("recipe", err)
        return
    yield from extras.checks(recipe)
    known = "current recipe" if session.current() and not session.options.recipe else "recipe"
    yield Check(known, "ok", f"{recipe.name} ({source})")
    yield _data(recipe)


def _store(session: Session) -> Check:
    path = session.store_path
    if not path.exists():
        while not path.parent.exists():
            path = path.parent
        if not os.access(path.parent, os.W_OK):
            detail = f"{path.parent} cannot be written"
            return Check("store", "fail", detail, "another folder with --store DIR")
        return Check("store", "ok", f"none yet at {session.store_path}; guda train makes it")
    store = session.open_store(create=False)
    if store.read_only:
        return Check("store", "warn", f"{path} is read-only", "chmod u+w, or another folder with --store DIR")
    return Check("store", "ok", f"{path}, {human_bytes(store.usage()['bytes'])}")


def _data(recipe: Recipe) -> Check:
    from guda_cli.data.known_sets import of_recipe

    path, known = recipe.data.path, of_recipe(recipe.name)
    fix = f"guda data get {known.name}" if known else "guda train --set data.path=DIR"
    if recipe.data.source == "digits":
        return Check("data", "ok", "embedded digits")
    if path is None:
        return Check("data", "fail", "the recipe names no images", fix)
    if not Path(path).exists():
        return Check("data", "fail", f"{path} does not exist", fix)
    return Check("data", "ok", path)


def _completion() -> Check:
    """Whether a shell completes guda's options; the places are those typer installs to."""
    home = Path.home()
    places = (".bash_completions/guda.sh", ".zfunc/_guda", ".config/fish/completions/guda.fish")
    for place in places:
        if (home / place).exists():
            return Check("completion", "ok", str(home / place))
    return Check("completion", "ok", "not installed", "guda --install-completion")


def _failed(name: str, err: GudaError) -> Check:
    detail = err.message + (f": {err.why}" if err.why else "")
    return Check(name, "fail", detail, err.fix)
