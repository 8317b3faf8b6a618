"""How far two archives of emoji-styles agree: names, prompts, styles, and pixels of the pictures both have.

guda data get emoji-styles
python benchmarks/compare_emoji.py emoji-styles.tar OTHER.tar
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare two archives of emoji-styles.")
    parser.add_argument("one", type=Path)
    parser.add_argument("two", type=Path)
    options = parser.parse_args()
    print(json.dumps(compare(options.one, options.two), indent=1))


def compare(one: Path, two: Path) -> dict[str, Any]:
    """How far two archives agree: names, prompts, styles, and pixels of the pictures both have."""
    with tarfile.open(one) as a, tarfile.open(two) as b:
        first, second = (
            {m.name: t.extractfile(m).read() for m in t if m.isreg()}  # type: ignore[union-attr]
            for t in (a, b)
        )
    both = sorted(name for name in first.keys() & second.keys() if name.endswith(".png"))
    apart = []
    for name in both:
        x, y = (np.asarray(Image.open(io.BytesIO(f[name])).convert("RGB"), int) for f in (first, second))
        apart.append(float(np.abs(x - y).mean()))
    lines = [set(files["metadata.jsonl"].decode().splitlines()) for files in (first, second)]
    return {
        "only in the first": sorted(first.keys() - second.keys())[:20],
        "only in the second": sorted(second.keys() - first.keys())[:20],
        "pictures in both": len(both),
        "of these with equal pixels": sum(value == 0 for value in apart),
        "greatest mean difference of a picture (of 255)": max(apart, default=0.0),
        "equal metadata rows": len(lines[0] & lines[1]),
        "equal styles.json": first["styles.json"] == second["styles.json"],
        "equal files": sum(first[name] == second.get(name) for name in first),
    }


if __name__ == "__main__":
    main()
