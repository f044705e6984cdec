"""The configuration of a run: frozen dataclasses, and their exact JSON form.

Every component (network, likelihood, prior, objective, schedule, model) is chosen by the name it has in a literal
registry; its options are the fields of its dataclass. `config.json` stores both, so a run can be rebuilt from it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, nearest
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.model import Model
from vae_jax.models import M2, MODELS, VAE, Autoencoder, Classifier, Multimodal
from vae_jax.networks import NETWORKS
from vae_jax.objectives import GRADIENTS, OBJECTIVES
from vae_jax.options.typed import check_finite, conform, conform_fields
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.runs.targets import Target
from vae_jax.schedules import SCHEDULES
from vae_jax.spec import DataSpec
from vae_jax.train import MeshConfig, Optimizer

# The option whose value names a component -> the components it can name.
REGISTRIES: dict[str, dict[str, type]] = {
    "model": MODELS,
    "model.network": NETWORKS,
    "model.likelihood": LIKELIHOODS,
    "model.posterior": POSTERIORS,
    "model.prior": PRIORS,
    "model.objective": OBJECTIVES,
    "model.objective.schedule": SCHEDULES,
    "model.gradient": GRADIENTS,
}


@dataclass(frozen=True)
class Logging:
    """What a run writes, and how often."""

    log_every: int = 200
    """Steps between lines of metrics.jsonl (each is the mean over these steps)."""
    checkpoint_every: int = 2000
    """Steps between checkpoints."""
    keep: int = 3
    """Checkpoints kept on disk."""
    eval_every: int = 0
    """Steps between evaluations on held-out data; 0 evaluates at the end only."""
    figures_minutes: float = 2.0
    """Minutes between figures; 0 makes them at the end only."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation that ends a run, and that `vae-jax eval` repeats."""

    split: Literal["train", "validation", "test"] = "test"
    """Split that is evaluated."""
    batch_size: int = 500
    """Examples evaluated at a time; the last batch is smaller, never dropped."""
    k: tuple[int, ...] = ()
    """Importance samples of the IW bounds on log p(x), one bound each; empty for none."""
    limit: int = 0
    """Evaluate only so many examples: the first, or evenly spread ones if the split is sorted by class; 0 for all. The
    number and the choice are written to eval.json."""


@dataclass(frozen=True)
class Config:
    """One experiment, complete."""

    steps: int = 10_000
    """Updates to make."""
    seed: int = 0
    """Seed of everything random: initialisation, data order, noise."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data set, batch and binarisation."""
    model: VAE | Autoencoder | M2 | Classifier | Multimodal = field(default_factory=VAE)
    """Model."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Optimizer."""
    critic_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, b1=0.5))
    """Optimizer of a critic (FactorVAE, WAE-GAN), where there is one."""
    ema_decay: float = 0.0
    """Decay of the moving average of weights that evaluation then uses; 0 keeps none."""
    accumulate: int = 1
    """Microbatches a step: gradients are averaged over them, memory falls by about this factor."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """Device mesh."""
    logging: Logging = field(default_factory=Logging)
    """What is written, and how often."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """Final evaluation."""
    expected: dict[str, Target] = field(default_factory=dict)
    """Metrics that this experiment should reach: name -> (value, tolerance, source), or with a fourth entry "at least"
    or "at most" where better is welcome."""

    def build(self, spec: DataSpec) -> Model:
        """Returns the model for these data; raises InputError where the two do not fit."""
        return self.model.build(spec)

    def shrink(self) -> Config:
        """Returns the two-step version that the test suite runs (`--smoke`): same code, almost no work."""
        return dataclasses.replace(
            self,
            steps=2,
            data=dataclasses.replace(self.data, batch_size=min(self.data.batch_size, 8)),
            logging=dataclasses.replace(self.logging, log_every=1, checkpoint_every=2, eval_every=0),
            evaluation=dataclasses.replace(
                self.evaluation, batch_size=8, limit=16, k=tuple(min(k, 2) for k in self.evaluation.k[:1])
            ),
            accumulate=1,
        )


def check(config: Config, *, json: bool = False) -> Config:
    """Returns the config if its values make sense, with numpy numbers, paths and lists as plain values.

    Args:
      config: from Python, the command line, or a file.
      json: it is of a JSON file, and messages say what to write there.

    Raises:
      InputError: the first value of a wrong type or out of range, with its option, its value and what it may be.
    """
    if not isinstance(config, Config):
        raise InputError(f"config: {config!r} is not a Config; make one with vj.experiment, or vj.Config(...)")
    _check_targets(config)
    config = conform_fields(config, REGISTRIES, json=json)
    rules = _rules(config)
    known = {option: rule for option, _, rule in rules}
    for option, value in flatten(config).items():
        check_finite(value, option, known.get(option, "finite"))
    for option, ok, rule in rules:
        value = get(config, option)
        if not ok(value):
            raise InputError(f"{option}: {_show(value)} is out of range; it must be {rule}")
    if config.data.batch_size % config.accumulate:
        raise InputError(
            f"accumulate: {config.accumulate} microbatches do not divide data.batch_size {config.data.batch_size}; "
            "choose a divisor"
        )
    prior = getattr(config.model, "prior", None)
    if config.accumulate > 1 and prior is not None and not prior.averages:
        raise InputError(
            f"accumulate: the {kind('model.prior', prior)} prior keeps images, which microbatches would average; "
            "set --accumulate 1"
        )
    _check_labels(config)
    config.model.check()
    return config


# What may differ from an experiment's file while its targets keep their meaning.
_APART_FROM_TARGETS = (
    "seed",
    "logging.",
    "mesh.",
    "data.source",
    "data.workers",
    "data.pipeline",
    "evaluation.batch_size",
    "evaluation.k",
)


def keep_targets(config: Config, experiment: Config) -> Config:
    """Returns the config, without the experiment's targets if it is no longer that experiment.

    Targets hold for an experiment as it is written; other seeds, devices and log intervals leave them in place.

    Args:
      config: what will be trained.
      experiment: what the experiment's file gave.
    """
    ours, theirs = options(config), options(experiment)
    changed = (name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if all(name.startswith(_APART_FROM_TARGETS) for name in changed):
        return config
    # Targets that were given on the command line are in `changed` themselves, and meant.
    return config if config.expected != experiment.expected else dataclasses.replace(config, expected={})


def _check_targets(config: Config) -> None:
    for metric, target in config.expected.items() if isinstance(config.expected, dict) else ():
        try:
            value, tolerance, *_ = conform(target, Target, "expected")
            good = math.isfinite(value) and math.isfinite(tolerance) and tolerance >= 0
        except InputError:
            good = False
        if not good:
            raise InputError(
                f"expected: {metric}: give (value, tolerance of 0 or more, source), and if a better number is welcome "
                "'at least' or 'at most' as a fourth entry"
            )


def _check_labels(config: Config) -> None:
    if config.data.labels is None:
        return
    condition = getattr(config.model, "condition", None)
    if condition is not None and condition.on == "label":
        raise InputError(
            "data.labels: a model conditioned on labels needs them all; leave data.labels unset, or use --model m2"
        )


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rules(config: Config):
    """Yields (option, test, words) for every option of this config that has a range."""
    positive = (lambda v: v > 0, "positive")
    not_negative = (lambda v: v >= 0, "zero or more")
    at_least_one = (lambda v: v >= 1, "1 or more")
    share = (lambda v: 0 <= v < 1, "in [0, 1)")
    sizes = (lambda v: all(n >= 1 for n in v), "a list of sizes of 1 or more")
    table = {
        "steps": at_least_one,
        "seed": (lambda v: 0 <= v < 2**31, "in [0, 2^31)"),
        "data.batch_size": at_least_one,
        "model.latent_dim": at_least_one,
        "model.prior.std": positive,
        "model.posterior.rank": at_least_one,
        "model.prior.scale": positive,
        "model.prior.concentration": positive,
        "model.prior.rate": positive,
        "model.prior.a": positive,
        "model.prior.b": positive,
        "model.prior.components": at_least_one,
        "model.prior.spread": positive,
        "model.prior.pseudo_inputs": at_least_one,
        "model.prior.level": (lambda v: 0 < v < 1, "in (0, 1)"),
        "model.prior.exemplars": at_least_one,
        "model.prior.truncation": (lambda v: v >= 2, "2 or more"),
        "model.prior.samples": at_least_one,
        "model.prior.evaluation_samples": at_least_one,
        "model.prior.decay": share,
        "model.prior.hidden": sizes,
        "model.prior.layers": at_least_one,
        "model.prior.delta": not_negative,
        "model.posterior.layers": at_least_one,
        "model.posterior.context": at_least_one,
        "model.posterior.hidden": sizes,
        "model.likelihood.std": positive,
        "model.likelihood.init_std": positive,
        "model.likelihood.decay": share,
        "model.likelihood.init_scale": positive,
        "model.likelihood.df": (lambda v: v > 1, "more than 1"),
        "model.likelihood.min_shape": positive,
        "model.likelihood.components": at_least_one,
        "model.likelihood.weight": positive,
        "model.objective.beta": not_negative,
        "model.objective.inner": at_least_one,
        "model.objective.steps": at_least_one,
        "model.objective.k": at_least_one,
        "model.objective.m": at_least_one,
        "model.objective.elbo_weight": (lambda v: 0 <= v <= 1, "in [0, 1]"),
        "model.objective.alpha": not_negative,
        "model.objective.gamma": not_negative,
        "model.objective.lam": not_negative,
        "model.objective.lambda_od": not_negative,
        "model.objective.lambda_d": not_negative,
        "model.objective.capacity": not_negative,
        "model.objective.free_nats": not_negative,
        "model.objective.groups": at_least_one,
        "model.objective.target": not_negative,
        "model.objective.speed": positive,
        "model.objective.slack": not_negative,
        "model.objective.tolerance": positive,
        "model.objective.decay": share,
        "model.objective.max_lambda": (lambda v: v > 1, "above 1"),
        "model.objective.projections": at_least_one,
        "model.objective.bandwidths": (lambda v: v and all(s > 0 for s in v), "one or more positive numbers"),
        "model.objective.hidden": sizes,
        "model.objective.discrete_capacity": not_negative,
        "model.objective.capacity_steps": at_least_one,
        "model.gradient.k": (lambda v: v >= 2, "2 or more: each sample's baseline is the mean of the others"),
        "model.gradient.decay": share,
        "model.posterior.temperature": positive,
        "model.posterior.final_temperature": positive,
        "model.posterior.anneal_steps": at_least_one,
        "model.posterior.categories": (
            lambda v: v if isinstance(v, tuple) and min(v, default=0) > 1 else not isinstance(v, tuple) and v > 1,
            "2 or more values a variable",
        ),
        "model.prior.p": (lambda v: 0 < v < 1, "in (0, 1)"),
        "model.objective.schedule.steps": at_least_one,
        "model.objective.schedule.cycles": at_least_one,
        "model.objective.schedule.ratio": (lambda v: 0 < v <= 1, "in (0, 1]"),
        "model.objective.schedule.start": not_negative,
        "model.corruption_level": not_negative,
        "model.alpha": not_negative,
        "model.labelled_weight": not_negative,
        "model.label_weight": not_negative,
        "model.samples": at_least_one,
        "model.beta": not_negative,
        "model.width": at_least_one,
        "model.network.hidden": sizes,
        "model.network.channels": (lambda v: v and all(n >= 1 for n in v), "a list of one or more sizes of 1 or more"),
        "model.network.kernels": sizes,
        "model.network.dense": sizes,
        "model.network.kernel": at_least_one,
        "model.network.decoder_hidden": sizes,
        "model.network.dropout": share,
        "model.network.input_dropout": share,
        "model.network.code_scale": positive,
        "model.network.code_hidden": at_least_one,
        "model.network.code_maps": not_negative,
        "model.network.pixel_hidden": (lambda v: v and all(n >= 1 for n in v), "one or more sizes of 1 or more"),
        "model.network.aspect": positive,
        "model.network.up_kernel": at_least_one,
        "ema_decay": share,
        "accumulate": at_least_one,
        "logging.log_every": at_least_one,
        "logging.checkpoint_every": at_least_one,
        "logging.keep": at_least_one,
        "logging.eval_every": not_negative,
        "logging.figures_minutes": not_negative,
        "evaluation.batch_size": at_least_one,
        "evaluation.limit": not_negative,
        "evaluation.k": sizes,
    }
    for group in ("optimizer", "critic_optimizer"):
        table |= {
            f"{group}.lr": positive,
            f"{group}.clip": not_negative,
            f"{group}.weight_decay": not_negative,
            f"{group}.eps": positive,
            f"{group}.b1": share,
            f"{group}.b2": share,
            f"{group}.schedule.warmup_steps": not_negative,
            f"{group}.schedule.milestones": (lambda v: all(step >= 0 for step in v), "steps of 0 or more"),
            f"{group}.schedule.factor": positive,
            f"{group}.schedule.final": not_negative,
        }
    known = flatten(config)
    return [(option, *rule) for option, rule in table.items() if option in known]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {dotted option: value} for every leaf field of a config."""
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value, name = getattr(config, f.name), prefix + f.name
        if dataclasses.is_dataclass(value):
            found |= flatten(value, name + ".")
        else:
            found[name] = value
    return found


def get(config: Any, option: str) -> Any:
    """Returns the value of a dotted option."""
    for part in option.split("."):
        config = getattr(config, part)
    return config


def put(config: Any, option: str, value: Any) -> Any:
    """Returns a copy of the config with one dotted option replaced."""
    head, _, rest = option.partition(".")
    return dataclasses.replace(config, **{head: put(getattr(config, head), rest, value) if rest else value})


def kind(option: str, component: Any) -> str:
    """Returns the registry name of the component at `option`."""
    return next(name for name, cls in REGISTRIES[option].items() if cls is type(component))


def choose(config: Config, option: str, name: str) -> Config:
    """Returns the config with the component at `option` replaced by the one called `name`.

    Options that both components have (a `schedule`, say) keep their values; the others start at their defaults.

    Raises:
      InputError: no component of that name.
    """
    registry = REGISTRIES[option]
    if name not in registry:
        raise InputError(f"--{option} {name}: no such {option.rpartition('.')[2]}; {nearest(name, registry)}")
    old, cls = get(config, option), registry[name]
    if type(old) is cls:
        return config
    shared = {f.name for f in dataclasses.fields(cls)} & {f.name for f in dataclasses.fields(old)}
    default, old_default = cls(), type(old)()
    kept = {n: getattr(old, n) for n in shared if getattr(old, n) != getattr(old_default, n)}
    return put(config, option, dataclasses.replace(default, **kept))


def to_dict(config: Any, option: str = "") -> dict[str, Any]:
    """Returns the JSON form; a component carries its registry name under `kind`."""
    out: dict[str, Any] = {"kind": kind(option, config)} if option in REGISTRIES else {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        child = f"{option}.{f.name}" if option else f.name
        out[f.name] = to_dict(value, child) if dataclasses.is_dataclass(value) else value
    return out


def to_json(config: Config) -> str:
    """Returns the JSON text of a config."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def from_dict(values: dict[str, Any], cls: Any = Config, option: str = "") -> Any:
    """Returns the config that `to_dict` wrote; values are not checked, as `check` does that.

    Raises:
      InputError: an unknown key or component.
    """
    if option in REGISTRIES:
        name, known_names = values.get("kind"), REGISTRIES[option]
        if not isinstance(name, str) or name not in known_names:
            raise InputError(f"{option}.kind: {name!r} is not the name of one; {nearest(str(name), known_names)}")
        cls = known_names[name]
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    kwargs = {}
    for key, value in values.items():
        child = f"{option}.{key}" if option else key
        if key == "kind" and option in REGISTRIES:
            continue
        if key not in known:
            raise InputError(f"{child}: no such option; {nearest(key, known)}")
        hint = hints[key]
        if isinstance(value, dict) and (child in REGISTRIES or dataclasses.is_dataclass(hint)):
            kwargs[key] = from_dict(value, hint, child)
        elif key == "expected" and isinstance(value, dict):
            kwargs[key] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
        else:
            kwargs[key] = tuple(value) if isinstance(value, list) and _is_tuple(hint) else value
    return cls(**kwargs)


def _is_tuple(hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_is_tuple(h) for h in typing.get_args(hint))
    return hint is tuple or typing.get_origin(hint) is tuple


def diff(a: Config, b: Config) -> list[str]:
    """Returns the options whose values differ, components included, as `option: a -> b`."""
    flat_a, flat_b = options(a), options(b)
    return [
        f"{name}: {flat_a.get(name, '-')} -> {flat_b.get(name, '-')}"
        for name in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get(name) != flat_b.get(name)
    ]


def options(config: Config) -> dict[str, Any]:
    """Returns {dotted option: value} for every leaf, and for every component the name that it was chosen by."""
    flat = flatten(config)
    for option in REGISTRIES:
        try:
            flat[option] = kind(option, get(config, option))
        except AttributeError:
            continue
    return flat
