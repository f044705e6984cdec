"""Pictures of a run. The only package that imports matplotlib; it needs no display.

Functions return a matplotlib `Figure` (a notebook shows it), `save` writes it; `write_all` makes those of a run folder.
"""

from vae_jax.figures.curves import curves, read_metrics
from vae_jax.figures.grid import fold, grid, mosaic, pairs, save
from vae_jax.figures.latents import kl_chart, traversal_grid
from vae_jax.figures.write import manifold, write_all

__all__ = [
    "curves",
    "fold",
    "grid",
    "kl_chart",
    "manifold",
    "mosaic",
    "pairs",
    "read_metrics",
    "save",
    "traversal_grid",
    "write_all",
]
