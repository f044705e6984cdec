"""Aggressive training of the inference network, against posterior collapse by a lagging encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import jax

from vae_jax.objectives.elbo import Elbo
from vae_jax.options.ranges import AtLeast, Steps


@dataclass(frozen=True)
class Aggressive(Elbo):
    """ELBO with the encoder ahead: at first the decoder moves only every `inner`-th step (arXiv:1901.05534).

    In the first `steps` updates the encoder (a group of its own, with what the posterior trains) learns at every step,
    on a new batch, and the rest at the last of each `inner` steps; then all learn together.

    Departs from the paper (sec. 4, algorithm 1), which adapts both lengths: there the inner loop ends when the ELBO of
    the training batches stops rising, and the phase when the mutual information I(x; z) on validation data does. Here
    both are fixed numbers, so that a step is a pure function of its number. At equal `steps` the decoder makes fewer
    updates than under `elbo`.

    Example:
      >>> gate = Aggressive(inner=3, steps=6).gates()["vae"]
      >>> [step for step in range(8) if gate(step)]  # when the decoder learns
      [2, 5, 6, 7]
    """

    inner: Annotated[int, AtLeast(1)] = 10
    """Encoder updates for each update of the decoder, in the first phase."""
    steps: Annotated[int, Steps(1)] = 2_000
    """Length of the first phase, in encoder updates."""

    # The decoder can only wait while the encoder learns if the two are optimizer groups of their own.
    separate_encoder: ClassVar[bool] = True

    def gates(self) -> dict[str, Callable[[jax.Array], jax.Array]]:
        # Only decoder and prior are gated. A gate also freezes the moments of its group: with zero gradients alone Adam
        # would keep moving it. A pure function of the step: a resumed run continues in the same phase.
        return {"vae": lambda step: (step >= self.steps) | (step % self.inner == self.inner - 1)}
