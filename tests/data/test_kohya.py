"""Captions beside images and folders named with repeats, as kohya's scripts take them."""

from __future__ import annotations

import json

import pytest

from guda_cli.data.sources import kohya, read_dataset
from guda_cli.data.sources.kohya import concepts
from guda_cli.data.survey import survey
from guda_cli.errors import DataError
from guda_cli.sections import DataSpec
from tests.data.conftest import PngBytes, Write


@pytest.fixture
def files(png: PngBytes) -> dict[str, bytes]:
    return {
        "10_sks dog/a.png": png(0),
        "10_sks dog/a.txt": b"a photo of sks dog\n",
        "10_sks dog/b.JPG": png(1, format="JPEG"),
        "10_sks dog/b.caption": "\ufeffsks dog, grün".encode(),
        "10_sks dog/b.txt": b"tags, of, it",
        "1_dog/a.png": png(2),
        "1_dog/a.TXT": b"a dog\r\n\r\n",
        "1_dog/c.webp": png(3, format="WEBP"),
        "README.txt": b"made by hand",
    }


@pytest.mark.parametrize("form", ["folder", "tar", "zip_"])
def test_captions_are_prompts_and_names_are_groups(
    request: pytest.FixtureRequest, files: dict[str, bytes], form: str
) -> None:
    write: Write = request.getfixturevalue(form)
    data = read_dataset(DataSpec(path=str(write(files)), size=8, channels=3))
    assert data.counts() == {"dog": 2, "sks dog": 2}
    assert dict(zip(data.names, data.prompts, strict=True)) == {
        "10_sks dog/a.png": "a photo of sks dog",
        "10_sks dog/b.JPG": "sks dog, grün",
        "1_dog/a.png": "a dog",
        "1_dog/c.webp": None,
    }
    text = "\n".join(data.notes)
    assert "repeats (sks dog 10, dog 1) are not used" in text or "(dog 1, sks dog 10)" in text
    assert "README.txt" in text  # ignored, with the tags that a caption stands before
    assert "a.txt" not in text


@pytest.mark.parametrize(
    ("folders", "groups"),
    [
        (["10_sks dog", "5_cat"], ["sks dog", "cat"]),
        (["10_dog", "20_dog", "3_cat"], ["dog", "dog", "cat"]),
        (["4_a", "4_b"], ["a", "b"]),
        (["15_zwei_Wörter", "30_ミク"], ["zwei_Wörter", "ミク"]),
        (["1_cat", "2_dog", "3_fox"], ["1_cat", "2_dog", "3_fox"]),  # numbered
        (["0_cat", "1_dog"], ["0_cat", "1_dog"]),
        (["01_cat", "07_dog"], ["01_cat", "07_dog"]),
        (["1890_monet", "1950_warhol"], ["1890_monet", "1950_warhol"]),  # years
        (["10_dog", "cat"], ["10_dog", "cat"]),
        (["10_", "5_ "], ["10_", "5_ "]),
        (["van_gogh", "monet"], ["van_gogh", "monet"]),
    ],
)
def test_which_folders_are_named_with_repeats(folders: list[str], groups: list[str]) -> None:
    notes: list[str] = []
    assert [concepts(folders, notes)[name] for name in folders] == groups
    assert bool(notes) == (groups != folders or folders == ["1_cat", "2_dog", "3_fox"])


@pytest.mark.parametrize("column", ["folder", "style"])
def test_a_prompt_in_the_metadata_counts_before_a_caption(
    folder: Write, two_groups: dict[str, bytes], column: str
) -> None:
    rows = [{"file_name": name, "style": name[:3]} for name in two_groups]
    rows[0]["prompt"] = "from the metadata"
    lines = "\n".join(map(json.dumps, rows)).encode()
    beside = {name.replace(".png", ".txt"): f"beside {name}".encode() for name in two_groups}
    path = folder({**two_groups, **beside, "metadata.jsonl": lines})
    data = read_dataset(DataSpec(path=str(path), size=8, channels=3, group=(column,)))
    assert data.prompts[:2] == ("from the metadata", "beside cat/1.png")
    assert "1 caption beside an image is not read: the metadata have a prompt" in data.notes


def test_a_file_of_prompts_counts_alone(folder: Write, two_groups: dict[str, bytes]) -> None:
    lines = b'{"file_name": "cat/1.png", "prompt": "named"}'
    path = folder({**two_groups, "cat/0.txt": b"beside", "prompts.jsonl": lines})
    data = read_dataset(DataSpec(path=str(path), size=8, channels=3, prompts="prompts.jsonl"))
    assert data.prompts[:2] == (None, "named")


@pytest.mark.parametrize(
    ("text", "prompt", "note"),
    [
        (b"one\ntwo\n\nthree", "one", "1 caption has several lines, of which the first counts: cat/0.txt"),
        (b"", None, ""),
        (b" \n\t\n", None, ""),
        (b"0 0.5 0.5 0.25 0.25\n3 0.1 0.2 0.3 0.4\n", None, "1 file beside an image holds boxes, no caption"),
        (b"7 .1 .2 .3 .4 .5 .6", None, "boxes"),
        (b"2 3 5 7", "2 3 5 7", ""),
        (b"1girl, solo", "1girl, solo", ""),
    ],
)
def test_what_a_caption_may_hold(
    folder: Write, two_groups: dict[str, bytes], text: bytes, prompt: str | None, note: str
) -> None:
    data = read_dataset(DataSpec(path=str(folder({**two_groups, "cat/0.txt": text})), size=8, channels=3))
    assert data.prompts[0] == prompt
    assert note in "\n".join(data.notes)
    assert bool(note) == bool(data.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"caf\xe9", "is not UTF-8 text"), (b"\xff\xfea\0", "is not UTF-8 text"), (None, "no caption")],
)
def test_what_is_no_caption_is_named(
    folder: Write, two_groups: dict[str, bytes], text: bytes | None, said: str
) -> None:
    text = bytes(kohya.MOST + 1) if text is None else text
    with pytest.raises(DataError, match=f"dog/1.txt.*{said}|dog/1.txt is {said}") as caught:
        read_dataset(DataSpec(path=str(folder({**two_groups, "dog/1.txt": text})), size=8, channels=3))
    assert caught.value.why
    assert caught.value.fix


def test_a_survey_counts_captions(folder: Write, files: dict[str, bytes]) -> None:
    found = survey(str(folder(files)))
    assert found.counts == {"dog": 2, "sks dog": 2}
    assert found.prompts == 3


def test_a_data_set_without_captions_is_what_it_was(folder: Write, two_groups: dict[str, bytes]) -> None:
    plain = read_dataset(DataSpec(path=str(folder(two_groups)), size=8, channels=3))
    noted = read_dataset(
        DataSpec(path=str(folder({"notes.txt": b"mine", "cat/list.txt": b"a b"})), size=8, channels=3)
    )
    assert noted.digest == plain.digest
    assert "2 files that are no images were ignored" in noted.notes[0]
