"""Drawn or decoded examples, with the picture that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures(NamedTuple):
    """Examples that a model made.

    Attributes:
      images: float32 [N, *x.shape].
      title: of the figure.
    """

    images: np.ndarray
    title: str

    def figure(self) -> Figure:
        """Returns a picture of them, about as wide as high."""
        from vae_jax.figures import fold, grid

        return grid(fold(self.images, max(8, round(len(self.images) ** 0.5))), title=self.title)
