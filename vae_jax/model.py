"""The model record: a core that every model has, and capabilities that it may have.

The train step, the loop and the commands know nothing else. `params` is a dict whose top-level keys are the optimizer
groups (`{"vae": ...}`, `critic`, `encoder`); `state` holds what is not trained by gradient (running variances,
codebooks). Both are plain pytrees. A capability that a model does not have is None, and its presence is the only test
for it: nothing asks what kind of model it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from vae_jax.errors import InputError
from vae_jax.spaces import Coder, Latents
from vae_jax.spec import DataSpec

Params = dict[str, Any]
State = dict[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class Context(NamedTuple):
    """What a loss may know besides its arguments, built inside the step; `Model.context(batch)` makes one by hand.

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


class Aux(NamedTuple):
    """What a loss returns besides its value.

    Attributes:
      state: the new model state.
      metrics: means over this batch shard.
      outputs: for wrappers that add terms of other parameter groups; the step drops them. `z` [K * B, n] are the
        samples that the loss decoded, as vectors, and `likelihood` is p(x|z) of them, with leading axis K * B: K whole
        batches, 1 unless more are drawn. A model that decodes an example once per class or modality has none.
    """

    state: State
    metrics: Metrics
    outputs: Mapping[str, Any] = {}


class Likelihood(Protocol):
    """A decoded p(x|z): a pytree of parameters. All results are float32."""

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Returns log p(x|z) in nats [B], summed over all axes of x.

        Where the configuration's `takes_mask` says so, there is a second argument: `mask`, bool, of the shape of x or
        None. The sum is then over the entries where it is True.
        """
        ...

    def mean(self) -> jax.Array:
        """Returns E[x|z], [B, *x.shape]."""
        ...

    def mode(self) -> jax.Array:
        """Returns the most probable x, [B, *x.shape]."""
        ...

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns x ~ p(x|z), [B, *x.shape], from one key per example."""
        ...


class Posterior(Protocol):
    """An inferred q(z|x): a pytree of parameters. All results are float32."""

    def sample(self, keys: jax.Array) -> jax.Array:
        """Returns z ~ q(z|x), [B, D], from one key per example."""
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
    """The latents of a batch.

    Attributes:
      z: of the structure of `About.latents`, leaves [B, *shape].
      posterior: q(z|x), a distribution over vectors (of each level); None for a deterministic code.
    """

    z: Any
    posterior: Any = None


class Joint(NamedTuple):
    """log p(x, z) = log p(z) + log p(x|z) of the examples of one batch, as functions of their latents as vectors.

    What an example is conditioned on is held fixed in both terms; a class that the model sums out is summed out.

    Attributes:
      prior: p(z), with `log_prob(z [B, n]) -> [B]` in nats.
      log_likelihood: z [B, n] -> log p(x|z) in nats [B].
      sample_prior: keys [B] -> z ~ p(z) [B, n].
      sample_data: (keys [B], z [B, n]) -> the entries of the batch that are drawn from p(x|z), by name.
    """

    prior: Any
    log_likelihood: Callable[[jax.Array], jax.Array]
    sample_prior: Callable[[jax.Array], jax.Array]
    sample_data: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]


class InitFn(Protocol):
    def __call__(self, key: jax.Array, batch: Batch) -> tuple[Params, State]:
        """Returns fresh parameters and state.

        Args:
          key: consumed.
          batch: any batch; only its shapes matter.

        Returns:
          parameters by optimizer group, and what is not trained by gradient.
        """
        ...


class LossFn(Protocol):
    def __call__(
        self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context
    ) -> tuple[jax.Array, Aux]:
        """Returns the loss of a batch, and what it leaves behind.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          key: of the step; every use of it has a site of its own.
          batch: `x` [B, *x.shape], and what the model is conditioned on.
          ctx: of the step.

        Returns:
          a scalar in nats, the mean over the batch shard; and the new state with what is logged.
        """
        ...


class TermsFn(Protocol):
    def __call__(self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context) -> Metrics:
        """Returns the terms of each example, as the docstring of `Model` lists them.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          key: of the noise.
          batch: `x` [B, *x.shape], and what the model is conditioned on.
          ctx: of the batch; states do not move.

        Returns:
          arrays [B] or [B, D] by name, in nats, `kl` a tree of arrays [B]; `mse` in squared units of the data.
        """
        ...


class EncodeFn(Protocol):
    def __call__(self, params: Params, state: State, keys: jax.Array | None, batch: Batch) -> Encoding:
        """Returns the latents of a batch.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          keys: one per example, [B], to draw z ~ q(z|x); None gives its mean or mode.
          batch: `x` [B, *x.shape], and what the model is conditioned on.

        Returns:
          latents [B, *shape], and q(z|x) where there is one.
        """
        ...


class DecodeFn(Protocol):
    def __call__(self, params: Params, state: State, z: Any, *, cond: jax.Array | None = None) -> Any:
        """Returns p(x|z).

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          z: latents, leaves [N, *shape].
          cond: features [N, F] of a conditional model; None without a condition.

        Returns:
          a decoded distribution over data [N, *x.shape].
        """
        ...


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
    ) -> Any:
        """Returns latents z ~ p(z), or p(z|cond).

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          key: of all n draws.
          n: how many; static.
          cond: features [n, F] of a conditional model; None without a condition.
          temperature: scales the standard deviation of the prior, or divides its logits, where that has a meaning.

        Returns:
          leaves [n, *shape], of the structure of `About.latents`.
        """
        ...


class FeaturesFn(Protocol):
    def __call__(self, params: Params, state: State, batch: Batch) -> jax.Array:
        """Returns the features of a batch.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          batch: what they are made of.

        Returns:
          float32 [B, F].
        """
        ...


class BoundFn(Protocol):
    def __call__(self, params: Params, state: State, key: jax.Array, batch: Batch, ctx: Context, k: int) -> jax.Array:
        """Returns the importance-weighted bound on log p(x) of each example.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          key: of the noise.
          batch: `x` [B, *x.shape], and what the model is conditioned on.
          ctx: of the batch; noise is keyed by its `index`.
          k: importance samples per example; static.

        Returns:
          nats [B].
        """
        ...


class JointFn(Protocol):
    def __call__(self, params: Params, state: State, batch: Batch) -> Joint:
        """Returns log p(x, z) of a batch, as functions of z.

        Args:
          params: of the model, {group: parameters}.
          state: of the model.
          batch: `x` [B, *x.shape], and what the model is conditioned on.

        Returns:
          functions of latents as vectors [B, n].
        """
        ...


@runtime_checkable
class ModelConfig(Protocol):
    """The options of a model, a frozen dataclass. One with a method `check` is checked before the data are read."""

    def build(self, spec: DataSpec) -> Model:
        """Returns the model for these data."""
        ...


def features_of(model: Model) -> FeaturesFn | None:
    """Returns the features that a model is conditioned on; None without a condition."""
    return None if model.condition is None else model.condition.features


class About(NamedTuple):
    """Facts of a model that others would have to dig out of its configuration.

    Attributes:
      spec: the data that it was built for.
      latents: where its latents live: a space, or a dict or tuple of spaces for several levels.
      likelihood: the configuration of p(x|z), which says what it can score: `support`, `closed`, `levels`,
        `normalized`, `cell_width`.
      unit: (mean, standard deviation) of all entries of the latents under the prior, for traversals; None without one.
      takes_mask: whether the model reads `batch["mask"]` and leaves out what is missing; data with a mask are refused
        by one that does not.
      takes_weight: whether the loss is a mean of examples times `batch["weight"]`; else class weights are refused.
    """

    spec: DataSpec
    latents: Latents
    likelihood: Any
    unit: tuple[float, float] | None = None
    takes_mask: bool = False
    takes_weight: bool = False


class Training(NamedTuple):
    """What the optimizer needs to know.

    Attributes:
      hyper: scalars of the objective that are traced, by name, with their configured values.
      gates: parameter group -> `step -> bool`: the group is updated, and its optimizer advanced, only where it is true.
      adversaries: parameter groups of second players, which `critic_optimizer` trains.
      frozen: entries of the state that no step moves, and no mean over microbatches or devices rounds.
    """

    hyper: Mapping[str, float] = {}
    gates: Mapping[str, Callable[[jax.Array], jax.Array]] = {}
    adversaries: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()


class PriorFns(NamedTuple):
    """Capability: latents can be drawn from a prior.

    Attributes:
      sample: `(params, state, key, n, cond=None, temperature=1.0) -> z` of the structure of `About.latents`, leaves
        [n, *shape]. Images are `decode(sample(...))`.
      is_conditional: whether p(z|cond) depends on the condition, so that there is no one p(z).
      takes: what else `sample` takes by name: "top_k", "guidance", ...; numbers are static.
      coder: `(params, state) -> Coder` of codes with this prior; None where it has no order to code them in.
    """

    sample: SampleFn
    is_conditional: bool = False
    takes: tuple[str, ...] = ()
    coder: Callable[[Params, State], Coder] | None = None


class DensityFns(NamedTuple):
    """Capability: p(x|z) is a density or a mass, and so are sums over it.

    Attributes:
      bound: `(params, state, key, batch, ctx, k) -> [B]`, importance-weighted bound on log p(x) in nats,
        log 1/k sum_i p(x, z_i) / q(z_i|x), z_i ~ q (arXiv:1509.00519, eq. 8); None where q has no density.
      joint: `(params, state, batch) -> Joint`, the parts of log p(x, z); None where p(z) has no density.
      has_posterior: whether log q(z|x) of a given z can be computed.
    """

    bound: BoundFn | None = None
    joint: JointFn | None = None
    has_posterior: bool = True


class ConditionFns(NamedTuple):
    """Capability: the model is conditioned on something besides x, or can be.

    Attributes:
      features: `(params, state, batch) -> [B, F]`, the `cond` of `decode` and `PriorFns.sample`. A batch need hold no
        more than what it is made of (`label` [B], say).
      on: the entry of the batch that it is made of: "label", "factors" or "cond".
      classes: number of labels that can be requested; 0 where it does not read labels.
      default: n -> [n, F], what is sampled with where nothing is requested; None where the model then needs nothing.
      is_required: whether a batch must hold it. A model that infers it reads it only where it is there.
    """

    features: FeaturesFn
    on: str
    classes: int = 0
    default: Callable[[int], jax.Array] | None = None
    is_required: bool = True


class ClassifierFns(NamedTuple):
    """Capability: a classifier of x is part of the model.

    Attributes:
      embed: `(params, state, batch) -> [B, F]`, the input of the classifier's last layer.
    """

    embed: FeaturesFn


class Model(NamedTuple):
    """The pure functions of one model.

    Attributes:
      init: `(key, batch) -> (params, state)`.
      loss: `(params, state, key, batch, ctx) -> (scalar, Aux)`; the only place that takes the batch mean.
      terms: `(params, state, key, batch, ctx) -> {name: [B] or [B, D]}`, per-example values in nats, never weighted
        by beta: `distortion`, `rate`, `elbo`, `kl_per_dim` where they exist, `mse` always. `kl_per_dim` [B, D] is there
        only where the rate is a sum over latent variables. `kl`, of a model with several levels, holds the rate of
        each [B], a tree like `About.latents`: evaluation reports it as `kl/NAME`.
      encode: `(params, state, keys or None, batch) -> Encoding`; None gives the mean (mode).
      decode: `(params, state, z, cond=None) -> Likelihood`.
      about: facts of the model.
      training: what the optimizer needs to know.
      prior, density, condition, classifier: capabilities; None for a model that does not have them.
    """

    init: InitFn
    loss: LossFn
    terms: TermsFn
    encode: EncodeFn
    decode: DecodeFn
    about: About
    training: Training = Training()
    prior: PriorFns | None = None
    density: DensityFns | None = None
    condition: ConditionFns | None = None
    classifier: ClassifierFns | None = None

    # A model equals itself alone: what the same functions call may have been defined anew, in a notebook.
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def context(self, batch: Batch, *, step: jax.Array | int = 0, train: bool = True) -> Context:
        """Returns the context of a whole batch on one device, with the objective's own scalars.

        Args:
          batch: the batch; its examples are numbered 0 to B - 1, by which their noise is keyed.
          step: updates made so far, which schedules read; pass the state's own for another noise at each step.
          train: whether noise is in and running statistics move.
        """
        size = jax.tree.leaves(dict(batch))[0].shape[0]
        hyper = {name: jnp.asarray(value, jnp.float32) for name, value in self.training.hyper.items()}
        return Context(jnp.asarray(step, jnp.int32), jnp.arange(size, dtype=jnp.int32), hyper, train)

    def sample(
        self,
        params: Params,
        state: State,
        key: jax.Array,
        n: int,
        *,
        cond: jax.Array | None = None,
        temperature: float = 1.0,
    ) -> Any:
        """Returns p(x|z) with z ~ p(z): what the model generates.

        Args:
          params: of the model.
          state: of the model.
          key: of the draw of z; draw x from the result with keys of its own.
          n: how many.
          cond: features [n, F] of a conditional model; None takes those of `ConditionFns.default`.
          temperature: scales the standard deviation of the prior, or divides its logits, where that has a meaning.

        Returns:
          p(x|z) of the n draws: `.mean()`, `.mode()` or `.sample(keys)` gives data [n, *x.shape].

        Raises:
          InputError: the model has no prior.
        """
        prior, cond = self.drawn_from(n, cond)
        z = prior.sample(params, state, key, n, cond=cond, temperature=temperature)
        return self.decode(params, state, z, cond=cond)

    def drawn_from(self, n: int, cond: Any = None) -> tuple[PriorFns, Any]:
        """Returns (the prior, the features [n, F] of n draws from it: `cond`, else `ConditionFns.default`, else None).

        Raises:
          InputError: the model has no prior.
        """
        if self.prior is None:
            raise InputError("this model does not provide a prior to sample from; reconstruct or interpolate instead")
        if cond is None and self.condition is not None and self.condition.default is not None:
            cond = self.condition.default(n)
        return self.prior, cond
