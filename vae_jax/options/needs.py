"""What components need of each other, and what they give: one rule and one message for every pair that cannot work.

A component gives properties (strings of `WORDS`, and the class of the latent space of a posterior) and needs
properties of others. A pair works where every need is among what the other gives; nothing is known here of any class,
so components from outside the package take part by what they declare.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from vae_jax.errors import InputError, choice, option
from vae_jax.spaces import Space

# property -> how a message says that it is needed.
WORDS: dict[str, str] = {
    "density": "log q(z) of a given z",
    "normalized": "a density of the data",
    "path": "reparameterized samples",
    "point": "a deterministic code",
    "rateless": "an objective without a rate",
    "dimensions": "q(z|x) one dimension at a time",
    "kl by variable": "the KL of each latent variable",
    "standard normal": "the fixed prior that codes are drawn to",
    "condition": "a condition",
    "no condition": "a model without a condition",
    "importance weights": "importance weights",
    "one bound": "a single-sample ELBO",
    "plain code": "an objective that reads the code in rate and distortion alone",
    "constant weight": "a KL weight that stays constant",
    "one pass": "a decoder that does not read x",
    "no noise": "a decoder without dropout",
    "no running state": "an error of its own for each decoding",
    "vector code": "one code vector per example",
    "grid code": "a grid of code vectors",
}
# property -> what to type where no component of the registry is to be exchanged.
TYPED: dict[str, tuple[str, object]] = {
    "condition": ("model.condition.on", "label"),
    "no condition": ("model.condition.on", "none"),
    "constant weight": ("model.objective.schedule", "constant"),
    "no noise": ("model.network.dropout", 0),
}

Property = str | type[Space]
MOST = 4  # components that a message offers


class Need(NamedTuple):
    """What a component needs of another one.

    Attributes:
      of: kind of the other: "posterior", "prior", "likelihood", "objective", "gradient", "condition" or "network".
      any_of: properties of which it must give one.
      change_self: advise another component in place of the one that needs, not of the one that does not give.
      fix: (option, value) that is advised in place of any other component.
    """

    of: str
    any_of: tuple[Property, ...]
    change_self: bool = False
    fix: tuple[str, object] | None = None


def gives(component: Any) -> frozenset[Property]:
    """Returns what a component gives; nothing where it does not say."""
    declared: Callable[[], Iterable[Property]] | None = getattr(component, "gives", None)
    return frozenset() if declared is None else frozenset(declared())


def needs(component: Any) -> tuple[Need, ...]:
    """Returns what a component needs; nothing where it does not say."""
    declared: Callable[[], Iterable[Need]] | None = getattr(component, "needs", None)
    return () if declared is None else tuple(declared())


def check(components: Mapping[str, Any], registries: Mapping[str, Mapping[str, type]]) -> None:
    """Checks that the components of a model can work together.

    Args:
      components: kind -> component, in the order in which a fault is to be named; "model" is the model itself.
      registries: kind -> {name: class}, for the names in messages and what may be chosen instead.

    Raises:
      InputError: the first need that is not met, with what to choose instead.
    """
    if (found := next(_unmet(components), None)) is None:
        return
    kind, need = found
    mine, other = (name_of(components[k], registries.get(k, {})) for k in (kind, need.of))
    what = " or ".join(dict.fromkeys(_words(p) for p in need.any_of))
    place = "model" if kind == "model" else f"model.{kind}"
    raise InputError(
        f"{place}: {mine} needs {what}, which the {need.of} ({other}) does not provide; "
        f"{_fix(components, registries, kind, need)}"
    )


def _unmet(components: Mapping[str, Any]) -> Iterator[tuple[str, Need]]:
    """Yields (kind, need) of each need that is not met."""
    for kind, component in components.items():
        for need in needs(component):
            if need.of in components and not gives(components[need.of]) & set(need.any_of):
                yield kind, need


def _fix(components: Mapping[str, Any], registries: Mapping[str, Mapping[str, type]], kind: str, need: Need) -> str:
    """Returns what to type: the components of one place that leave the fewest needs unmet, none if possible."""
    typed = [need.fix] if need.fix else [TYPED[p] for p in need.any_of if isinstance(p, str) and p in TYPED]
    if typed:
        return f"set {option(*typed[0])}"
    places = (kind, need.of) if need.change_self else (need.of, kind)
    # Where no exchange of one component suffices, one that leaves less unmet: followed again and again, it ends.
    best, left = "", sum(1 for _ in _unmet(components))
    for place in dict.fromkeys((*places, *registries)):
        left_by: dict[int, list[str]] = {}
        for name, cls in registries.get(place, {}).items():
            left_by.setdefault(sum(1 for _ in _unmet({**components, place: _default(cls)})), []).append(name)
        if (least := min(left_by, default=left)) < left:
            best, left = f"choose {choice(f'model.{place}', left_by[least][:MOST])}", least
        if best and (left == 0 or place == places[-1]):
            break
    return best or f"choose another {option(f'model.{kind}')}"


@functools.cache
def _default(cls: type) -> Any:
    """Returns a component at its default values, made once."""
    return cls()


def name_of(component: Any, registry: Mapping[str, type]) -> str:
    """Returns the registry name of a component, else the name of its class."""
    if (on := getattr(component, "on", None)) is not None:  # a condition
        return on
    return next((n for n, cls in registry.items() if cls is type(component)), type(component).__name__)


def _words(what: Property) -> str:
    return WORDS.get(what, what) if isinstance(what, str) else what.words
