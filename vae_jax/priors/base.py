"""What a prior config is: p(z), its parameters, and what it may ask of the model around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from vae_jax.model import Context
from vae_jax.options.needs import Need, Property
from vae_jax.spaces import Real, Space


class Links(NamedTuple):
    """What a prior may know of the model it belongs to.

    Attributes:
      code_dim: length of z, D.
      x_shape: shape of one example of the data.
      posterior: x [M, *x_shape] -> q(z|x), with the model's present encoder (VampPrior, exemplar prior).
      x: the data of the batch [B, *x_shape] in training, else None.
      cond: condition features [B, F] of a conditional model, else None.
      blocks: how z is divided into variables (see `posteriors.Posterior.blocks`).
    """

    # Facts that are static when the model is traced.
    code_dim: int
    x_shape: tuple[int, ...]
    # The model around, with its present parameters: gradients of the prior flow into the encoder through it.
    posterior: Callable[[jax.Array], Any]
    x: jax.Array | None = None
    cond: jax.Array | None = None
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class Prior:
    """Base of the prior configs.

    Attributes:
      space: where z lives, a class of `spaces`.
      factorized: whether the closed-form KL from a factorized posterior is a sum over dimensions.
      conditional: whether p(z|cond) needs the model's condition.
      encodes: whether it asks `links.posterior`, which knows no condition.
      reads_density: whether it asks the log_prob of `links.posterior`.
      kinds: kinds of data that it can stand beside; a prior that makes images of its own takes images alone.
      keeps_data: whether it keeps examples of the data themselves, which must then be complete.
      averages: whether states of microbatches or devices may be averaged (a buffer of images may not).
    """

    # Declarations: `needs` turns them into checks that run before anything is compiled.
    space: ClassVar[type[Space]] = Real
    factorized: ClassVar[bool] = False
    conditional: ClassVar[bool] = False
    encodes: ClassVar[bool] = False
    reads_density: ClassVar[bool] = False
    keeps_data: ClassVar[bool] = False
    averages: ClassVar[bool] = True
    kinds: ClassVar[tuple[str, ...]] = ("image", "vector", "sequence", "tokens")

    def gives(self) -> frozenset[Property]:
        """Returns the properties that other components may need (see `options.needs`)."""
        return frozenset({"kl by variable"} if self.factorized else ())

    def needs(self) -> tuple[Need, ...]:
        """Returns what other components must give."""
        # `change_self`: of a pair on different spaces the prior is the one to exchange.
        found = [Need("posterior", (self.space,), change_self=True)]
        # Pseudo-inputs and exemplars come without a condition that the encoder could be given.
        found += [Need("condition", ("no condition",))] if self.encodes else []
        found += [Need("posterior", ("density",), change_self=True)] if self.reads_density else []
        found += [Need("condition", ("condition",))] if self.conditional else []
        return tuple(found)

    def unit(self) -> tuple[float, float] | None:
        """Returns (mean, standard deviation) of every dimension, the unit of traversals; None without one."""
        return None

    def check(self, code_dim: int) -> None:
        """Raises InputError if this prior cannot have `code_dim` dimensions."""

    def init(self, key: jax.Array, links: Links) -> dict[str, Any]:
        """Returns the trained parameters. `links.cond` gives a batch of features where there is a condition."""
        del key, links
        return {}

    def init_state(self, links: Links) -> dict[str, Any]:
        """Returns the running state (a normalizer's estimate, a buffer of exemplars)."""
        del links
        return {}

    def distribution(self, params: Any, state: Any, links: Links) -> Any:
        """Returns p(z): a pytree with `log_prob(z [B, D]) -> [B]`; parameters shaped [1, D] or [B, D]."""
        raise TypeError(f"{type(self).__name__} must define distribution")

    def fit(self, params: Any, state: Any, key: jax.Array, links: Links, ctx: Context) -> tuple[Any, Any]:
        """Returns (p(z), new state) in training.

        Args:
          params: as of `init`.
          state: as of `init_state`.
          key: of noise that stands for the whole batch; the same on every device.
          links: the model around.
          ctx: the step's context.

        Returns:
          p(z) as of `distribution`, and the running state after this batch.
        """
        # Priors without running state have the same density in training and evaluation.
        del key, ctx
        return self.distribution(params, state, links), state

    def sample(
        self, params: Any, state: Any, key: jax.Array, n: int, links: Links, temperature: float = 1.0
    ) -> jax.Array:
        """Returns z ~ p(z), [n, D]; `temperature` scales the standard deviation where that has a meaning.

        Args:
          params: as of `init`.
          state: as of `init_state`.
          key: of all n draws.
          n: how many; static.
          links: the model around.
          temperature: scales the standard deviation where that has a meaning.

        Returns:
          float32 [n, D].
        """
        raise TypeError(f"{type(self).__name__} must define sample")
