"""What a model is: a tuple of pure functions. The train step, the loop and the commands know nothing else.

`params` is a dict whose top-level keys are the optimizer groups (`{"vae": ...}`, later also `critic`, `dual`);
`state` holds what is not trained by gradient (running variances, codebooks). Both are plain pytrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Params = dict[str, Any]
State = dict[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class Context(NamedTuple):
    """What a loss may know besides its arguments. Built inside the step; it never crosses a jit boundary.

    Attributes:
      step: int32 scalar, the number of updates made so far.
      index: int32 [b], index of each example in the global batch; per-example noise is keyed by it.
      hyper: traced float scalars that may be swept (`beta`, ...), by name.
      train: True in training (noise in, running statistics move).
      axis_name: mapped axis of `pmap`/`shard_map`; None in the global view.
    """

    step: jax.Array
    index: jax.Array
    hyper: Mapping[str, jax.Array]
    train: bool = True
    axis_name: str | None = None


class Facts(NamedTuple):
    """What a model may know of its training data besides the image shape. Kept in the run's `config.json`.

    Attributes:
      examples: size of the training split (N of the total-correlation estimators); 0 is unknown.
      classes: number of labels; 0 without labels.
      factors: number of values of each generative factor; () without factors.
      cond: length of each example's condition vector; 0 without one.
      label_names: one name per label, by which the classes of other folders are matched; () where they have none.
    """

    examples: int = 0
    classes: int = 0
    factors: tuple[int, ...] = ()
    cond: int = 0
    label_names: tuple[str, ...] = ()


NO_FACTS = Facts()


class Aux(NamedTuple):
    """What a loss returns besides its value: the new `state`, and metrics as means over this batch shard."""

    state: State
    metrics: Metrics


class Likelihood(Protocol):
    """A decoded p(x|z): a pytree of parameters. All results are float32."""

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Returns log p(x|z) in nats [B], summed over pixels and channels."""
        ...

    def mean(self) -> jax.Array:
        """Returns E[x|z], [B, H, W, C]."""
        ...

    def mode(self) -> jax.Array:
        """Returns the most probable x, [B, H, W, C]."""
        ...

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns x ~ p(x|z), [B, H, W, C], from one key an example."""
        ...


class Posterior(Protocol):
    """An inferred q(z|x): a pytree of parameters. All results are float32."""

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z ~ q(z|x), [B, D], from one key an example."""
        ...

    def sample_and_log_prob(self, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the z of `sample` and log q(z|x) [B] in nats; where `log_prob` must invert a map, this need not."""
        ...

    def log_prob(self, z: jax.Array) -> jax.Array:
        """Returns log q(z|x) in nats [B], summed over dimensions."""
        ...

    def mode(self) -> jax.Array:
        """Returns the code that stands for q: its mean or mode, [B, D]."""
        ...

    def variance(self) -> jax.Array:
        """Returns Var[z_j] of each dimension [B, D], exact or of the base distribution."""
        ...


class Encoding(NamedTuple):
    """z [B, D] and the distribution it came from (None for a deterministic code)."""

    z: jax.Array
    posterior: Any = None


class Joint(NamedTuple):
    """log p(x, z) = log p(z) + log p(x|z) of the examples of one batch, as functions of their codes.

    What an example is told (its condition) is held fixed in both terms; a class that the model sums out is summed out.

    Attributes:
      prior: p(z), with `log_prob(z [B, D]) -> [B]` in nats.
      log_likelihood: z [B, D] -> log p(x|z) in nats [B].
      sample_prior: keys [B] -> z ~ p(z) [B, D].
      sample_data: (keys [B], z [B, D]) -> the entries of the batch that are drawn from p(x|z), by name.
    """

    prior: Any
    log_likelihood: Callable[[jax.Array], jax.Array]
    sample_prior: Callable[[jax.Array], jax.Array]
    sample_data: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]


class InitFn(Protocol):
    def __call__(self, key: jax.Array, batch: Batch) -> tuple[Params, State]: ...


class LossFn(Protocol):
    def __call__(
        self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]: ...


class TermsFn(Protocol):
    def __call__(self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics: ...


class EncodeFn(Protocol):
    def __call__(self, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding: ...


class DecodeFn(Protocol):
    def __call__(self, params: Params, state: State, z: jax.Array, *, cond: jax.Array | None = None) -> Any: ...


class SampleFn(Protocol):
    def __call__(
        self,
        params: Params,
        state: State,
        key: jax.Array,
        n: int,
        *,
        cond: jax.Array | None = None,
        temperature: float = 1.0,
    ) -> Any: ...


class FeaturesFn(Protocol):
    def __call__(self, params: Params, state: State, batch: Batch) -> jax.Array: ...


class BoundFn(Protocol):
    def __call__(
        self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int
    ) -> jax.Array: ...


class JointFn(Protocol):
    def __call__(self, params: Params, state: State, batch: Batch) -> Joint: ...


class Model(NamedTuple):
    """The pure functions of one model.

    Attributes:
      init: `(key, batch) -> (params, state)`.
      loss: `(params, state, key, batch, ctx) -> (scalar, Aux)`; the only place that takes the batch mean.
      terms: `(params, state, key, batch, ctx) -> {name: [B] or [B, D]}`, per-example values in nats, never weighted
        by beta: `distortion`, `rate`, `elbo`, `kl_per_dim` where they exist, `mse` always. `kl_per_dim` is there only
        where the rate is a sum over latent variables.
      encode: `(params, state, keys or None, batch) -> Encoding`; None gives the mean (mode).
      decode: `(params, state, z, cond=None) -> Likelihood`.
      sample: `(params, state, key, n, cond=None, temperature=1.0) -> Likelihood` with z ~ prior; None if the model
        has no prior.
      log_prob_bound: `(params, state, key, batch, ctx, k) -> [B]`, importance-weighted bound on log p(x) in nats,
        log 1/k sum_i p(x, z_i) / q(z_i|x), z_i ~ q (arXiv:1509.00519, eq. 8).
      hyper: scalars of the objective that are traced, by name, with their configured values.
      gates: parameter group -> `step -> bool`: the group is updated, and its optimizer advanced, only where it is true.
      features: `(params, state, batch) -> [B, F]`, the `cond` of `decode` and `sample`; None for a model that is told
        nothing but the image. A batch need hold no more than what it is made of (`label` [B], say).
      classes: number of labels that can be asked for through `features`; 0 where it does not read labels.
      blocks: how z is divided into latent variables: the length of each one-hot vector, 1 for a number; () where every
        entry of z is a number.
      joint: `(params, state, batch) -> Joint`, the parts of log p(x, z); None where p(z) or p(x|z) is no density.
      space: where z lives: "real" (all of R^D, with a density), "positive", "unit", "sphere", "categorical", "binary"
        or "joint".
      embed: `(params, state, batch) -> [B, F]`, what the last layer of a model's classifier sees of each image; None
        for a model without a classifier.
    """

    init: InitFn
    loss: LossFn
    terms: TermsFn
    encode: EncodeFn
    decode: DecodeFn
    sample: SampleFn | None = None
    log_prob_bound: BoundFn | None = None
    hyper: Mapping[str, float] = {}
    gates: Mapping[str, Callable[[jax.Array], jax.Array]] = {}
    features: FeaturesFn | None = None
    classes: int = 0
    blocks: tuple[int, ...] = ()
    joint: JointFn | None = None
    space: str = "real"
    embed: FeaturesFn | None = None
