"""Splits for data that come without any: the test split is the tenth of the examples with the lowest content hash.

Which side an example falls on depends on its own pixels alone, so adding or removing others never moves it, and no
example that a model was trained on is in the test split of the grown data. Copies of one picture stay together. Where
examples belong to groups (patients, say), the hash of the group decides in place of that of the pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_jax.data import group_shares, split_file
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, choice, option

_HASH = "content hash (SHA-256 of the pixels, of the image file, or of the cells of a row)"
_OWN = "the file's or folder's own train/validation/test parts where it has them; else "
PROTOCOLS = {
    "standard": f"{_OWN}the examples whose {_HASH} lies in the lowest tenth of its range are the test split, "
    "the rest is for training, no validation split; adding or removing examples moves no other",
    "held-out": f"{_OWN}the examples whose {_HASH} lies in the lowest tenth of its range are the test split, "
    "those of the next tenth the validation split, the rest is for training; adding or removing examples moves no "
    "other",
    "random-tenth": f"{_OWN}a tenth of the examples, drawn with numpy RandomState(0) over their row numbers, is the "
    "test split, the rest is for training, no validation split; the rule of earlier versions",
    "full": "all examples for training, and the same examples as the test split (no validation split)",
}
_SHARES = "have as near a tenth of each class as whole groups allow"
GROUP_SHARES = {
    "standard": f"the groups of the test split {_SHARES}, the rest is for training, no validation split",
    "held-out": f"the groups of the test split, and those of the validation split, {_SHARES}, the rest is for training",
}
HELD_OUT = (2**64 - 1) // 10  # hashes below this are the test split
_MANY = 50  # examples from which on a tenth of them is hardly ever empty: 0.9^50 is 0.005
# Groups and stratification say how a tenth is held out; of the other two protocols one has no tenth, one its own.
HASHED = ("standard", "held-out")
BY_FILE = "data.splits"  # what stands for the protocol where a file says which examples each split has


@dataclass(frozen=True, eq=False)
class Division:
    """How examples that came without splits were divided.

    Attributes:
      rows: of each split, int64 ascending.
      protocol: its name, `BY_FILE` where the user's file divides.
      text: one sentence that says what the splits are.
      notes: what the user should know.
      moves: why another number or order of examples would move some of them to other splits, or "".
      names: of all examples, where these are files: relative to their folder.
    """

    rows: dict[str, np.ndarray]
    protocol: str
    text: str
    notes: tuple[str, ...] = ()
    moves: str = ""
    names: tuple[str, ...] = ()


class Parts(dict):
    """What belongs to each split, by its name, and how it was divided: None of data with splits of their own."""

    division: Division | None = None


def divided(
    config: DataConfig,
    where: str,
    hashes: Callable[[], np.ndarray],
    count: int,
    *,
    groups: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    names: tuple[str, ...] = (),
) -> Division:
    """Returns which examples belong to each split.

    Args:
      config: `protocol`, `splits`, `groups` and `stratify` are read.
      where: file or folder, for messages.
      hashes: gives uint64 [N], the hash of each example (`pixel_hashes`, `folder_index`); called where it decides.
      count: number of examples N.
      groups: str [N], what each example belongs to; no group is on two sides. None: each is its own.
      labels: int [N], -1 where unknown; None without labels.
      names: of the examples, where these are files.

    Returns:
      rows, words and notes.

    Raises:
      InputError: a file of splits that does not fit, options that cannot go together, or too few examples or groups.
    """
    if config.splits is not None:
        return _by_file(config, where, count, groups, names)
    protocol, options = config.protocol, {"data.groups": config.groups is not None, "data.stratify": config.stratify}
    for name, given in options.items():
        if given and protocol not in HASHED:
            raise InputError(
                f"{name}: it says what is held out by content hash, which protocol {protocol!r} does not do; leave it "
                f"out, or use {choice('data.protocol', HASHED)}"
            )
    if groups is not None and protocol == "random-tenth":
        raise InputError(
            f"{where}: has groups, but protocol random-tenth draws row by row and would divide them; use "
            f"{choice('data.protocol', HASHED)}"
        )
    if config.stratify and labels is None:
        raise InputError(f"data.stratify: {where} has no labels; use {option('data.stratify', False)}")
    if groups is not None and protocol in HASHED:
        return _by_group(groups, labels if config.stratify else None, protocol, where, names)
    if config.stratify:
        assert labels is not None
        found = _by_class(labels, hashes(), protocol, where)
        text = f"{PROTOCOLS[protocol]}; tenths are those of each class, in the order of the hash"
        text = text.replace("; adding or removing examples moves no other", "")
        why = "data.stratify holds out a tenth of each class, in whatever number it comes"
        return Division(found, protocol, text, (), why, names)
    found = rows(count, protocol, where, hashes)
    why = "protocol random-tenth splits them by row number" if protocol == "random-tenth" else ""
    return Division(found, protocol, PROTOCOLS[protocol], _few(found, protocol, where), why, names)


def of(parts: object) -> Division | None:
    """Returns how parts, or a source, were divided; None of data with splits of their own."""
    return getattr(parts, "division", None)


def words(parts: object, protocol: str) -> tuple[str, str]:
    """Returns the protocol of parts, and one sentence that says what the splits are."""
    division = of(parts)
    return (protocol, PROTOCOLS[protocol]) if division is None else (division.protocol, division.text)


def notes(parts: object) -> tuple[str, ...]:
    """Returns what the user should know of how parts were divided."""
    division = of(parts)
    return () if division is None else division.notes


def apart(parts: Parts | dict) -> dict:
    """Returns the parts without those whose examples are in another one too, as under protocol "full"."""
    division = of(parts)
    return {"train": parts["train"]} if division is not None and division.protocol == "full" else parts


def validated(parts: object) -> tuple[str, ...]:
    """Returns the protocols under which these data would have a validation split that they do not have now."""
    division = parts if isinstance(parts, Division) else of(parts)
    return () if division is None or division.protocol in ("held-out", BY_FILE) else ("held-out",)


def refuse_own(config: DataConfig, has: str) -> None:
    """Raises InputError for options that divide what is divided already; `has` begins the message."""
    if config.protocol == "full":
        raise InputError(f"{has}; use {option('data.protocol', 'standard')}")
    for name, value in (("data.splits", config.splits), ("data.groups", config.groups)):
        if value is not None:
            raise InputError(f"{has}, so that {name} {value} is not read; leave it out")
    if config.stratify:
        raise InputError(f"{has}, so that data.stratify has nothing to hold out; use {option('data.stratify', False)}")


def refuse_group_file(config: DataConfig, path: Path | str) -> None:
    """Raises InputError for `data.groups` beside arrays, whose groups are an array of their own in `path`."""
    if config.groups is not None:
        # An .npy holds one array alone.
        file = Path(path).with_suffix(".npz") if Path(path).suffix.lower() == ".npy" else path
        raise InputError(
            f"data.groups: {config.groups} is read for folders of images and tables; save an array groups [N] in "
            f"{file}, or leave it out"
        )


def _by_file(config: DataConfig, where: str, count: int, groups: np.ndarray | None, names: tuple[str, ...]) -> Division:
    """Returns the division that the user's file makes, checked against the groups."""
    file = str(config.splits)
    if config.stratify or config.protocol == "full":
        name, value = ("data.stratify", False) if config.stratify else ("data.protocol", "standard")
        raise InputError(
            f"{name}: {file} says what each split has ({option('data.splits')}); use {option(name, value)}"
        )
    found = split_file.read(file, count, names)
    if groups is not None:
        seen: dict[str, str] = {}
        for part, rows in found.items():
            for group in np.unique(groups[rows]).tolist():
                if group in seen:
                    raise InputError(
                        f"data.splits: group {group!r} is in {seen[group]} and {part} of {file}; give all of its "
                        f"examples to one of them, or leave the groups of {where} out"
                    )
                seen[group] = part
    left = count - sum(map(len, found.values()))
    notes = (f"{where}: {left:,} of {count:,} examples are in no split of {file}, and are not used",) if left else ()
    text = "the rows" if not names else "the files"
    text = f"{text} of each split are those of the user's file (data.splits), kept in splits.npz of the run"
    why = "" if names else "data.splits names the examples by row number"
    return Division(found, BY_FILE, text, notes, why, names)


def _by_group(
    groups: np.ndarray, labels: np.ndarray | None, protocol: str, where: str, names: tuple[str, ...]
) -> Division:
    """Returns the division in which every group is whole in one split; with `labels` by the shares of classes."""
    unique, number = np.unique(groups, return_inverse=True)
    number = number.reshape(-1)
    needed = 3 if protocol == "held-out" else 2
    if len(unique) < needed:
        fix = "remove the groups to split by example"
        if protocol == "held-out" and len(unique) == 2:
            fix = f"use {option('data.protocol', 'standard')} for train and test alone, or {fix}"
        raise InputError(
            f"{where}: {len(unique)} group{'s' * (len(unique) != 1)} cannot be on {needed} sides; {fix}, or "
            f"{option('data.protocol', 'full')} to train on all"
        )
    hashed = np.array([_number(hashlib.sha256(str(group).encode()).digest()) for group in unique], np.uint64)
    if labels is None:
        sides = rows(len(unique), protocol, where, lambda: hashed)
        found = {part: np.flatnonzero(np.isin(number, chosen)) for part, chosen in sides.items()}
        text, shares, why = f"{PROTOCOLS[protocol]}; the hash is that of the group", "", ""
    else:
        test, *validation = group_shares.sides(number, labels, hashed, needed - 1)
        train = np.setdiff1d(np.arange(len(groups)), np.concatenate([test, *validation]))
        found = {"train": train, **({"validation": validation[0]} if validation else {}), "test": test}
        text = f"{_OWN}{GROUP_SHARES[protocol]}"
        shares = f"; {group_shares.words(found, labels)}"
        why = "data.stratify holds out the groups that together have a tenth of each class"
    sizes = ", ".join(f"{part} {len(np.unique(groups[rows])):,}" for part, rows in found.items())
    note = f"{where}: no group is in two splits; groups: {sizes}{shares}"
    return Division(found, protocol, text, (note,), why, names)


def _by_class(labels: np.ndarray, hashes: np.ndarray, protocol: str, where: str) -> dict[str, np.ndarray]:
    """Returns the rows of each split: of each class the lowest tenth by hash, the next tenth, and the rest."""
    sides = 3 if protocol == "held-out" else 2
    side = np.full(len(labels), 2)
    for value in np.unique(labels):
        mine = np.flatnonzero(labels == value)
        # Copies share a hash, and so a rank: they stay together.
        unique, rank = np.unique(hashes[mine], return_inverse=True)
        tenth = max(1, round(len(unique) / 10))
        ends = [tenth if len(unique) >= 2 else 0, 2 * tenth if sides == 3 and len(unique) >= 3 else 0]
        side[mine] = np.where(rank.reshape(-1) < ends[0], 0, np.where(rank.reshape(-1) < ends[1], 1, 2))
    found = {part: np.flatnonzero(side == i) for i, part in ((2, "train"), (1, "validation"), (0, "test"))}
    if not len(found["test"]):
        raise InputError(
            f"data.stratify: no class of {where} has two different examples, so none can be held out of each; use "
            f"{option('data.stratify', False)}"
        )
    return {part: rows for part, rows in found.items() if len(rows)}


def _few(found: dict[str, np.ndarray], protocol: str, where: str) -> tuple[str, ...]:
    """Returns the line about examples that are too few for three sides, or ()."""
    total = sum(map(len, found.values()))
    if protocol != "held-out" or total >= _MANY:
        return ()
    sizes = ", ".join(f"{part} {len(rows):,}" for part, rows in found.items())
    lacking = "" if "validation" in found else "; they are too few for a validation split"
    return (f"{where}: {total:,} examples are few for three splits ({sizes}){lacking}",)


def rows(count: int, protocol: str, where: str, hashes: Callable[[], np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the row numbers int64 of each split, ascending.

    Args:
      count: number of examples N.
      protocol: "standard" splits by content hash, and so does "held-out", into three; "random-tenth" draws
        floor(N / 10) test rows, at least one; "full" gives all rows to both splits.
      where: file or folder, for the message.
      hashes: gives uint64 [N], the hash of each example (`pixel_hashes`, `folder_index`); called where it decides.

    Returns:
      {"train": ..., "test": ...}, and "validation" under "held-out" if there are three different examples or more;
      disjoint but under "full".

    Raises:
      InputError: fewer than two different examples, which have no two sides.
    """
    everything = np.arange(count)
    if protocol == "full":
        return {"train": everything, "test": everything}
    if count < 2:
        raise InputError(
            f"{where}: {count} example cannot be split; add examples or use {option('data.protocol', 'full')}"
        )
    if protocol == "random-tenth":
        order = np.random.RandomState(0).permutation(count)  # numpy guarantees this stream for ever
        drawn = max(1, count // 10)
        return {"train": np.sort(order[drawn:]), "test": np.sort(order[:drawn])}
    found = hashes()
    test = by_hash(found, where)
    if protocol == "standard" or len(np.unique(found[~test])) < 2:
        return {"train": everything[~test], "test": everything[test]}
    # Of the others the lowest tenth of the whole range, which is the next one; again neither side is empty.
    rest = found[~test]
    validation = ~test
    validation[~test] = ((rest < 2 * HELD_OUT) | (rest == rest.min())) & (rest != rest.max())
    return {
        "train": everything[~test & ~validation],
        "validation": everything[validation],
        "test": everything[test],
    }


def by_hash(hashes: np.ndarray, where: str) -> np.ndarray:
    """Returns bool [N], whether each example is in the test split: its hash is in the lowest tenth of the range.

    Few examples may all lie on one side. Then the one of lowest hash is tested, or the one of highest hash trained on,
    so that both splits hold something; which one that is may change when examples are added.

    Raises:
      InputError: all examples are the same.
    """
    low, high = hashes.min(), hashes.max()
    if low == high:
        raise InputError(
            f"{where}: all {len(hashes)} examples are the same, so none can be held out; add other ones, or use "
            f"{option('data.protocol', 'full')}"
        )
    return ((hashes < HELD_OUT) | (hashes == low)) & (hashes != high)


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """Returns uint64 [N], the first 8 bytes of the SHA-256 of each image [N, H, W, C].

    The same picture has the same hash as uint8 v, as bool (0 and 255) and as float32 v / 255: it is hashed as uint8
    where its values are gray levels, else as little-endian float32. The shape is hashed along, for pixels in another
    arrangement are another picture.
    """
    head = "x".join(map(str, images.shape[1:])).encode()
    out = np.empty(len(images), np.uint64)
    for i, image in enumerate(images):
        content = image
        if image.dtype != np.uint8:
            gray = np.rint(image * 255).astype(np.uint8)
            same = np.array_equal((gray / 255).astype(np.float32), image)
            content = gray if same else (image + np.float32(0)).astype("<f4")  # -0.0 + 0.0 is 0.0
        out[i] = _number(hashlib.sha256(head + content.dtype.str[1:].encode() + content.tobytes()).digest())
    return out


def number_hashes(rows: np.ndarray, dtype: str) -> np.ndarray:
    """Returns uint64 [N], the first 8 bytes of the SHA-256 of each row of numbers [N, ...], of one type, and its shape.

    Args:
      rows: the numbers.
      dtype: that they are hashed as, "<f4" or "<f8", whatever they are stored as.
    """
    head = "x".join(map(str, rows.shape[1:])).encode()
    contents = ((row.astype(dtype) + np.zeros((), dtype)).tobytes() for row in rows)  # -0.0 + 0.0 is 0.0
    return np.array([_number(hashlib.sha256(head + content).digest()) for content in contents], np.uint64)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
