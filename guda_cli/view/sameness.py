"""Whether two processes are the same guda: the same code, packages, machine and settings of libraries."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator

# Read when a command runs, and so free to differ.
_FREE = {"GUDA_STORE", "GUDA_DEBUG", "GUDA_RESIDENT"}
# Set by packages in their own process, and so in what a notebook starts; they change no answer.
_FREE |= {"TORCHINDUCTOR_CACHE_DIR", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK"}
# What libraries read when they are loaded, or the interpreter when it starts.
_READ_EARLY = (
    "GUDA_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "ONEDNN_", "DNNL_", "TORCH",
    "PYTORCH_", "ATEN_", "CUDA", "CUBLAS_", "NVIDIA_", "NCCL_", "HIP_", "ROCR_", "HF_", "HUGGINGFACE_",
    "TRANSFORMERS_", "DIFFUSERS_", "HDF5_", "MALLOC_", "LD_", "PYTHON", "LANG", "LC_", "TZ", "HOME",
    "XDG_CACHE", "XDG_CONFIG", "XDG_DATA", "NPY_", "SCIPY_", "SKLEARN_", "GLIBC_", "GOTO_", "TYPER_", "TQDM_",
    "ACCELERATE_", "SAFETENSORS_",
)  # fmt: skip
# All flags of the interpreter but `safe_path`: it is in the path.
_FLAGS = (
    "debug", "inspect", "interactive", "optimize", "dont_write_bytecode", "no_user_site", "no_site",
    "ignore_environment", "verbose", "bytes_warning", "quiet", "isolated", "dev_mode", "utf8_mode",
    "warn_default_encoding", "int_max_str_digits",
)  # fmt: skip


def sameness() -> str:
    """A digest that two processes share only if a command would do the same in both."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    first = 0 if sys.flags.safe_path else 1  # the folder of the script, or the working directory
    found = {
        "package": package,
        "files": list(_files(package)),
        "python": [
            sys.executable,
            sys.version,
            sys.getfilesystemencoding(),
            [getattr(sys.flags, name) for name in _FLAGS],
            sys.warnoptions,
        ],
        "path": [[entry, _changed(entry)] for entry in sys.path[first:]],
        "cores": sorted(os.sched_getaffinity(0)),
        "user": [*os.getresuid(), *os.getresgid(), *sorted(os.getgroups())],
        "view": [*_spaces(), os.stat("/").st_dev, os.stat("/").st_ino],  # noqa: PTH116
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_READ_EARLY) and name not in _FREE
        },
    }
    return hashlib.sha256(json.dumps(found).encode("utf-8", "surrogatepass")).hexdigest()


def _spaces() -> Iterator[str]:
    """What tells containers apart, in which the same paths and numbers mean other things."""
    for name in ("mnt", "pid", "user"):
        try:
            yield os.readlink(f"/proc/self/ns/{name}")  # noqa: PTH115
        except OSError:
            yield ""


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of every module below a folder, in order."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry.path)
        elif entry.name.endswith((".py", ".yaml")):
            seen = entry.stat()
            yield entry.path, seen.st_size, seen.st_mtime_ns


def _changed(entry: str) -> int:
    """When something was last installed into a folder of packages; 0 of other folders."""
    if not entry.rstrip(os.sep).endswith("-packages"):
        return 0
    try:
        return os.stat(entry).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0
