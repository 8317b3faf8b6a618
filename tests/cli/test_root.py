"""`guda` itself: help, version, usage errors, exit codes, completion, and what a start imports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from guda_cli import app, failures
from guda_cli.errors import BusyError, CorruptError, DataError, GudaError, MissingError, UsageError
from guda_cli.sections import Recipe
from guda_cli.session import Options, Session, complete_group
from guda_cli.store import CorruptBlob, LeaseBusy, MissingBlob, Store, StoreError, StoreFull, StoreMissing

COMMANDS = [
    "init",
    "run",
    "train",
    "unlearn",
    "sample",
    "score",
    "tune",
    "check",
    "report",
    "view",
    "status",
    "groups",
    "doctor",
    "data",
    "recipes",
    "store",
]


class TestHelp:
    def test_lists_the_commands_in_the_order_of_work(self, guda) -> None:
        lines = guda("--help", code=0).stdout.split("Commands:\n")[1].splitlines()
        names = [line.split()[0] for line in lines if line[:2] == "  " and line[2:3].strip()]
        assert names[: len(COMMANDS)] == COMMANDS

    def test_no_command_shows_the_help(self, guda) -> None:
        assert guda(code=0).stdout == guda("--help", code=0).stdout == guda("-h", code=0).stdout

    @pytest.mark.parametrize("name", COMMANDS)
    def test_every_command_has_one(self, guda, name: str) -> None:
        done = guda(name, "--help", code=0)
        assert done.stdout.startswith(f"Usage: guda {name}")
        assert not done.stderr

    def test_version(self, guda) -> None:
        assert guda("--version", code=0).stdout.startswith("guda 0.")


class TestUsage:
    def test_unknown_command_names_the_nearest(self, guda) -> None:
        done = guda("scroe", code=2)
        assert "did you mean 'score'?" in done.stderr
        assert not done.stdout

    def test_unknown_option_names_the_nearest(self, guda) -> None:
        assert "--json" in guda("doctor", "--jsno", code=2).stderr

    def test_missing_and_unknown_sub_commands(self, guda) -> None:
        assert "try: guda store --help" in guda("store", code=2).stderr
        assert "'ls'" in guda("store", "lss", code=2).stderr

    def test_missing_argument(self, guda) -> None:
        assert "missing argument" in guda("store", "show", code=2).stderr

    def test_errors_say_what_and_the_next_command(self, guda) -> None:
        lines = guda("recipes", "show", "digit", code=3).stderr.splitlines()
        assert lines == ["error: unknown recipe 'digit'; did you mean 'digits'?", "  try: guda recipes ls"]


class TestJsonErrors:
    @pytest.mark.parametrize(
        ("args", "code"),
        [
            (("recipes", "show", "digit", "--json"), 3),
            (("store", "ls", "--json"), 4),
            (("nonsense", "--json"), 2),
            (("doctor", "--nonsense", "--json"), 2),
        ],
    )
    def test_one_document_on_stdout(self, guda, documents, args: tuple[str, ...], code: int) -> None:
        done = guda(*args, code=code)
        [document] = documents(done.stdout)
        assert document["schema"] == "guda.error/1"
        assert document["exit_code"] == code
        assert document["error"] in done.stderr


class TestExitCodes:
    @pytest.mark.parametrize(
        ("err", "kind", "code"),
        [
            (UsageError("x"), UsageError, 2),
            (DataError("x"), DataError, 3),
            (StoreError("x"), DataError, 3),
            (StoreFull("x"), DataError, 3),
            (StoreMissing("x"), MissingError, 4),
            (CorruptBlob("ab" * 32, why="w", fix="f"), CorruptError, 5),
            (MissingBlob("ab" * 32), CorruptError, 5),
            (LeaseBusy("ab" * 32, {"pid": 1}), BusyError, 6),
            (MemoryError(), DataError, 3),
            (RuntimeError("CUDA out of memory. Tried to allocate"), DataError, 3),
            (OSError(28, "No space left on device", "/x"), DataError, 3),
            (PermissionError(13, "Permission denied", "/x"), DataError, 3),
            (KeyboardInterrupt(), failures.Interrupted, 130),
            (failures.Terminated(), failures.Interrupted, 143),
            (ZeroDivisionError("x"), GudaError, 1),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
    )
    def test_each_kind_of_failure(self, err: BaseException, kind: type[GudaError], code: int) -> None:
        known = failures.explain(err)
        assert type(known) is kind
        assert known.exit_code == code
        assert known.message

    def test_a_full_disk_says_so(self) -> None:
        assert "disk is full" in failures.explain(OSError(28, "No space left on device")).message

    def test_a_bug_asks_for_debug(self) -> None:
        known = failures.explain(KeyError("x"))
        assert "bug" in known.message
        assert "--debug" in known.fix

    def test_an_interrupt_says_how_to_go_on_only_where_that_is_true(self) -> None:
        assert "run the same command" in failures.explain(KeyboardInterrupt(), resumable=True).message
        assert failures.explain(KeyboardInterrupt()).message == "interrupted"

    @pytest.mark.parametrize("how", [["--debug"], ["env"]])
    def test_traceback_only_with_debug(self, guda, how: list[str]) -> None:
        args, env = (["--debug"], {}) if how == ["--debug"] else ([], {"GUDA_DEBUG": "1"})
        done = guda("recipes", "show", "digit", *args, env=env, code=3)
        assert "Traceback" in done.stderr
        done = guda(*args, "recipes", "show", "digit", env=env, code=3)
        assert "Traceback" in done.stderr


def start(code: str, cwd: Path, **kwargs) -> subprocess.Popen[str]:
    """A python process with a command `wait` that sleeps inside the usual guard."""
    script = (
        "import signal, sys, time, types\n"
        # ignored when the tests run in the background
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from guda_cli import app\n"
        "from guda_cli.session import Session, command_options\n"
        "@command_options(dry_run=True)\n"
        "def wait(session: Session) -> None:\n"
        f"    {code}\n"
        "module = types.ModuleType('guda_cli.commands.wait'); module.wait = wait\n"
        "sys.modules[module.__name__] = module; app.COMMANDS['wait'] = 'wait'\n"
        "app.main()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, "wait"], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs,
    )  # fmt: skip


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(tmp_path: Path, number: signal.Signals, code: int) -> None:
    process = start("print('on', flush=True); time.sleep(60)", tmp_path)
    assert process.stdout
    assert process.stdout.readline() == "on\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    assert err == "interrupted; state saved, run the same command to go on\n"


@pytest.mark.parametrize("how", ["session.console.out('x' * 999)", "print('x' * 999, flush=True)"])
def test_a_closed_pipe_ends_quietly(tmp_path: Path, how: str) -> None:
    process = start(f"[{how} for _ in range(9999)]", tmp_path)
    assert process.stdout
    assert process.stdout.readline().startswith("xxx")
    process.stdout.close()
    assert process.wait(timeout=30) == failures.BROKEN_PIPE
    assert process.stderr
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_bug_in_a_command_ends_with_1(tmp_path: Path) -> None:
    process = start("1 / 0", tmp_path)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "this is a bug: ZeroDivisionError" in err
    assert "Traceback" not in err
    assert not out


class TestImports:
    """Start-up time without a clock: what a command must not have imported when it is done."""

    @pytest.mark.parametrize(
        ("line", "never"),
        [
            ("--help", "torch diffusers numpy h5py rich yaml store"),
            ("--version", "torch diffusers numpy h5py rich yaml store"),
            ("train --help", "torch diffusers numpy h5py"),
            ("score --help", "torch diffusers numpy h5py"),
            ("status", "torch diffusers h5py scipy sklearn"),
            ("store ls", "torch diffusers numpy h5py scipy sklearn"),
            ("doctor", "torch diffusers numpy h5py scipy sklearn"),
            ("recipes ls", "torch diffusers numpy h5py store"),
            ("data ls", "torch diffusers numpy h5py store"),
        ],
    )
    def test_light(self, tmp_path: Path, line: str, never: str) -> None:
        Store.open(tmp_path / ".guda")
        script = (
            "import sys\n"
            "from guda_cli.app import run\n"
            f"code = run({line.split()})\n"
            f"print(code, sorted({set(never.split())} & set(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stderr.splitlines()[-1] == "0 []", done.stderr


class TestCompletion:
    def complete(self, guda, words: str, cwd: Path | None = None) -> list[str]:
        env = {
            "_GUDA_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        return guda(env=env, code=0).stdout.split()

    def test_commands(self, guda) -> None:
        assert self.complete(guda, "guda s") == ["sample", "score", "status", "store"]

    def test_recipes(self, guda) -> None:
        assert self.complete(guda, "guda recipes show c") == ["cifar10-small", "cifar10-gpu", "cifar10"]

    def test_keys_without_a_store(self, guda) -> None:
        assert self.complete(guda, "guda store show ") == []

    def test_groups(self, tmp_path: Path) -> None:
        where = tmp_path / "s"
        Session(Options(store=where)).make_current(Recipe(), "digits", groups=["cat", "cow", "dog"])
        found = []

        def probe(ctx: typer.Context, _store: Path = where) -> None:
            found.extend(complete_group(ctx, "c"))

        probing = typer.Typer(add_completion=False)
        probing.command()(probe)
        probing([], standalone_mode=False)
        assert found == ["cat", "cow"]

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_script(self, guda, shell: str) -> None:
        env = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
        script = guda("--show-completion", shell, env=env, code=0).stdout
        assert "_GUDA_COMPLETE" in script
        if shell == "bash" and shutil.which("bash"):
            subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_commands_of_the_help_exist() -> None:
    assert list(app.COMMANDS) == COMMANDS
    folder = Path(app.__file__).parent / "commands"
    assert {path.stem for path in folder.glob("*.py")} >= set(COMMANDS)


def test_a_name_that_is_no_text_can_be_printed(tmp_path: Path) -> None:
    """File names on Unix are bytes; one that is not UTF-8 must not end a command."""
    name = os.fsdecode(b"caf\xe9.png")
    process = start(f"session.console.out({name!r}); session.console.say({name!r})", tmp_path)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert out == "caf\\xe9.png\n"


def test_documents_are_json(guda) -> None:
    assert json.loads(guda("recipes", "ls", "--json", code=0).stdout)["schema"] == "guda.recipes/1"
