"""Pictures of a run. The only package that imports matplotlib; it needs no display.

Functions return a matplotlib `Figure` (a notebook shows it), `save` writes it; `write_all` makes those of a run folder.
"""

from vae_jax.figures.curves import curves, read_metrics
from vae_jax.figures.grid import grid, mosaic, pixels, save, save_pixels
from vae_jax.figures.latents import kl_chart, row_labels, value_labels
from vae_jax.figures.write import write_all

__all__ = [
    "curves",
    "grid",
    "kl_chart",
    "mosaic",
    "pixels",
    "read_metrics",
    "row_labels",
    "save",
    "save_pixels",
    "value_labels",
    "write_all",
]
