"""What metrics need of a model and of its data: one table, and one sentence for what is not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vae_jax import spaces
from vae_jax.data.source import Info
from vae_jax.errors import InputError
from vae_jax.model import Model


class Need(NamedTuple):
    """One thing that a metric may need.

    Attributes:
      of_model: whether a model provides it; None for needs of the data.
      of_data: whether data provide it; None for needs of the model.
      words: completes "needs ...".
      fix: what to do instead.
    """

    of_model: Callable[[Model], bool] | None
    of_data: Callable[[Info], bool] | None
    words: str
    fix: str


def has_bound(model: Model) -> bool:
    """Says whether a model has an importance-weighted bound on log p(x)."""
    return model.density is not None and model.density.bound is not None


def has_joint(model: Model) -> bool:
    """Says whether a model has both densities of log p(x, z)."""
    return model.density is not None and model.density.joint is not None


# Needs of the model, then needs of the data. `words` and `fix` make the sentence of `lacking`.
NEEDS: dict[str, Need] = {
    "prior": Need(
        lambda m: m.prior is not None,
        None,
        "a prior to draw from",
        "use a VAE, or leave it out",
    ),
    "bound": Need(
        has_bound,
        None,
        "a bound on log p(x) (no point code, and a normalized likelihood)",
        "use a VAE with a likelihood such as bernoulli, or leave it out",
    ),
    "joint": Need(
        has_joint,
        None,
        "densities p(z) and p(x|z) (no point code, and a normalized likelihood)",
        "use a VAE with a likelihood such as bernoulli, or leave it out",
    ),
    "euclidean": Need(
        lambda m: spaces.is_euclidean(m.about.latents),
        None,
        "latents on all of R^n",
        "request iwae instead",
    ),
    # Probes, scores and clusters compare codes by the size of their numbers. The index of an entry of a codebook has
    # none: renumbering the codebook, which changes nothing of the model, would change the metric.
    "no indices": Need(
        lambda m: not spaces.is_nominal(m.about.latents),
        None,
        "latents whose numbers can be compared (no indices into a codebook)",
        "request elbo instead",
    ),
    # What optimizes or evaluates q(z|x) itself takes one distribution over vectors. Of several levels there is one for
    # each, and whether their product is q(z|x) is not known: in a ladder a level depends on the draw of another.
    "one level": Need(
        lambda m: len(spaces.leaves(m.about.latents)) == 1,
        None,
        "latents of one level",
        "request elbo instead",
    ),
    "one prior": Need(
        lambda m: m.prior is not None and not m.prior.is_conditional,
        None,
        "one prior p(z) for all conditions",
        "request elbo,iwae instead",
    ),
    # What compares whole examples would compare the zeros that stand for missing values.
    "complete": Need(
        None,
        lambda info: not info.mask,
        "examples of which everything is observed",
        "request elbo,iwae instead",
    ),
    "images": Need(None, lambda info: info.kind == "image", "images", "leave it out"),
    "labels": Need(None, lambda info: bool(info.num_classes), "labels", "leave it out"),
    "factors": Need(
        None, lambda info: bool(info.factor_sizes), "generative factors", "leave it out, or use data such as sprites"
    ),
}


def lacking(what: str, needs: tuple[str, ...], model: Model, info: Info | None = None) -> str:
    """Returns why a metric cannot be made of a model and its data; "" where nothing is known against it.

    Args:
      what: the metric, for the message.
      needs: keys of `NEEDS`.
      model: the model.
      info: of its data; None leaves the needs of the data unchecked.

    Returns:
      a whole sentence for the user, with the first unmet need as its reason.
    """
    # The first unmet need is the reason.
    for need in (NEEDS[name] for name in needs):
        if need.of_model is not None and not need.of_model(model):
            return f"{what}: needs {need.words}, which this model does not provide; {need.fix}"
        if need.of_data is not None and info is not None and not need.of_data(info):
            return f"{what}: needs {need.words}, which the data set {info.name!r} does not provide; {need.fix}"
    return ""


def require(what: str, needs: tuple[str, ...], model: Model, info: Info | None = None) -> None:
    """Raises InputError where `lacking` gives a reason.

    Args:
      what: the metric, for the message.
      needs: keys of `NEEDS`.
      model: the model.
      info: of its data; None leaves the needs of the data unchecked.
    """
    if reason := lacking(what, needs, model, info):
        raise InputError(reason)
