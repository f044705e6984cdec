"""The layout of a folder of images: split folders recognized by name, class folders, and what is not read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vae_jax.data.pictures import SUFFIXES, Broken, check_regular
from vae_jax.data.unlabeled import FOLDERS
from vae_jax.data.values import UNKNOWN
from vae_jax.errors import InputError, quoted, shown

# A folder of one of these names, in any case, holds that split.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


@dataclass
class Found:
    """Image files below one folder, in name order, and how many files of other kinds lie beside them."""

    images: list[Path] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)


def search(folder: Path, broken: list[Path] | None = None) -> Found:
    """Returns what is below `folder`; names that begin with a dot are left out, links are followed.

    Args:
      folder: where to look.
      broken: takes an image's name for something that is not a file; None refuses it.

    Raises:
      InputError: a folder that cannot be listed, a link that leads back to a folder above it, or an image's name for
        something that is not a file.
    """
    found = Found()
    for path in _walk(folder, ()):
        if path.suffix.lower() in SUFFIXES:
            # Before anything opens it: a pipe would be waited for, a device read for ever.
            try:
                check_regular(path)
            except Broken:
                if broken is None:
                    raise
                broken.append(path)
            else:
                found.images.append(path)
        else:
            found.unread[_kind(path)] += 1
    return found


def has_images(folder: Path) -> bool:
    """Says whether there is an image below `folder`; stops at the first."""
    return any(path.suffix.lower() in SUFFIXES for path in _walk(folder, ()))


def _walk(folder: Path, above: Sequence[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in above:
        raise InputError(f"{shown(folder)}: is a link to a folder above it, which would be read for ever; remove it")
    for path, is_folder in _entries(folder):
        if is_folder:
            yield from _walk(path, (*above, real))
        else:
            yield path


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """Returns (path, whether it is a folder) of what is right in `folder`, in name order, without hidden names."""
    try:
        with os.scandir(folder) as listed:
            # The listing knows what a folder is: to ask for each file again takes longer than anything else here.
            found = sorted((entry.name, entry.is_dir()) for entry in listed if not entry.name.startswith("."))
        return [(folder / name, is_folder) for name, is_folder in found]
    except OSError as error:
        raise InputError(
            f"{shown(folder)}: cannot be listed ({error.strerror}); allow it (chmod u+rx) or move it away"
        ) from None


def split_folders(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Returns ({split: folder}, what the user should know); {} for a folder without splits.

    Raises:
      InputError: names that can be read in two ways; the rename to type is in the message.
    """
    entries = _entries(root)
    inside = [path for path, is_folder in entries if is_folder]
    found: dict[str, Path] = {}
    for path in inside:
        split = _SPLIT_OF.get(path.name.lower())
        if split in found:
            raise InputError(
                f"{shown(root)}: {found[split].name!r} and {path.name!r} both name the {split} split; move one "
                "into the other, or one of them elsewhere"
            )
        if split:
            found[split] = path
    if not found:
        return {}, []
    if "train" not in found:
        name = next(iter(found.values())).name
        raise InputError(
            f"{shown(root)}: {name!r} is the name of a split, but there is no folder 'train'; rename the training "
            f"folder to 'train', or, if {name!r} is a class, rename it: {_rename(root, name)}"
        )
    beside = [path.name for path in inside if path not in found.values() and has_images(path)]
    loose = [path.name for path, is_folder in entries if not is_folder and path.suffix.lower() in SUFFIXES]
    if (beside or loose) and len(found) == 1:
        # "train" among "bus" and "plane" is a class as likely as a split: reading either would hide the other.
        name, others = found["train"].name, ", ".join(map(repr, (beside + loose)[:5]))
        raise InputError(
            f"{shown(root)}: {name!r} is the name of the training split, but there are images beside it ({others}); if "
            f"it is a class, rename it: {_rename(root, name)}; else move the others away"
        )
    notes = _beside_note(root, [(path, is_folder) for path, is_folder in entries if path not in found.values()])
    renamed = [f"{path.name} as {split}" for split, path in found.items() if path.name != split]
    if renamed:
        notes.append(f"split folders are recognized by name: {', '.join(renamed)}")
    return found, notes


def _beside_note(root: Path, entries: Sequence[tuple[Path, bool]]) -> list[str]:
    """Returns the line that counts the files beside the split folders, by kind, or []."""
    kinds: Counter[str] = Counter()
    names = []
    for path, is_folder in entries:
        files = list(_walk(path, ())) if is_folder else [path]
        kinds.update(_kind(file) for file in files)
        names += [path.name] if files else []
    if not names:
        return []
    are = "1 file {} is" if kinds.total() == 1 else f"{kinds.total():,} files {{}} are"
    return [f"{shown(root)}: {are.format('beside the split folders')} not read ({_counted(kinds)}): {some(names)}"]


def _kind(path: Path) -> str:
    return path.suffix.lower() or "no extension"


def _counted(kinds: Counter[str]) -> str:
    """Returns "2 .tif, 1 .gif"."""
    by_count = sorted(kinds.items(), key=lambda kind_count: (-kind_count[1], kind_count[0]))
    return ", ".join(f"{count:,} {shown(kind)}" for kind, count in by_count)


def _rename(root: Path, name: str) -> str:
    old, new = (quoted(root / text) for text in (name, f"{name}_class"))
    return f"mv {old} {new}"


def classes(paths: Sequence[Path], folder: Path, known: tuple[str, ...] | None = None):
    """Returns (label or None of each path, class names): the folders right below `folder` are the classes.

    What is in a folder `unlabeled` (or in the other spelling) beside them has the label -1.

    Args:
      paths: images below `folder`, in name order.
      folder: where the class folders are.
      known: the names that number the classes (those of the training split); None numbers them in name order.

    Raises:
      InputError: images both in and beside class folders, or a class that is not among `known`.
    """
    depth = len(folder.parts)
    owners = [path.parts[depth] if len(path.parts) > depth + 1 else None for path in paths]
    # The folder beside classes is none of them; alone it is a folder like any other.
    beside = {name for name in owners if name is not None and name.lower() in FOLDERS}
    names = tuple(sorted({name for name in owners if name is not None} - beside))
    if not names and not known:
        names, beside = tuple(sorted(beside)), set()
    if names and None in owners:
        stray = paths[owners.index(None)]
        raise InputError(
            f"{shown(folder)}: holds class folders and also loose images ({shown(stray.name)}); sort them into classes"
        )
    if known is not None:
        if bool(names or beside) != bool(known):
            having, lacking = (folder.name, "train") if names else ("train", folder.name)
            raise InputError(
                f"{shown(folder.parent)}: {having} has class folders and {lacking} does not; sort both in the same way"
            )
        if strange := [name for name in names if name not in known]:
            raise InputError(
                f"{shown(folder.parent)}: the class folders of {folder.name} {', '.join(map(repr, strange))} are not "
                f"in train ({some(known)}); rename or remove them"
            )
        names = known
    number = {name: i for i, name in enumerate(names)}
    number |= dict.fromkeys(beside, UNKNOWN)
    return tuple(None if name is None else number[name] for name in owners), names


def some(names: Sequence[str], most: int = 5) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more


def unread_note(root: Path, unread: Counter[str]) -> list[str]:
    """Returns the line that counts the files of kinds that are not read, or []."""
    if not unread:
        return []
    files = "1 file is" if unread.total() == 1 else f"{unread.total():,} files are"
    return [f"{shown(root)}: {files} not read ({_counted(unread)}); only {', '.join(SUFFIXES)} are images here"]
