"""Options of a command that were given but that nothing reads, because of another option."""

from __future__ import annotations

import dataclasses
from typing import Any

from vae_jax.errors import InputError
from vae_jax.runs.idle import value_text


def refuse(command: Any, fix: str, *options: str) -> None:
    """Refuses options of a command that differ from their defaults; the caller knows that nothing reads them.

    Args:
      command: an instance of the command's dataclass.
      fix: what to add for them to be read, as in "--draw True"; "" where only leaving them out helps.
      options: names of its fields.

    Raises:
      InputError: the first such option.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(command)}
    for name in options:
        value = getattr(command, name)
        if value != defaults[name]:
            way = f"add {fix}, or leave it out" if fix else "leave it out"
            raise InputError(f"--{name.replace('_', '-')} {value_text(value)}: is not used; {way}")
