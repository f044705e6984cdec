"""Options of training that were given but that nothing reads, because of another option."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from vae_jax.errors import InputError
from vae_jax.errors import option as option_text
from vae_jax.models import MODELS
from vae_jax.objectives import Adversarial

if TYPE_CHECKING:
    from vae_jax.runs.config import Config


class Rule(NamedTuple):
    """When an option is read.

    Attributes:
      read: config -> whether the option matters.
      why: completes "is not used because ...".
      fix: (option, value) to add for it to matter.
    """

    read: Callable[[Config], bool]
    why: str
    fix: tuple[str, object]


def _optimizer(group: str) -> dict[str, Rule]:
    """Returns the rules of one optimizer and of its learning-rate schedule."""

    def kind(config: Config) -> str:
        return getattr(config, group).schedule.kind

    flag = f"{group}.schedule.kind"
    cosine = Rule(lambda c: kind(c) in ("cosine", "warmup-cosine"), "the schedule is no cosine", (flag, "cosine"))
    step = Rule(lambda c: kind(c) == "step", "the schedule has no milestones", (flag, "step"))
    adaptive = Rule(lambda c: getattr(c, group).name != "sgd", "sgd keeps no squares", (f"{group}.name", "adam"))
    names = {"schedule.final": cosine, "schedule.milestones": step, "schedule.factor": step}
    return {f"{group}.{name}": rule for name, rule in (names | {"b2": adaptive, "eps": adaptive}).items()}


def _critic(config: Config) -> bool:
    # A model from outside the package may have a second player that no option names.
    objective = getattr(config.model, "objective", None)
    return isinstance(objective, Adversarial) or type(config.model) not in MODELS.values()


_SCORE = Rule(
    lambda c: not getattr(getattr(c.model, "gradient", None), "score", False),
    "this gradient estimator draws exact codes, without a relaxation",
    ("model.gradient", "pathwise"),
)
_CONDITION = Rule(
    lambda c: getattr(getattr(c.model, "condition", None), "on", "none") != "none",
    "the model is not conditioned",
    ("model.condition.on", "label"),
)


def _quantizer(config: Config, name: str, default: Any) -> Any:
    """Returns an option of the quantizer; `default` where there is no quantizer, or none with this option."""
    return getattr(getattr(config.model, "quantizer", None), name, default)


_AVERAGES = ("model.quantizer.update", "ema")
_ENTROPIES = Rule(
    lambda c: _quantizer(c, "entropy", 1.0) > 0, "the entropies have no weight", ("model.quantizer.entropy", 0.1)
)

# option, or the first part of several -> when it is read. Every rule that fits must hold.
RULES: dict[str, Rule] = {
    **_optimizer("optimizer"),
    "critic_optimizer.": Rule(_critic, "the objective trains no critic", ("model.objective", "factor")),
    **_optimizer("critic_optimizer"),
    "data.label_seed": Rule(lambda c: c.data.labels is not None, "every label is known", ("data.labels", 100)),
    "data.workers": Rule(
        lambda c: c.data.pipeline != "device", "the device pipeline reads nothing", ("data.pipeline", "grain")
    ),
    "model.corruption_level": Rule(
        lambda c: getattr(c.model, "corruption", "") != "none", "nothing is corrupted", ("model.corruption", "gaussian")
    ),
    "model.objective.groups": Rule(
        lambda c: getattr(getattr(c.model, "objective", None), "unit", "") == "group",
        "the free bits are not those of groups",
        ("model.objective.unit", "group"),
    ),
    "model.posterior.relaxation": _SCORE,
    "model.posterior.temperature": _SCORE,
    "model.posterior.final_temperature": _SCORE,
    "model.posterior.anneal_steps": _SCORE,
    "model.quantizer.decay": Rule(
        # Entries are revived by their moving counts, whatever moves them.
        lambda c: _quantizer(c, "update", "ema") == "ema" or _quantizer(c, "revive", 0.0) > 0,
        "the gradient moves the codebook",
        _AVERAGES,
    ),
    "model.quantizer.epsilon": Rule(
        lambda c: _quantizer(c, "update", "ema") == "ema", "the gradient moves the codebook", _AVERAGES
    ),
    "model.quantizer.diversity": _ENTROPIES,
    "model.quantizer.temperature": _ENTROPIES,
    "model.quantizer.joint": _ENTROPIES,
    "model.condition.encoder": _CONDITION,
    "model.condition.decoder": _CONDITION,
}


def refuse(configs: Sequence[Config], experiment: Config, options: Iterable[str]) -> None:
    """Refuses options that change the experiment's value of something that nothing reads.

    Args:
      configs: what will be trained; of a sweep, every combination: it is enough that one of them reads the option.
      experiment: what the experiment's file gave: an option that repeats its value does no harm.
      options: the names that were given, as in `optimizer.lr`.

    Raises:
      InputError: the first such option, with what to add for it to be read.
    """
    from vae_jax.runs.config import flatten

    old, every = flatten(experiment), [(config, flatten(config)) for config in configs]
    for option in options:
        held = [(config, new[option]) for config, new in every if option in new]
        changed = [value for _, value in held if value != old.get(option)]
        for rule in (rule for name, rule in RULES.items() if option == name or _below(option, name)):
            if changed and not any(rule.read(config) for config, _ in held):
                given = value_text(changed[0])
                raise InputError(
                    f"{option}: {given} is not used because {rule.why}; add {option_text(*rule.fix)}, or leave it out"
                )


def _below(option: str, name: str) -> bool:
    return name.endswith(".") and option.startswith(name)


def value_text(value: Any) -> str:
    """Returns the value of an option as it is typed: of several, words."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
