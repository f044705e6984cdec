"""Values against type hints: what a dataclass of options or an argument may be, checked before anything depends on it.

The command line is typed by tyro. Configs that are built in Python, or read from a `config.json` that somebody edited,
come through here: `"False"` is true for Python, and a numpy number or a `Path` has no JSON.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from vae_jax.errors import InputError, nearest
from vae_jax.options.registry import Kind
from vae_jax.options.words import arms, example, shown, words, written

_NO = object()  # "does not match": None is a value


def conform(value: Any, hint: Any, name: str, default: Any = _NO, *, json: bool = False) -> Any:
    """Returns a value as its type hint wants it: numpy numbers and paths as plain ones, lists as tuples.

    Args:
      value: what was given.
      hint: of int, float, bool, str, Literal, tuple, dict, None and unions of these, or a class.
      name: of the option or argument, for the message.
      default: for the message, as an example.
      json: the message is about a JSON file: it says `false`, not `False`.

    Returns:
      the value in plain Python types.

    Raises:
      InputError: it is of another type; the message says what to write.
    """
    plain = _native(value)
    found = _match(plain, hint)
    if found is _NO:
        raise _blame(plain, hint, name, default, json)
    return found


def items(value: Any, hint: Any, name: str) -> tuple[Any, ...]:
    """Returns the items of a list, tuple, range or other iterable as a tuple, each as its hint wants it.

    Raises:
      InputError: a text or a single value, which is no list, or an item of another type.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        value = tuple(value)
    return conform(value, tuple[hint, ...], name)


def check_finite(value: Any, name: str, rule: str = "finite") -> None:
    """Raises InputError if a number is NaN or infinite, in a tuple or dict too; `rule` says what it must be."""
    for number in _numbers(value):
        if not math.isfinite(number):
            raise InputError(f"{name}: {number} is not a number that can be used; {name} must be {rule}")


def conform_fields(config: Any, kinds: Mapping[str, Kind], option: str = "", *, json: bool = False) -> Any:
    """Returns a dataclass with every field as its hint wants it, down to the last; the same object if all were.

    Args:
      config: an instance of a dataclass.
      kinds: option -> the kind of component that it must hold.
      option: where `config` is.
      json: as for `conform`.

    Returns:
      a config of the same class.

    Raises:
      InputError: as `conform`, or something that is not a component of the kind.
    """
    changed = {}
    for field in dataclasses.fields(config):
        old, child = getattr(config, field.name), f"{option}.{field.name}" if option else field.name
        hint = _hints(type(config))[field.name]
        if child in kinds:
            check_component(old, kinds[child], child, json)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and not isinstance(old, hint):
            fix = "write {}" if json else f"give {hint.__name__}()"
            raise InputError(f"{child}: {shown(old, json)}, but it must be {words(hint, json)}; {fix}, for example")
        if dataclasses.is_dataclass(old):
            new = conform_fields(old, kinds, child, json=json)
        else:
            new = conform(old, hint, child, _default(field), json=json)
        if new is not old:
            changed[field.name] = new
    return dataclasses.replace(config, **changed) if changed else config


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _default(field: dataclasses.Field) -> Any:
    return _NO if field.default is dataclasses.MISSING else field.default


def check_component(value: Any, kind: Kind, option: str, json: bool = False) -> None:
    """Raises InputError for a value that is not a component of the kind: another kind's, a class, a name.

    Args:
      value: what was given for the option.
      kind: of component that the option holds.
      option: its name, for the message.
      json: the message is about a JSON file, as for `conform`.
    """
    known: Mapping[str, type] = kind.classes
    fault = kind.fault(type(value))
    if type(value) in known.values() or fault is None:
        return
    name = type(value).__name__
    if fault is not None and kind.base and kind.extends(type(value)):
        raise InputError(f"{option}: {name} is not {kind.one}, because {fault}")
    wrong = f"{option}: {shown(value, json)}, but it must be {kind.one}"
    if json:
        name = value if isinstance(value, str) and value in known else next(iter(known))
        raise InputError(f'{wrong}; write {{"kind": "{name}"}}, for example')
    # A registry name, or a class without its brackets.
    own = isinstance(value, type) and kind.fault(value) is None
    named = known.get(value) if isinstance(value, str) else value if own else None
    if named is not None:
        raise InputError(f"{wrong} itself; give {named.__name__}()")
    classes = dict.fromkeys(cls.__name__ for cls in known.values())
    raise InputError(f"{wrong}; give one of {', '.join(classes)}")


def _native(value: Any) -> Any:
    """Returns numpy's and jax's scalars, arrays and paths as plain Python values."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return _unless_same(tuple(_native(v) for v in value), value)
    if isinstance(value, dict):
        return _unless_same({key: _native(v) for key, v in value.items()}, value)
    if isinstance(value, np.generic) or (hasattr(value, "dtype") and hasattr(value, "tolist")):
        return _native(value.tolist())
    return value


def _unless_same(new: Any, old: Any) -> Any:
    """Returns the old container where the new one holds the very same objects: unchanged configs stay what they are."""
    a, b = (x.values() if isinstance(x, dict) else x for x in (new, old))
    return old if type(new) is type(old) and all(x is y for x, y in zip(a, b)) else new


def _match(value: Any, hint: Any) -> Any:
    """Returns a plain value in the form of a hint, or `_NO`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return next((found for arg in args if (found := _match(value, arg)) is not _NO), _NO)
    if origin is Literal:
        return value if any(value == arg and type(value) is type(arg) for arg in args) else _NO
    if origin is tuple:
        return _match_tuple(value, args)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, args[0]) for key in value):
            return _NO
        held = {key: _match(v, args[1]) for key, v in value.items()}
        return _NO if any(v is _NO for v in held.values()) else _unless_same(held, value)
    if hint is float and type(value) is int:
        return float(value) if abs(value) < 1e300 else _NO
    # True is an int for Python, but 1 is not what somebody meant who wrote True.
    plain = hint in (bool, int, float, str, types.NoneType)
    return value if (type(value) is hint if plain and hint is not str else isinstance(value, hint)) else _NO


def _match_tuple(value: Any, args: tuple[Any, ...]) -> Any:
    if not isinstance(value, tuple) or (args[-1] is not Ellipsis and len(value) != len(args)):
        return _NO
    hints = args[:1] * len(value) if args[-1] is Ellipsis else args
    found = tuple(_match(v, h) for v, h in zip(value, hints))
    if any(v is _NO for v in found):
        return _NO
    return _unless_same(found, value)


def _numbers(value: Any) -> Iterable[float]:
    if isinstance(value, float):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        yield from _numbers(inner)


def _blame(value: Any, hint: Any, name: str, default: Any, json: bool) -> InputError:
    """Returns the error for a plain value that does not match, about the first item of it that is to blame."""
    for arm in arms(hint):
        origin, args = typing.get_origin(arm), typing.get_args(arm)
        if origin is tuple and isinstance(value, tuple) and args[-1] is Ellipsis:
            i, bad = next((i, v) for i, v in enumerate(value) if _match(v, args[0]) is _NO)
            return _blame(bad, args[0], f"{name}[{i}]", _NO, json)
        if origin is dict and isinstance(value, dict):
            names = (k for k, v in value.items() if isinstance(k, str) and _match(v, args[1]) is _NO)
            if (key := next(names, None)) is not None:
                return _blame(value[key], args[1], f"{name}.{key}", _NO, json)
    fix = _advice(value, hint, default, json)
    return InputError(f"{name}: {shown(value, json)}, but it must be {words(hint, json)}; {fix}")


def _advice(value: Any, hint: Any, default: Any, json: bool) -> str:
    """Returns what to write instead: what was probably meant, else an example."""
    choices = [c for arm in arms(hint) if typing.get_origin(arm) is Literal for c in typing.get_args(arm)]
    if choices and isinstance(value, str):
        return nearest(value, choices)
    for arm in arms(hint):
        item, *rest = typing.get_args(arm) if typing.get_origin(arm) is tuple else (None,)
        if rest == [Ellipsis]:
            one = value if _match(value, item) is not _NO else _meant(value, item)
            if one is not _NO:  # 8 for (8,)
                return f"write {written((one,), json)}"
    meant = next((m for arm in arms(hint) if (m := _meant(value, arm)) is not _NO), _NO)
    if meant is not _NO:
        return f"write {written(meant, json)}" + (" without quotes" if isinstance(value, str) else "")
    given = example(hint) if default is _NO or default in (None, (), "") else default
    return f"write {written(given, json)}, for example"


def _meant(value: Any, hint: Any) -> Any:
    """Returns the value of a plain type that another spelling stands for: "False", "64", 1e4, True."""
    truths: dict[Any, bool] = {"true": True, "false": False}
    if hint is bool:
        return truths.get(value.lower(), _NO) if isinstance(value, str) else bool(value) if value in (0, 1) else _NO
    if isinstance(value, bool):
        return hint(value) if hint in (int, float) else _NO
    if hint in (int, float) and isinstance(value, str | float):
        try:
            number = float(value)
        except ValueError:
            return _NO
        if math.isfinite(number) and (hint is float or number.is_integer()):
            return hint(number)
    return _NO
