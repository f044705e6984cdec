"""Values of the user's arrays: what is read, and for everything else the expression that saves it in a form that is.

An array does not say what its numbers mean, and a wrong guess trains on something else without a word. So whatever can
be read in two ways is refused, and the message holds a line of numpy that makes it say which. All splits of a file are
judged together: a formula that differs between them would make them different data.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.data import missing
from vae_jax.errors import InputError, options

Named = Mapping[str, np.ndarray]
UNKNOWN = -1  # label of an example whose class is not known
_USUAL_CHANNELS = 4  # up to as many, the last axis of five or the second of four is doubted to be what it should be
# Below half of 255 no pixel of a whole data set is bright: rather the numbers count another scale (4 bits, percent).
DARK = 128
# Images for a trained model may be few and dark, so there only the scales of 5 bits and fewer are doubted.
DARK_INPUT = 32
_TWICE = (1 / 255) * (1 + 1e-6)  # where gray levels divided by 255 twice end
_SMALL = 100  # as many classes cost nothing, whether they occur or not
MOST_COND = 1e4  # inputs beyond this give the first layer's output squared no room in float32


class Numbers(NamedTuple):
    """Images as the user has them, of a shape and type that can be read.

    Attributes:
      images: [N, H, W, C] by name, 0 where they are missing.
      seen: what is observed of them, bool, by the same names; {} where nothing is missing.
      known: the observed numbers by name, by which their range is judged.
    """

    images: dict[str, np.ndarray]
    seen: dict[str, np.ndarray]
    known: dict[str, np.ndarray]


def images(given: Named, masks: Named, path: Path | str, strict: bool = True) -> Numbers:
    """Returns images [N, H, W, C] whose shapes and types can be read; their range is judged by `ranges.units`.

    Args:
      given: arrays by name; several are the splits of one file. NaN is a missing value.
      masks: what is observed of them, by names that end in `mask` where those of the images end in `images`; {} where
        NaN alone says it.
      path: of the file, for messages.
      strict: whether they are a data set to train on; else images for a trained model, of which a few may be dark.

    Returns:
      the numbers as the user has them, what is observed, and what is judged.

    Raises:
      InputError: shape or type that can be read in more than one way, or not at all; infinite values.
    """
    shaped = {name: pictures(value, path, name, strict) for name, value in given.items()}
    observed = {}
    for name, value in shaped.items():
        own = f"{name.removesuffix('images')}mask"
        observed[name] = missing.seen(value, path, name, masks[own] if masks else None, own)
    floats = [name for name, value in shaped.items() if value.dtype.kind == "f"]
    if floats and len(floats) < len(shaped):
        whole = [name for name in shaped if name not in floats]
        fix = ", ".join(f"{n}.astype('float32')" if shaped[n].dtype == bool else f"{n} / 255" for n in whole)
        raise InputError(
            f"{path}: {' and '.join(floats)} holds floats, {' and '.join(whole)} gray levels; save floats: {fix}"
        )
    # All splits together: where one has a mask, each has one. One that is True everywhere says nothing, and is dropped.
    known = shaped
    if not all(part.all() for part in observed.values()):
        # Judged by what is observed, whatever the other places hold.
        known = {name: value[observed[name]] for name, value in shaped.items() if observed[name].any()}
        if not known:
            raise missing.empty(" and ".join(given), path)
        shaped = {name: np.where(observed[name], value, value.dtype.type(0)) for name, value in shaped.items()}
    else:
        observed = {}
    return Numbers(shaped, observed, known)


def stored(value: np.ndarray) -> np.ndarray:
    """Returns images that the model takes as they are, as they are kept: uint8, or float32."""
    if value.dtype == np.bool_:
        return value.astype(np.uint8) * np.uint8(255)
    # Native byte order, C order and memory of one's own, whatever the file had.
    return np.ascontiguousarray(value, np.float32 if value.dtype.kind == "f" else np.uint8)


def pictures(value: np.ndarray, path: Path | str, name: str, strict: bool) -> np.ndarray:
    """Returns numbers [N, H, W, C]; without channel axis they are read only where they can hardly be anything else.

    Args:
      value: the array.
      path: of the file, for messages.
      name: of the array.
      strict: as in `images`.

    Returns:
      a view of four axes.

    Raises:
      InputError: another shape or type.
    """
    value = _four(value, path, name, strict)
    if value.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} has type {value.dtype}; save uint8 0..255 or float32 in [0, 1]")
    return value


def _four(value: np.ndarray, path: Path | str, name: str, strict: bool) -> np.ndarray:
    """Returns [N, H, W, C] of any type."""
    shape = value.shape
    if value.ndim == 2 and 0 not in shape:
        raise table(shape, path, name, strict=strict)
    if value.ndim == 5 and 0 not in shape and shape[-1] <= _USUAL_CHANNELS:
        raise InputError(
            f"{path}: {name} has 5 axes {shape}, as videos have; save their frames: "
            f"{name}.reshape(-1, *{name}.shape[2:])"
        )
    if value.ndim not in (3, 4) or 0 in shape:
        raise InputError(
            f"{path}: {name} must be [N, H, W] or [N, H, W, C] and not empty, is {shape}; save pictures of that shape"
        )
    if value.ndim == 3:
        if shape[1] != shape[2]:
            one = f", or {name}[None] for one picture of {shape[2]} channels" if shape[2] <= _USUAL_CHANNELS else ""
            series = f"for series use {_read_as('series', path, name)}, " if strict else ""
            raise InputError(
                f"{path}: {name} {shape} may be {shape[1]}x{shape[2]} pictures or series of {shape[2]} numbers at "
                f"{shape[1]} times; {series}for pictures save {name}[..., None]{one}"
            )
        return value[..., None]
    # Few rows of many columns and channels: no picture is as flat as that.
    if shape[1] <= _USUAL_CHANNELS < min(shape[2:]):
        raise InputError(
            f"{path}: {name} {shape} has its {shape[1]} channels first; save numpy.moveaxis({name}, 1, -1)"
        )
    return value


def refuse_series(given: Named, path: Path | str) -> None:
    """Raises for square arrays [N, H, H] with negative numbers, which are no brightness: they may be series."""
    for name, value in given.items():
        if value.ndim == 3:
            shape = value.shape
            raise InputError(
                f"{path}: {name} {shape} has negative numbers, so it may be series of {shape[2]} numbers at {shape[1]} "
                f"times; for series use {_read_as('series', path, name)}, for pictures save {name}[..., None]"
            )


def _read_as(reader: str, path: Path | str, name: str) -> str:
    """Returns the options with which another data set reads an array, from its file if it is in one."""
    is_file = Path(path).suffix.lower() in (".npy", ".npz")
    return options({"data.name": reader, "data.source": str(path)} if is_file else {"data.name": reader})


def table(shape: tuple[int, ...], path: Path | str, name: str, save: str = "", *, strict: bool = True) -> InputError:
    """Returns the error about rows of numbers in place of pictures, and the line that makes pictures of them.

    Args:
      shape: of the array [N, D].
      path: where it comes from, for the message.
      name: of the array.
      save: what the array is to be saved as, where it has another name: `images=`.
      strict: whether they are a data set to train on.

    Returns:
      the error, to be raised by the caller.
    """
    side, thirds = math.isqrt(shape[1]), math.isqrt(shape[1] // 3)
    form = f"{name}.reshape(-1, H, W, 1) with H * W = {shape[1]}"
    if side * side == shape[1]:
        form = f"{name}.reshape(-1, {side}, {side}, 1)"
    elif thirds * thirds * 3 == shape[1]:
        form = f"{name}.reshape(-1, {thirds}, {thirds}, 3)"
    # Rows of numbers are pictures or a table, and nothing in them says which.
    table, counts = (_read_as(reader, path, name) for reader in ("table", "vectors"))
    vectors = f"; rows of a table need {table}, and rows of counts {counts}"
    return InputError(
        f"{path}: {name} must be [N, H, W] or [N, H, W, C] and not empty, is {shape}; save {save}{form}, or "
        f"{save}{name}[None, ..., None] if it is one gray picture{vectors if strict else ''}"
    )


def _refuse_nan(value: np.ndarray, path: Path | str, name: str) -> None:
    bad = ~np.isfinite(value)
    if not bad.any():
        return
    first = int(np.flatnonzero(bad.reshape(len(value), -1).any(1))[0])
    axes = tuple(range(1, value.ndim)) if value.ndim > 2 else 1
    keep = f"numpy.isfinite({name})" + ("" if value.ndim == 1 else f".all({axes})")
    raise InputError(
        f"{path}: {name} has {int(bad.sum())} NaN or infinite values, the first in row {first}; save "
        f"{name}[{keep}], and the same rows of the other arrays"
    )


def check_scale(given: Named, path: Path | str, strict: bool = True, then: str = "") -> None:
    """Checks that numbers, all integers or all floats and finite, are brightness from 0 to 255 or from 0 to 1.

    `then` is what is to be done after the advice. Raises InputError where they are not, or probably not.

    Args:
      given: arrays by name, all of one scale.
      path: where they come from, for the message.
      strict: the bounds of training data: images that are all black or very dark are refused. False for images that a
        trained model looks at, which may be dark.
      then: what follows the advice in the message.
    """
    if not given:
        return
    low = min(value.min() for value in given.values())
    high = max(value.max() for value in given.values())
    subject = f"{path}: {' and '.join(given)}"
    is_float = next(iter(given.values())).dtype.kind == "f"
    with np.errstate(over="ignore"):  # floats are kept in float32, so what rounds to 1 there is 1
        least, most = ((float(np.float32(v)) if is_float else int(v)) for v in (low, high))
    top = 1 if is_float else 255
    if least < 0 or most > top:
        _refuse_range(given, subject, low, high, top, then)
    if high == 0:
        if strict:
            raise InputError(f"{subject}: every pixel is 0, so there is nothing to learn; save other images{then}")
        return
    span = f"has {'values' if is_float else 'integers'} in [{number(low)}, {number(high)}]"
    if is_float:
        if most <= _TWICE:
            factor = "* 255" if float(high) * 255 <= 1 and float(high) > 0.5 / 255 else f"/ {float(high)!r}"
            raise InputError(
                f"{subject} {span}, which is black on the scale 0 to 1, as after two divisions by 255; save "
                f"{_each(given, '{x} ' + factor)}{then}"
            )
        return
    if most == 1:  # 0/1 images saved as integers would train as almost black
        raise InputError(
            f"{subject} {span}, which is black on the scale 0 to 255; save booleans: "
            f"{_each(given, '{x}.astype(bool)')}{then}"
        )
    if most < (DARK if strict else DARK_INPUT):
        times = 255 // most
        raise InputError(
            f"{subject} {span}, which is dark on the scale 0 to 255; save "
            f"{_each(given, '{x}.astype(' + repr('uint8') + f') * {times}')}, or if they are as dark as that "
            f"{_each(given, '{x} / 255')}{then}"
        )


def span(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the least and the greatest pixel [2], for `check_scale`; stops at the first part that is bright.

    Args:
      parts: non-empty arrays of one type, read as they are needed: of bright images the first alone.
    """
    low, high = [], []
    for part in parts:
        low.append(part.min())
        high.append(part.max())
        if high[-1] >= (DARK if part.dtype.kind == "u" else 2 * _TWICE):
            break
    return np.array([min(low), max(high)])


def _refuse_range(given: Named, subject: str, low, high, top: int, then: str) -> None:
    kind = "values" if top == 1 else "integers"
    message = f"{subject} has {kind} in [{number(low)}, {number(high)}], not in [0, {top}]"
    if low == high:
        raise InputError(f"{message}, and all are the same, so there is nothing to learn; save other images{then}")
    bounds = (float(low), float(high)) if top == 1 else (int(low), int(high))
    if top == 1 and low >= -1e-3 and 0.5 < high <= 1 + 1e-3:
        form = "numpy.clip({x}, 0, 1)"
    elif low >= 0 and top == 1 and DARK <= high <= 255:
        form = "{x} / 255"
    elif low >= 0:
        form = "{x} / " + repr(bounds[1])
    else:  # interp ends exactly at 0 and 1, whatever the rounding in between
        form = "numpy.interp({x}, (" + f"{bounds[0]!r}, {bounds[1]!r}" + "), (0, 1))"
    word = "divide by 255" if form == "{x} / 255" else "rescale"
    raise InputError(f"{message}; {word}: save {_each(given, form)}{then}")


def _each(names: Iterable[str], form: str) -> str:
    return ", ".join(form.replace("{x}", name) for name in names)


def number(value) -> str:
    """Returns a number in few digits where they say it exactly, else in all of them."""
    short = f"{float(value):g}"
    return short if float(short) == value else repr(value.item())


def integers(given: Named, rank: int, path: Path | str) -> dict[str, np.ndarray]:
    """Returns labels [N] (rank 1) or factors [N, F] (rank 2) as int32, checked before they are cast.

    A label of -1 is unknown.

    Raises:
      InputError: other shapes or types, negative numbers, or numbers so far apart that most classes never occur.
    """
    unknown = rank == 1 and any(value.dtype.kind == "i" and (value == UNKNOWN).any() for value in given.values())
    fix = _renumber(list(given), rank, unknown and all((value >= UNKNOWN).all() for value in given.values()))
    for name, value in given.items():
        _check_shape(value, rank, path, name)
        if value.dtype.kind == "f":
            _refuse_nan(value, path, name)
        if value.dtype.kind not in "iub":
            wanted = "[N]" if rank == 1 else "[N, F]"
            raise InputError(f"{path}: {name} must be integers {wanted}, is {value.dtype} {value.shape}; save {fix}")
        if value.size and int(value.min()) < (UNKNOWN if rank == 1 else 0):
            unknown = f"; if they are unknown, save numpy.maximum({name}, -1)" if rank == 1 else "; remove their rows"
            raise InputError(
                f"{path}: {name} has negative values (least {value.min()}), which are no classes{unknown}, or count "
                f"from 0: {fix}"
            )
    for column in range(next(iter(given.values())).shape[1] if rank == 2 else 1):
        # In Python's integers, for 2^32 + 1 would be 1 as int32, and 2^63 negative as int64.
        parts = [np.unique(value[:, column] if rank == 2 else value) for value in given.values()]
        found = len({int(v) for part in parts for v in part})
        sizes = max((int(part[-1]) for part in parts if len(part)), default=0) + 1
        if sizes > _SMALL and 2 * found < sizes:
            what = " and ".join(given) + (f" (column {column})" if rank == 2 else "")
            raise InputError(
                f"{path}: {what} goes up to {sizes - 1}, but holds only {found} different values, and each number up "
                f"to the greatest would be a class; save {fix}"
            )
    return {name: value.astype(np.int32) for name, value in given.items()}


def groups(given: np.ndarray, path: Path | str) -> np.ndarray:
    """Returns the groups str [N] that examples belong to, given as integers or as text.

    Raises:
      InputError: other shapes or types.
    """
    if given.ndim != 1 or given.dtype.kind not in "iuSU":
        fix = "groups.astype(int)" if given.dtype.kind == "f" and given.ndim == 1 else "groups.astype(str)"
        fix = f"{fix}" if given.ndim == 1 else "one number or name per example"
        raise InputError(f"{path}: groups must be integers or text [N], is {given.dtype} {given.shape}; save {fix}")
    return given.astype(str)


def beside(held: Named, count: int, what: str, path: Path | str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns what belongs to examples: labels int32 [N] and groups str [N]; None where none is given, or known.

    Args:
      held: arrays by name, `labels` and `groups` among them where they are given.
      count: examples, N.
      what: examples are called, for messages.
      path: of the file.

    Returns:
      labels and groups.

    Raises:
      InputError: as `integers` and `groups`, or another number of them.
    """
    labels = integers({"labels": held["labels"]}, 1, path)["labels"] if "labels" in held else None
    of = groups(held["groups"], path) if "groups" in held else None
    for name, value in (("labels", labels), ("groups", of)):
        if value is not None and len(value) != count:
            raise InputError(f"{path}: {len(value)} {name} for {count} {what}; make them equal")
    # Labels that are all unknown are none.
    return (None if labels is None or not (labels != UNKNOWN).any() else labels), of


def _check_shape(value: np.ndarray, rank: int, path: Path | str, name: str) -> None:
    if value.ndim == rank and (rank == 1 or value.shape[1]):
        return
    wanted, form = ("[N]", "") if rank == 1 else ("[N, F]", "")
    if rank == 1 and value.ndim == 2 and value.shape[1]:
        form = f"{name}[:, 0]" if value.shape[1] == 1 else f"{name}.argmax(1) if each row marks one class"
    if rank == 2 and value.ndim == 1:
        form = f"{name}[:, None]"
    fix = f"save {form}" if form else f"save one {'number' if rank == 1 else 'row'} per example, or leave it out"
    raise InputError(f"{path}: {name} must be integers {wanted}, is {value.dtype} {value.shape}; {fix}")


def _renumber(names: list[str], rank: int, unknown: bool = False) -> str:
    """Returns the line that gives the values that occur the numbers 0, 1, 2, ..., the same in all splits.

    With `unknown` the least of them is -1, and stays what it is.
    """
    joined = names[0] if len(names) == 1 else f"numpy.concatenate([{', '.join(names)}])"
    line = f"numpy.unique({joined}, return_inverse=True)[1]{' - 1' if unknown else ''}"
    if rank == 2:
        line = f"numpy.stack([numpy.unique(f, return_inverse=True)[1] for f in {joined}.T], 1)"
    if len(names) > 1:
        ends = [" + ".join(f"len({n})" for n in names[:i]) for i in range(1, len(names))]
        line = f"numpy.split({line}, [{', '.join(ends)}])"
    return f"{', '.join(names)} = {line}"


def vectors(given: Named, path: Path | str) -> dict[str, np.ndarray]:
    """Returns condition vectors [N, F] as float32, finite and of a size that a network can take."""
    for name, value in given.items():
        if value.ndim != 2 or 0 in value.shape:
            form = f"save {name}[:, None]" if value.ndim == 1 and value.size else "save one row of numbers per example"
            raise InputError(f"{path}: {name} must be floats [N, F], is {value.dtype} {value.shape}; {form}")
        if value.dtype.kind in "iub":
            raise InputError(
                f"{path}: {name} must be floats [N, F], is {value.dtype} {value.shape}; save "
                f"{name}.astype('float32'), or class numbers under the name labels or factors"
            )
        if value.dtype.kind != "f":
            raise InputError(f"{path}: {name} must be floats [N, F], is {value.dtype} {value.shape}; save float32")
        _refuse_nan(value, path, name)
    most = max(float(np.abs(value).max()) for value in given.values())
    if most > MOST_COND:
        first = next(iter(given))
        form = "({x} - " + f"{first}.mean(0, dtype=float)) / ({first}.std(0, dtype=float) + 1e-6)"
        if most > 1e100:  # squares of these have no room even in float64
            form = "{x} / " + repr(most)
        raise InputError(
            f"{path}: {' and '.join(given)} has values up to {most:g}, and a network takes at most {MOST_COND:g}; save "
            f"{_each(given, form)}"
        )
    return {name: value.astype(np.float32) for name, value in given.items()}
