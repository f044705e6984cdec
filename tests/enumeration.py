"""What the tests of generators of codes share: all rows of a tiny space, exact draws in numpy, observed shares."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

COND = np.array([[1.0, -0.5]], np.float32)


def rows(around):
    """Returns all rows of codes, int32 [R, n]."""
    return np.array(list(itertools.product(*map(range, around.sizes))), np.int32)


def conds(n, value=COND):
    """Returns the features of n examples."""
    return jnp.tile(jnp.asarray(value), (n, 1))


def init(net, around):
    return jax.jit(lambda key: net.init(key, around))(jax.random.key(0))


def far(params):
    """Returns parameters far from the start, with which every code and every place matters."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [x + 0.7 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)])


def chosen(given, free, choices):
    """Returns the probabilities of the codes of one place, float64 [K], by the definition of every choice.

    Args:
      given: logits with the condition, [K], of the codes that the place has.
      free: those without.
      choices: of the draw.
    """
    given, free = given.astype(np.float64), free.astype(np.float64)
    score = free + choices.guidance * (given - free)
    p = np.exp((score - score.max()) / choices.temperature)
    kept = np.argsort(-p)[: choices.top_k or None]
    share = p[kept] / p[kept].sum()
    kept = kept[: np.searchsorted(np.cumsum(share), choices.top_p) + 1]
    out = np.zeros_like(p)
    out[kept] = p[kept] / p[kept].sum()
    return out


def check_shares(samples, exact, every):
    """Checks that rows are drawn as often as they should be, and no row that cannot be.

    Args:
      samples: [n, places].
      exact: probability of each row, [R].
      every: all rows, [R, places].
    """
    n = len(samples)
    found, counts = np.unique(np.asarray(samples), axis=0, return_counts=True)
    share = dict(zip(map(tuple, found.tolist()), counts / n))
    assert share.keys() <= set(map(tuple, every.tolist()))
    share = np.array([share.get(tuple(row), 0) for row in every.tolist()])
    assert exact.sum() == pytest.approx(1, abs=1e-9)
    assert (share[exact == 0] == 0).all()
    assert (np.abs(share - exact) < 4.5 * np.sqrt(exact / n) + 5 / n).all(), np.abs(share - exact).max()
