"""Densities of codes that are trained by gradient: a flow, and the second VAE of the two-stage VAE."""

from __future__ import annotations

import abc
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vae_jax import prng
from vae_jax.distributions import dense
from vae_jax.distributions.gaussian import DiagGaussian, kl
from vae_jax.priors import PRIORS, Links, Prior

BATCH = 256
CHECK = 100  # updates between looks at the codes put aside
LEAST_LOG_STD = -5.0  # of the second VAE's codes: a dimension that never varies must not drive the density to infinity


class Fitted(abc.ABC):
    """A trained density of codes y [N, D] of zero mean and unit variance."""

    name: ClassVar[str] = ""

    def __init__(self, dim: int):
        self.dim = dim

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Returns the parameters, a pytree of dicts."""

    @abc.abstractmethod
    def loss(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns the (bound on the) negative log density that is minimized, nats [B]."""

    @abc.abstractmethod
    def log_prob(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns log p(y), or the bound on it that is reported, nats [B]."""

    @abc.abstractmethod
    def draw(self, params: Any, key: jax.Array, n: int, temperature: jax.Array) -> jax.Array:
        """Returns n codes [n, D].

        Args:
          params: as of `init`, trained.
          key: of all n draws, consumed.
          n: how many; static.
          temperature: scalar that scales the standard deviation of the underlying Gaussian; 1 draws from the density.

        Returns:
          float32 [n, D], in units of the standardized codes.
        """

    def fit(self, y: np.ndarray, key: jax.Array, steps: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns (parameters by path, what is known of the fit): Adam, cosine to 0, the weights of the best check."""
        # The same tenth is put aside whatever the key, so that fits of several seeds can be compared.
        rows = np.random.default_rng(0).permutation(len(y))
        aside, used = jnp.asarray(y[rows[: max(len(y) // 10, 1)]]), jnp.asarray(y[rows[max(len(y) // 10, 1) :]])
        tx = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(2e-3, steps)))

        def update(carry: tuple, step: jax.Array) -> tuple[tuple, None]:
            params, moments = carry
            # Rows and noise are keyed by the step: how many steps a chunk has changes nothing.
            at = jax.random.fold_in(prng.site_key(key, "train"), step)
            batch = used[jax.random.randint(prng.site_key(at, "rows"), (BATCH,), 0, len(used))]
            noise = jax.random.split(prng.site_key(at, "noise"), BATCH)
            grads = jax.grad(lambda p: jnp.mean(self.loss(p, batch, noise)))(params)
            updates, moments = tx.update(grads, moments, params)
            return (optax.apply_updates(params, updates), moments), None

        @functools.partial(jax.jit, static_argnums=2)
        def chunk(carry: tuple, first: jax.Array, count: int) -> tuple[tuple, jax.Array]:
            carry, _ = jax.lax.scan(update, carry, first + jnp.arange(count))
            # The same noise at each check, so that two checks differ by their weights alone.
            noise = jax.random.split(prng.site_key(key, "check"), len(aside))
            return carry, jnp.mean(self.loss(carry[0], aside, noise))

        params = self.init(prng.site_key(key, "init"))
        # `best` holds the weights with the lowest loss on the codes put aside, found after `kept` steps.
        carry, best, least, kept, done = (params, tx.init(params)), params, np.inf, 0, 0
        while done < steps:
            # Static in the program: there are at most two lengths, and as many compilations.
            count = min(CHECK, steps - done)
            carry, value = chunk(carry, jnp.asarray(done), count)
            done += count
            if value < least:
                best, least, kept = carry[0], float(value), done
        return self.flat(best), {"steps": steps, "best_step": kept, "put_aside": len(aside)}

    def flat(self, params: Any) -> dict[str, np.ndarray]:
        """Returns the parameters by path, and the length of a code under `dim`."""
        leaves = jax.tree_util.tree_leaves_with_path(params)
        named = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
        return named | {"dim": np.asarray(self.dim, np.int32)}

    def params(self, arrays: dict[str, Any]) -> Any:
        """Returns the pytree that `flat` took apart."""
        # The structure comes from the code and the numbers from the file; nothing is initialized.
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        paths = [p for p, _ in jax.tree_util.tree_leaves_with_path(shapes)]
        leaves = [jnp.asarray(arrays[jax.tree_util.keystr(p, simple=True, separator="/")]) for p in paths]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    def score(self, arrays: dict[str, Any], y: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns `log_prob` for parameters by path."""
        return self.log_prob(self.params(arrays), y, keys)

    def sample(self, arrays: dict[str, Any], key: jax.Array, n: int, temperature: jax.Array) -> jax.Array:
        """Returns `draw` for parameters by path.

        Args:
          arrays: parameters by path, as they are stored.
          key: of all n draws, consumed.
          n: how many.
          temperature: scalar, as for `draw`.

        Returns:
          float32 [n, D], in units of the standardized codes.
        """
        return jax.jit(self.draw, static_argnums=2)(self.params(arrays), key, n, temperature)


class FlowFit(Fitted):
    """The flow prior of the library, trained by maximum likelihood; masked autoregressive for codes of one number."""

    name = "flow"

    @functools.cached_property
    def _prior(self) -> Prior:
        # A coupling layer splits the code in two, which one number does not allow.
        return PRIORS["flow"](family="realnvp" if self.dim > 1 else "maf")

    @property
    def _links(self) -> Links:
        # There are no images and no encoder here: only the length of a code is real.
        return Links(self.dim, (0, 0, 0), lambda images: None)

    def init(self, key: jax.Array) -> Any:
        return self._prior.init(key, self._links)

    def loss(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        return -self.log_prob(params, y, keys)

    def log_prob(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        del keys
        return self._prior.distribution(params, {}, self._links).log_prob(y)

    def draw(self, params: Any, key: jax.Array, n: int, temperature: jax.Array) -> jax.Array:
        return self._prior.sample(params, {}, key, n, self._links, temperature)  # type: ignore[arg-type]


class TwoStageFit(Fitted):
    """A VAE on codes: u ~ N(0, I) of as many dimensions, y ~ N(f(u), gamma^2 I), gamma trained (arXiv:1903.05789)."""

    name = "two-stage"
    hidden: ClassVar[tuple[int, ...]] = (256, 256)
    samples: ClassVar[int] = 100  # of the importance-weighted bound

    def init(self, key: jax.Array) -> Any:
        return {
            "encoder": dense.init(prng.site_key(key, "encoder"), (self.dim, *self.hidden, 2 * self.dim)),
            "decoder": dense.init(prng.site_key(key, "decoder"), (self.dim, *self.hidden, self.dim)),
            "log_std": jnp.zeros(()),
        }

    def _posterior(self, params: Any, y: jax.Array) -> DiagGaussian:
        # [B, 2D]: the means, then the raw log variances.
        mean, raw = jnp.split(dense.apply(params["encoder"], y), 2, -1)
        # The log variance is kept within -20 and 20, smoothly, so that its exponential stays finite.
        return DiagGaussian(mean, 20.0 * jnp.tanh(raw / 20.0))

    def _likelihood(self, params: Any, u: jax.Array) -> DiagGaussian:
        mean = dense.apply(params["decoder"], u)
        # One gamma for all dimensions; the log variance is twice its logarithm.
        return DiagGaussian(mean, jnp.broadcast_to(2.0 * self._log_std(params), mean.shape))

    def _log_std(self, params: Any) -> jax.Array:
        # softplus keeps a gradient near the bound, where `maximum` has none.
        return LEAST_LOG_STD + jax.nn.softplus(params["log_std"] - LEAST_LOG_STD)

    def loss(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        q = self._posterior(params, y)
        # The prior is [1, D] and broadcasts against q [B, D].
        rate = jnp.sum(kl(q, DiagGaussian(jnp.zeros((1, self.dim)), jnp.zeros((1, self.dim)))), -1)
        return rate - self._likelihood(params, q.sample(keys)).log_prob(y)

    def log_prob(self, params: Any, y: jax.Array, keys: jax.Array) -> jax.Array:
        q, p = self._posterior(params, y), DiagGaussian(jnp.zeros((1, self.dim)), jnp.zeros((1, self.dim)))

        # One sample at a time, summed in logs: memory does not grow with `samples`, and no weight underflows.
        def add(total: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            u, log_q = q.sample_and_log_prob(prng.numbered_keys(keys, i))
            return jnp.logaddexp(total, self._likelihood(params, u).log_prob(y) + p.log_prob(u) - log_q), None

        total, _ = jax.lax.scan(add, jnp.full(len(y), -jnp.inf), jnp.arange(self.samples))
        return total - jnp.log(float(self.samples))

    def draw(self, params: Any, key: jax.Array, n: int, temperature: jax.Array) -> jax.Array:
        # Only u is scaled; the noise of y given u is as trained.
        u = temperature * jax.random.normal(prng.site_key(key, "u"), (n, self.dim))
        p = self._likelihood(params, u)
        return p.sample(jax.random.split(prng.site_key(key, "y"), n))
