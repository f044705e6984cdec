"""Where experiments are found: a path, `./experiments`, else the copy that was installed with the package."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.errors import InputError, nearest

if TYPE_CHECKING:
    from vae_jax.config import Config


def folders() -> list[Path]:
    """Returns the folders that are searched, first match first."""
    here = Path(__file__).resolve().parent
    # An installed wheel carries the files inside the package; a checkout has them beside it.
    return [Path("experiments"), here / "experiments", here.parent / "experiments"]


def all_experiments() -> dict[str, Path]:
    """Returns {name: file} of every experiment that can be named."""
    found: dict[str, Path] = {}
    for folder in folders():
        for file in sorted(folder.glob("*.py")):
            if not file.stem.startswith("_"):
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def find(name: str) -> Path:
    """Returns the file of an experiment, given its name or its path.

    Raises:
      InputError: there is none; the nearest name is offered.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise InputError(f"{name}: no such experiment file")
        return path
    known = all_experiments()
    if name not in known:
        raise InputError(f"{name}: no such experiment; {nearest(name, known)}")
    return known[name]


def summary(path: Path) -> str:
    """Returns the first line of an experiment's docstring, without running it."""
    try:
        doc = ast.get_docstring(ast.parse(path.read_text()))
    except (SyntaxError, OSError):
        doc = None
    return doc.splitlines()[0] if doc else ""


def load(path: Path) -> Config:
    """Returns the config of an experiment file: what its `get_config()` gives.

    Raises:
      InputError: the file has no `get_config`, or it does not return a Config.
    """
    from vae_jax.config import Config

    spec = importlib.util.spec_from_file_location(f"vae_jax_experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: cannot be loaded ({type(error).__name__}: {error})") from error
    config = module.get_config() if hasattr(module, "get_config") else None
    if not isinstance(config, Config):
        raise InputError(f"{path}: needs a function get_config() that returns a vae_jax.config.Config")
    return config
