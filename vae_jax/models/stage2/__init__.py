"""Second stages: generators of the latents of a frozen first stage."""

from vae_jax.models.stage2.absorbing import Absorbing
from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.diffusion import Diffusion
from vae_jax.models.stage2.flow_matching import FlowMatching
from vae_jax.models.stage2.masked import Masked
from vae_jax.models.stage2.pixelcnn import PixelCNN
from vae_jax.models.stage2.sequential import Sequential
from vae_jax.models.stage2.transformer import Transformer

GENERATORS = {
    # Codes, one after another: exact likelihood.
    "transformer": Transformer,
    "pixelcnn": PixelCNN,
    # Codes, many at a time.
    "masked": Masked,
    "absorbing": Absorbing,
    # Real vectors.
    "diffusion": Diffusion,
    "flow-matching": FlowMatching,
}

__all__ = [
    "GENERATORS",
    "Absorbing",
    "Around",
    "Choices",
    "Diffusion",
    "FlowMatching",
    "Generator",
    "Masked",
    "PixelCNN",
    "Sequential",
    "Transformer",
]
