import ast
import subprocess
import sys
from pathlib import Path

from guda_cli import store as package

HEAVY = (
    "numpy",
    "h5py",
    "torch",
    "diffusers",
    "safetensors",
    "scipy",
    "asyncio",
    "multiprocessing",
)
ALLOWED = {"guda_cli.store", "numpy", "h5py", "safetensors"}


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_store_is_light():
    out = run(f"import guda_cli.store, sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert out.strip() == "[]"


def test_importing_the_store_imports_nothing_else_of_guda():
    out = run("import guda_cli.store, sys; print([n for n in sys.modules if n.startswith('guda')])")
    names = ast.literal_eval(out)
    assert "guda_cli.store" in names
    assert all(name == "guda_cli" or name.startswith("guda_cli.store") for name in names)


def test_listing_needs_no_numpy(store):
    code = f"""
import sys
from guda_cli.store import Store
opened = Store.open({str(store.root)!r})
list(opened.records()), opened.tables(), opened.usage(), opened.table_rows("0" * 64), opened.gc()
print([name for name in {HEAVY} if name in sys.modules])
"""
    assert run(code).strip() == "[]"


def test_the_store_imports_only_what_it_may():
    for path in Path(package.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, path.name
                names = [node.module or ""]
            for name in names:
                top = name.partition(".")[0] if not name.startswith("guda_cli.store") else "guda_cli.store"
                assert top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {name}"
                assert top != "pickle"
