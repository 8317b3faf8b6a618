"""What is installed is guda_cli alone, with the linked folders in it, and it needs nothing of a checkout.

The wheel is built from a copy of the sources, so that nothing ignored (old builds, caches) gets into it and
nothing is written beside them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
USERS = ("store", "recipes", "tests", "settings")  # modules that a user's own folder may well hold
SDIST = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


class Installed(NamedTuple):
    """Where the copy of the sources, the wheel and its files are, and the folder it is installed into."""

    sources: Path
    wheel: dict[str, bytes]
    target: Path


def python(*args: object, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """Python with no module path but `path`, in a folder."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, env={**own, "PYTHONPATH": path},
        capture_output=True, text=True, encoding="utf-8", check=False,
    )  # fmt: skip


def pip(*args: object, cwd: Path) -> None:
    done = python("-m", "pip", "--disable-pip-version-check", "--quiet", *args, cwd=cwd)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def copy_sources(to: Path) -> Path:
    """A copy of what belongs to the repository, links as links."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as err:
        pytest.skip(f"only git knows what belongs to the sources: {err}")
    for name in filter(None, found.split("\0")):
        if os.path.lexists(ROOT / name):  # else removed and not yet committed
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    return to


def no_isolation() -> list[str]:
    """The installed setuptools builds, without an index, if it is new enough for pyproject.toml."""
    try:
        own = int(metadata.version("setuptools").split(".")[0])
    except metadata.PackageNotFoundError:
        own = 0
    return ["--no-build-isolation"] if own >= 77 else []


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("packaging")
    sources = copy_sources(folder / "sources")
    pip("wheel", "--no-deps", *no_isolation(), "--wheel-dir", folder / "wheels", sources, cwd=folder)
    [wheel] = (folder / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    pip("install", "--no-deps", "--no-index", "--target", folder / "target", wheel, cwd=folder)
    return Installed(sources, files, folder / "target")


def test_nothing_else_lands_in_site_packages(installed: Installed) -> None:
    tops = {name.split("/")[0] for name in installed.wheel}
    [about] = {name for name in tops if name.endswith(".dist-info")}
    own = {name for name in ("guda_cli", "guda") if (ROOT / name).is_dir()}
    assert tops - {about} == own
    assert f"{about}/entry_points.txt" in installed.wheel
    assert not [name for name in installed.wheel if "tests" in name.split("/")]


def test_every_file_of_the_package_is_in_it(installed: Installed) -> None:
    """As in the sources, to the byte; the linked folders too."""
    expected = {
        Path(folder, name).relative_to(installed.sources).as_posix(): Path(folder, name)
        for top in ("guda_cli", "guda")
        for folder, _, names in os.walk(installed.sources / top, followlinks=True)
        for name in names
    }
    assert expected.keys() >= {"guda_cli/py.typed", "guda_cli/store/core.py", "guda_cli/recipes/digits.yaml"}
    assert {name for name in installed.wheel if ".dist-info/" not in name} == expected.keys()
    for name, path in expected.items():
        assert installed.wheel[name] == path.read_bytes(), name


def test_a_source_distribution_has_all_that_a_wheel_is_made_of(installed: Installed, tmp_path: Path) -> None:
    """With files where the links were: there is nothing beside guda_cli in it to point at."""
    if not no_isolation():
        pytest.skip("needs a setuptools as new as pyproject.toml asks for")
    done = python("-c", SDIST, tmp_path, cwd=installed.sources)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        held = {m.name.partition("/")[2]: m for m in archive.getmembers()}
        for name in installed.wheel:
            if ".dist-info/" not in name:
                assert held[name].isreg(), name
        assert {"pyproject.toml", "README.md", "LICENSE"} <= held.keys()


@pytest.fixture
def run(installed: Installed, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Python with the installed package, in a folder whose modules must not be taken for guda's."""
    for name in USERS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the {name} of the user was imported')\n")
    path = [str(installed.target), *{sysconfig.get_path(name) for name in ("purelib", "platlib")}]

    def call(*args: object) -> subprocess.CompletedProcess[str]:
        done = python(*args, cwd=tmp_path, path=os.pathsep.join(path))
        assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return call


def test_it_runs_beside_a_user_s_own_modules(
    run: Callable[..., subprocess.CompletedProcess[str]], installed: Installed
) -> None:
    places = "import guda_cli, guda_cli.store as s; print(guda_cli.__file__, s.__file__, sep='\\n')"
    for place in run("-c", places).stdout.splitlines():
        assert Path(place).is_relative_to(installed.target)
    assert metadata.version("guda") in run("-m", "guda_cli", "--version").stdout
    listed = run("-m", "guda_cli", "recipes", "ls").stdout
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert recipe.stem in listed
    run("-m", "guda_cli", "status")
    assert "FAIL" not in run("-m", "guda_cli", "doctor").stdout


def test_the_script_is_installed(
    run: Callable[..., subprocess.CompletedProcess[str]], installed: Installed
) -> None:
    [script] = (path for path in (installed.target / "bin").iterdir() if path.stem == "guda")
    assert run(script, "--version").stdout == run("-m", "guda_cli", "--version").stdout
