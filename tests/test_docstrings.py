"""Docstrings: arguments of long signatures, and worked examples, which are run."""

import ast
import doctest
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vae_jax import metrics, model
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.objectives import GRADIENTS, OBJECTIVES

ROOT = Path(__file__).parents[1]
MANY = 4  # parameters from which on a signature alone does not explain them
# Models are made of functions (parts, *arguments of a Protocol), whose docstring is that of the Protocol.
PROTOCOLS = {
    "loss": model.LossFn,
    "terms": model.TermsFn,
    "encode": model.EncodeFn,
    "decode": model.DecodeFn,
    "sample": model.SampleFn,
    "features": model.FeaturesFn,
    "embed": model.FeaturesFn,
    "bound": model.BoundFn,
    "joint": model.JointFn,
}


class Definition(NamedTuple):
    """A public class or function: its module, `Class.name`, node and docstring."""

    module: str
    name: str
    node: ast.ClassDef | ast.FunctionDef
    doc: str


def definitions(file: Path) -> Iterator[Definition]:
    """Yields the public classes of a file, their public methods, and the public functions."""
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    def visit(body: list[ast.stmt], prefix: str) -> Iterator[Definition]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                yield Definition(module, prefix + node.name, node, ast.get_docstring(node) or "")
                if isinstance(node, ast.ClassDef):
                    yield from visit(node.body, f"{node.name}.")

    yield from visit(ast.parse(file.read_text()).body, "")


@functools.cache
def public(folder: str = "vae_jax") -> list[Definition]:
    return [found for file in sorted((ROOT / folder).rglob("*.py")) for found in definitions(file)]


def parameters(found: Definition) -> list[str]:
    """Returns the names of the parameters, without `self` and `cls`."""
    assert isinstance(found.node, ast.FunctionDef)
    given = found.node.args
    names = [arg.arg for arg in (*given.posonlyargs, *given.args, given.vararg, *given.kwonlyargs, given.kwarg) if arg]
    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in found.node.decorator_list)
    return names[1:] if "." in found.name and not static else names


def undocumented(names: list[str], doc: str, returns: bool) -> list[str]:
    """Returns the parameters that the section Args leaves out, and "Returns" where that section is needed."""
    sections = dict(re.findall(r"^(\w+):\n((?:(?:  .*)?\n)+)", f"{doc}\n", re.MULTILINE))
    # An entry may share its text: "x, y: images".
    listed = re.findall(r"^  (\w[\w, ]*):", sections.get("Args", ""), re.MULTILINE)
    missing = [name for name in names if name not in re.split(r", *", ", ".join(listed))]
    return missing if not returns or {"Returns", "Yields"} & set(sections) else [*missing, "Returns"]


def explained_by(found: Definition) -> Iterator[str]:
    """Yields the docstrings of the Protocol, or of the base classes' methods, of the same parameters."""
    names = parameters(found)
    if "." not in found.name:
        protocol = PROTOCOLS.get(found.name) if found.module.startswith("vae_jax.models") else None
        if protocol and list(inspect.signature(protocol.__call__).parameters)[1:] == names[1:]:
            yield inspect.getdoc(protocol.__call__) or ""
        return
    owner, method = found.name.split(".")
    for base in getattr(importlib.import_module(found.module), owner).__mro__[1:]:
        own = vars(base).get(method)
        if own is not None and own.__doc__ and list(inspect.signature(own).parameters)[1:] == names:
            yield inspect.cleandoc(own.__doc__)


def lacking(found: Definition) -> list[str]:
    """Returns what neither the docstring of a function nor that of what it implements says of its arguments."""
    assert isinstance(found.node, ast.FunctionDef)
    names, none = parameters(found), isinstance(found.node.returns, ast.Constant) and found.node.returns.value is None
    if len(names) < MANY or not undocumented(names, found.doc, not none):
        return []
    # The parts that a model's function is bound to are the first argument of each.
    explained = names[1:] if names[0] == "parts" else names
    if any(not undocumented(explained, doc, not none) for doc in explained_by(found)):
        return []
    return undocumented(names, found.doc, not none)


def test_what_a_docstring_leaves_out_is_found():
    doc = "Does it.\n\nArgs:\n  x, y: images.\n    in [0, 1]: as stored.\n  n: how many.\n\nReturns:\n  nats [B]."
    assert undocumented(["x", "y", "n"], doc, True) == []
    assert undocumented(["x", "z"], doc, True) == ["z"]
    assert undocumented(["in"], doc, False) == ["in"]
    assert undocumented(["n"], doc.partition("\n\nReturns")[0], True) == ["Returns"]


def test_long_signatures_are_explained():
    functions = [found for found in public() if isinstance(found.node, ast.FunctionDef)]
    assert len([found for found in functions if len(parameters(found)) >= MANY]) > 200
    missing = {f"{found.module}.{found.name}": names for found in functions if (names := lacking(found))}
    assert not missing


EXAMPLES = [found for found in public() if ">>>" in found.doc]
FOLDERS = sorted({".".join(found.module.split(".")[:2]) for found in EXAMPLES})


@pytest.mark.parametrize("folder", FOLDERS)
def test_examples(folder):
    """Each example prints what it says, in the names of its module and what it imports."""
    runner = doctest.DocTestRunner(verbose=False)
    output: list[str] = []
    for found in EXAMPLES:
        if f"{found.module}.".startswith(f"{folder}."):
            names = dict(vars(importlib.import_module(found.module)))
            where = f"{found.module}.{found.name}"
            runner.run(doctest.DocTestParser().get_doctest(found.doc, names, where, None, 0), out=output.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(output)


def named(classes: dict[str, type]) -> set[str]:
    return {f"{cls.__module__}.{cls.__qualname__}" for cls in classes.values()}


def test_components_have_an_example():
    wanted = named(OBJECTIVES) | named(GRADIENTS) | named(LIKELIHOODS)
    assert len(wanted) > 40
    assert not wanted - {f"{found.module}.{found.name}" for found in EXAMPLES}


def test_distributions_have_an_example():
    """Every class of `distributions/`, whose methods it shows, and every function."""
    wanted = {f"{found.module}.{found.name}" for found in public("vae_jax/distributions") if "." not in found.name}
    assert {"vae_jax.distributions.gaussian.kl", "vae_jax.distributions.sphere.VonMisesFisher"} < wanted
    assert not wanted - {f"{found.module}.{found.name}" for found in EXAMPLES}


def test_metrics_have_an_example():
    functions = [getattr(metrics, name) for name in metrics.__all__ if inspect.isfunction(getattr(metrics, name))]
    wanted = {f"{function.__module__}.{function.__qualname__}" for function in functions}
    assert len(wanted) > 10
    assert not wanted - {f"{found.module}.{found.name}" for found in EXAMPLES}
