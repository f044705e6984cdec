"""Components by name: of a literal registry, `package.module:Class`, or `experiment:Class` of an experiment file.

A name becomes a class, and a class the name that a `config.json` keeps. Whatever a name leads to is checked before it
is used: it is a frozen dataclass of the right kind that can be made without arguments.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_jax.errors import InputError, nearest, shown
from vae_jax.files import code as codes
from vae_jax.files.code import Code

EXPERIMENT = "experiment"  # in place of the module name of an experiment file; `experiment.NAME` of a file beside it
FindCode = Callable[[], Code | None]  # only called for names in an experiment file, as it may execute one


@dataclass(frozen=True)
class Kind:
    """One kind of component.

    Attributes:
      word: what messages call one: "network".
      classes: the literal registry.
      base: what a class of the kind extends, as a user imports it: "vae_jax.networks.Network"; "" for any class.
      methods: what a class must have beside that.
      options: whether the fields of the class are options, so that it must be a frozen dataclass.
    """

    word: str
    classes: Mapping[str, Any]
    base: str = ""
    methods: tuple[str, ...] = ()
    options: bool = True

    @property
    def one(self) -> str:
        """The word with its article: "a network", "an objective"."""
        return f"{'an' if self.word[0] in 'aeiou' else 'a'} {self.word}"

    def find(self, name: str, where: str, code: FindCode = lambda: None) -> Any:
        """Returns the component of this name.

        Args:
          name: a registry name, `package.module:Class` or `experiment:Class`.
          where: the option, for messages; they begin with it.
          code: gives the experiment file that `experiment:` means.

        Raises:
          InputError: there is none, it cannot be imported, or it is not of this kind.
        """
        if name in self.classes:
            return self.classes[name]
        if ":" not in name:
            raise InputError(f"{where}: no such {self.word}; {nearest(name, self.classes)}")
        module, _, path = name.partition(":")
        held = _module(module, where, code)
        found: Any = held
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is None:
            there = [n for n, v in vars(held).items() if isinstance(v, type) and v.__module__ == held.__name__]
            fits = [n for n in there if self.fault(getattr(held, n)) is None] or there
            fix = nearest(path, fits) if fits else "it has no classes of its own; name another module"
            raise InputError(f"{where}: {shown(module)} does not have a class {shown(path)!r}; {fix}")
        if (fault := self.fault(found)) is not None:
            raise InputError(f"{where}: {shown(external(name))} is not {self.one}, because {fault}")
        return found

    def name(self, cls: type) -> str:
        """Returns the name of a class of this kind, as `config.json` keeps it."""
        return next((name for name, known in self.classes.items() if known is cls), written(cls))

    def fault(self, cls: Any) -> str | None:
        """Returns why something is not a class of this kind, with the fix; None if it is one."""
        if not isinstance(cls, type):
            return "it is not a class; name a class"
        if not self.extends(cls):
            return f"it does not extend {self.base}; write class {cls.__name__}({self.base.rpartition('.')[2]})"
        # A decorator is not inherited: without its own, the fields of a class are not options.
        if self.options and ("__dataclass_fields__" not in vars(cls) or not cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            return f"it is not a frozen dataclass; write @dataclass(frozen=True) above class {cls.__name__}"
        missing = [m for m in self.methods if not callable(getattr(cls, m, None))]
        if missing:
            return f"it does not have a method {missing[0]}; define {cls.__name__}.{missing[0]}"
        try:
            typing.get_type_hints(cls)
        except Exception as error:  # a name that is imported for type checkers alone, say
            return f"its annotations cannot be read ({error}); import what they name"
        for name, parameter in inspect.signature(cls).parameters.items():
            if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
                return f"its field {name} does not have a default; give it one"
        return None

    def extends(self, cls: type) -> bool:
        """Says whether a class has the base of this kind."""
        if not self.base:
            return True
        module, _, name = self.base.rpartition(".")
        return issubclass(cls, getattr(importlib.import_module(module), name))


def _module(name: str, where: str, code: FindCode) -> Any:
    """Returns the module that a component's name begins with."""
    if name == EXPERIMENT or name.startswith(f"{EXPERIMENT}."):
        if (own := code()) is None:
            raise InputError(
                f"{where}: {name} means the experiment file, but none of its classes are in use here; give the class "
                "in its get_config()"
            )
        name = own.module + name.removeprefix(EXPERIMENT)
    if name in sys.modules:
        return sys.modules[name]
    try:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            if "/" in missing or missing.endswith(".py"):
                stem = missing.removesuffix(".py").rpartition("/")[2]
                raise InputError(
                    f"{where}: {shown(missing)} is a path, but a module is needed; write {shown(stem)}:Class, with the "
                    "folder of the file in PYTHONPATH"
                ) from None
            raise InputError(
                f"{where}: no module {shown(missing)!r} is installed; install it with pip, or add the folder that "
                "holds it to PYTHONPATH"
            ) from None
        reason = str(error)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
    raise InputError(f"{where}: {name} cannot be imported ({' '.join(reason.split())}); correct the module")


def written(cls: type) -> str:
    """Returns the name of a class outside of every registry: `package.module:Class`, or `experiment:Class`."""
    return external(f"{cls.__module__}:{cls.__qualname__}")


def external(name: str) -> str:
    """Returns a name as files and messages have it: `experiment:Class` for a class of an experiment file."""
    module, colon, path = name.partition(":")
    if not colon or (code := codes.owner(module)) is None:
        return name
    return f"{EXPERIMENT}{module.removeprefix(code.module)}:{path}"


def imported(name: str) -> tuple[str, Path] | None:
    """Returns how a class of an experiment file is named once the folder of the file is in PYTHONPATH, and that folder.

    Args:
      name: `module:Class` as this process has it.

    Returns:
      `module:Class` and the folder; None for a class of any other module, or where no module can have the name of
      the file.
    """
    module, _, path = name.partition(":")
    if (code := codes.owner(module)) is None:
        return None
    is_main = module == code.module
    stem = code.path.stem if is_main else module.removeprefix(f"{code.module}.")
    folder = code.path.parent if is_main else code.folder
    # The experiment file in use, a module of Python, or one of another file that is loaded under the name, would be
    # found in its place.
    loaded = getattr(sys.modules.get(stem), "__file__", None) if stem in sys.modules else str(folder / f"{stem}.py")
    taken = stem in (EXPERIMENT, *sys.stdlib_module_names) or loaded != str(folder / f"{stem}.py")
    return (f"{stem}:{path}", folder) if stem.isidentifier() and not taken else None


def internal(name: str, code: FindCode) -> str:
    """Returns a name as this process has it, where `experiment` is one module among others."""
    module, colon, path = name.partition(":")
    if not colon or not (module == EXPERIMENT or module.startswith(f"{EXPERIMENT}.")) or (own := code()) is None:
        return name
    return f"{own.module}{module.removeprefix(EXPERIMENT)}:{path}"


def check_importable(cls: type, where: str) -> None:
    """Checks that another process finds a class by its name.

    Raises:
      InputError: it was written in a notebook, in a script, or inside a function.
    """
    module, path = cls.__module__, cls.__qualname__
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if module == "__main__" or found is not cls:
        place = "a notebook or script" if module == "__main__" else "a function, or no module"
        raise InputError(
            f"{where}: {path} is a class of {place}, so that no other process can import it; move it to the top of a "
            "module or of an experiment file"
        )


def code_of(modules: Mapping[str, str]) -> Code | None:
    """Returns the one experiment file that classes come from; None if they come from none.

    Args:
      modules: option -> module of its component.

    Raises:
      InputError: from two of them; a run folder keeps one.
    """
    found: dict[Code, str] = {}
    for option, module in modules.items():
        own = codes.owner(module)
        # Equal files are one: a run's copy, and the file that it was copied from.
        if own is not None and all(own.sums != other.sums for other in found):
            found[own] = option
    if len(found) > 1:
        (a, first), (b, second), *_ = found.items()
        raise InputError(
            f"{second}: its class is in {b.path}, but that of {first} is in {a.path}, and a run keeps one experiment "
            "file; put both into one file, or into a package"
        )
    return next(iter(found), None)
