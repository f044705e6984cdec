"""Small dense nets as pure functions of a dict: what flows, learned priors and critics on codes are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

# {"layer0": {"w": [in, out], "b": [out]}, ...}, as of `init`.
Layers = dict[str, dict[str, jax.Array]]


def init(key: jax.Array, sizes: Sequence[int], out_scale: float = 1.0) -> Layers:
    """Returns the parameters of a stack of dense layers: weights ~ N(0, 1 / fan-in), biases 0.

    Args:
      key: consumed.
      sizes: widths from input to output; (4, 16, 2) has one hidden layer of 16.
      out_scale: factor on the last layer's weights; small makes a net that starts near 0, and still learns (at 0 the
        hidden layers would get no gradient).

    Returns:
      {"layer0": {"w": [sizes[0], sizes[1]], "b": [sizes[1]]}, ...}.

    Example:
      >>> params = init(jax.random.key(0), (4, 16, 2))
      >>> {name: layer["w"].shape for name, layer in params.items()}
      {'layer0': (4, 16), 'layer1': (16, 2)}
    """
    last = len(sizes) - 2
    return {
        f"layer{i}": {
            "w": jax.random.normal(jax.random.fold_in(key, i), (n_in, n_out))
            * ((out_scale if i == last else 1.0) * max(n_in, 1) ** -0.5),
            "b": jnp.zeros(n_out),
        }
        for i, (n_in, n_out) in enumerate(pairwise(sizes))
    }


def apply(
    params: Layers,
    x: jax.Array,
    masks: Sequence[np.ndarray] | None = None,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.silu,
) -> jax.Array:
    """Returns the outputs of the stack, `activation` between the layers: [..., sizes[0]] -> [..., sizes[-1]].

    Args:
      params: as of `init`.
      x: inputs.
      masks: factors of the weights, one matrix per layer (of an autoregressive net); None for none.
      activation: elementwise.

    Returns:
      outputs of the last layer, without an activation.

    Example:
      >>> params = {"layer0": {"w": jnp.array([[2.0]]), "b": jnp.array([1.0])}}
      >>> apply(params, jnp.array([[3.0]])).tolist()
      [[7.0]]
    """
    depth = len(params)
    for i in range(depth):
        layer = params[f"layer{i}"]
        w = layer["w"] if masks is None else layer["w"] * masks[i]
        x = x @ w + layer["b"].reshape((1,) * (x.ndim - 1) + (-1,))
        if i < depth - 1:
            x = activation(x)
    return x
