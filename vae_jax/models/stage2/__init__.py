"""Second stages: generators of the latents of a frozen first stage."""

from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.pixelcnn import PixelCNN
from vae_jax.models.stage2.sequential import Sequential

GENERATORS = {"pixelcnn": PixelCNN}

__all__ = ["GENERATORS", "Around", "Choices", "Generator", "PixelCNN", "Sequential"]
