"""The components of a config: which options name one, by which name, and from whose file."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from vae_jax import data
from vae_jax.errors import InputError, either, shown
from vae_jax.errors import option as typed
from vae_jax.errors import options as all_typed
from vae_jax.files.code import Code
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.models import MODELS
from vae_jax.models.stage2 import GENERATORS
from vae_jax.networks import NETWORKS
from vae_jax.objectives import GRADIENTS, OBJECTIVES
from vae_jax.options import registry
from vae_jax.options.registry import Kind
from vae_jax.options.tree import flatten, get, put
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.quantizers import QUANTIZERS
from vae_jax.schedules import SCHEDULES

# The option whose value names a component -> what it can name. Those of outer components come before inner ones.
KINDS: dict[str, Kind] = {
    "model": Kind("model", MODELS, methods=("build",)),
    "model.network": Kind("network", NETWORKS, "vae_jax.networks.Network"),
    "model.likelihood": Kind("likelihood", LIKELIHOODS, "vae_jax.likelihoods.PixelLikelihood"),
    "model.posterior": Kind("posterior", POSTERIORS, "vae_jax.posteriors.Posterior"),
    "model.prior": Kind("prior", PRIORS, "vae_jax.priors.Prior"),
    "model.generator": Kind("generator", GENERATORS, "vae_jax.models.stage2.Generator"),
    "model.quantizer": Kind("quantizer", QUANTIZERS, "vae_jax.quantizers.Quantizer"),
    "model.objective": Kind("objective", OBJECTIVES, "vae_jax.objectives.Objective"),
    "model.objective.schedule": Kind("schedule", SCHEDULES, "vae_jax.schedules.Schedule"),
    "model.gradient": Kind("gradient", GRADIENTS, "vae_jax.objectives.Pathwise"),
}
# Where a component may be besides: those of the first stage of a second one, which its run has chosen (`--stage1`).
FIRST = "model.first"
PLACES: dict[str, Kind] = KINDS | {
    FIRST + option.removeprefix("model"): kind for option, kind in KINDS.items() if option.startswith("model")
}
REGISTRIES: dict[str, Any] = {option: kind.classes for option, kind in KINDS.items()}
NAMES = ("data.name",)  # options that name a class without holding it


def kind(option: str, component: Any) -> str:
    """Returns the name of the component at `option`: of its registry, `package.module:Class` or `experiment:Class`."""
    return PLACES[option].name(type(component))


def refuse_first(name: str) -> None:
    """Raises InputError for an option of the first stage of a second one."""
    if _is_first(name):
        raise InputError(
            f"{typed(name)}: the first stage is as its run has it; leave the option out, and choose the run with "
            f"{typed('stage1')}"
        )


def choose(config: Any, option: str, name: str) -> Any:
    """Returns the config with the component at `option` replaced by the one called `name`.

    Options that both components have (a `schedule`, say) keep their values; the others start at their defaults.

    Args:
      config: to start from.
      option: of the component.
      name: of its registry, `package.module:Class`, or `experiment:Class` of the file that `config` is from.

    Raises:
      InputError: no component of that name, or a model without such a component.
    """
    if option not in components(config):
        raise InputError(f"{typed(option)}: this model does not have a {KINDS[option].word}; leave the option out")
    where = typed(option) if ":" in name else either(f"--{option} {shown(name)}", f"{option}={name!r}")
    cls = KINDS[option].find(name, where, lambda: code_of(config))
    old = get(config, option)
    if type(old) is cls:
        return config
    hints, before = typing.get_type_hints(cls), typing.get_type_hints(type(old))
    shared = {f.name for f in dataclasses.fields(cls) if hints[f.name] == before.get(f.name)}
    old_default = type(old)()
    kept = {n: getattr(old, n) for n in shared if getattr(old, n) != getattr(old_default, n)}
    try:
        component = dataclasses.replace(cls(), **kept)
    except InputError:
        raise
    except Exception as error:  # of its own __post_init__
        reason = " ".join(shown(f"{type(error).__name__}: {error}").split())
        raise InputError(
            f"{where}: {shown(registry.external(name))} cannot be made ({reason}); correct the class"
        ) from error
    return put(config, option, component)


def options(config: Any) -> dict[str, Any]:
    """Returns {dotted option: value} for every leaf, and for every component the name that it was chosen by.

    A config with classes of an experiment file also has `code`, the hash of that file: it decides what is computed.
    """
    flat = {name: registry.external(v) if name in NAMES else v for name, v in flatten(config).items()}
    for option, component in components(config).items():
        flat[option] = kind(option, component)
    code = code_of(config)
    return flat | ({"code": code.sha256[:12]} if code is not None else {})


def diff(a: Any, b: Any) -> list[str]:
    """Returns the options whose values differ, components included, as `option: a -> b`."""
    flat_a, flat_b = options(a), options(b)
    return [
        f"{name}: {flat_a.get(name, '-')} -> {flat_b.get(name, '-')}"
        for name in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get(name) != flat_b.get(name)
    ]


def components(config: Any) -> dict[str, Any]:
    """Returns {option: component} of every component that a config has."""
    found = {}
    for option in PLACES:
        try:
            found[option] = get(config, option)
        except AttributeError:
            continue
    return found


def code_of(config: Any) -> Code | None:
    """Returns the experiment file that a config's own classes are from, None where all are installed.

    Raises:
      InputError: they are from two experiment files.
    """
    names = _names(config)
    _check_stages(names)
    return registry.code_of(_modules(names))


def code_above(config: Any) -> Code | None:
    """Returns the experiment file of the config's own classes, those of a first stage left out."""
    _, above = _apart(_names(config))
    return registry.code_of(_modules(above))


def code_below(config: Any) -> Code | None:
    """Returns the experiment file of the classes of a first stage."""
    first, _ = _apart(_names(config))
    return registry.code_of(_modules(first))


def _names(config: Any) -> dict[str, str]:
    """Returns {option: `module:Class`, as this process has it} of all that a config holds."""
    names = {option: f"{type(c).__module__}:{type(c).__qualname__}" for option, c in components(config).items()}
    return names | {option: str(get(config, option)) for option in NAMES}


def _apart(names: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Returns what a first stage holds, and all else."""
    first = {option: name for option, name in names.items() if _is_first(option)}
    return first, {option: name for option, name in names.items() if option not in first}


def _is_first(option: str) -> bool:
    return option == FIRST or option.startswith(f"{FIRST}.")


def _modules(names: Mapping[str, str]) -> dict[str, str]:
    return {option: name.partition(":")[0] for option, name in names.items()}


def _check_stages(names: Mapping[str, str]) -> None:
    """Refuses a first stage with classes from one experiment file below classes from another.

    The first stage cannot be had from another file without training it again; the classes above it can.

    Args:
      names: option -> `module:Class` of what it holds.
    """
    first, above = _apart(names)
    held, own = registry.code_of(_modules(first)), registry.code_of(_modules(above))
    if held is None or own is None or held.sums == own.sums:
        return
    mine = {option: name for option, name in above.items() if registry.external(name) != name}
    found = {option: registry.imported(name) for option, name in mine.items()}
    folders = dict.fromkeys(str(entry[1]) for entry in found.values() if entry is not None)
    fix = (
        f"add {' and '.join(folders)} to PYTHONPATH, and give "
        f"{all_typed({option: entry[0] for option, entry in found.items() if entry is not None})}"
        if all(found.values())
        else f"move what {', '.join(map(typed, mine))} names to a module in PYTHONPATH, and name it there"
    )
    raise InputError(
        f"{next(iter(mine))}: its class is in {own.path}, but the first stage has classes of {held.path}, and a run "
        f"keeps one experiment file; {fix}"
    )


def check_importable(config: Any) -> None:
    """Checks that another process can open a run of this config.

    Raises:
      InputError: a component that no process finds by its name, or components of two experiment files.
    """
    for option, component in components(config).items():
        if type(component) not in PLACES[option].classes.values():
            registry.check_importable(type(component), option)
    if ":" in config.data.name and (cls := data.entry(config.data.name).cls) is not None:
        registry.check_importable(cls, "data.name")
    code_of(config)


def with_code(config: Any, code: Code | None) -> Any:
    """Returns the config with `experiment:Class`, where an option names a class so, as one of this experiment file."""
    for option in NAMES:
        held = get(config, option)
        if isinstance(held, str) and (name := registry.internal(held, lambda: code)) != held:
            config = put(config, option, name)
    return config
