"""Forms that were rewritten for speed equal the textbook ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax.distributions.special import cross_entropy
from vae_jax.train.optimizers import scale_by_adam


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_cross_entropy_is_exact_in_both_tails(x):
    logits = np.linspace(-80.0, 80.0, 20_001).astype(np.float32)
    exact = np.logaddexp(0.0, -logits.astype(np.float64)) * x + np.logaddexp(0.0, logits.astype(np.float64)) * (1 - x)
    value = jax.jit(cross_entropy)(jnp.asarray(logits), jnp.full_like(logits, x))
    np.testing.assert_allclose(value, exact, rtol=1e-6, atol=0.0 if x in (0.0, 1.0) else 1e-6)


def test_cross_entropy_gradients_equal_optax():
    logits = jnp.linspace(-20.0, 20.0, 4001)
    x = jnp.linspace(0.0, 1.0, 4001)

    def total(function):
        return lambda l, t: jnp.sum(function(l, t))

    for argument in (0, 1):
        ours = jax.grad(total(cross_entropy), argument)(logits, x)
        theirs = jax.grad(total(optax.sigmoid_binary_cross_entropy), argument)(logits, x)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    # At 0 too, where max and abs have no derivative; and twice, for whoever takes a Hessian.
    assert jax.grad(cross_entropy)(0.0, 0.25) == 0.25
    np.testing.assert_allclose(jax.grad(jax.grad(cross_entropy))(0.0, 0.25), 0.25)


def test_adam_equals_optax_with_its_state():
    ours, theirs = scale_by_adam(0.9, 0.999, 1e-8), optax.scale_by_adam(0.9, 0.999, 1e-8)
    params = {"w": jnp.zeros((64, 8)), "b": jnp.zeros(8)}
    a, b = ours.init(params), theirs.init(params)
    for step in range(50):
        # Gradients over twelve orders of magnitude, exact zeros among them: eps decides there.
        keys = jax.random.split(jax.random.key(step))
        w = jax.random.normal(keys[0], (64, 8)) * 10.0 ** jax.random.randint(keys[1], (64, 8), -9, 3)
        grads = {"w": w.at[0].set(0.0), "b": jnp.ones(8)}
        mine, a = ours.update(grads, a, params)
        other, b = theirs.update(grads, b, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-6, atol=1e-30), (mine, a), (other, b))
    assert jax.tree.structure(a) == jax.tree.structure(b)
