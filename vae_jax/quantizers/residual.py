"""Residual quantization: each codebook quantizes what those before it left over."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import partial, reduce
from operator import add
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp

from vae_jax import prng
from vae_jax.errors import InputError
from vae_jax.model import Context
from vae_jax.options.ranges import AtLeast, Between
from vae_jax.quantizers.base import Quantized, needed, square, trains
from vae_jax.quantizers.estimators import estimate
from vae_jax.quantizers.vq import VQ

T = TypeVar("T", bound=VQ)


@dataclass(frozen=True)
class ResidualVQ(VQ):
    """Residual VQ: q = sum_l q_l, q_l the entry nearest to r_l = z - sg(q_1 + ... + q_{l-1}) (arXiv:2107.03312).

    The commitment of every level reaches the encoder: r_l carries the gradient of z. The gradient through q is that of
    one quantizer, however many levels there are.
    """

    depth: Annotated[int, AtLeast(1)] = 4
    """Number of levels, L."""
    dropout: Annotated[float, Between(0, 1)] = 0.0
    """Share of training batches that use a random number of levels, 1 to L, so that fewer indices decode too."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return super().sizes * self.depth

    @property
    def level(self) -> VQ:
        """The quantizer of one level."""
        return _narrowed(self, VQ)

    def check(self, features: int) -> None:
        super().check(features)
        if self.inner:
            raise InputError(
                f"{type(self).__name__}: its levels add up in the space of the vectors, which no level can leave; use "
                "inner=0"
            )

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        return self._levels(lambda one: self.level.init(one, features), key)

    def init_state(self, key: jax.Array, features: int) -> dict[str, Any]:
        return self._levels(lambda one: self.level.init_state(one, features), key)

    def _levels(self, make: Any, key: jax.Array) -> dict[str, Any]:
        made = {str(i): make(prng.site_key(key, f"level_{i}")) for i in range(self.depth)}
        return {name: value for name, value in made.items() if value}

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        # Fewer indices than levels decode to what these levels make of a vector.
        parts = [
            self.level.embed(params.get(str(i), {}), state.get(str(i), {}), indices[..., i : i + 1])
            for i in range(indices.shape[-1])
        ]
        return reduce(add, parts)

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        z, used = z.astype(jnp.float32), self._used(key, ctx)
        # q_1 + ... + q_l so far, of the shape of z, without a gradient.
        total, new_state, levels = jnp.zeros_like(z), {}, []
        # A loop in Python: levels are few, and each has a codebook of its own.
        for i in range(self.depth):
            name, old = str(i), state.get(str(i), {})
            mine, site = params.get(name, {}), None if key is None else prng.site_key(key, f"level_{i}")
            # The entries so far are held constant, and z is not: this level's terms reach the encoder.
            one = self.level.quantize(mine, old, z - total, key=site, ctx=ctx)
            # A level that this batch does without adds nothing, costs nothing and learns nothing.
            entry, cost, terms = jax.tree.map(partial(_if, i < used), (one.z, one.cost, one.terms))
            total = total + jax.lax.stop_gradient(entry)
            if old:
                new_state[name] = jax.tree.map(partial(jnp.where, i < used), one.state, old)
            levels.append((cost, terms, one.indices[..., 0], square(jax.lax.stop_gradient(z) - total)))
        costs, terms, indices, errors = zip(*levels, strict=True)
        # Costs of the levels add up; indices and errors stay apart, [..., L].
        cost, terms = reduce(add, costs), jax.tree.map(lambda *parts: reduce(add, parts), *terms)
        # One estimate for the sum: one per level would give L times the gradient.
        out = estimate(self.estimator, z, total)
        return Quantized(out, jnp.stack(indices, -1), cost, terms, jnp.stack(errors, -1), new_state)

    def _used(self, key: jax.Array | None, ctx: Context | None) -> Any:
        """Returns how many levels this batch uses, the same on all devices."""
        if not (self.dropout and trains(ctx)):
            return self.depth
        # Of the step's key alone, so that all devices and examples use the same levels: the rest could be left out.
        drops, count = jax.random.split(prng.site_key(needed(key, "quantizer dropout"), "dropout"))
        some = jax.random.randint(count, (), 1, self.depth + 1)
        return jnp.where(jax.random.bernoulli(drops, self.dropout), some, self.depth)


def _narrowed(config: VQ, cls: type[T]) -> T:
    """Returns a config of a base class, with the values that it has of the options of `config`."""
    # By the fields of the base: an option that is added to VQ reaches the levels without a line here.
    return cls(**{f.name: getattr(config, f.name) for f in fields(cls)})


def _if(used: Any, x: jax.Array) -> jax.Array:
    """Returns x where a level is used, else 0."""
    return jnp.where(used, x, 0.0)


@dataclass(frozen=True)
class GroupedVQ(ResidualVQ):
    """Grouped quantization: the coordinates in G groups side by side, each with codebooks of its own.

    With one level this is product quantization (Jegou et al. 2011); with several, the grouped RVQ of HiFi-Codec
    (arXiv:2305.02765).
    """

    depth: Annotated[int, AtLeast(1)] = 1
    """Number of levels of each group, L."""
    groups: Annotated[int, AtLeast(1)] = 2
    """Number of groups, G, which divides the length of the vectors."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return super().sizes * self.groups

    @property
    def group(self) -> ResidualVQ:
        """The quantizer of one group."""
        return _narrowed(self, ResidualVQ)

    def check(self, features: int) -> None:
        super().check(features)
        if features % self.groups:
            fits = max(n for n in range(1, self.groups + 1) if features % n == 0)
            raise InputError(
                f"GroupedVQ: {self.groups} groups do not divide vectors of length {features}; use groups={fits}"
            )

    # Parameters and states of the groups have a leading axis [G]: one program for all of them.

    def init(self, key: jax.Array, features: int) -> dict[str, Any]:
        return jax.vmap(lambda one: self.group.init(one, features // self.groups))(self._keys(key))

    def init_state(self, key: jax.Array, features: int) -> dict[str, Any]:
        return jax.vmap(lambda one: self.group.init_state(one, features // self.groups))(self._keys(key))

    # Keys by the number of the group: more groups leave the first ones as they were.
    def _keys(self, key: jax.Array) -> jax.Array:
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.groups))

    def embed(self, params: Any, state: Any, indices: jax.Array) -> jax.Array:
        # [..., G * L], the levels of one group after another, to [G, ..., L].
        split = jnp.moveaxis(indices.reshape(*indices.shape[:-1], self.groups, -1), -2, 0)
        return self._joined(jax.vmap(self.group.embed)(params, state, split))

    def quantize(
        self, params: Any, state: Any, z: jax.Array, *, key: jax.Array | None = None, ctx: Context | None = None
    ) -> Quantized:
        # [..., D] to [G, ..., D / G].
        split = jnp.moveaxis(z.reshape(*z.shape[:-1], self.groups, -1), -2, 0)
        keys = None if key is None else self._keys(key)

        def one(params: Any, state: Any, z: jax.Array, key: jax.Array | None) -> Quantized:
            return self.group.quantize(params, state, z, key=key, ctx=ctx)

        each = jax.vmap(one, (0, 0, 0, None if keys is None else 0))(params, state, split, keys)
        cost, terms = jax.tree.map(lambda x: jnp.sum(x, 0), (each.cost, each.terms))
        # The errors of a group are those of its own coordinates: they add up to that of the vector over the groups.
        return Quantized(
            self._joined(each.z),
            self._joined(each.indices),
            cost,
            terms,
            self._joined(each.error),
            each.state,
        )

    def _joined(self, x: jax.Array) -> jax.Array:
        """Returns what groups [G, ..., n] make side by side, [..., G * n]."""
        moved = jnp.moveaxis(x, 0, -2)
        return moved.reshape(*moved.shape[:-2], math.prod(moved.shape[-2:]))
