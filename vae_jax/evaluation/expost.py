"""Ex-post density estimation: a density fitted to the codes of a finished model, from which codes are then drawn.

For autoencoders, which have no prior, and for VAEs whose aggregate posterior is not their prior (arXiv:1903.12436,
sec. 4; two-stage VAE: arXiv:1903.05789). Everything here is about codes [N, D]; nothing knows the model that made them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import prng
from vae_jax.errors import InputError, nearest, option
from vae_jax.evaluation.codefit import Fitted, FlowFit, TwoStageFit

# kind -> what it is, with its reference.
KINDS: dict[str, str] = {
    "gmm": "mixture of full-covariance Gaussians (arXiv:1903.12436)",
    "flow": "normalizing flow (arXiv:1605.08803)",
    "two-stage": "second VAE on the codes (arXiv:1903.05789)",
}
ROWS = 4096  # codes scored at a time


@dataclass(frozen=True)
class ExPost:
    """A fitted density of codes: z = shift + scale * y, y ~ the density that `arrays` hold.

    Attributes:
      kind: one of `KINDS`.
      shift: mean of the training codes [D].
      scale: their standard deviation [D].
      arrays: parameters of the density of y, by name.
      about: what else is known of the fit (held-out log density, ...), JSON-able.
    """

    kind: str
    shift: np.ndarray
    scale: np.ndarray
    arrays: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether `log_prob` is the log density, not a lower bound on it."""
        return self.kind != "two-stage"

    def log_prob(self, z: np.ndarray, seed: int = 0) -> np.ndarray:
        """Returns log p(z) in nats, float64 [N]; of the two-stage VAE the importance-weighted bound with 100 samples.

        Args:
          z: codes [N, D].
          seed: of the bound's samples.
        """
        score, _ = _programs(self.kind)
        # The change of variables is float64 on the host; the programs take float32.
        y = (np.asarray(z, np.float64) - self.shift) / self.scale
        parts = []
        for start in range(0, len(y), ROWS):
            rows = jnp.asarray(y[start : start + ROWS], jnp.float32)
            # The noise of the bound belongs to the row, so that ROWS changes no number.
            index = jnp.arange(start, start + len(rows), dtype=jnp.int32)
            parts.append(np.asarray(score(self.arrays, rows, prng.example_keys(jax.random.key(seed), index))))
        # log p(z) = log p(y) - sum_j log scale_j.
        return np.concatenate(parts).astype(np.float64) - np.log(self.scale).sum()

    def sample(self, key: jax.Array, n: int, temperature: float = 1.0) -> np.ndarray:
        """Returns n codes float32 [n, D]; `temperature` scales the noise of each Gaussian (of u, in a second VAE)."""
        _, draw = _programs(self.kind)
        y = np.asarray(draw(self.arrays, key, n, jnp.asarray(temperature, jnp.float32)), np.float64)
        return np.asarray(self.shift + self.scale * y, np.float32)


def fit(kind: str, codes: np.ndarray, *, components: int = 10, steps: int = 3000, seed: int = 0) -> ExPost:
    """Returns the density of one kind fitted to codes.

    Args:
      kind: "gmm", "flow" or "two-stage".
      codes: [N, D].
      components: Gaussians of "gmm".
      steps: updates of "flow" and "two-stage", whose weights are those that score best on a tenth of the codes put
        aside for that.
      seed: of initialization and batches.

    Returns:
      the density in the units of the codes: they are standardized before the fit, and draws are brought back.

    Raises:
      InputError: an unknown kind, codes that no density can be fitted to, or components out of range.
    """
    if kind not in KINDS:
        raise InputError(f"{option('kind', kind)}: no such density of codes; {nearest(kind, KINDS)}")
    z = np.asarray(codes, np.float64)
    if z.ndim != 2 or len(z) < 2 or not np.isfinite(z).all():
        raise InputError(f"codes: {z.shape}; a density is fitted to two or more finite codes [N, D]")
    if kind == "gmm" and not 1 <= components <= len(z):
        raise InputError(
            f"{option('components')}: "
            f"{components} is out of range; it must be from 1 to the number of codes, {len(z):,}"
        )
    # Of fewer than 20 codes the tenth put aside would be a single one.
    if kind != "gmm" and (steps < 1 or len(z) < 20):
        raise InputError(f"{option('steps', steps)}, {len(z)} codes: {kind} takes 1 step or more, and 20 codes or more")
    # A dimension that never varies keeps its unit: divided by its spread it would be NaN.
    spread = z.std(0)
    shift, scale = z.mean(0), np.where(spread > 1e-6, spread, 1.0)
    # Standardized, so that one learning rate and one variance floor suit codes of any scale.
    y = ((z - shift) / scale).astype(np.float32)
    if kind == "gmm":
        arrays, about = _fit_gmm(y, components, seed)
    else:
        arrays, about = _trainer(kind, z.shape[1]).fit(y, jax.random.key(seed), steps)
    return ExPost(kind, shift, scale, arrays, about)


class _Programs(NamedTuple):
    score: Callable[..., jax.Array]
    draw: Callable[..., jax.Array]


@functools.cache
def _programs(kind: str) -> _Programs:
    """Returns jitted (arrays, y [n, D], keys [n]) -> log p(y) [n] and (arrays, key, n, temperature) -> y [n, D]."""
    if kind == "gmm":
        # The number of draws is a shape and has to be static.
        return _Programs(jax.jit(_gmm_log_prob), jax.jit(_gmm_sample, static_argnums=2))

    def score(arrays, y, keys):
        return _trainer(kind, y.shape[1]).score(arrays, y, keys)

    def draw(arrays, key, n, temperature):
        return _trainer(kind, int(arrays["dim"])).sample(arrays, key, n, temperature)

    # The length of a code is an array like the others on disk, but the programs need it as a number.
    return _Programs(jax.jit(score), draw)


def _trainer(kind: str, dim: int) -> Fitted:
    return FlowFit(dim) if kind == "flow" else TwoStageFit(dim)


def _fit_gmm(y: np.ndarray, components: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        # Not converged is not wrong: it is written beside the density instead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        # The floor of the variances keeps a component on a few codes from an unbounded density.
        model = GaussianMixture(components, covariance_type="full", reg_covar=1e-6, random_state=seed)
        model.fit(y.astype(np.float64))
    weights, covariances = np.asarray(model.weights_), np.asarray(model.covariances_)
    # All that scoring and drawing need. The log is floored: a component that lost its codes has weight 0.
    arrays = {
        "log_weights": np.log(np.maximum(weights, 1e-30)),
        "mean": model.means_,
        "chol": np.linalg.cholesky(covariances),
    }
    about = {"components": components, "converged": bool(model.converged_), "iterations": int(model.n_iter_)}
    return {name: np.asarray(value, np.float32) for name, value in arrays.items()}, about


def _gmm_log_prob(arrays: dict[str, jax.Array], y: jax.Array, keys: jax.Array) -> jax.Array:
    """Returns log sum_k w_k N(y; m_k, L_k L_k^T) in nats [N]."""
    del keys

    def component(log_weight: jax.Array, mean: jax.Array, chol: jax.Array) -> jax.Array:
        # L^-1 (y - m), [D, N]. Its squared length is the exponent, and the diagonal of L gives the determinant.
        white = jax.scipy.linalg.solve_triangular(chol, (y - mean[None]).T, lower=True)
        constant = jnp.sum(jnp.log(jnp.diagonal(chol))) + 0.5 * y.shape[1] * jnp.log(2 * jnp.pi)
        return log_weight - constant - 0.5 * jnp.sum(jnp.square(white), 0)

    # One component at a time: in memory are [N, D] numbers, not [K, N, D].
    parts = jax.lax.map(lambda p: component(*p), (arrays["log_weights"], arrays["mean"], arrays["chol"]))
    return jax.nn.logsumexp(parts, axis=0)


def _gmm_sample(arrays: dict[str, jax.Array], key: jax.Array, n: int, temperature: jax.Array) -> jax.Array:
    pick, noise = jax.random.split(key)
    k = jax.random.categorical(pick, arrays["log_weights"], shape=(n,))
    # m_k + L_k eps for the component k of each code; the temperature scales the noise within it.
    eps = jax.random.normal(noise, (n, arrays["mean"].shape[1]))
    return arrays["mean"][k] + temperature * jnp.einsum("nij,nj->ni", arrays["chol"][k], eps)
