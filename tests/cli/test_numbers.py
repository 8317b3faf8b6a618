"""Numbers in options, recipes and the environment that Python reads as one and nobody means."""

from __future__ import annotations

import io

import pytest

from guda_cli import environment, typed_number
from guda_cli.attribution.aggregate import parse_aggregation
from guda_cli.commands.common import parse_seeds
from guda_cli.console import WIDEST, width_of
from guda_cli.diffusion import grid, weighting
from guda_cli.errors import GudaError, RecipeError, UsageError, nearest
from guda_cli.sections import subset_of
from guda_cli.settings.reading import from_dict
from guda_cli.training import distributed
from guda_cli.workflow.scoring.race_run import certainty
from guda_cli.workflow.scoring.refining import until

NONE = ["", " ", "nan", "inf", "-inf", "1e400", "\u0663", "\uff13", "1_0", "0x10", "\u22123", "9" * 5000]


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_number(text: str) -> None:
    assert typed_number.whole(text) is None
    assert typed_number.finite(text) is None


def test_what_is() -> None:
    assert [typed_number.whole(text) for text in ("0", "007", "9" * 18)] == [0, 7, 10**18 - 1]
    assert typed_number.whole("-1") is typed_number.whole("1.0") is None
    assert [typed_number.finite(text) for text in ("-1", "1e-5", ".5", "0" * 300)] == [-1.0, 1e-5, 0.5, 0.0]


@pytest.mark.parametrize("text", [text for text in NONE if text.strip()])
def test_wherever_one_is_typed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for read in (
        lambda: parse_aggregation(f"top:{text}"),
        lambda: grid.spec(f"stride:{text}", 1, 1, 1),
        lambda: weighting.parse(f"min-snr:{text}"),
        lambda: weighting.parse(f"band:1-{text}"),
        lambda: subset_of(f"lora:{text}"),
        lambda: parse_seeds(f"1,{text}"),
        lambda: until(text),
        lambda: certainty(f"{text}%"),
        lambda: until(f"{text}%"),
        lambda: from_dict({"train": {"lr": text}}),
        lambda: from_dict({"train": {"steps": text}}),
    ):
        with pytest.raises(GudaError) as caught:
            read()
        assert caught.value.exit_code in (2, 3)
    for name, read in (
        ("GUDA_THREADS", environment.threads),
        ("GUDA_BATCH_SIZE", environment.images_a_batch),
        ("SECONDS_OF_A_TEST", lambda: environment.seconds("SECONDS_OF_A_TEST", 1.0)),
    ):
        monkeypatch.setenv(name, text)
        with pytest.raises(UsageError, match="in the environment"):
            read()
    monkeypatch.setenv("COLUMNS", text)
    assert width_of(io.StringIO()) == 200
    launch = dict.fromkeys(distributed.NEEDED, "0") | {"WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    for wrong in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        for name, value in (launch | {wrong: text}).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UsageError, match="which one this is"):
            distributed.join()
    assert nearest(f"artist-{'7' * 400}", [f"artist-{'7' * 5000}", "b"]) is None


def test_more_than_a_machine_has() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "999999999")
        assert width_of(io.StringIO()) == WIDEST
        patch.setenv("GUDA_THREADS", "1000000")
        with pytest.raises(UsageError, match="from 1 to 1024"):
            environment.threads()
    with pytest.raises(RecipeError, match="within"):
        from_dict({"train": {"steps": 10**30}})


@pytest.mark.parametrize(
    "words",
    [
        "view --idle nan",
        "view --idle inf",
        "store gc --grace 1e400",
        "init . --minutes inf",
        "init . --minutes nan",
        "unlearn --all --lr inf",
        "sample --out q --guidance inf",
        f"sample --out q -n {10**30}",
        f"score x.png --top {10**40}",
        "score x.png --seed -1",
        f"score x.png --seed {1 << 64}",
        "sample --out q --seed -1",
        "score x.png --draws ٣",
        "score x.png --draws 0",
        "score x.png --draws 1.5",
    ],
)
def test_options_are_refused_before_any_work(words: str, guda) -> None:
    done = guda(*words.split(), code=2)
    assert done.stderr.startswith("error: ")
    assert words.split()[-2].lstrip("-") in done.stderr
    assert "try: guda" in done.stderr


@pytest.mark.parametrize("name", ["GUDA_THREADS", "GUDA_BATCH_SIZE", "GUDA_CHECKPOINT_SECONDS"])
@pytest.mark.parametrize("value", ["abc", "-1", "nan", "1e999", "٣"])
def test_the_environment(name: str, value: str, guda) -> None:
    command = ["train", "digits", "--set", "train.epochs=1"]
    done = guda(*command, env={name: value}, code=2)
    assert done.stderr.startswith(f"error: {name}=")
    assert f"try: unset {name}" in done.stderr
