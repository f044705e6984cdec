"""Second stages: generators of the latents of a frozen first stage."""

from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.sequential import Sequential

__all__ = ["Around", "Choices", "Generator", "Sequential"]
