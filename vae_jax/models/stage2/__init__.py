"""Second stages: generators of the latents of a frozen first stage."""

from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.sequential import Sequential
from vae_jax.models.stage2.transformer import Transformer

GENERATORS = {
    "transformer": Transformer,
}

__all__ = ["GENERATORS", "Around", "Choices", "Generator", "Sequential", "Transformer"]
