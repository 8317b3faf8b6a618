"""PNG files with text entries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from guda_cli.data.embedded import PNG_KEY

PIXELS = np.zeros((8, 8, 3), dtype=np.uint8)


def png(path: Path, **texts: str) -> Path:
    """A black image with these entries; `ours` is the one that `guda sample` writes."""
    info = PngInfo()
    for key, text in texts.items():
        info.add_itxt(PNG_KEY if key == "ours" else key, text)
    Image.fromarray(PIXELS).save(path, pnginfo=info)
    return path
