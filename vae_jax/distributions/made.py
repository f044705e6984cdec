"""MADE, and the two flows that are one: every output depends on the inputs before it only, and on a context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.distributions import dense
from vae_jax.distributions.dense import Layers

# Greatest |log scale| of an affine autoregressive layer, and greatest |gate logit| of an IAF layer before its bias.
LOG_SCALE, GATE = 4.0, 10.0
# Gates start at sigmoid(2) = .88: a layer that has learned nothing keeps most of z (arXiv:1606.04934, sec. 4).
FORGET_BIAS = 2.0


def bounded(x: jax.Array, limit: float) -> jax.Array:
    """Returns limit * tanh(x / limit): x itself near 0, never beyond +-limit.

    Example:
      >>> float(bounded(jnp.array(0.0), 4.0)), float(bounded(jnp.array(1e3), 4.0))
      (0.0, 4.0)
    """
    return limit * jnp.tanh(x / limit)


def masks(dim: int, context: int, hidden: Sequence[int], reverse: bool) -> list[np.ndarray]:
    """Returns the 0/1 factors of the weights of a net (z, context) -> two numbers per dimension (arXiv:1502.03509).

    Input j has the degree j, counted from 1, the context 0; a hidden unit sees degrees up to its own, output j only
    those below j. Hidden degrees are spread evenly; degree 0 (the context alone) is there only with a context.

    Args:
      dim: length of z, D.
      context: length of the context C, or 0.
      hidden: widths of the hidden layers.
      reverse: count the dimensions from the last.

    Returns:
      one float32 matrix per layer: [D + C, hidden[0]], ..., [hidden[-1], 2 D].

    Example:
      >>> first, second = masks(dim=2, context=0, hidden=(3,), reverse=False)
      >>> (first @ second)[:, :2].tolist()  # paths from inputs to outputs: z_0 reaches output 1 alone
      [[0.0, 3.0], [0.0, 0.0]]
    """
    order = np.arange(dim, 0, -1) if reverse else np.arange(1, dim + 1)
    low = 0 if context else min(1, dim - 1)
    inner = [low + np.arange(width) * (dim - low) // width for width in hidden]
    levels = [np.concatenate([order, np.zeros(context, int)]), *inner]
    found = [after[None] >= before[:, None] for before, after in pairwise(levels)]
    found.append(np.concatenate([order, order])[None] > levels[-1][:, None])
    return [m.astype(np.float32) for m in found]


def init(key: jax.Array, dim: int, context: int, hidden: Sequence[int], out_scale: float = 0.1) -> Layers:
    """Returns the parameters of a MADE: `dense.init` of (D + context, *hidden, 2 D), near 0 at the output.

    Args:
      key: consumed.
      dim: length of z, D.
      context: length of the context C, or 0.
      hidden: widths of the hidden layers.
      out_scale: factor on the last layer's weights; 0 starts at the identity but trains no hidden layer at first.

    Returns:
      {"layer0": {"w": [D + C, hidden[0]], "b": [hidden[0]]}, ...}, unmasked: `apply` masks them.

    Example:
      >>> params = init(jax.random.key(0), dim=2, context=1, hidden=(4,))
      >>> {name: layer["w"].shape for name, layer in params.items()}
      {'layer0': (3, 4), 'layer1': (4, 4)}
    """
    return dense.init(key, (dim + context, *hidden, 2 * dim), out_scale)


def apply(params: Layers, z: jax.Array, context: jax.Array | None, reverse: bool) -> tuple[jax.Array, ...]:
    """Returns (m, s), each [B, D], whose entry i depends on z_<i (z_>i if `reverse`) and the context [B, C].

    Args:
      params: as of `init`.
      z: [B, D].
      context: [B, C], or None.
      reverse: count the dimensions from the last.

    Returns:
      m and s, of any size: users bound s.

    Example:
      >>> params = init(jax.random.key(0), dim=2, context=0, hidden=(4,))
      >>> slope = jax.jacobian(lambda z: apply(params, z[None], None, reverse=False)[0][0])(jnp.ones(2))
      >>> (slope != 0.0).tolist()
      [[False, False], [True, False]]
    """
    sizes = [params[f"layer{i}"]["w"].shape[0] for i in range(len(params))]
    x = z if context is None else jnp.concatenate([z, context], -1)
    out = dense.apply(params, x, masks(z.shape[-1], x.shape[-1] - z.shape[-1], sizes[1:], reverse))
    mean, scale = jnp.split(out, 2, axis=-1)
    return mean, scale


def in_turn(update: Callable[[jax.Array], jax.Array], start: jax.Array, reverse: bool) -> jax.Array:
    """Returns z with z_i = update(z)_i, found one dimension after the other: update(z)_i depends on z_<i only.

    D passes of the net: the price of an autoregressive map in its slow direction.

    Example:
      >>> update = lambda z: 1.0 + jnp.pad(z, ((0, 0), (1, 0)))[:, :-1]  # one more than the number before
      >>> in_turn(update, jnp.zeros((1, 3)), reverse=False).tolist()
      [[1.0, 2.0, 3.0]]
    """
    dim = start.shape[-1]

    def body(i: jax.Array, z: jax.Array) -> jax.Array:
        j = dim - 1 - i if reverse else i
        return jnp.where((jnp.arange(dim) == j)[None], update(z), z)

    return jax.lax.fori_loop(0, dim, body, start)


def iaf_forward(params: dict[str, Layers], context: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the inverse autoregressive flow of z [B, D], and log|det| [B].

    Layer by layer z <- g * z + (1 - g) * m, g = sigmoid(s), (m, s) = MADE(z, h), the order of the dimensions reversed
    from layer to layer; log|det| = sum log g (arXiv:1606.04934, eq. 13-14).

    Args:
      params: {"layer0": MADE, ...}.
      context: h [B, C], of the encoder.
      z: [B, D].

    Example:
      >>> params = {"layer0": init(jax.random.key(0), dim=2, context=1, hidden=(4,), out_scale=0.0)}
      >>> _, log_det = iaf_forward(params, jnp.ones((1, 1)), jnp.zeros((1, 2)))
      >>> round(float(log_det[0]), 4)  # 2 ln sigmoid(2): the gates at the start
      -0.2539
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in range(len(params)):
        mean, raw = apply(params[f"layer{i}"], z, context, i % 2 == 1)
        gate = bounded(raw, GATE) + FORGET_BIAS
        z = jax.nn.sigmoid(gate) * z + jax.nn.sigmoid(-gate) * mean
        log_det = log_det + jnp.sum(jax.nn.log_sigmoid(gate), -1)
    return z, log_det


def iaf_inverse(params: dict[str, Layers], context: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns what `iaf_forward` maps to z [B, D], and log|det| [B] of this inverse: D passes per layer.

    Example:
      >>> params = {"layer0": init(jax.random.key(0), dim=2, context=1, hidden=(4,))}
      >>> h, z = jnp.ones((1, 1)), jnp.array([[1.0, -1.0]])
      >>> back, _ = iaf_inverse(params, h, iaf_forward(params, h, z)[0])
      >>> [round(float(value), 4) for value in back[0]]
      [1.0, -1.0]
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in reversed(range(len(params))):
        layer, reverse, out = params[f"layer{i}"], i % 2 == 1, z

        def update(guess: jax.Array, layer=layer, reverse=reverse, out=out) -> jax.Array:
            mean, raw = apply(layer, guess, context, reverse)
            gate = bounded(raw, GATE) + FORGET_BIAS
            # (out - (1 - g) m) / g, in a form that is finite for every gate.
            return out + (out - mean) * jnp.exp(-gate)

        z = in_turn(update, jnp.zeros_like(z), reverse)
        gate = bounded(apply(layer, z, context, reverse)[1], GATE) + FORGET_BIAS
        log_det = log_det - jnp.sum(jax.nn.log_sigmoid(gate), -1)
    return z, log_det


def maf_inverse(params: dict[str, Layers], z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the noise [B, D] that a masked autoregressive flow maps to z, and log|det| [B] of this inverse.

    Layer by layer z <- (z - m) exp(-s), (m, s) = MADE(z): one pass per layer (arXiv:1705.07057, eq. 4). One layer is
    the autoregressive Gaussian prod_i N(z_i; m_i(z_<i), exp(s_i(z_<i))^2).

    Args:
      params: {"layer0": MADE, ...}; the order of the dimensions is reversed from layer to layer.
      z: [B, D].

    Example:
      >>> params = {"layer0": init(jax.random.key(0), dim=2, context=0, hidden=(4,), out_scale=0.0)}
      >>> noise, log_det = maf_inverse(params, jnp.array([[1.0, -1.0]]))
      >>> noise.tolist(), abs(float(log_det[0]))  # m = s = 0: the identity
      ([[1.0, -1.0]], 0.0)
    """
    log_det = jnp.zeros(z.shape[:-1])
    for i in reversed(range(len(params))):
        mean, raw = apply(params[f"layer{i}"], z, None, i % 2 == 1)
        log_scale = bounded(raw, LOG_SCALE)
        z = (z - mean) * jnp.exp(-log_scale)
        log_det = log_det - jnp.sum(log_scale, -1)
    return z, log_det


def maf_forward(params: dict[str, Layers], noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns z = m + exp(s) * noise found dimension by dimension, [B, D], and log|det| [B]: D passes per layer.

    Example:
      >>> params = {"layer0": init(jax.random.key(0), dim=2, context=0, hidden=(4,))}
      >>> z, _ = maf_forward(params, jnp.array([[1.0, -1.0]]))
      >>> [round(float(value), 4) for value in maf_inverse(params, z)[0][0]]
      [1.0, -1.0]
    """
    z, log_det = noise, jnp.zeros(noise.shape[:-1])
    for i in range(len(params)):
        layer, reverse, drawn = params[f"layer{i}"], i % 2 == 1, z

        def update(guess: jax.Array, layer=layer, reverse=reverse, drawn=drawn) -> jax.Array:
            mean, raw = apply(layer, guess, None, reverse)
            return mean + jnp.exp(bounded(raw, LOG_SCALE)) * drawn

        z = in_turn(update, jnp.zeros_like(z), reverse)
        log_det = log_det + jnp.sum(bounded(apply(layer, z, None, reverse)[1], LOG_SCALE), -1)
    return z, log_det
