"""Where experiments are found: a path, `./experiments`, else the copy that was installed with the package."""

from __future__ import annotations

import ast
import difflib
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from vae_jax.errors import InputError, command, either, nearest, note, quoted, shown
from vae_jax.files import code as codes

if TYPE_CHECKING:
    from vae_jax.runs.config import Config


def folders() -> list[Path]:
    """Returns the folders that are searched, first match first."""
    package = Path(__file__).resolve().parents[1]
    # An installed wheel carries the files inside the package; a checkout has them beside it.
    return [Path("experiments"), package / "experiments", package.parent / "experiments"]


def _files(folder: Path) -> dict[str, Path]:
    """Returns {name: file} of one folder and its topic folders; of two files of one name, the one less deep."""
    found: dict[str, Path] = {}
    for file in sorted(folder.rglob("*.py"), key=lambda file: (len(file.parts), file)):
        if not any(part.startswith(("_", ".")) for part in file.relative_to(folder).parts):
            found.setdefault(file.stem, file)
    return found


def all_experiments() -> dict[str, Path]:
    """Returns {name: file} of every experiment that can be named."""
    found: dict[str, Path] = {}
    for folder in folders():
        found = _files(folder) | found
    return dict(sorted(found.items()))


def find(name: str | os.PathLike[str]) -> Path:
    """Returns the file of an experiment, given its name or its path.

    A file of `./experiments` that hides a different one of the package is said in one line on stderr: it is code that
    is about to run, and whoever types the name of a published experiment may not expect it.

    Raises:
      InputError: there is none; what may be meant is offered.
    """
    name = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(name, str) or not name:
        raise InputError(
            f"name: {name!r} is neither the name of an experiment nor the path of its file; write "
            f"{either('vae_digits', repr('vae_digits'))}, for example"
        )
    if name.endswith(".py"):
        path = Path(name).expanduser()
        if path.is_dir():
            raise InputError(f"{shown(name)}: is a folder, not an experiment file; {_inside(path)}")
        if not path.is_file():
            raise InputError(f"{shown(name)}: no such experiment file; {_near(path)}")
        return path
    known = all_experiments()
    if name not in known:
        raise InputError(f"{shown(name)}: no such experiment; {_meant(name, known)}")
    hidden = next((file for folder in folders()[1:] if (file := _files(folder).get(name))), None)
    if hidden is not None and hidden.read_bytes() != known[name].read_bytes():
        note(f"vae-jax: {known[name]} is used in place of the experiment of this name that comes with vae_jax")
    return known[name]


def _inside(folder: Path) -> str:
    scripts = sorted(folder.glob("*.py"))
    return f"name one in it, as in {scripts[0]}" if scripts else f"`{_every()}` shows what can be named"


def _every() -> str:
    """Returns what shows all experiments."""
    return either("vae-jax list experiments", "vj.runs.experiments.all_experiments()")


def _near(path: Path) -> str:
    """Returns words for a path without a file: the nearest one beside it, else how to come by one."""
    beside = [str(file) for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
    close = difflib.get_close_matches(str(path), beside, n=1, cutoff=0.8)
    if not close and path.stem in all_experiments():
        return f"did you mean {path.stem!r}?"
    return f"did you mean {close[0]!r}?" if close else f"`{_every()}` shows what can be named"


def _meant(name: str, known: dict[str, Path]) -> str:
    """Returns words for a name that is no experiment: data given in its place, or the nearest names."""
    from vae_jax.data import DATASETS

    path = Path(name).expanduser()
    if path.is_dir() and next(path.glob("*.py"), None):
        return _inside(path)
    if name in DATASETS:
        own = f"vae_{name}"
        place = "PATH" if name in ("npz", "image_folder") else name
        return f"it is a data set; did you mean {_typed(own) if own in known else _typed('vae_digits', place)}?"
    if path.exists():
        return f"did you mean {_typed('vae_digits', name)}?"
    return f"{nearest(name, known)} (all: {_every()})"


def _typed(name: str, data: str | None = None) -> str:
    """Returns what trains an experiment at the command line, and what its config is in Python, in backticks."""
    words = name if data is None else f"{name} --data {quoted(data)}"
    call = command("experiment", name, **({} if data is None else {"data": data}))
    return either(f"`vae-jax train {words}`", call)


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
      InputError: the file has no `get_config`, or it raises, or does not return a Config.
    """
    from vae_jax.options.typed import check_component
    from vae_jax.runs.config import Config
    from vae_jax.runs.kinds import PLACES, components, with_code

    config = None
    try:
        code = codes.load(path)
        if callable(get_config := getattr(sys.modules[code.module], "get_config", None)):
            config = get_config()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a script that calls sys.exit() must not pass for a training that ended
        text = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: cannot be loaded ({text}{_line(error, path)}); correct the file") from error
    if not isinstance(config, Config):
        raise InputError(f"{path}: needs a function get_config() that returns a vae_jax.config.Config")
    for option, component in components(config).items():  # before anything reads their fields
        check_component(component, PLACES[option], option)
    return with_code(config, code)


def _line(error: BaseException, path: Path) -> str:
    """Returns ", line 12" for the last line of the file that an error came through."""
    if isinstance(error, SyntaxError):  # its own text names the line
        return ""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).name == path.name]
    return f", line {lines[-1]}" if lines else ""
