"""Python files of the user's own: imported without `sys.path`, and kept as checked copies.

An experiment file and the files beside it that it imports form one `Code`. Each `Code` has names of its own in
`sys.modules`, so that two experiments with equally named neighbors never get each other's. What is executed are the
bytes that were read, and the same bytes are what a run folder keeps.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import itertools
import os
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from vae_jax.errors import InputError, shown
from vae_jax.files.atomic import replacing

MAIN = "experiment.py"  # the copy of an experiment file, in a run folder
BESIDE = "experiment_files"  # folder of the copies of the files that it imports
PREFIX = "vae_jax_experiment_"  # of the names in sys.modules
REFUSE = "VAE_JAX_RUN_CODE"  # environment variable; 0 refuses to execute what a run folder holds
_MOST_BYTES = 16 << 20  # of one copy: source code is small, and a run folder may come from anywhere

_loaded: list[Code] = []
_numbers = itertools.count(1)


@dataclass(frozen=True, eq=False)
class Code:
    """The Python files of one experiment, as they were executed.

    Attributes:
      module: name of the experiment file in `sys.modules`; a file beside it is `module.NAME`.
      path: the experiment file.
      main: its bytes.
      beside: {name without .py: bytes} of every file beside it that these files import.
      folder: where the files beside it are.
    """

    module: str
    path: Path
    main: bytes
    beside: Mapping[str, bytes]
    folder: Path

    @property
    def files(self) -> dict[str, bytes]:
        """Path of each copy inside a run folder -> its bytes."""
        return {MAIN: self.main} | {f"{BESIDE}/{name}.py": held for name, held in sorted(self.beside.items())}

    @property
    def sums(self) -> dict[str, str]:
        """Path of each copy inside a run folder -> its SHA-256."""
        return {name: hashlib.sha256(held).hexdigest() for name, held in self.files.items()}

    @property
    def sha256(self) -> str:
        """One hash of all files."""
        return hashlib.sha256(repr(self.sums).encode()).hexdigest()

    def copy(self, folder: Path) -> None:
        """Writes the files into a run folder."""
        for name, held in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            with replacing(folder / name) as temporary:
                temporary.write_bytes(held)

    def differing(self, file: Path) -> Path | None:
        """Returns the first file that is not what this code was executed from, None if all are.

        Args:
          file: an experiment file; those beside it that it imports are compared as well.
        """
        if (main := file.read_bytes()) != self.main:
            return file
        # A file may have been added beside the experiment as well: it would hide an installed module of its name.
        now = _imported(main, file.parent)
        names = sorted(now.keys() | self.beside.keys())
        return next((file.parent / f"{name}.py" for name in names if now.get(name) != self.beside.get(name)), None)


def owner(module: str) -> Code | None:
    """Returns the code that a name in `sys.modules` belongs to, None for any other module."""
    return next((code for code in _loaded if module == code.module or module.startswith(f"{code.module}.")), None)


def load(path: Path) -> Code:
    """Executes a Python file and returns its code; one that was executed before is returned as it is.

    The path counts beside the content: a file may look for its data in its own folder.

    Raises:
      OSError: it cannot be read.
      Exception: whatever the file raises.
    """
    path = path.absolute()
    main = path.read_bytes()
    beside = _imported(main, path.parent)
    for code in _loaded:
        if (code.path, code.main, code.beside) == (path, main, beside):
            return code
    return _execute(path, main, beside, path.parent)


def restore(folder: Path, sums: Mapping[str, str]) -> Code:
    """Returns the code of a run folder: the copies are executed if they are those that the run was made with.

    Args:
      folder: the run folder.
      sums: as `Code.sums` was when the run was made.

    Raises:
      InputError: a copy is missing, was changed, or cannot be executed; or the environment forbids to execute it.
    """
    held = {name: _checked(folder / name, sha256) for name, sha256 in sums.items()}
    main, beside = held.pop(MAIN), {Path(name).stem: content for name, content in held.items()}
    for code in _loaded:  # equal bytes are equal classes, wherever they were read
        if (code.main, code.beside) == (main, beside):
            return code
    check_allowed(folder / MAIN)
    try:
        return _execute(folder.absolute() / MAIN, main, beside, folder.absolute() / BESIDE)
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{folder / MAIN}: cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())}); install what "
            "it needs"
        ) from error


def check_allowed(what: object) -> None:
    """Raises InputError where the environment forbids that a run folder makes this process execute code."""
    if os.environ.get(REFUSE) == "0":
        raise InputError(f"{what}: is not executed because {REFUSE} is 0; read its code, and unset {REFUSE} to open it")


def check_sums(value: Mapping[str, str]) -> None:
    """Raises InputError for sums that `Code.sums` cannot have written: a path outside of the run folder, say."""
    for name, sha256 in value.items():
        if name != MAIN and not re.fullmatch(rf"{BESIDE}/[^\W\d]\w*\.py", name):
            raise InputError(f"code_sha256.{shown(name)}: is not a file that a run keeps; restore the file")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise InputError(f"code_sha256.{name}: {sha256!r} is not a SHA-256 of 64 digits; restore the file")
    if MAIN not in value:
        raise InputError(f"code_sha256.{MAIN} is missing; restore the file, or train again")


def _checked(file: Path, sha256: str) -> bytes:
    """Returns the content of a copy."""
    fix = "restore it from the experiment file, or train again"
    try:
        with file.open("rb") as stream:
            held = stream.read(_MOST_BYTES)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}), and the run needs its classes; {fix}") from error
    now = hashlib.sha256(held).hexdigest()
    if now != sha256:
        raise InputError(f"{file}: changed since the run was made (SHA-256 {now[:12]} now, {sha256[:12]} then); {fix}")
    return held


def _imported(main: bytes, folder: Path) -> dict[str, bytes]:
    """Returns {name: bytes} of the files of a folder that a file imports, and that those import.

    Read from the text, not from what is executed: an import inside a function counts before it is reached.
    """
    found: dict[str, bytes] = {}
    waiting = [main]
    while waiting:
        for name in _heads(waiting.pop()):
            file = folder / f"{name}.py"
            # A file that hides a module of Python or this package would break whatever imports that.
            if name in found or name in sys.stdlib_module_names or name == "vae_jax" or not file.is_file():
                continue
            found[name] = file.read_bytes()
            waiting.append(found[name])
    return found


def _heads(source: bytes) -> set[str]:
    """Returns the first part of every name that a file imports; nothing for one that is not Python."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return set()
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level}
    return {name.partition(".")[0] for name in names}


def _execute(path: Path, main: bytes, beside: Mapping[str, bytes], folder: Path) -> Code:
    code = Code(f"{PREFIX}{path.stem}_{next(_numbers)}", path, main, beside, folder)
    _loaded.append(code)  # before it is executed: meanwhile the owner of its own classes is looked up
    try:
        _module(code, code.module, path, main)
    except BaseException:
        _loaded.remove(code)
        for name in [n for n in sys.modules if n.startswith(f"{code.module}.")]:
            del sys.modules[name]
        raise
    return code


def _module(code: Code, name: str, path: Path, source: bytes) -> types.ModuleType:
    """Executes one file as the module `name`."""
    module = types.ModuleType(name)
    module.__file__, module.__spec__ = str(path), ModuleSpec(name, None, origin=str(path))
    # The import statements of this file, also those inside its functions, look among its neighbors first. Neither
    # sys.path nor any other module is touched.
    module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _importer(code)}
    sys.modules[name] = module  # dataclasses look up their module while they are made
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importer(code: Code) -> Any:
    """Returns `__import__` for the files of a code."""

    def importer(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
        if level or name not in code.beside:
            return builtins.__import__(name, globals, locals, fromlist, level)
        full = f"{code.module}.{name}"
        if full in sys.modules:
            return sys.modules[full]
        return _module(code, full, code.folder / f"{name}.py", code.beside[name])

    return importer
