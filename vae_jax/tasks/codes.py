"""Examples to codes and back, in memory or through files.

The code of an example is the vector of its latents, all levels side by side: `Codes.mean` is [N, n] whatever the shape
of the latents. In a file, a model of one level has `mean` [N, n]; one of several levels has an array for each,
`mean/NAME` [N, *shape], in place of it. `decode` takes all of these forms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from vae_jax import spaces
from vae_jax.errors import InputError, command, option, shown
from vae_jax.evaluation.codes import Codes, Pixels, decode_all, encode_all
from vae_jax.files import bounded
from vae_jax.options.typed import conform
from vae_jax.runs.inputs import file_names, user_batches
from vae_jax.runs.run import Run
from vae_jax.spec import users
from vae_jax.tasks import code_table, given
from vae_jax.tasks.conditions import requested, stored
from vae_jax.tasks.pictures import Pictures
from vae_jax.train import TrainState

# Arrays of a file of codes that have one row of latents for each example.
_LATENTS = ("mean", "log_var", "z")


def encode(
    run: Run | Path | str,
    x: Any,
    *,
    split: str | None = None,
    draw: bool = False,
    seed: int = 0,
    batch_size: int = 500,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Codes:
    """Encodes examples with a run.

    Args:
      run: a run, or the path of its folder.
      x: images [N, H, W] or [N, H, W, C] (uint8 0..255, or floats in [0, 1]); a dict of arrays (`images`, `labels`,
        ...) for a conditional model; the path of an image, an .npy, an .npz or a folder of images; a list of images'
        paths; or the name of a data set.
      split: of a data set, or of what holds splits; None for that of the run, or the only one.
      draw: also draws one z ~ q(z|x) per example.
      seed: of these draws.
      batch_size: examples at a time; no number depends on it.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.
      report: called with (examples done, examples in all).

    Returns:
      `mean` and `log_var` float32 [N, n] (None for a deterministic model; indices are int32), `z` [N, n] if drawn,
      `index` int32 [N], in `extra` what else the examples came with (`label`, `factors`), `cond` [N, F] of a
      conditional model, `paths` of images, and `label_names` of labels.

    Raises:
      InputError: examples that cannot be read, or that this model cannot take; an argument out of range.
    """
    run, seed, batch_size = given.opened(run), given.seed(seed), given.at_least("batch_size", batch_size)
    draw = conform(draw, bool, "draw", False)
    batches, source = user_batches(run, x, given.shown_split(run, split), batch_size, asked=split is not None)
    state = given.restored(run, step, state)
    key = jax.random.key(seed) if draw else None
    codes = encode_all(run.model, state, batches, key=key, report=lambda done: report(done, source.size))
    names = tuple(source.info.label_names) if "label" in codes.extra else ()
    return codes._replace(paths=file_names(source), label_names=names)


def decode(
    run: Run | Path | str,
    z: Any,
    *,
    array: str | None = None,
    pixels: Pixels = "mean",
    label: int | None = None,
    cond: Sequence[float] = (),
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> np.ndarray:
    """Decodes codes with a run.

    Args:
      run: a run, or the path of its folder.
      z: what `encode` returned (its means are decoded); vectors [N, n] or latents [N, *shape]; a dict or tuple of
        these for a model of several levels; or the path of an .npz, .npy or .csv with any of them.
      array: of the .npz, the array to decode; None for `mean`, else `z`, else the only one.
      pixels: what is returned of p(x|z): "mean" is E[x|z], "mode" the most probable x, "sample" a draw.
      label: the class to decode as, of a conditional model; None takes the condition that came with the codes.
      cond: values of the factors, or the vector, that the model is conditioned on.
      seed: of the draws.
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      float32 [N, *x.shape], in the units of the training data: images in [0, 1] are [N, H, W, C]. Rows of a table are
      encoded, as the model has them; `run.table(x)` brings them into its units and words.

    Raises:
      InputError: codes of another shape, NaN or Inf, indices that are not whole or not of the codebook, a file that
        cannot be read, or a missing condition.
    """
    options: dict[str, Any] = {"array": array, "pixels": pixels, "label": label, "cond": cond}
    return decoded(run, z, **options, seed=seed, step=step, state=state).images


def decoded(
    run: Run | Path | str,
    z: Any,
    *,
    array: str | None = None,
    pixels: Pixels = "mean",
    label: int | None = None,
    cond: Sequence[float] = (),
    seed: int = 0,
    step: int | Literal["best"] | None = None,
    state: TrainState | None = None,
) -> Pictures:
    """Returns what `decode` does, with the picture that shows it.

    Args:
      run: a run, or the path of its folder.
      z: codes: an array, or a file that `encode` wrote or numpy saved.
      array: name of the array in a file that holds several; None finds it.
      pixels: "mean" is E[x|z], "mode" the most probable x, "sample" a draw from p(x|z).
      label: class that all codes are decoded with; None for that of the file, if any.
      cond: values that all codes are decoded with; () for those of the file, if any.
      seed: of the draws of "sample".
      step: of the checkpoint; None for the newest.
      state: looks at this state instead of a checkpoint.

    Returns:
      float32 [N, *x.shape], in the units of the training data, and the title of their figure.

    Raises:
      InputError: no such file or array, codes of another length, or a condition that the model does not take.
    """
    run, seed, pixels = given.opened(run), given.seed(seed), conform(pixels, Pixels, "pixels", "mean")
    codes, kept, what = read(run, z, array)
    state = given.restored(run, step, state)
    features = requested(run, state, len(codes), label, cond)
    if features is None:
        features = stored(run, state, kept, len(codes), what)
    images = decode_all(run.model, state, codes, cond=features, pixels=pixels, key=jax.random.key(seed))
    source = f" of {Path(z).name}" if isinstance(z, str | Path) else ""
    title = f"{given.title(run, state)}: {len(codes):,} codes{source}, decoded"
    return Pictures(users(images, run.spec.units), title, run.spec.units)


def arrays(run: Run, codes: Codes) -> dict[str, Any]:
    """Returns codes as the arrays of a file, by name; what there is none of is None."""
    levels = names(run)
    held: dict[str, Any] = {name: getattr(codes, name) for name in _LATENTS}
    if levels:
        parts = {f"{name}/{level}": part for name, value in held.items() if value is not None
                 for level, part in zip(levels, _divided(run, value), strict=True)}  # fmt: skip
        held = parts
    labels = {"labels" if key == "label" else key: value for key, value in codes.extra.items()}
    texts = {name: np.array(value) if value else None
             for name, value in (("label_names", codes.label_names), ("paths", codes.paths))}  # fmt: skip
    return {**held, "index": codes.index, **labels, **texts, "cond": codes.cond}


def names(run: Run) -> list[str]:
    """Returns the name of each level of a model of several, its key or number; [] for a model of one."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(run.model.about.latents)]
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path in paths] if len(paths) > 1 else []


def _divided(run: Run, v: np.ndarray) -> list[np.ndarray]:
    """Returns vectors [N, n] as one array [N, *shape] for each level."""
    levels, parts = spaces.leaves(run.model.about.latents), []
    for space, end in zip(levels, np.cumsum([space.size for space in levels]), strict=True):
        parts.append(v[:, end - space.size : end].reshape(len(v), *space.shape))
    return parts


def read(run: Run, z: Any, array: str | None = None) -> tuple[np.ndarray, Any, str]:
    """Returns (codes, the condition that came with them or None, what they were given as).

    Codes are float32 [N, n], or int32 where they are indices.

    Raises:
      InputError: the file cannot be read, or its codes are of another shape, or hold NaN, Inf or no index.
    """
    word = option("z", flag="input")
    if isinstance(z, Codes):
        return _vectors(run, z.mean, f"{word}: mean"), z.cond, word
    if isinstance(z, str | Path):
        path, held = Path(z), open_arrays(Path(z))
        word = f"{word} {path}"
        levels = names(run)
        _check_levels(levels, held, word, array)
        grouped = {name: {level: held[f"{name}/{level}"] for level in levels} for name in _LATENTS
                   if levels and all(f"{name}/{level}" in held for level in levels)}  # fmt: skip
        known = held | grouped
        chosen = _which(path, word, array, known)
        return _vectors(run, known[chosen], f"{word}: {chosen}"), held.get("cond"), word
    if array is not None:
        raise InputError(f"{option('array', array)}: is not used, for z is no file; leave it out")
    return _vectors(run, z, word), None, word


def _check_levels(levels: list[str], held: Mapping[str, Any], word: str, array: str | None) -> None:
    """Raises InputError if the arrays of a file are not exactly the levels of a model of several.

    Only the arrays that are decoded are checked: `array`, else `mean`, else `z`.
    """
    given_as = {name: [key for key in held if key.startswith(f"{name}/")] for name in _LATENTS}
    name = array if array is not None else next((n for n in ("mean", "z") if n in held or given_as[n]), "")
    parts = given_as.get(name, [])
    if not levels or not parts:
        return
    if name in held:
        raise InputError(f"{word}: holds both {name} and {parts[0]}; remove one of them")
    for part in parts:
        if part.removeprefix(f"{name}/") not in levels:
            raise InputError(
                f"{word}: {shown(part)} is not a level of the model, whose levels are {', '.join(levels)}; remove it"
            )
    missing = next((level for level in levels if f"{name}/{level}" not in parts), None)
    if missing is not None:
        raise InputError(f"{word}: {name}/{missing} is missing; write the codes again with {command('encode')}")


def _vectors(run: Run, z: Any, what: str) -> np.ndarray:
    """Returns latents of any form as vectors [N, n]: float32, or int32 where every level holds indices."""
    latents, levels = run.model.about.latents, spaces.leaves(run.model.about.latents)
    if isinstance(z, Mapping | tuple | list) and len(levels) > 1:
        order = names(run)
        parts = dict(z) if isinstance(z, Mapping) else dict(zip(order, z))
        if {str(key) for key in parts} != set(order) or len(parts) != len(z):
            raise InputError(f"{what}: its levels are {', '.join(map(str, parts))}, the model's {', '.join(order)}")
        by_name = {str(key): part for key, part in parts.items()}
        found = [_level(by_name[name], space, f"{what}/{name}") for name, space in zip(order, levels, strict=True)]
        if len({len(part) for part in found}) > 1:
            raise InputError(f"{what}: its levels have {', '.join(str(len(p)) for p in found)} rows; make them equal")
        return np.concatenate(found, 1)
    if len(levels) == 1:
        return _level(z, levels[0], what)
    whole = all(isinstance(space, spaces.Codes) for space in levels)
    flat = _level(z, spaces.Real((spaces.size(latents),)), what)
    flat = np.asarray(z).reshape(flat.shape) if whole else flat
    # The levels side by side: what a level may hold is known of its own columns alone.
    ends = np.cumsum([space.size for space in levels])
    for space, end in zip(levels, ends, strict=True):
        _check_indices(flat[:, end - space.size : end], space, what)
    return flat.astype(np.int32) if whole else flat


def _level(z: Any, space: spaces.Space, what: str) -> np.ndarray:
    """Returns the latents of one level, [N, *shape] or [N, n], as vectors [N, n]: float32, or int32 indices."""
    z = np.asarray(z)
    forms = f"[N, {space.size}]" + ("" if len(space.shape) == 1 else f" or [N, {', '.join(map(str, space.shape))}]")
    if z.dtype.kind not in "biuf" or z.ndim < 2 or not len(z):
        raise InputError(f"{what}: is {z.dtype} {z.shape}; codes are numbers {forms}, N >= 1")
    if z.shape[1:] not in ((space.size,), space.shape):
        size = f"of width {z.shape[1]}" if z.ndim == 2 else f"of shape {z.shape[1:]}"
        raise InputError(f"{what}: has codes {size}, but those of the model are {forms}; encode with the same run")
    indices = isinstance(space, spaces.Codes)
    # As they were given: float32 would round an index of more than 2^24 codes before it is judged.
    flat = z.reshape(len(z), space.size).astype(np.float64 if indices else np.float32)
    bad = ~np.isfinite(flat).all(1)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise InputError(f"{what}: {int(bad.sum())} codes hold NaN or Inf, first row {first}; remove them")
    _check_indices(flat, space, what)
    return flat.astype(np.int32) if indices else flat


def _check_indices(flat: np.ndarray, space: spaces.Space, what: str) -> None:
    """Raises InputError for vectors [N, n] with a number that is no index into the codebook of their space.

    A lookup would truncate a fraction and clamp what lies beyond the codebook, both in silence.
    """
    if not isinstance(space, spaces.Codes):
        return
    # Codebooks side by side may differ in size.
    sizes = np.asarray(space.limits)
    bad = (flat != np.floor(flat)) | (flat < 0) | (flat >= sizes)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InputError(
            f"{what}: {flat[row, column]:g} in row {row} is not an index into the codebook; use whole numbers from 0 "
            f"to {sizes[column] - 1}, as {command('encode')} writes them"
        )


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz, the one of an .npy as `codes`, or those of a .csv as `mean` and `cond`.

    Raises:
      InputError: the file is missing, or cannot be read.
    """
    word = option("z", flag="input")
    if not path.is_file():
        raise InputError(f"{word} {path}: no such file; codes are written by {command('encode')}")
    if path.suffix.lower() == ".csv":
        return code_table.read(path, word)
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{word} {path}: neither .npz nor .npy nor .csv; codes are written by {command('encode')}")
    return {name or "codes": value for name, value in bounded.arrays(path, option=word).items()}


def _which(path: Path, word: str, array: str | None, held: Mapping[str, Any]) -> str:
    if array is not None:
        if array not in held:
            raise InputError(f"{option('array', array)}: {path} has no such array; it has {', '.join(held) or 'none'}")
        return array
    found = [name for name in ("mean", "z") if name in held] or (list(held) if len(held) == 1 else [])
    if not found:
        raise InputError(
            f"{word}: no array `mean` or `z` (it has {', '.join(held) or 'none'}); name one with {option('array')}"
        )
    return found[0]
