"""Quantizers: vectors in, entries of a finite set and their indices out. Each is usable alone, on arrays."""

from vae_jax.quantizers.base import Quantized, Quantizer
from vae_jax.quantizers.fsq import FSQ
from vae_jax.quantizers.gumbel import Gumbel
from vae_jax.quantizers.latent import Latent
from vae_jax.quantizers.lfq import BSQ, LFQ
from vae_jax.quantizers.nearest import nearest
from vae_jax.quantizers.residual import GroupedVQ, ResidualVQ
from vae_jax.quantizers.residual_fsq import ResidualFSQ
from vae_jax.quantizers.simvq import SimVQ
from vae_jax.quantizers.vq import VQ

QUANTIZERS = {
    # A learned codebook, alone, in levels, or side by side.
    "vq": VQ,
    "simvq": SimVQ,
    "residual-vq": ResidualVQ,
    "grouped-vq": GroupedVQ,
    # No codebook: levels or signs of coordinates.
    "fsq": FSQ,
    "residual-fsq": ResidualFSQ,
    "lfq": LFQ,
    "bsq": BSQ,
    "latent": Latent,
    # A distribution over entries.
    "gumbel": Gumbel,
}

__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "QUANTIZERS",
    "VQ",
    "GroupedVQ",
    "Gumbel",
    "Latent",
    "Quantized",
    "Quantizer",
    "ResidualFSQ",
    "ResidualVQ",
    "SimVQ",
    "nearest",
]
