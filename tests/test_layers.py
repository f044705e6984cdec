"""Who may import whom, read from the sources; and what `import vae_jax` may load."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "vae_jax"
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}
MAX_LINES = 500

# Lowest street first: a module imports its own street and lower ones.
STREETS = (
    {"errors", "prng", "collectives", "files"},
    {"spec", "spaces"},
    {"model", "schedules", "options", "data"},
    {"distributions", "metrics"},
    {"likelihoods", "posteriors", "priors", "networks", "quantizers"},
    {"objectives"},
    {"models"},
    {"train"},
    {"runs", "config"},
    {"evaluation"},
    {"figures"},
    {"pages"},
    {"tasks"},
    {"api", "vae_jax"},
    {"cli"},
    {"__main__"},
)
# Data know no model: they are read by runs and by what lies above these.
DATA_MAY_IMPORT = {"data", "spec", "options", "files", "errors", "prng"}
# Streets side by side that must not know each other.
INDEPENDENT = ("posteriors", "priors", "networks", "likelihoods", "quantizers")
SEPARATE = [(a, b) for a in INDEPENDENT for b in INDEPENDENT if a != b]
# Their messages are read at the command line and in Python.
SPEAKS_TO_BOTH = {*INDEPENDENT, "models", "objectives", "train", "metrics", "options"}


def imports(module: str) -> set[str]:
    """Returns the modules that a module imports: at its top, inside functions, or for type checkers alone."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} line {node.lineno}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def inside(module: str) -> set[str]:
    """Returns the modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        name = name.removeprefix("vae_jax.")
        while name and name not in MODULES and f"{name}.__init__" not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            found.add(name if name in MODULES else f"{name}.__init__")
    return found - {module}


def street(module: str) -> int:
    """Returns the height of a module's street."""
    part = "vae_jax" if module == "__init__" else module.split(".")[0]
    return next(i for i, names in enumerate(STREETS) if part in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_downwards(module):
    part = module.split(".")[0]
    for other in inside(module):
        top = other.split(".")[0]
        if part == "data":
            assert top in DATA_MAY_IMPORT, f"{module} imports {other}"
        assert street(other) <= street(module), f"{module} imports {other}, which lies above it"
        assert (part, top) not in SEPARATE, f"{module} imports {other}"
        if top == "data" and part != "data":
            assert street(module) >= street("runs.config"), f"{module} imports data: only runs and above may"


def test_no_import_circles():
    # A package that hands on the names of its modules is no circle: a module may import what it lies in.
    packages = {m: {".".join([*m.split(".")[:n], "__init__"]) for n in range(1, m.count(".") + 1)} for m in MODULES}
    left = {m: inside(m) - packages[m] for m in MODULES}
    # What imports nothing of the rest, and what nothing of the rest imports, is in no circle.
    while free := {m for m in left if not left[m] & left.keys() or not any(m in below for below in left.values())}:
        left = {m: below for m, below in left.items() if m not in free}
    assert not left, {m: sorted(below & left.keys()) for m, below in left.items()}


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("evaluation.")])
def test_scores_of_arrays_are_metrics(module):
    """What takes arrays and numbers alone and gives a number needs no run: it is in `metrics`."""
    plain = {"np.ndarray", "jax.Array", "int", "float", "bool", "str"}
    for node in ast.parse(MODULES[module].read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns:
            score = ast.unparse(node.returns) in ("float", "float | None", "Estimate", "dict[str, Estimate]")
            taken = {ast.unparse(a.annotation) for a in node.args.args + node.args.kwonlyargs if a.annotation}
            assert not (score and "np.ndarray" in taken and taken <= plain), f"move {node.name} to metrics/"


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


@pytest.mark.parametrize("module", [m for m in MODULES if m.split(".")[0] in SPEAKS_TO_BOTH])
def test_flags_in_messages_are_for_the_command_line(module):
    """A caller in Python reads the same message: `errors.option` and `errors.command` know who reads."""
    tree = ast.parse(MODULES[module].read_text())
    either = {id(n.args[0]) for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "either"}
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in either | docs:
            assert not re.search(r"(?<!\S)[(`']?--[a-z]|vae-jax [a-z]", node.value), f"line {node.lineno}: {node.value}"


def test_a_wheel_carries_every_package_and_its_data():
    tools = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {".".join(p.parent.relative_to(ROOT.parent).parts) for p in ROOT.rglob("__init__.py")}
    folders = {p.parent for p in ROOT.parent.joinpath("experiments").rglob("*.py")}
    experiments = {".".join(("vae_jax", *folder.relative_to(ROOT.parent).parts)) for folder in folders}
    assert set(tools["packages"]) == packages | experiments
    shipped = {f for name, patterns in tools["package-data"].items() for pattern in patterns
               for f in ROOT.parent.joinpath(*name.split(".")).glob(pattern)}  # fmt: skip
    assert ROOT / "py.typed" in shipped
    assert shipped == {f for f in ROOT.rglob("*") if f.is_file() and f.suffix not in (".py", ".pyc")}


@pytest.mark.parametrize(
    "module", ["vae_jax", "vae_jax.models", "vae_jax.objectives", "vae_jax.train", "vae_jax.metrics"]
)
def test_import_is_light(module):
    """A user's `import` loads no TensorFlow, plotting, checkpoint or torch code."""
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "orbax", "torch", "grain", "sklearn", "diffrax")
    code = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}} & {set(heavy)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
