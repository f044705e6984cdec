"""Examples as few bits: the codes of the first stage, entropy-coded with the prior of the second one, and back."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from vae_jax.errors import InputError, option
from vae_jax.evaluation.codes import Pixels, decode_all, encode_all
from vae_jax.options.typed import conform
from vae_jax.runs.inputs import user_batches
from vae_jax.runs.run import Run
from vae_jax.spaces import Coder
from vae_jax.spec import users
from vae_jax.tasks import first_stage, given
from vae_jax.tasks.pictures import Pictures
from vae_jax.train import TrainState


class Compressed(NamedTuple):
    """Examples in compressed form.

    Attributes:
      data: content of a .vjc file: their codes, without loss.
      codes: int32 [N, n].
      bits: -log2 p(z) of each example under the prior, float64 [N]: what no coder can beat on average.
      mse: squared error of each example's reconstruction from its codes, float64 [N].
      others: bytes of the same images in other formats, all together, by name; empty unless they are gray or RGB.
      step: of the checkpoint whose weights decompression needs.
    """

    data: bytes
    codes: np.ndarray
    bits: np.ndarray
    mse: np.ndarray
    others: dict[str, int]
    step: int


class Decompressed(NamedTuple):
    """What a .vjc file holds.

    Attributes:
      codes: int32 [N, n], bit for bit those that were compressed.
      pictures: decoded examples.
    """

    codes: np.ndarray
    pictures: Pictures


def compress(
    run: Run | Path | str,
    x: Any,
    *,
    split: str | None = None,
    batch_size: int = 500,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Compressed:
    """Compresses examples with a second stage: their codes take about -log2 p(z) bits.

    The codes come back bit for bit; an example comes back as the first stage reconstructs it.

    Args:
      run: a second stage whose generator draws one code after another, or the path of its folder.
      x: examples, as `encode` takes them.
      split: of a data set, or of what holds splits; None for that of the run, or the only one.
      batch_size: examples encoded at a time.
      step: of the checkpoint; None for the newest. Decompression needs the same.
      state: looks at this state instead of a checkpoint.
      report: called with (examples done, examples in all).

    Returns:
      the content of a .vjc file, and what it is to be compared with.

    Raises:
      InputError: a run that cannot compress, or examples that it cannot take.
    """
    run, batch_size = given.opened(run), given.at_least("batch_size", batch_size)
    state = given.restored(run, step, state)
    coder = coder_of(run, state)
    batches, source = user_batches(run, x, given.shown_split(run, split), batch_size, asked=split is not None)
    seen = _Seen(run)
    found = encode_all(run.model, state, seen.passed(batches), report=lambda done: report(done, source.size))
    codes, condition = found.mean, run.model.condition
    # Without a condition where p(z) was learned beside p(z|c): the file need not hold one.
    cond = found.cond if condition is not None and condition.is_required else None
    data, bits = coder.compress(codes, cond), coder.bits(codes, cond)
    made = decode_all(run.model, state, codes)
    return Compressed(data, codes, bits, seen.mse(made), seen.sizes, int(state.step))


def decompress(
    run: Run | Path | str,
    data: bytes | Path | str,
    *,
    pixels: Pixels = "mean",
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Decompressed:
    """Returns the codes of a .vjc file, bit for bit, and the examples that they decode to.

    Args:
      run: that compressed them, or a copy of it.
      data: content of the file, or its path.
      pixels: what is returned of p(x|z): "mean" is E[x|z], "mode" the most probable x.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      codes and decoded examples.

    Raises:
      InputError: no such file, one that is damaged or of another run or checkpoint.
    """
    run, pixels = given.opened(run), conform(pixels, Pixels, "pixels", "mean")
    where = "data"
    if not isinstance(data, bytes):
        path = Path(data)
        where = str(path)
        if not path.is_file():
            raise InputError(f"{where}: no such file; name one that `vae-jax compress` wrote")
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"{where}: cannot be read ({error.strerror}); name another file") from error
    state = given.restored(run, step, state)
    codes = coder_of(run, state).decompress(data, where)
    images = users(decode_all(run.model, state, codes, pixels=pixels), run.spec.units)
    title = f"{given.title(run, state)}: {len(codes):,} examples of {Path(where).name}, decompressed"
    return Decompressed(codes, Pictures(images, title, run.spec.units))


def coder_of(run: Run, state: TrainState) -> Coder:
    """Returns the entropy coder of a run.

    Raises:
      InputError: its model has no prior that codes can be coded with.
    """
    prior = run.model.prior
    if prior is None or prior.coder is None:
        made = first_stage.advice(run, "transformer")
        if first_stage.is_second(run.config):
            made = f"train a second stage with {option('model.generator', 'transformer')}"
        raise InputError(f"{run.path}: does not have a prior that draws one code after another; {made}")
    return prior.coder(state.eval_params, state.model_state)


class _Seen:
    """The examples of batches that pass by: their sizes in other formats, and what their codes lose."""

    def __init__(self, run: Run) -> None:
        spec = run.spec.x
        self._is_picture = spec.kind == "image" and spec.shape[-1] in (1, 3) and run.spec.units is None
        self._x: list[np.ndarray] = []
        self._seen: list[np.ndarray] = []
        self.sizes: dict[str, int] = {}

    def passed(self, batches: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Yields the batches, and looks at each."""
        for batch in batches:
            x = np.asarray(batch["x"])
            self._x.append(x)
            self._seen.append(np.asarray(batch["mask"]) if "mask" in batch else np.ones(x.shape, bool))
            for image in np.rint(x * 255).astype(np.uint8) if self._is_picture else ():
                for name, size in _sizes(image):
                    self.sizes[name] = self.sizes.get(name, 0) + size
            yield batch

    def mse(self, made: np.ndarray) -> np.ndarray:
        """Returns the squared error of each example, the mean over what is observed of it, float64 [N]."""
        seen = np.concatenate(self._seen).reshape(len(made), -1)
        error = np.square(np.concatenate(self._x).astype(np.float64) - made).reshape(len(made), -1)
        return (error * seen).sum(-1) / np.maximum(seen.sum(-1), 1)


def _sizes(image: np.ndarray) -> Iterator[tuple[str, int]]:
    """Yields (name, bytes) of one image uint8 [H, W, C] in formats without loss."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    for name, options in (("PNG", {"optimize": True}), ("WebP", {"lossless": True, "quality": 100, "method": 6})):
        held = io.BytesIO()
        picture.save(held, name, **options)
        yield name, held.tell()
