"""Which components go together. Every pair that makes no sense is refused here, in words, before anything is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vae_jax import likelihoods, objectives, posteriors, priors
from vae_jax.errors import InputError
from vae_jax.schedules import Constant

if TYPE_CHECKING:
    from vae_jax.models.vae import VAE
    from vae_jax.networks import Network


def check_pairs(c: VAE) -> None:
    """Raises InputError for the first pair of components of a VAE that cannot work together."""
    c.posterior.check(c.latent_dim)
    c.prior.check(c.posterior.code_dim(c.latent_dim))
    names = _Names(c)
    if c.prior.space != c.posterior.space:
        fits = [n for n, cls in priors.PRIORS.items() if cls.space == c.posterior.space]
        raise InputError(
            f"model.prior: {names.prior} is a density over {_words(c.prior.space)}, but the {names.posterior} "
            f"posterior gives {_words(c.posterior.space)}; choose --model.prior {' or '.join(fits)}"
        )
    if c.prior.encodes and c.condition.on != "none":
        raise InputError(
            f"model.prior: {names.prior} encodes images without their condition; set --model.condition.on none, or "
            "choose --model.prior conditional-normal"
        )
    if c.prior.reads_density and not (c.posterior.has_log_prob and not c.posterior.deterministic):
        raise InputError(
            f"model.prior: {names.prior} is a mixture of posteriors and needs log q(z) of a given z, which the "
            f"{names.posterior} posterior cannot compute; choose --model.prior exemplar or mog"
        )
    if c.prior.conditional and c.condition.on == "none":
        raise InputError(f"model.prior: {names.prior} needs a condition; set --model.condition.on label")
    _check_objective(c, names)
    _check_gradient(c, names)


def _check_objective(c: VAE, names: _Names) -> None:
    o = c.objective
    if o.deterministic != c.posterior.deterministic and not (o.rateless and c.posterior.deterministic):
        if o.deterministic:
            raise InputError(
                f"model.objective: {names.objective} regularises a deterministic code; choose --model.posterior delta"
            )
        fits = [n for n, cls in objectives.OBJECTIVES.items() if cls.deterministic or cls.rateless]
        raise InputError(
            f"model.posterior: {names.posterior} has no density, so {names.objective} has no rate; "
            f"choose --model.objective {' or '.join(fits)}"
        )
    if o.deterministic and not isinstance(c.prior, priors.Normal):
        raise InputError(
            f"model.prior: {names.objective} draws codes to the origin and learns no prior; choose --model.prior normal"
        )
    if o.separable and not c.posterior.separable:
        fits = [n for n, cls in posteriors.POSTERIORS.items() if cls.separable]
        raise InputError(
            f"model.objective: {names.objective} needs q(z|x) one dimension at a time, which the {names.posterior} "
            f"posterior does not give; choose --model.posterior {' or '.join(fits)}"
        )
    if o.spaces and c.posterior.space not in o.spaces:
        raise InputError(
            f"model.objective: {names.objective} cannot read {_words(c.posterior.space)}, which the {names.posterior} "
            f"posterior gives; it needs {' or '.join(_words(s) for s in o.spaces)}"
        )
    if o.by_dimension and not (c.prior.factorised and c.posterior.factorised):
        raise InputError(
            f"model.objective: {names.objective} needs the KL of each dimension, which the {names.posterior} posterior "
            f"with the {names.prior} prior does not have; choose a factorised pair such as gaussian and normal"
        )
    if (o.importance or o.critic) and not getattr(c.likelihood, "normalised", True):
        raise InputError(f"model.likelihood: {names.likelihood} is no density, so {names.objective} has no weights")


def _check_gradient(c: VAE, names: _Names) -> None:
    g = c.gradient
    if g.spaces and c.posterior.space not in g.spaces:
        raise InputError(
            f"model.gradient: {names.gradient} is an estimator for {' or '.join(_words(s) for s in g.spaces)}, but the "
            f"{names.posterior} posterior gives {_words(c.posterior.space)}; choose --model.gradient pathwise"
        )
    if not g.score and not c.posterior.reparameterized:
        space = c.posterior.space
        fits = [n for n, cls in objectives.GRADIENTS.items() if cls.score and (not cls.spaces or space in cls.spaces)]
        raise InputError(
            f"model.gradient: {names.gradient} needs a reparameterised sample, which the {names.posterior} posterior "
            f"has not; choose --model.gradient {' or '.join(fits)}"
        )
    if (g.stops_density or g.score) and not c.posterior.has_log_prob:
        raise InputError(
            f"model.gradient: {names.gradient} needs log q(z) of a given z, which the {names.posterior} posterior "
            "cannot compute; choose --model.gradient pathwise"
        )
    if c.objective.path and (g.score or g.stops_density):
        raise InputError(
            f"model.gradient: {names.gradient} rewrites the gradient of rate and distortion, but {names.objective} "
            "reads the code in a term of its own; choose --model.gradient pathwise"
        )
    if g.scales_path and not c.objective.importance:
        raise InputError(
            f"model.gradient: {names.gradient} is an estimator for importance-weighted bounds, but the objective is "
            f"{names.objective}; choose --model.gradient stl, or --model.objective iwae"
        )
    if g.scales_path and not isinstance(c.objective.schedule, Constant):
        raise InputError(
            f"model.objective.schedule: {names.gradient} weighs samples by p(x, z) / q(z|x), without a KL weight; "
            "choose --model.objective.schedule constant, or --model.gradient pathwise"
        )
    if g.score and c.objective.importance:
        raise InputError(
            f"model.gradient: {names.gradient} estimates the gradient of an ELBO, not of the bound of {names.objective}"
            "; choose --model.gradient pathwise"
        )


def check_one_pass(network: Network, likelihood: likelihoods.PixelLikelihood) -> None:
    """Raises InputError for parts that models with several decodings of one image (m2, multimodal) cannot take."""
    if network.autoregressive:
        raise InputError("model.network: this model needs a decoder that reads no pixels; choose --model.network mlp")
    if network.noisy:
        raise InputError("model.network.dropout: this model decodes an image several times over; set it to 0")
    if likelihood.init_state():
        raise InputError(
            "model.likelihood: this model decodes an image several times over, so no one error is that of the image; "
            "choose --model.likelihood gaussian-learned"
        )
    if not likelihood.normalised:
        raise InputError("model.likelihood: classes are weighed by densities; choose --model.likelihood bernoulli")


def _words(space: str) -> str:
    return {
        "real": "real vectors",
        "positive": "positive vectors",
        "unit": "vectors in (0, 1)",
        "sphere": "points of the unit sphere",
        "categorical": "one-hot vectors",
        "binary": "binary vectors",
        "joint": "real and one-hot vectors side by side",
    }[space]


class _Names:
    """The registry names of a VAE's components, for messages."""

    def __init__(self, c: VAE):
        tables = {
            "posterior": posteriors.POSTERIORS,
            "prior": priors.PRIORS,
            "objective": objectives.OBJECTIVES,
            "gradient": objectives.GRADIENTS,
            "likelihood": likelihoods.LIKELIHOODS,
        }
        for kind, table in tables.items():
            part = getattr(c, kind)
            setattr(self, kind, next((n for n, cls in table.items() if cls is type(part)), type(part).__name__))

    posterior: str
    prior: str
    objective: str
    gradient: str
    likelihood: str
