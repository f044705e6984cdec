"""Configs as JSON, and back: what `config.json` holds under the names of the options."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any

from vae_jax.errors import InputError, nearest
from vae_jax.files import code as codes
from vae_jax.options import registry
from vae_jax.options.registry import FindCode
from vae_jax.runs.config import Config
from vae_jax.runs.kinds import NAMES, PLACES, kind


def to_dict(config: Any, option: str = "") -> dict[str, Any]:
    """Returns the JSON form; a component carries its name under `kind`."""
    out: dict[str, Any] = {"kind": kind(option, config)} if option in PLACES else {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        child = f"{option}.{f.name}" if option else f.name
        # The name that an experiment file has in this process means nothing in another one.
        value = registry.external(value) if child in NAMES else value
        out[f.name] = to_dict(value, child) if dataclasses.is_dataclass(value) else value
    return out


def to_json(config: Config) -> str:
    """Returns the JSON text of a config."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(values: dict[str, Any], cls: Any = Config, option: str = "", code: FindCode = lambda: None) -> Any:
    """Returns the config that `to_dict` wrote; values are not checked, as `config.check` does that.

    Args:
      values: the JSON object.
      cls: of the result, where no `kind` says it.
      option: where it is in the config.
      code: gives the experiment file that names such as `experiment:Class` mean; called where there are some.

    Returns:
      an instance of `cls`, with the components that the `kind` entries name.

    Raises:
      InputError: an unknown key or component.
    """
    if option in PLACES:
        cls = _class(values.get("kind"), option, code)
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    kwargs = {}
    for key, value in values.items():
        child = f"{option}.{key}" if option else key
        if key == "kind" and option in PLACES:
            continue
        if key not in known:
            raise InputError(f"{child}: no such option; {nearest(key, known)}")
        hint = hints[key]
        if isinstance(value, dict) and (child in PLACES or dataclasses.is_dataclass(hint)):
            kwargs[key] = from_dict(value, hint, child, code)
        elif key == "expected" and isinstance(value, dict):
            kwargs[key] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
        elif child in NAMES and isinstance(value, str) and ":" in value:
            codes.check_allowed(f"{child}: {value}")
            kwargs[key] = registry.internal(value, code)
        else:
            kwargs[key] = tuple(value) if isinstance(value, list) and _is_tuple(hint) else value
    return cls(**kwargs)


def _class(name: Any, option: str, code: FindCode) -> Any:
    """Returns the class that an entry `kind` names."""
    known = PLACES[option]
    if not isinstance(name, str) or (name not in known.classes and ":" not in name):
        raise InputError(f"{option}.kind: {name!r} is not the name of one; {nearest(str(name), known.classes)}")
    if name not in known.classes:
        codes.check_allowed(f"{option}.kind: {name}")
    return known.find(name, f"{option}.kind", code)


def _is_tuple(hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_is_tuple(h) for h in typing.get_args(hint))
    return hint is tuple or typing.get_origin(hint) is tuple
