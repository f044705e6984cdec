"""The README's table of KL weights: a loss of another library is ours times a constant, with the beta of the table."""

import jax
import jax.numpy as jnp
import pytest
import support

from vae_jax.distributions.gaussian import DiagGaussian, kl
from vae_jax.likelihoods.decoded import BernoulliPixels, GaussianPixels

B, SHAPE, LATENTS, STD, WEIGHT = 3, (4, 4, 3), 5, 0.7, 0.02
D = 48


def _terms(key):
    x = jax.random.uniform(jax.random.fold_in(key, 0), (B, *SHAPE))
    out = jax.random.normal(jax.random.fold_in(key, 1), (B, *SHAPE))
    mean, log_std = (jax.random.normal(jax.random.fold_in(key, i), (B, LATENTS)) for i in (2, 3))
    return x, (out, mean, log_std)


def _kl(mean, log_std):
    """Returns KL(q || N(0, I)) of each example, as every library writes it."""
    return -0.5 * jnp.sum(1 + 2 * log_std - mean**2 - jnp.exp(2 * log_std), axis=1)


def _squares(x, out):
    return jnp.sum((x - out) ** 2, axis=(1, 2, 3))


def _cross_entropy(x, out):
    terms = x * jax.nn.log_sigmoid(out) + (1 - x) * jax.nn.log_sigmoid(-out)
    return -jnp.sum(terms, axis=(1, 2, 3))


# How the reconstruction is reduced -> (their loss of a batch, our beta, ours over theirs).
THEIRS = {
    "summed cross entropy": (lambda x, out, kld: jnp.mean(_cross_entropy(x, out) + WEIGHT * kld), WEIGHT, 1.0),
    "summed squares": (
        lambda x, out, kld: jnp.mean(_squares(x, out) + WEIGHT * kld),
        WEIGHT / (2 * STD**2),
        1 / (2 * STD**2),
    ),
    "half of summed squares": (
        lambda x, out, kld: jnp.mean(0.5 * _squares(x, out) + WEIGHT * kld),
        WEIGHT / STD**2,
        1 / STD**2,
    ),
    "mean square": (
        lambda x, out, kld: jnp.mean((x - out) ** 2) + WEIGHT * jnp.mean(kld),
        WEIGHT * D / (2 * STD**2),
        D / (2 * STD**2),
    ),
    "mean square, mean over latents": (
        lambda x, out, kld: jnp.mean((x - out) ** 2) + WEIGHT * jnp.mean(kld) / LATENTS,
        WEIGHT * D / (2 * STD**2 * LATENTS),
        D / (2 * STD**2),
    ),
}


@pytest.mark.parametrize("reduction", THEIRS)
def test_their_loss_has_our_gradient(reduction):
    theirs, beta, factor = THEIRS[reduction]
    x, outputs = _terms(jax.random.key(0))

    def ours(outputs):
        out, mean, log_std = outputs
        gaussian = GaussianPixels(out, jnp.full((1, 1, 1, 1), jnp.log(STD)))
        p = BernoulliPixels(out) if "entropy" in reduction else gaussian
        zero = jnp.zeros_like(mean)
        rate = jnp.sum(kl(DiagGaussian(mean, 2 * log_std), DiagGaussian(zero, zero)), axis=1)
        return jnp.mean(-p.log_prob(x) + beta * rate)

    def other(outputs):
        out, mean, log_std = outputs
        return factor * theirs(x, out, _kl(mean, log_std))

    support.assert_trees_close(jax.grad(other)(outputs), jax.grad(ours)(outputs), rtol=1e-4, atol=1e-6)


def test_the_example_of_the_table():
    """0.00025 beside a mean square of 64x64 RGB pictures is 1.536 beside a Gaussian of standard deviation 1."""
    assert pytest.approx(1.536) == 0.00025 * 64 * 64 * 3 / 2
