"""Generators that draw one code after another: exact likelihood, sampling by steps, prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.models.stage2 import draw
from vae_jax.models.stage2.base import Around, Choices, Generator, guided, without_condition


@dataclass(frozen=True)
class Sequential(Generator):
    """Base: log p(z|c) = sum_i log p(z_i | z_1 .. z_(i-1), c), codes in raster order, levels of a place in a row."""

    likelihood: ClassVar[Literal["exact", "bound", "none"]] = "exact"
    takes: ClassVar[tuple[str, ...]] = ("temperature", "top_k", "top_p", "guidance", "prompt")

    def logits(
        self, params: Any, keys: jax.Array | None, z: jax.Array, cond: jax.Array | None, around: Around
    ) -> jax.Array:
        """Scores the codes of all places in one pass; what belongs to place i depends on z_1 .. z_(i-1) alone.

        Args:
          params: as of `init`.
          keys: one per example [B] for the noise of training; None outside.
          z: int32 [B, n].
          cond: features [B, F]; None without a condition.
          around: what it was built for.

        Returns:
          logits, float32 [B, n, K].
        """
        raise TypeError(f"{type(self).__name__} must define logits")

    def start(self, params: Any, n: int, cond: jax.Array | None, around: Around) -> Any:
        """Makes what `step` carries.

        Args:
          params: as of `init`.
          n: number of samples.
          cond: features [n, F]; None without a condition.
          around: what it was built for.

        Returns:
          the carry before the first code, arrays of static shapes.
        """
        raise TypeError(f"{type(self).__name__} must define start")

    def step(
        self, params: Any, carry: Any, code: jax.Array, place: jax.Array, cond: jax.Array | None, around: Around
    ) -> tuple[Any, jax.Array]:
        """Returns the carry after a code, and the logits of the place after it.

        Args:
          params: as of `init`.
          carry: of the steps before.
          code: int32 [n], the code at `place - 1`; of no meaning at place 0.
          place: int32 scalar, whose logits are returned.
          cond: features [n, F]; None without a condition.
          around: what it was built for.

        Returns:
          the carry, and logits float32 [n, K]: those of `logits` at this place.
        """
        raise TypeError(f"{type(self).__name__} must define step")

    def loss(
        self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around, train: bool
    ) -> tuple[jax.Array, Mapping[str, jax.Array]]:
        # Keys are for dropout alone: -log p itself is exact, and draws nothing.
        return self._nats(params, keys if train else None, z, cond, around), {}

    def rate(self, params: Any, keys: jax.Array, z: jax.Array, cond: jax.Array | None, around: Around) -> jax.Array:
        del keys
        return self._nats(params, None, z, cond, around)

    def _nats(
        self, params: Any, keys: jax.Array | None, z: jax.Array, cond: jax.Array | None, around: Around
    ) -> jax.Array:
        """Returns -log p(z|c) in nats [B], the sum over places."""
        # 1. Logits [B, n, K]. Codes that a place does not have would take probability from the others.
        logits = draw.possible(self.logits(params, keys, z, cond, around), _sizes(around)[None])
        # 2. In log space: a rare code's probability underflows float32, its logarithm does not.
        log_p = jax.nn.log_softmax(logits, -1)
        return -jnp.sum(jnp.take_along_axis(log_p, z[..., None], -1)[..., 0], -1)

    def sample(
        self, params: Any, key: jax.Array, n: int, cond: jax.Array | None, around: Around, choices: Choices
    ) -> jax.Array:
        # Keys by sample, then by place: neither n nor the length of a prompt changes the noise of a place.
        keys, sizes = prng.example_keys(key, jnp.arange(n)), _sizes(around)
        prompt = choices.prompted(n)
        # Padded to [n, length], so that the scan can read it at a traced place.
        given = jnp.pad(prompt, ((0, 0), (0, around.length - prompt.shape[1])))
        # Both conditions side by side in one batch, where guidance needs the two.
        both = cond is not None and choices.guidance != 1.0
        features = jnp.concatenate([cond, without_condition(cond)]) if both and cond is not None else cond
        carry = self.start(params, 2 * n if both else n, features, around)

        step = partial(self.step, params, cond=features, around=around)
        one = partial(_drawn, _Draw(step, keys, sizes, given, prompt.shape[1], both, choices))
        # `step` ignores the code before place 0. The scan stacks places first, [length, n].
        first = (carry, jnp.zeros(n, jnp.int32))
        return jax.lax.scan(one, first, jnp.arange(around.length))[1].T


class _Draw(NamedTuple):
    """What all places of a batch of samples share; `given` [n, length] holds the prompt at places 0 .. `known` - 1."""

    step: Callable[..., tuple[Any, jax.Array]]
    keys: jax.Array
    sizes: jax.Array
    given: jax.Array
    known: int
    both: bool
    choices: Choices


def _drawn(d: _Draw, held: tuple[Any, jax.Array], place: jax.Array) -> tuple[tuple[Any, jax.Array], jax.Array]:
    """Returns what one place leaves to the next, and its codes [n]."""
    (carry, code), n = held, len(d.given)
    # The two halves have the same codes, and differ in the condition alone.
    carry, logits = d.step(carry, jnp.tile(code, 2) if d.both else code, place)
    logits = guided(logits[:n], logits[n:], d.choices.guidance) if d.both else logits
    logits = draw.possible(logits, jnp.broadcast_to(d.sizes[place], (n,)))
    # Drawn at places of the prompt as well: the body of the scan is one program for all places.
    drawn = draw.codes(prng.numbered_keys(d.keys, place), logits, d.choices)
    code = jnp.where(place < d.known, d.given[:, place], drawn)
    return (carry, code), code


def _sizes(around: Around) -> jax.Array:
    return jnp.asarray(around.sizes, jnp.int32)
