"""The program that encoder and decoder share: the probabilities of one code after another, as integers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError
from vae_jax.models.stage2 import draw
from vae_jax.models.stage2.base import Around
from vae_jax.models.stage2.sequential import Sequential

TOTAL = 1 << 24  # what the weights of a place sum to: the precision of the range coder
# Threads may divide a sum by how many they are.
_COMPILED: dict[str, bool | str] = {"xla_cpu_multi_thread_eigen": False}
DIGITS = 16  # of a SHA-256: 64 bits tell priors apart, and are short in small files


class FixedProgram:
    """`start` and `step` of a generator, compiled for the CPU and a batch of fixed length.

    Args:
      generator: whose codes are coded.
      params: of it; arguments of the program, not part of it.
      around: what it was built for, with float32 for its type.
      batch: images side by side.
      conditional: whether there are features.

    Attributes:
      sha256: of the text of the program, 16 digits: of whatever it computes with parameters of these shapes.
    """

    def __init__(self, generator: Sequential, params: Any, around: Around, batch: int, conditional: bool):
        self._sizes, self._batch = around.sizes, batch
        cond = np.zeros((batch, around.cond), np.float32) if conditional else None

        # Parameters are arguments: as constants of the program, the compiler could fold them into it.
        def start(params: Any, cond: Any) -> Any:
            return generator.start(params, batch, cond, around)

        def step(params: Any, carry: Any, code: Any, place: Any, cond: Any) -> tuple[Any, Any]:
            carry, logits = generator.step(params, carry, code, place, cond, around)
            # The softmax is part of the program, and of its checksum: outside, its exp could be another one.
            return carry, _probabilities(logits, place, around)

        # Compiled here and now: a program that were traced again later could differ.
        cpu = cpu_device()
        with jax.default_device(cpu):
            self._params = jax.device_put(params, cpu)
            begun = jax.jit(start).lower(self._params, cond)
            carry = jax.eval_shape(start, self._params, cond)
            code, place = np.zeros(batch, np.int32), np.int32(0)
            stepped = jax.jit(step).lower(self._params, carry, code, place, cond)
            self._start, self._step = (lowered.compile(compiler_options=_COMPILED) for lowered in (begun, stepped))
        # The program as traced, before the compiler, whose version the header has.
        text = f"{begun.as_text()}\n{stepped.as_text()}\n{_COMPILED}"
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

    def walk(self, rows: int, cond: np.ndarray | None, code_of: Callable[[int, np.ndarray], np.ndarray]) -> np.ndarray:
        """Returns int32 [rows, n]: at each place what `code_of` makes of the place and the weights of its codes.

        Args:
          rows: how many of the batch are meant; the others are padding.
          cond: features [batch, F]; None without a condition.
          code_of: from (place, weights [rows, size]) to codes [rows]; it is not called where there is one code only.
        """
        out = np.zeros((rows, len(self._sizes)), np.int32)
        # In the generator's order: a decoder has the codes of earlier places when it needs them.
        carry = self._start(self._params, cond)
        code = np.zeros(self._batch, np.int32)
        for place, size in enumerate(self._sizes):
            carry, p = self._step(self._params, carry, code, np.int32(place), cond)
            # The only code of a place takes no bits.
            if size > 1:
                out[:, place] = code_of(place, weights(np.asarray(p)[:rows, :size]))
            # Not in the same memory as before: the program may still read that.
            code = padded(out[:, place], self._batch)
        return out

    def walk_all(
        self, images: int, cond: np.ndarray | None, code_of: Callable[[slice, int, np.ndarray], np.ndarray]
    ) -> np.ndarray:
        """Returns the codes of any number of images, int32 [images, n]: one batch after another.

        Args:
          images: how many; the last batch is padded.
          cond: features [images, F]; None without a condition.
          code_of: as in `walk`, given which images the batch has before its other arguments.
        """
        out = []
        for start in range(0, images, self._batch):
            rows = slice(start, min(start + self._batch, images))
            features = None if cond is None else padded(cond[rows], self._batch)
            out.append(self.walk(rows.stop - start, features, partial(code_of, rows)))
        return np.concatenate(out)


def padded(x: np.ndarray, rows: int) -> np.ndarray:
    """Returns [N, ...] with zeros up to `rows`."""
    return np.pad(x, ((0, rows - len(x)), *((0, 0),) * (x.ndim - 1)))


def weights(p: np.ndarray) -> np.ndarray:
    """Returns probabilities [B, size] as integers that sum to `TOTAL`, in float64, which holds them exactly.

    Integer arithmetic, so that equal probabilities are equal weights on every machine. A weight may be 0: the coder
    adds 1 to each.

    Raises:
      InputError: a probability is NaN.
    """
    if not np.all(np.isfinite(p)):
        raise InputError("params: the generator gives probabilities that are NaN; use a checkpoint from before that")
    # A float32 times 2^24 is exact in float64, and so is what it is rounded down to.
    parts = np.floor(p.astype(np.float64) * TOTAL).astype(np.int64)
    # At most 2^48: no overflow. Each is rounded down, so that something is left over, for the most probable.
    parts = parts * TOTAL // np.sum(parts, -1, keepdims=True)
    parts[np.arange(len(parts)), np.argmax(parts, -1)] += TOTAL - np.sum(parts, -1)
    return parts.astype(np.float64)


def cpu_device() -> Any:
    """Returns the CPU, on which codes are compressed wherever the model was trained."""
    # A GPU may sum in another order each time, and so give other floats to the decoder.
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise InputError(
            "JAX_PLATFORMS: codes are compressed on the CPU, which it leaves out; add it, as in JAX_PLATFORMS=cuda,cpu"
        ) from None


def _probabilities(logits: jax.Array, place: Any, around: Around) -> jax.Array:
    """Returns the probabilities of the codes of a place, float32 [batch, K]."""
    # A place with fewer codes than others: no part of the probability for those it does not have.
    sizes = jnp.broadcast_to(jnp.asarray(around.sizes, jnp.int32)[place], (len(logits),))
    return jax.nn.softmax(draw.possible(logits, sizes).astype(jnp.float32), -1)
