"""The options of a second stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import jax.numpy as jnp

from vae_jax.errors import InputError, option
from vae_jax.model import Model, ModelConfig
from vae_jax.models.condition import ENTRIES, Condition
from vae_jax.models.stage2 import build
from vae_jax.models.stage2.base import Around, Generator
from vae_jax.models.stage2.transformer import Transformer
from vae_jax.models.vq import VQVAE
from vae_jax.options.ranges import Share
from vae_jax.spec import DataSpec


@dataclass(frozen=True)
class PriorCondition:
    """What a prior over codes is conditioned on: p(z|c)."""

    on: Literal["none", "label", "factors", "vector"] = "none"
    """Nothing, the label, the generative factors, or a vector (array `cond` of an .npz)."""
    drop: Annotated[float, Share()] = 0.1
    """Share of the training examples whose condition is hidden, so that p(z) is learned beside p(z|c) and samples can
    be guided (arXiv:2207.12598)."""

    def whole(self) -> Condition:
        """Returns the condition as other models have it, which makes the features."""
        return Condition(self.on)


@dataclass(frozen=True)
class SecondStage:
    """Prior over the latents of a trained model, the first stage, which stays as it is (arXiv:1711.00937, sec. 3.3)."""

    # The whole config, not a path: this run is rebuilt without the first one.
    first: ModelConfig = field(default_factory=VQVAE)
    """The first stage, as its run has it; its weights are part of this run's checkpoints."""
    generator: Generator = field(default_factory=Transformer)
    """Distribution over its latents."""
    condition: PriorCondition = field(default_factory=PriorCondition)
    """What the distribution is conditioned on."""
    # The first stage computes in the type of its own config.
    precision: Literal["float32", "bfloat16"] = "float32"
    """Compute type of the generator's networks. Parameters, logits and likelihoods stay float32."""

    def check(self) -> None:
        """Raises InputError for parts of the first stage that do not go together."""
        if callable(check := getattr(self.first, "check", None)):
            check()

    def build(self, spec: DataSpec) -> Model:
        """Returns the model: loss = -log p(z|c) of the first stage's latents z, or what else the generator minimizes.

        Args:
          spec: the data, those that the first stage takes.

        Returns:
          a Model with one parameter group, `prior`; the first stage's variables are in its state.

        Raises:
          InputError: components that do not go together, or not with these data.
        """
        # 1. The first stage gives the latents, the data give the condition.
        first, condition = self.first.build(spec), self.condition.whole()
        condition.check(spec)
        if first.condition is not None:
            # The option has names of its own for the entries of a batch.
            on = next(name for name, entry in ENTRIES.items() if entry == first.condition.on)
            raise InputError(
                "stage1: the first stage is conditioned itself, so that its codes alone do not decode; train one "
                f"without a condition, and give the generator {option('model.condition.on', on)}"
            )
        # 2. The width F of the features is that of a blank example: layers need it before there are data.
        features = condition.features(spec.blank(), spec)
        width = 0 if features is None else features.shape[-1]
        around = Around(first.about.latents, width, jnp.dtype(self.precision))
        # 3. Checked before a parameter is made, so that the message names an option, not a shape.
        self.generator.check(around)
        return build.model(build.Parts(first, self.generator, around, condition, self.condition.drop, spec))
