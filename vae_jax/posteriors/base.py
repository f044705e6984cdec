"""What a posterior config is: how encoder outputs become q(z|x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from vae_jax.options.needs import Need, Property
from vae_jax.spaces import Real, Space


@dataclass(frozen=True)
class Posterior:
    """Base of the posterior configs.

    Attributes:
      space: where z lives, a class of `spaces`. Posterior and prior must agree.
      reparameterized: whether `sample` carries gradients to the encoder in training.
      has_log_prob: whether `log_prob(z)` of a given z can be computed (`sample_and_log_prob` is always there).
      deterministic: whether q is a point: no density, no rate.
      factorized: whether its closed-form KL from a factorized prior is a sum over latent variables.
      separable: whether q(z|x) is a product over dimensions of known density (`distributions.separable`), with mean
        `mode()` and variance `variance()`.
    """

    # Declarations, for checks (`gives`) and for how the rate is obtained: closed form, samples, or none.
    space: ClassVar[type[Space]] = Real
    has_log_prob: ClassVar[bool] = True
    deterministic: ClassVar[bool] = False
    factorized: ClassVar[bool] = False
    separable: ClassVar[bool] = False

    @property
    def reparameterized(self) -> bool:
        return True

    def check(self, latent_dim: int) -> None:
        """Raises InputError if this posterior cannot have `latent_dim` dimensions."""

    def outputs(self, latent_dim: int) -> int:
        """Returns the number of encoder outputs."""
        raise TypeError(f"{type(self).__name__} must define outputs")

    def code_dim(self, latent_dim: int) -> int:
        """Returns the length of z, the decoder's input: `latent_dim`, unless z is made of several variables."""
        return latent_dim

    def blocks(self, latent_dim: int) -> tuple[int, ...]:
        """Returns how z is divided into variables: the length of each one-hot vector, 1 for a number."""
        return (1,) * self.code_dim(latent_dim)

    def latents(self, latent_dim: int) -> Space:
        """Returns the space of the latents of one example; they are vectors of length `code_dim`."""
        return self.space((self.code_dim(latent_dim),))

    def gives(self) -> frozenset[Property]:
        """Returns the properties that other components may need (see `options.needs`)."""
        # The space itself is a property: a prior needs the class of its own.
        given = {
            "density": self.has_log_prob and not self.deterministic,
            "path": self.reparameterized,
            "point": self.deterministic,
            "dimensions": self.separable,
            "kl by variable": self.factorized,
        }
        return frozenset({self.space} | {name for name, it_does in given.items() if it_does})

    def needs(self) -> tuple[Need, ...]:
        """Returns what other components must give."""
        # Distributions are written over vectors. Without a density there is no KL to hold the code at the prior.
        vector = Need("network", ("vector code",))
        return (vector, Need("objective", ("rateless",))) if self.deterministic else (vector,)

    def init(self, key: jax.Array, latent_dim: int) -> dict[str, Any]:
        """Returns the trained parameters besides the encoder's (of a flow): none by default."""
        del key, latent_dim
        return {}

    def build(self, params: Any, out: jax.Array, step: jax.Array, train: bool) -> Any:
        """Returns q(z|x) (see `model.Posterior`).

        Args:
          params: as of `init`.
          out: encoder outputs [B, outputs(latent_dim)], float32.
          step: int32 scalar, for schedules (of a temperature).
          train: a relaxation is used only in training; outside z is exactly discrete.

        Returns:
          a pytree of parameters [B, ...]; codes are [B, code_dim(latent_dim)].
        """
        raise TypeError(f"{type(self).__name__} must define build")
