"""Second stages: generators of the latents of a frozen first stage."""

from vae_jax.models.stage2.base import Around, Choices, Generator
from vae_jax.models.stage2.diffusion import Diffusion
from vae_jax.models.stage2.flow_matching import FlowMatching
from vae_jax.models.stage2.sequential import Sequential

GENERATORS = {"diffusion": Diffusion, "flow-matching": FlowMatching}

__all__ = ["GENERATORS", "Around", "Choices", "Diffusion", "FlowMatching", "Generator", "Sequential"]
