"""Drawn or decoded examples, with the picture that shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vae_jax.spec import Units, models

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Pictures(NamedTuple):
    """Examples that a model made.

    Attributes:
      images: float32 [N, *x.shape], in the user's units.
      title: of the figure.
      units: the user's, which the figure is not in.
    """

    images: np.ndarray
    title: str
    units: Units | None = None

    def figure(self) -> Figure:
        """Returns a picture of them, about as wide as high."""
        from vae_jax.figures import fold, grid

        if self.images.ndim == 3:  # series [N, T, C]
            from vae_jax.figures.lines import lines

            return lines(self.images, title=self.title)
        images = models(self.images, self.units)
        rows = fold(images, max(8, round(len(self.images) ** 0.5)))
        return grid(rows, title=self.title, count=len(self.images))
