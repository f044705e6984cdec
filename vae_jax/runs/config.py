"""The configuration of a run: frozen dataclasses, and their check.

Every component (network, likelihood, prior, objective, schedule, model) is chosen by a name (`runs.kinds`); its options
are the fields of its dataclass. `config.json` stores both (`runs.config_json`), so a run can be rebuilt from it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, option
from vae_jax.model import Model, ModelConfig
from vae_jax.models import VAE
from vae_jax.options.ranges import SAMPLES, SEED, AtLeast, Each, NotNegative, Share, Steps, check_ranges
from vae_jax.options.tree import flatten, get, put
from vae_jax.options.typed import conform, conform_fields
from vae_jax.runs.kinds import FIRST, KINDS, PLACES, REGISTRIES, check_importable, choose, diff, kind, options
from vae_jax.runs.targets import Target
from vae_jax.spec import DataSpec
from vae_jax.train import MeshConfig, Optimizer

__all__ = [
    "FIRST",
    "KINDS",
    "PLACES",
    "REGISTRIES",
    "Config",
    "Evaluation",
    "Logging",
    "check",
    "choose",
    "diff",
    "flatten",
    "get",
    "keep_targets",
    "kind",
    "options",
    "put",
]


@dataclass(frozen=True)
class Logging:
    """What a run writes, and how often."""

    log_every: Annotated[int, Steps(1)] = 200
    """Steps between lines of metrics.jsonl (each is the mean over these steps)."""
    checkpoint_every: Annotated[int, Steps(1)] = 2000
    """Steps between checkpoints."""
    keep: Annotated[int, AtLeast(1)] = 3
    """Checkpoints kept on disk."""
    eval_every: Annotated[int, Steps(0)] = 0
    """Steps between evaluations on the validation split; 0 evaluates at the end only."""
    figures_minutes: Annotated[float, NotNegative()] = 2.0
    """Minutes between figures; 0 makes them at the end only."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    samples_at: Annotated[tuple[int, ...], Each(Steps(1), "a list of steps of 1 or more")] = ()
    """Steps after which samples of the run are kept, all of the same codes: RUN/samples/step_00000100.png."""
    best: str | None = None
    """Metric of the evaluations of `eval_every` on the validation split (elbo, mse, ...) whose best checkpoint is kept
    in RUN/best, beside the newest ones."""


@dataclass(frozen=True)
class Evaluation:
    """The evaluation that ends a run, and that `vae-jax eval` repeats."""

    split: Literal["train", "validation", "test"] = "test"
    """Split that is evaluated."""
    batch_size: Annotated[int, AtLeast(1)] = 500
    """Examples evaluated at a time; the last batch is smaller, never dropped."""
    k: Annotated[tuple[int, ...], Each(SAMPLES, "a list of numbers of 1 or more, below 2^31")] = ()
    """Importance samples of the IW bounds on log p(x), one bound each; empty for none."""
    limit: Annotated[int, NotNegative()] = 0
    """Evaluate only so many examples: the first, or evenly spread ones if the split is sorted by class; 0 for all. The
    number and the choice are written to eval.json."""


@dataclass(frozen=True)
class Config:
    """One experiment, complete."""

    steps: Annotated[int, Steps(1)] = 10_000
    """Updates to make."""
    seed: Annotated[int, SEED] = 0
    """Seed of everything random: initialization, data order, noise."""
    data: DataConfig = field(default_factory=DataConfig)
    """Data set, batch and binarization."""
    model: ModelConfig = field(default_factory=VAE)
    """Model."""
    optimizer: Optimizer = field(default_factory=Optimizer)
    """Optimizer."""
    critic_optimizer: Optimizer = field(default_factory=lambda: Optimizer(lr=1e-4, b1=0.5))
    """Optimizer of adversaries, such as the critic of FactorVAE and WAE-GAN, where there are any."""
    ema_decay: Annotated[float, Share()] = 0.0
    """Decay of the moving average of weights that evaluation then uses; 0 keeps none."""
    accumulate: Annotated[int, AtLeast(1)] = 1
    """Microbatches per step: gradients are averaged over them, memory falls by about this factor."""
    mesh: MeshConfig = field(default_factory=MeshConfig)
    """Device mesh."""
    logging: Logging = field(default_factory=Logging)
    """What is written, and how often."""
    evaluation: Evaluation = field(default_factory=Evaluation)
    """Final evaluation."""
    patience: Annotated[int, NotNegative()] = 0
    """End the run after so many evaluations in a row that do not improve the metric `logging.best`; 0 never does."""
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
            logging=dataclasses.replace(
                self.logging, log_every=1, checkpoint_every=2, eval_every=0, best=None, samples_at=()
            ),
            patience=0,
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
    config = conform_fields(config, PLACES, json=json)
    check_ranges(config)
    check_importable(config)
    if config.data.batch_size % config.accumulate:
        raise InputError(
            f"accumulate: {config.accumulate} microbatches do not divide data.batch_size {config.data.batch_size}; "
            "choose a divisor"
        )
    for place, keeps in (("prior", "examples"), ("quantizer", "a codebook of the whole batch")):
        part = getattr(config.model, place, None)
        if config.accumulate > 1 and part is not None and not part.averages:
            raise InputError(
                f"accumulate: the {kind(f'model.{place}', part)} {place} keeps {keeps}, which microbatches would "
                f"average; set {option('accumulate', 1)}"
            )
    _check_labels(config)
    if callable(check_model := getattr(config.model, "check", None)):
        check_model()
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
    # A second stage that hides some conditions in training takes an unknown label for a hidden one.
    if condition is not None and condition.on == "label" and not getattr(condition, "drop", 0):
        raise InputError(
            "data.labels: a model conditioned on labels needs them all; leave data.labels unset, or use "
            f"{option('model', 'm2')}"
        )
