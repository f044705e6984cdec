"""Who may import whom, read from the sources; and what `import vae_jax` may load."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vae_jax"
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}
MAX_LINES = 500

# Lowest layer first: a module imports its own layer and lower ones. What is not named is the command line's layer:
# config, runs, cli, ... All of these may import everything, and only they may import `data`.
LAYERS = (
    {"errors", "prng", "collectives", "schedules", "model", "settings", "atomic", "bounded"},
    {"distributions", "metrics"},
    {"posteriors", "priors", "networks", "quantizers"},
    {"objectives"},
    {"models"},
    {"train"},
    {"evaluation"},
)
# `atomic` is what every file of ours is written with.
DATA_MAY_IMPORT = {"data", "atomic", "bounded", "errors", "prng"}
# Parts of one layer that must not know each other.
INDEPENDENT = ("posteriors", "priors", "networks")
SEPARATE = [(a, b) for a in INDEPENDENT for b in INDEPENDENT if a != b]
# Pictures and pages are made of runs; what a command does with them is its own business.
SEPARATE += [(part, "cli") for part in ("figures", "report", "measuring", "sweeps", "training", "user_images")]


def imports(module: str) -> set[str]:
    """Returns the dotted names that a module imports, at its top or inside functions; `from a import b` gives a.b.

    What is imported for type checkers alone is no dependency: it never runs.
    """
    names = set()
    tree = ast.parse(MODULES[module].read_text())
    typed = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    unseen = {id(inner) for block in typed for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts(module: str) -> set[str]:
    """Returns the parts of the package (`distributions`, `train`, ...) that a module imports."""
    inside = {name.split(".")[1] for name in imports(module) if name.startswith("vae_jax.")}
    return {part for part in inside if (ROOT / part).is_dir() or (ROOT / f"{part}.py").exists()}


def layer(part: str) -> int:
    return next((i for i, names in enumerate(LAYERS) if part in names), len(LAYERS))


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    part = module.split(".")[0]
    if part == "data":
        assert parts(module) <= DATA_MAY_IMPORT
        return
    for other in parts(module):
        assert layer(other) <= layer(part), f"{module} imports {other}, which lies above it"
        assert (part, other) not in SEPARATE, f"{module} imports {other}"
        if other == "data":
            assert layer(part) == len(LAYERS), f"{module} imports data: only the command line's layer may"


@pytest.mark.parametrize("module", MODULES)
def test_modules_keep_to_their_business(module):
    text = MODULES[module].read_text()
    part, name = module.split(".")[0], module.split(".")[-1]
    assert name not in ("utils", "util", "helpers", "common", "misc"), "name a module after what it does"
    assert len(text.splitlines()) <= MAX_LINES
    roots = {n.split(".")[0] for n in imports(module)}
    assert not roots & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}, "nothing is pickled"
    assert "orbax" not in roots or module == "train.checkpoint", "only train.checkpoint imports orbax"
    assert not {n for n in imports(module) if n.startswith(("jax._src", "flax.training", "flax.jax_utils"))}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and any(ast.unparse(b).endswith("nn.Module") for b in node.bases):
            assert part in ("networks", "quantizers"), f"{node.name}: only networks subclass nn.Module"
        # `distributions.dense` is no module: its `apply` is a plain function of a dict.
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        if called.endswith(".apply") and called != "dense.apply":
            assert part == "models", f"line {node.lineno}: only models call a module's apply"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", "nothing is unpickled"


def test_a_wheel_carries_every_package_and_its_data():
    tools = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {".".join(p.parent.relative_to(ROOT.parent).parts) for p in ROOT.rglob("__init__.py")}
    assert set(tools["packages"]) == packages | {"vae_jax.experiments"}
    shipped = {f for name, patterns in tools["package-data"].items() for pattern in patterns
               for f in ROOT.parent.joinpath(*name.split(".")).glob(pattern)}  # fmt: skip
    assert shipped == {f for f in ROOT.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")}


@pytest.mark.parametrize(
    "module", ["vae_jax", "vae_jax.models", "vae_jax.objectives", "vae_jax.train", "vae_jax.metrics"]
)
def test_import_is_light(module):
    """A user's `import` loads no TensorFlow, plotting, checkpoint or torch code."""
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "orbax", "torch", "grain", "sklearn")
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}} & {set(heavy)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
