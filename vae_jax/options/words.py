"""Values and type hints in words, as they are written in Python or in a JSON file."""

from __future__ import annotations

import json as jsons
import types
import typing
from typing import Any, Literal


def arms(hint: Any) -> tuple[Any, ...]:
    """Returns the alternatives of a union, or the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)


def written(value: Any, json: bool) -> str:
    """Returns a value as it is typed: (8,) or [8], False or false; a class by its name."""
    if isinstance(value, type):
        return value.__name__
    try:
        return jsons.dumps(value, ensure_ascii=False) if json else repr(value)
    except (TypeError, ValueError):
        return repr(value)


def shown(value: Any, json: bool) -> str:
    """Returns a value and what it is: "'64' is text"; long ones are cut."""
    kinds: dict[Any, str] = {bool: "a truth value", int: "a whole number", float: "a real number", str: "text"}
    kinds |= {tuple: "a tuple", list: "a list", dict: "a dict", type: "a class", types.NoneType: "nothing"}
    if json:
        kinds |= {tuple: "a list", dict: "an object"}
    text = " ".join(written(value, json).split())
    return f"{text[:60]}{'...' if len(text) > 60 else ''} is {kinds.get(type(value), f'a {type(value).__name__}')}"


def words(hint: Any, json: bool) -> str:
    """Returns a hint in words: "a whole number or None"."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if len(arms(hint)) > 1:
        return " or ".join(words(arm, json) for arm in arms(hint))
    if origin is Literal:
        return ("one of " if len(args) > 1 else "") + ", ".join(written(arg, json) for arg in args)
    if origin is tuple and args[-1] is Ellipsis:
        plural = {int: "whole numbers", float: "numbers", str: "texts"}.get(args[0], "items")
        return f"a {'list' if json else 'tuple'} of {plural}"
    if origin is tuple:
        inner = ", ".join(words(arg, json) for arg in args)
        return f"[{inner}]" if json else f"({inner})"
    if origin is dict:
        return f"{'an object' if json else 'a dict'} of names and {words(args[1], json)}"
    plain: dict[Any, str] = {int: "a whole number", float: "a number", str: "text"}
    plain |= (
        {bool: "true or false", types.NoneType: "null"} if json else {bool: "True or False", types.NoneType: "None"}
    )
    return plain.get(hint, "an object" if json else f"a {getattr(hint, '__name__', hint)}")


def example(hint: Any) -> Any:
    """Returns a value that a hint allows."""
    hint = arms(hint)[0]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return tuple(example(arg) for arg in (args[:1] if args[-1] is Ellipsis else args))
    if origin is dict:
        return {"name": example(args[1])}
    if origin is Literal:
        return args[0]
    plain: dict[Any, Any] = {bool: True, int: 10, float: 0.5, str: "text", types.NoneType: None}
    return plain.get(hint, ...)
