"""What a model is built for: the shape and the kind of each entry of a batch."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.errors import InputError, option
from vae_jax.files.columns import Column

Kind = Literal["image", "vector", "sequence", "tokens"]
# How many axes one example of each kind has: [H, W, C], [D], [T, C], [T].
AXES: dict[str, int] = {"image": 3, "vector": 1, "sequence": 2, "tokens": 1}


class Units(NamedTuple):
    """What the user's numbers are to the model's: user = offset + scale * x, for each channel (the last axis) or all.

    A density of the model is one of x: that of the user's numbers is `log_jacobian` nats lower for each of them.

    Attributes:
      offset: the user's number where x is 0: one for all channels, or one for each.
      scale: how many of the user's units x = 1 is away from that; positive.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def between(cls, low: float, high: float) -> Units:
        """Returns the units of numbers from `low` to `high`, which are 0 to 1 to the model."""
        return cls((float(low),), (float(high) - float(low),))

    @property
    def range(self) -> tuple[float, float]:
        """The user's numbers at x = 0 and x = 1; of several channels, those of the first."""
        # 0.1 + 0.2 is 0.3, as it was typed.
        return self.offset[0], float(f"{self.offset[0] + self.scale[0]:.15g}")

    @property
    def log_jacobian(self) -> float:
        """log |d user / d x| of one number in nats, the mean over channels."""
        return float(np.mean(np.log(self.scale)))

    def within(self, values: np.ndarray) -> np.ndarray:
        """Returns the user's numbers [..., C] as the model sees them, float32."""
        return ((np.asarray(values, np.float64) - self.offset) / self.scale).astype(np.float32)

    def out(self, x: np.ndarray) -> np.ndarray:
        """Returns what a model made, [..., C], as the user's numbers, float32."""
        return (np.asarray(x, np.float64) * self.scale + self.offset).astype(np.float32)


def users(x: np.ndarray, units: Units | None) -> np.ndarray:
    """Returns the model's numbers as the user's; the same array where the two are one."""
    return x if units is None else units.out(x)


def models(values: np.ndarray, units: Units | None) -> np.ndarray:
    """Returns the user's numbers as the model's; the same array where the two are one."""
    return values if units is None else units.within(values)


class ArraySpec(NamedTuple):
    """One entry of a batch, as a model sees it.

    Attributes:
      shape: of one example, without the batch axis: [H, W, C] of an image, [D] of a vector, [T, C] of a sequence, [T]
        of tokens.
      kind: "image", "vector", "sequence" or "tokens".
      dtype: "float32", or "int32" for tokens.
    """

    shape: tuple[int, ...]
    kind: Kind = "image"
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """Numbers in one example."""
        return math.prod(self.shape)

    @property
    def examples(self) -> str:
        """What examples of this kind are called: "images", "vectors" or "sequences"."""
        return {"image": "images", "vector": "vectors"}.get(self.kind, "sequences")


class DataSpec(NamedTuple):
    """The data that a model is built for. Kept in the run's `config.json`.

    Attributes:
      x: the data themselves, `batch["x"]`.
      mask: whether batches have a `mask` of the shape of x, True where x is observed.
      examples: size of the training split (N of the total-correlation estimators); 0 is unknown.
      classes: number of labels, `batch["label"]`; 0 without labels.
      factors: number of values of each generative factor, `batch["factors"]`; () without factors.
      cond: length of each example's condition vector, `batch["cond"]`; 0 without one.
      label_names: one name per label, by which the classes of other folders are matched; () where they have none.
      units: what the numbers of x were in the user's data; None where they were the same.
      columns: of a table, by which `x` is encoded (`files.columns`), with the means and standard deviations of
        training; () of other data.
    """

    x: ArraySpec
    mask: bool = False
    examples: int = 0
    classes: int = 0
    factors: tuple[int, ...] = ()
    cond: int = 0
    label_names: tuple[str, ...] = ()
    units: Units | None = None
    columns: tuple[Column, ...] = ()

    def refuse_mask(self, what: str = "this model", fix: str = "") -> None:
        """Raises InputError for data with a mask: called by models that would score what is not observed.

        Args:
          what: takes no missing values, for the message: the model, or a component of it.
          fix: what to choose instead; "" for another model.
        """
        if self.mask:
            fix = fix or f"choose {option('model', 'vae')}"
            raise InputError(
                f"data: they have missing values (NaN, or an array mask), which {what} does not take; {fix}, or keep "
                "the examples of which everything is observed"
            )

    def blank(self) -> dict[str, jax.Array]:
        """Returns a batch of one example of zeros, with every entry that a model built for these data may read."""
        batch: dict[str, Any] = {"x": jnp.zeros((1, *self.x.shape), self.x.dtype)}
        if self.mask:
            batch["mask"] = jnp.ones((1, *self.x.shape), bool)
        if self.classes:
            batch["label"] = jnp.zeros((1,), jnp.int32)
        if self.factors:
            batch["factors"] = jnp.zeros((1, len(self.factors)), jnp.int32)
        if self.cond:
            batch["cond"] = jnp.zeros((1, self.cond))
        return batch


def images(*shape: int, **facts: Any) -> DataSpec:
    """Returns the spec of images [H, W, C]; `facts` are further fields: `images(28, 28, 1, classes=10)`."""
    return DataSpec(ArraySpec(shape), **facts)


def vectors(size: int, **facts: Any) -> DataSpec:
    """Returns the spec of vectors [D]; `facts` are further fields."""
    return DataSpec(ArraySpec((size,), "vector"), **facts)
