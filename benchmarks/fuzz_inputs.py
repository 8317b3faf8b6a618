"""The inputs of `fuzz.py`, by their kinds: each makes files in a folder, and says what is run on them."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import fuzz_mutations as mutations
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

Run = list[str] | Callable[[], object]  # a command line, or a reader
GROUPS = ("amber", "blue", "cyan")
RECIPE = """\
name: tiny
data: {source: folder, path: images, size: 8, channels: 1}
model: {block_out_channels: [8, 16], norm_num_groups: 4}
diffusion: {num_train_timesteps: 50}
train: {steps: 4, batch_size: 8, warmup_steps: 2, ema_decay: 0.9}
unlearn: {steps: 2, batch_size: 8, null_groups: 1, neighbours: 2, lr: 1.0e-3, params: full}
score: {timesteps: 4, draws: 1, calibration: 0, seed: 3}
sample: {steps: 2, sampler: ddim}
"""
PROMPTS = {
    "parameters": "a cat <lora:x:0.8>, (bright:1.2)\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, "
    "CFG scale: 7, Seed: 1, Size: 64x64, Model hash: abc, Version: v1.6.0",
    "prompt": json.dumps(
        {
            "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "m.safetensors"}},
            "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["1", 1]}},
            "3": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["1", 1]}},
            "4": {
                "class_type": "KSampler",
                "inputs": {
                    "positive": ["2", 0],
                    "negative": ["3", 0],
                    "model": ["1", 0],
                    "seed": 1,
                    "cfg": 7.0,
                },
            },
            "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
            "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
            "8": {"class_type": "TextSwitch", "inputs": {"select": 1, "text1": "dog", "text2": ["2", 0]}},
        }
    ),
    "invokeai_metadata": json.dumps(
        {"positive_prompt": "a cat", "negative_prompt": "", "seed": 1, "steps": 30}
    ),
    "Comment": json.dumps({"prompt": "a cat", "steps": 28, "scale": 5.0, "uc": "dog", "sampler": "k_euler"}),
    "Description": "a cat",
    "guda": json.dumps({"schema": "guda.image/1", "seed": 0, "index": 1, "sampler": "ddim", "steps": 2}),
}
VALUES = (
    "digits tiny.yaml q q/a.png images amber blue random-6-1 guda logo similarity trak nda elbo uniform",
    "min-snr:5 band:1-9 strata all stride:10 mean max top:3 ddim full attn lora:4 train.lr=1 score.draws=2",
    "unlearn.steps=3 data.path=images text made 1 2 7 100 1000000000 1000000000000 0.5 95% 1,2 score check",
    "cpu cuda out.yaml - x.csv",
)
NEVER = {
    "view",
    "run",
    "doctor",
    "get",
    "tune",
}  # they serve, work for minutes, measure the machine, or call out
SLOW = {"train", "unlearn", "sample", "check", "score"}  # only what they plan


def prepare(home: Path) -> None:
    """Whole inputs and a trained project in `home`: what is damaged afterwards."""
    from guda_cli import app

    _pictures(home / "images")
    (home / "tiny.yaml").write_text(RECIPE)
    (home / "q").mkdir()
    shutil.copy(home / "images" / "blue" / "1.png", home / "q" / "a.png")
    before = Path.cwd()
    os.chdir(home)
    try:
        child = os.fork()  # no thread pool of torch may be running in the process that is forked later
        if child == 0:
            code = 1
            try:
                commands: list[list[str]] = [
                    ["train", "tiny.yaml", "-q"],
                    ["unlearn", "--all", "-q"],
                    ["score", "q", "-q", "--csv"],
                    ["store", "export", "full model", "model"],
                ]
                code = max(app.run(command) for command in commands)
                from tests.latent.conftest import save

                save(home / "pipeline")
            finally:
                os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) not in (0, 7):
            raise SystemExit("the models could not be made")
    finally:
        os.chdir(before)


def sound(home: Path) -> list[Run]:
    """Runs on what is whole, in `home`: after them everything is imported that others need."""
    from guda_cli.checkpoints.pipeline_folder import read_pipeline
    from guda_cli.data.embedded import embedded

    return [
        ["train", "tiny.yaml", "--dry-run"],
        ["train", "tiny.yaml", "--from", "model", "--dry-run"],
        ["score", "q", "--dry-run"],
        ["init", "images", "--yes", "--out", "made.yaml", "--store", str(home / "other")],
        ["status"], ["report"], ["groups"], ["check", "--dry-run"], ["store", "ls"], ["recipes", "ls"],
        lambda: read_pipeline("pipeline"),
        lambda: embedded(Path("q/a.png")),
    ]  # fmt: skip


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for at, group in enumerate(GROUPS):
        (folder / group).mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 60, (8, 8)) + 60 * at
            Image.fromarray(pixels.astype(np.uint8)).save(folder / group / f"{number}.png")


def recipe(rng: random.Random, home: Path, work: Path) -> Run:
    (work / "images").symlink_to(home / "images")
    (work / "r.yaml").write_bytes(mutations.text(RECIPE, rng))
    if not rng.randrange(4):
        return ["train", "digits", "--dry-run", "--set", _argument(_setting(rng))]
    return ["train", "r.yaml", "--dry-run"]


def _setting(rng: random.Random) -> str:
    name = rng.choice(
        ["train.lr", "score.draws", "unlearn.seeds", "data.path", "model.block_out_channels", "x", ""]
    )
    return f"{name}={rng.choice([*mutations.NUMBERS, *mutations.WORDS, '[1, [2]]', '{a: 1}', '&a [*a]'])}"


def _argument(text: str) -> str:
    """Text as the arguments of a process hold it."""
    return (
        text.replace("\0", "")
        .encode("utf-8", "replace" if "\ud800" in text else "surrogateescape")
        .decode("utf-8", "surrogateescape")
    )


def metadata(rng: random.Random, home: Path, work: Path) -> Run:
    shutil.copytree(home / "images", work / "images")
    rows = [
        {
            "file_name": f"{group}/{n}.png",
            "artist": group,
            "year": 1900 + n,
            "text": "a cat",
            "tags": ["x", "y"],
        }
        for group in GROUPS
        for n in range(6)
    ]
    form = rng.choice(["jsonl", "csv"])
    if rng.randrange(2):
        rows = [mutations.entries(row, rng) if not rng.randrange(4) else row for row in rows]
    if form == "jsonl":
        text = "\n".join(json.dumps(row) for row in rows) + "\n"
    else:
        heads = list(rows[0]) if isinstance(rows[0], dict) else ["file_name"]
        lines = [",".join(str(row.get(head, "")) for head in heads) for row in rows if isinstance(row, dict)]
        text = "\n".join([",".join(heads), *lines]) + "\n"
    (work / "images" / f"metadata.{form}").write_bytes(mutations.text(text, rng))
    if rng.randrange(3):
        group = rng.choice(["artist", "year", "tags", "text", "folder"])
        (work / "r.yaml").write_text(RECIPE.replace("channels: 1", f"channels: 1, group: {group}"))
        return ["train", "r.yaml", "--dry-run"]
    return ["init", "images", "--yes"]


def _encoded(rng: random.Random) -> tuple[str, bytes]:
    form = rng.choice(["png", "jpeg", "webp", "gif", "tiff", "bmp", "ppm"])
    mode = rng.choice(["L", "RGB", "RGBA", "P", "1", "LA", "I;16"])
    pixels = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (12, 9, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels, "RGBA").convert(mode if mode != "I;16" else "L")
    out = io.BytesIO()
    options: dict[str, object] = {"exif": Image.Exif()} if form in ("jpeg", "png", "webp") else {}
    if options:
        options["exif"][0x0112] = rng.randrange(10)  # type: ignore[index]
    try:
        picture.save(out, form, **options)
    except (OSError, ValueError):
        picture.convert("RGB").save(out, form, **options)
    return form, out.getvalue()


def image(rng: random.Random, home: Path, work: Path) -> Run:
    form, source = _encoded(rng)
    _, other = _encoded(rng)
    name = rng.choice([f"x.{form}", "x.png", "x.jpg", "x", "x.heic", "x.gz"])
    damaged = mutations.data(source, rng, (other,))
    if rng.randrange(3):
        (work / name).write_bytes(damaged)
        if rng.randrange(8):
            return ["score", name, "--store", str(home / ".guda"), "--dry-run"]
        shutil.copytree(home / ".guda", work / ".guda")
        (work / "images").symlink_to(home / "images")
        return [
            "score",
            name,
            *rng.choice([[], ["--json"], ["--csv"], ["--map", "m.png"], ["--method", "nda"]]),
        ]
    shutil.copytree(home / "images", work / "images")
    (work / "images" / "amber" / name).write_bytes(damaged)
    (work / "r.yaml").write_text(RECIPE)
    return ["train", "r.yaml", "--dry-run"]


def _named(name: str) -> str:
    """A member's name as the libraries that write archives take it."""
    return name.replace("\0", "").encode("utf-8", "replace").decode() or "x"


def archive(rng: random.Random, home: Path, work: Path) -> Run:
    form = rng.choice(["zip", "tar", "tar.gz"])
    target = work / f"a.{form}"
    files = sorted((home / "images").rglob("*.png"))
    names = [str(path.relative_to(home)) for path in files]
    if not rng.randrange(2):
        names[rng.randrange(len(names))] = rng.choice([*mutations.WORDS, "../x.png", "/x.png", "a//b.png"])[
            :200
        ]
    if form == "zip":
        with zipfile.ZipFile(target, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as out:
            for path, name in zip(files, names, strict=True):
                out.writestr(_named(name), path.read_bytes())
    else:
        with tarfile.open(target, "w:gz" if form == "tar.gz" else "w") as out:
            for path, name in zip(files, names, strict=True):
                member = tarfile.TarInfo(_named(name))
                member.size = path.stat().st_size
                if not rng.randrange(20):
                    member.type = rng.choice(
                        [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
                    )
                    member.linkname, member.size = "/etc/passwd", 0
                    out.addfile(member)
                    continue
                out.addfile(member, io.BytesIO(path.read_bytes()))
    if rng.randrange(4):
        target.write_bytes(mutations.data(target.read_bytes(), rng))
    if not rng.randrange(3):
        return ["init", target.name, "--yes"]
    (work / "r.yaml").write_text(RECIPE.replace("folder, path: images", f"archive, path: {target.name}"))
    return ["train", "r.yaml", "--dry-run"]


def _damage_folder(rng: random.Random, folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for _ in range(rng.randint(1, 2)):
        path = rng.choice(files)
        source = path.read_bytes()
        if path.suffix == ".json" and rng.randrange(4):
            path.write_bytes(_changed(source, rng))
        elif path.suffix in (".json", ".txt"):
            path.write_bytes(mutations.text(source.decode("utf-8", "replace"), rng))
        elif rng.randrange(2):
            path.write_bytes(_header(source, rng))
        else:
            path.write_bytes(mutations.data(source, rng))
        if not rng.randrange(10):
            path.rename(path.with_name(rng.choice(["x.bin", "model.safetensors", "config.json", "x.ckpt"])))
            return


def _changed(source: bytes, rng: random.Random) -> bytes:
    """JSON with other entries."""
    try:
        return mutations.as_json(mutations.entries(json.loads(source), rng)).encode("utf-8", "replace")
    except (ValueError, RecursionError):  # it was damaged before
        return source[:100]


def _header(source: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another header."""
    size = int.from_bytes(source[:8], "little")
    header = _changed(source[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + source[8 + size :]


def model(rng: random.Random, home: Path, work: Path) -> Run:
    (work / "images").symlink_to(home / "images")
    (work / "r.yaml").write_text(RECIPE)
    shutil.copytree(home / "model", work / "model")
    _damage_folder(rng, work / "model")
    return ["train", "r.yaml", "--from", "model", *(["--dry-run"] if rng.randrange(2) else [])]


def pipeline(rng: random.Random, home: Path, work: Path) -> Run:
    from guda_cli.checkpoints.pipeline_folder import read_pipeline

    shutil.copytree(home / "pipeline", work / "pipeline")
    _damage_folder(rng, work / "pipeline")
    return lambda: read_pipeline("pipeline")


def prompt(rng: random.Random, home: Path, work: Path) -> Run:
    from guda_cli.data.embedded import embedded
    from guda_cli.data.origins import read_origin

    name = rng.choice(list(PROMPTS))
    source = PROMPTS[name]
    if source.startswith("{") and rng.randrange(3):
        source = mutations.as_json(mutations.entries(json.loads(source), rng))
    else:
        source = mutations.text(source, rng).decode("utf-8", "replace")
    picture, info = Image.new("L", (8, 8), 90), PngInfo()
    for key, text in {**PROMPTS, name: source}.items():
        if key == name or not rng.randrange(8):
            rng.choice([info.add_text, info.add_itxt])(key, text, zip=rng.random() < 0.3)
    picture.save(work / "x.png", pnginfo=info)

    def read() -> None:
        embedded(Path("x.png"))
        read_origin(Path("x.png"))

    return read


def scores(rng: random.Random, home: Path, work: Path) -> Run:
    """A table of scores to be imported, and lists of paths."""
    shutil.copytree(home / ".guda", work / ".guda")
    for name in ("images", "q", "tiny.yaml"):
        (work / name).symlink_to(home / name)
    rows = [f"q/a.png,{group},{number}.5" for number, group in enumerate(GROUPS)]
    text = "\n".join(["image,group,score", *rows]) + "\n"
    if rng.randrange(2):
        text = json.dumps(
            [dict(zip(("image", "group", "score"), row.split(","), strict=True)) for row in rows]
        )
    name = rng.choice(["s.csv", "s.jsonl", "s.json", "s.txt"])
    (work / name).write_bytes(mutations.text(text, rng))
    return ["score", "--import", name, "--name", "other"]


def words(rng: random.Random, home: Path, work: Path) -> Run:
    """A command line of options that the command has."""
    from guda_cli import app

    shutil.copytree(home / ".guda", work / ".guda")
    for name in ("images", "q", "tiny.yaml"):
        (work / name).symlink_to(home / name)
    names = [name for name in app.COMMANDS if name not in NEVER]
    made = [rng.choice(names)]
    command = app._build(made[0])
    if subs := getattr(command, "commands", None):
        made.append(rng.choice([name for name in subs if name not in NEVER]))
        command = subs[made[1]]
    params = [param for param in command.params if param.name != "_debug"]
    for param in rng.sample(params, rng.randint(0, min(5, len(params)))):
        if param.param_type_name == "option":
            made.append(rng.choice([*param.opts, *param.secondary_opts]))
        if not getattr(param, "is_flag", False):
            made.append(rng.choice(_COUNTS) if _is_number(param) and rng.randrange(4) else _value(rng))
    if not rng.randrange(6):
        made.insert(rng.randint(1, len(made)), _value(rng))
    if made[0] in SLOW and "--import" not in made:
        made.insert(1, "--dry-run")
    return made


def _is_number(param: object) -> bool:
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return any(kind in str(annotation) for kind in ("int", "float"))


_COUNTS = [
    "0",
    "1",
    "2",
    "3",
    "100",
    "5000",
    "1000000",
    "1000000000",
    "1000000000000",
    "18446744073709551615",
]


def _value(rng: random.Random) -> str:
    return (
        rng.choice(VALUES)
        if rng.randrange(3)
        else _argument(rng.choice([*mutations.NUMBERS, *mutations.WORDS]))
    )


KINDS: dict[str, Callable[[random.Random, Path, Path], Run]] = {
    "recipe": recipe, "metadata": metadata, "image": image, "archive": archive, "model": model,
    "pipeline": pipeline, "prompt": prompt, "scores": scores, "words": words,
}  # fmt: skip
