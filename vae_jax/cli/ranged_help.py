"""Ranges in the help of options: "(1 or more; default: 5000)", in the words that refuse a value outside of it."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Annotated

from vae_jax.options.ranges import ranges

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo


def registry() -> ConstructorRegistry:
    """Returns the rules by which tyro reads dataclasses; those of fields with a range add it to their help."""
    import tyro
    from tyro.constructors import ConstructorRegistry

    rules = ConstructorRegistry()
    inside: list[StructTypeInfo] = []

    @rules.struct_rule
    def with_ranges(info: StructTypeInfo) -> StructConstructorSpec | None:
        # tyro's own rule makes the fields. It is called from here, and this rule steps aside for it.
        if not dataclasses.is_dataclass(info.type) or any(one is info for one in inside):
            return None
        inside.append(info)
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside.pop()
        if not dataclasses.is_dataclass(spec):  # an instance that is not of the type
            return None
        found = ranges(info.type)  # type: ignore[arg-type]
        fields = []
        for field in spec.fields:  # type: ignore[union-attr]
            if (allowed := found.get(field.name)) is not None:
                hint = tyro.conf.arg(help_behavior_hint=functools.partial(_hint, allowed.words))
                field = dataclasses.replace(field, type=Annotated[field.type, hint])
            fields.append(field)
        return dataclasses.replace(spec, fields=tuple(fields))  # type: ignore[type-var]

    return rules


def _hint(words: str, default: str) -> str:
    """Returns what ends the help of an option; what None stands for is said by its own text."""
    return f"({words})" if default == "None" else f"({words}; default: {default})"
