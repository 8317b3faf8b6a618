"""Names that would command a terminal, and names that are no text: printed to be read, passed on whole."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from guda_cli import completions, typed_command
from guda_cli.console import Console
from guda_cli.errors import DataError
from guda_cli.plain_text import joined, printable, quoted, spelled, unspelled, words
from guda_cli.report.pieces.csv_cells import csv_line
from tests.workflow.fixtures import RECIPE, Cli, cli, draw, here, one_thread, project, template

__all__ = ["cli", "one_thread", "project", "template"]

TITLE = "\x1b]0;owned\x07"  # sets a terminal's title
HOSTILE = [
    f"red\x1b[31m{TITLE}",
    "line\nbreak\r\tx",
    "turned\u202egnp.exe\u2066",
    "c1\x9b31m\x7f\u2028z\ufeff",
]
FORBIDDEN = {chr(c) for c in [*range(32), *range(127, 160)]} - {"\n"} | set("\u202e\u2066\u2028\ufeff\u200b")


def harmless(text: str) -> bool:
    return not FORBIDDEN & set(text)


def drawn_on_a_terminal(*args: str, columns: int = 100) -> str:
    """What a command sends to a terminal that is its stdout and stderr."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": str(columns), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "guda_cli", *args]
    with subprocess.Popen(command, stdout=slave, stderr=slave, stdin=slave, env=environment):
        os.close(slave)
        sent = bytearray()
        while True:
            try:
                part = os.read(master, 1 << 16)
            except OSError:  # its other end is closed
                break
            sent += part
    os.close(master)
    return sent.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31m\n\r\tb\x07\x7f", r"a\x1b[31m\n\r\tb\x07\x7f"),
        ("\x9b1m\u202egnp\u2069\u200e", "<U+009B>1m<U+202E>gnp<U+2069><U+200E>"),
        ("soft\xadzero\u200bbom\ufeff\u2028", "soft<U+00AD>zero<U+200B>bom<U+FEFF><U+2028>"),
        ("tag\U000e0041", "tag<U+E0041>"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("half\ud800", r"half\ud800"),
        (
            "Zoë 日本 👨\u200d👩\u200d👧 می\u200cخواهم [red]",
            "Zoë 日本 👨\u200d👩\u200d👧 می\u200cخواهم [red]",
        ),
    ],
)
def test_what_a_terminal_is_sent_of_a_name(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "data",
    [
        b"caf\xe9.png",
        b"caf\\xe9.png",
        b"\\x5c\\xe9\xe9",
        b"\\\xe9\xff\\ud800",
        "é\\n".encode(),
        b"a'b\x1b",
        b"\n' \"$x\\'",
    ],
)
def test_a_spelling_is_one_names_alone_and_a_shell_reads_the_quoted(data: bytes) -> None:
    name = os.fsdecode(data)
    assert unspelled(spelled(name)) == name
    spelled(name).encode("utf-8")
    done = subprocess.run(["bash", "-c", f"printf '%s' {quoted(name)}"], capture_output=True, check=True)
    assert done.stdout == data
    assert words(joined(["guda", name, "--out", name])) == ["guda", name, "--out", name]
    assert harmless(joined(["guda", name]))


@pytest.mark.parametrize("name", ["a'b\n", "it's", "\x1b'\\", os.fsdecode(b"\xe9'")])
def test_a_command_with_another_option_is_suggested(name: str) -> None:
    typed_command.remember("guda sample", ["--out", name, "-n", "3"])
    assert words(typed_command.suggested(f"--out {quoted(name + '2')}")) == [
        "guda", "sample", "-n", "3", "--out", name + "2"
    ]  # fmt: skip


def test_names_of_one_look_stay_two() -> None:
    names = [os.fsdecode(b"\xe9"), "\\xe9", os.fsdecode(b"\xe8"), "\\x5cxe9"]
    assert len({spelled(name) for name in names}) == len(names)
    assert spelled("\udcc3\udca9") == "é"  # where the locale takes no name for UTF-8


class TestConsole:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_nothing_of_a_name_commands_a_terminal(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        console = Console(verbose=True)
        console.out(name, console.table(["group", name], [[name, 1.5]], title=name, caption=name))
        console.prose(f"of {name}")
        console.say(f"say {name}")
        console.detail(name)
        console.warn(f"warn {name}")
        console.error(DataError(f"no {name}", why=f"why {name}", fix=f"guda init {quoted(name)}"))
        with console.progress(f"train {name}", 2) as bar:
            bar.advance(2, of=name)
            assert harmless(f"{bar.title} {bar.info()}")
        seen = capsys.readouterr()
        assert harmless(seen.out + seen.err)
        assert printable(name) in seen.out
        assert f"warning: warn {printable(name)}\n" in seen.err
        assert f"error: no {printable(name)}\n" in seen.err

    def test_columns_stay_in_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        Console().out(Console().table(["group", "n"], [[name, 7] for name in [*HOSTILE, "plain"]]))
        lines = [
            line.rstrip() for line in capsys.readouterr().out.splitlines() if line.rstrip().endswith("7")
        ]
        assert len(lines) == len(HOSTILE) + 1
        assert len({len(line) for line in lines}) == 1

    def test_a_file_for_programs_keeps_every_character(self, capsys: pytest.CaptureFixture[str]) -> None:
        Console().file("a\r\x1b\u202e")
        assert capsys.readouterr().out == "a\r\x1b\u202e\n"

    def test_no_message_is_endless(self, capsys: pytest.CaptureFixture[str]) -> None:
        for json_mode in (False, True):
            Console(json=json_mode).error(DataError("x" * 10**6, why="y" * 10**6))
            seen = capsys.readouterr()
            assert len(seen.out + seen.err) < 20_000

    def test_json_holds_no_control_character_and_every_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        Console(json=True).data({"schema": "x/1", "names": HOSTILE})
        out = capsys.readouterr().out
        assert harmless(out)
        assert json.loads(out)["names"] == HOSTILE


@pytest.mark.parametrize(
    "cell", ["a\nb", "a\rb", "a\r\nb", "\n", 'q"', "a,b", "\x0b\x0c\x1c\x85\u2028", " ", ""]
)
def test_csv_reads_back(cell: str) -> None:
    text = "".join(f"{csv_line(row)}\n" for row in (["name", "n"], [cell, 1], ["z", 2]))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["name", "n"], [cell, "1"], ["z", "2"]]


def test_completion_offers_no_name_that_commands_a_terminal() -> None:
    assert completions.quietly(lambda: ["fine", *HOSTILE]) == ["fine"]


def test_groups_and_files_of_hostile_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(RECIPE.replace("null_groups: 3", "null_groups: 0"))
    draw(tmp_path / "images", tuple(HOSTILE[:3]), images=4)
    query = Path(f"q{HOSTILE[0]}\n.png")
    query.write_bytes(next(Path("images").rglob("*.png")).read_bytes())
    texts = []
    for command in (
        ["train", "tiny.yaml"],
        ["unlearn", "--all"],
        ["status", "-v"],
        ["groups"],
        ["check"],
        ["score", query],
        ["score", *[query] * 2, *Path("images").rglob("*.png")],
        ["report"],
        ["report", "--html", "r.html"],
        ["store", "ls", "--all"],
        ["store", "show", f"without {HOSTILE[0]}"],
        ["sample", "-n", 1, "--out", f"out{HOSTILE[1]}"],
    ):
        done = cli(*command)
        texts.append(done.stdout + done.stderr)
    for command, code in (
        (["score", f"no{TITLE}such.png"], 3),
        (["unlearn", "--group", f"no{TITLE}"], 2),
        (["train", f"no{TITLE}.yaml"], 3),
        ([f"no{TITLE}"], 2),
        (["score", f"--no{TITLE}"], 2),
        (["report", "--method", f"no{TITLE}"], 2),
        (["train", "--set", f"a{TITLE}=1"], 2),
    ):
        done = cli(*command, code=code)
        texts.append(done.stdout + done.stderr)
    for text in texts:
        assert harmless(text), text
    assert printable(HOSTILE[0]) in texts[3]
    assert not {"\x1b", "\u202e"} & set(Path("r.html").read_text(encoding="utf-8"))
    document = cli("score", query, "--json").document
    assert document["image"] == str(query)
    assert {score["group"] for score in document["scores"]} == set(HOSTILE[:3])
    rows = list(csv.DictReader(io.StringIO(cli("score", query, "--csv").stdout, newline="")))
    assert [row["query"] for row in rows] == [str(query)] * 3
    assert {row["group"] for row in rows} == set(HOSTILE[:3])
    for arguments in (["--seed", "1"], ["--csv"]):  # the first with bars, which are drawn by escapes
        sent = drawn_on_a_terminal("score", str(query), *arguments)
        assert "owned" in sent
        assert not [it for it in ("\x1b]", "\x07", "\x1b[31m") if it in sent], sent


class TestNamesThatAreNoText:
    ODD = os.fsdecode(b"caf\xe9.png")

    def run(self, *args: str | bytes, code: int = 0, given: bytes = b"") -> tuple[bytes, bytes]:
        done = subprocess.run([sys.executable, "-m", "guda_cli", *args], capture_output=True, input=given)
        assert done.returncode == code, (args, done.stderr)
        assert b"bug" not in done.stderr
        done.stdout.decode("utf-8")
        done.stderr.decode("utf-8")
        return done.stdout, done.stderr

    def test_they_travel_through(self, project: Path, cli: Cli) -> None:
        odd = b"caf\xe9.png"
        for number, name in enumerate((odd, b"caf\xe8.png", rb"caf\xe9.png")):
            Path(os.fsdecode(name)).write_bytes(Path(f"q/0000{number}.png").read_bytes())
        document = json.loads(self.run("score", odd, "--json")[0])
        assert document["image"] == r"caf\xe9.png"
        assert os.fsencode(unspelled(document["image"])) == odd
        assert json.loads(self.run("score", rb"caf\xe9.png", "--json")[0])["image"] == r"caf\x5cxe9.png"
        assert rb"caf\xe9.png: " in self.run("score", odd)[0]
        out, _ = self.run("score", "-", "--csv", given=odd + b"\0" + b"caf\xe8.png\0")
        rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
        assert {row["query"] for row in rows} == {r"caf\xe9.png", r"caf\xe8.png"}
        Path("scores.csv").write_bytes(out)
        self.run("score", "--import", "scores.csv", "--name", b"m\xe9")
        self.run("report", odd)
        self.run("report", "--html", b"r\xe9.html")
        page = Path(os.fsdecode(b"r\xe9.html")).read_text(encoding="utf-8")
        assert r"caf\xe9.png" in page or r"caf\xe8.png" in page
        self.run("report", "--csv")
        self.run("report", "--json")
        assert rb"n\xe9xt" in self.run("score", b"n\xe9xt.png", code=3)[1]

    def test_as_options(self, project: Path, cli: Cli) -> None:
        store = b"st\xe9"
        Path(".guda").rename(os.fsdecode(store))
        self.run("sample", "-n", "1", "--seed", "5", "--out", b"out\xe9", "--store", store, "--json")
        assert Path(os.fsdecode(b"out\xe9"), "00000.png").is_file()
        argv = record_of(store).provenance["argv"]
        assert [unspelled(word) for word in argv][-4:-1] == [
            os.fsdecode(b"out\xe9"),
            "--store",
            os.fsdecode(store),
        ]
        self.run("store", "pin", "full model", "--note", b"gr\xe9", "--store", store)
        self.run("store", "ls", "--all", "--store", store)
        self.run("store", "ls", "--store", store, "--json")
        self.run("score", "q", "--map", b"m\xe9", "--store", store)
        self.run("status", "--store", store)
        self.run("unlearn", "--group", b"b\xe9", "--store", store, code=2)
        self.run("train", b"r\xe9.yaml", "--store", store, code=3)


def record_of(store: bytes) -> object:
    return list(here(os.fsdecode(store)).records("sample"))[-1]
