"""`vae-jax list` and `vae-jax data`: what there is, one line each, read from the registries and docstrings."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import tyro

from vae_jax.errors import InputError, nearest
from vae_jax.files.bounded import DEFAULT_BYTES


class Row(NamedTuple):
    """One entry: its name on the command line, one line of meaning, and where it comes from."""

    name: str
    meaning: str
    reference: str


@dataclass(frozen=True)
class List:
    """What there is: experiments, data, metrics, models, and every component that a model is put together from."""

    what: tyro.conf.Positional[str] = "all"
    """The kind to list: a heading of `vae-jax list`, such as objectives."""

    def __call__(self) -> None:
        known = sources()
        if self.what not in ("all", *known):
            raise InputError(f"list: no kind {self.what!r}; {nearest(self.what, ['all', *known])}")
        kinds = list(known) if self.what == "all" else [self.what]
        for i, kind in enumerate(kinds):
            rows = known[kind]()
            if self.what == "all":
                print(("\n" if i else "") + f"{kind}:")
            print_rows(rows, indent="  " if self.what == "all" else "")


def print_rows(rows: Iterable[Row], indent: str = "") -> None:
    """Prints one line each, in columns; the reference stands in brackets."""
    rows = list(rows)
    width = max(len(row.name) for row in rows)
    for row in rows:
        reference = f"  [{row.reference}]" if row.reference else ""
        print(f"{indent}{row.name:<{width}}  {row.meaning}{reference}".rstrip())


def experiments() -> list[Row]:
    """Returns the experiments; their files are parsed, not run."""
    import ast

    from vae_jax.runs import experiments as index

    rows = []
    for name, path in index.all_experiments().items():
        try:
            doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        except (SyntaxError, OSError, UnicodeDecodeError):
            doc = "(its file cannot be parsed)"
        rows.append(entry(name, doc))
    return rows


def components(table: Mapping[str, Any]) -> list[Row]:
    """Returns one row per component, from its docstring."""
    return [entry(name, inspect.getdoc(component) or "") for name, component in table.items()]


def entry(name: str, doc: str) -> Row:
    """Returns the row of a docstring: its first line, and its reference.

    The reference is the text after `Reference:` or `References:`, else the brackets of the first paragraph that hold
    an arXiv id or a year.
    """
    first = doc.strip().split("\n\n")[0].replace("\n", " ")
    found = re.search(r"^References?:\s*(.+)$", doc, re.M)
    brackets = re.search(r"\s*\(([^()]*(?:arXiv:\d{4}\.\d+|\b(?:19|20)\d\d\b)[^()]*)\)", first)
    if found:
        return Row(name, doc.strip().splitlines()[0].strip(), found.group(1).strip().rstrip("."))
    if brackets:
        return Row(name, first.replace(brackets.group(0), "").split(". ")[0].rstrip("."), brackets.group(1))
    elsewhere = re.search(r"\(([^()]*arXiv:\d{4}\.\d+[^()]*)\)", doc)
    return Row(name, first.split(". ")[0].rstrip("."), elsewhere.group(1).replace("\n", " ") if elsewhere else "")


def datasets() -> list[Row]:
    """Returns the data sets."""
    from vae_jax import data as data_lib

    return [Row(d["name"], d["summary"], d["reference"]) for d in data_lib.describe()]


def metrics() -> list[Row]:
    """Returns the metrics of `vae-jax eval`, and the names that stand for several."""
    from vae_jax.evaluation import METRICS
    from vae_jax.evaluation.measures import MEASURES, groups

    rows = [Row(name, meaning, reference) for name, (meaning, reference) in METRICS.items()]
    rows += [Row(name, m.meaning, m.reference) for name, m in MEASURES.items()]
    return rows + [Row(group, f"stands for {', '.join(names)}", "") for group, names in groups().items()]


def sources() -> dict[str, Callable[[], list[Row]]]:
    """Returns kind -> what lists it: experiments, every kind of component that a config can name, data and metrics."""
    from vae_jax.runs.kinds import KINDS

    found = {f"{kind.word}s": functools.partial(components, kind.classes) for kind in KINDS.values()}
    return {"experiments": experiments, **found, "data": datasets, "metrics": metrics}


def data(argv: list[str]) -> int:
    """Runs `vae-jax data list` or `vae-jax data prepare NAME` and returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vae-jax data list")
        print("       vae-jax data prepare NAME [--from DIR] [--data-dir DIR] [--image-size N|H W] [--max-bytes N]")
        print("                         [--channels KIND] [--fit HOW] [--background COLOR] [--skip-broken True]")
        print("                         [--range LOW HIGH]")
        return 0 if argv else 2
    verbs: dict[str, Any] = {"list": DataList, "prepare": Prepare}
    if argv[0] not in verbs:
        raise InputError(f"data {argv[0]}: no such command; {nearest(argv[0], verbs)}")
    from vae_jax.cli.options import parse

    words = ["--source" + word[6:] if word.partition("=")[0] == "--from" else word for word in argv[1:]]
    parse(verbs[argv[0]], words, f"vae-jax data {argv[0]}")()
    return 0


@dataclass(frozen=True)
class DataList:
    """The data sets: what they are, their split protocols, and where they would be read from now."""

    def __call__(self) -> None:
        from vae_jax import data as data_lib

        for d in data_lib.describe():
            print(f"{d['name']}: {d['summary']} [{d['reference']}]")
            print(f"    protocols: {d['protocols']}")
            print(f"    where: {d['where']}")


@dataclass(frozen=True)
class Prepare:
    """Write a data set as array_record files that are read without TensorFlow."""

    name: tyro.conf.Positional[str]
    """Data set."""
    source: str | None = None
    """--from DIR: folder or file with the raw data (default: where training would look)."""
    data_dir: str | None = None
    """Folder to write under (default: $TFDS_DATA_DIR)."""
    image_size: int | tuple[int, int] | None = None
    """Side in pixels, or height and width, for data sets that have no fixed size."""
    channels: Literal["auto", "grey", "rgb"] = "auto"
    """Folders of images: what all of them are converted to; auto = as they are stored."""
    fit: Literal["crop", "pad", "stretch"] = "crop"
    """Folders of images, with --image-size: crop the center, pad to the whole image, or stretch."""
    background: Literal["white", "black", "grey"] | tuple[int, int, int] = "white"
    """Folders of images: color behind transparent pixels and beside padded images, also as R G B."""
    skip_broken: bool = False
    """Folders of images: pass over files that cannot be read, and count them."""
    range: Literal["auto"] | tuple[float, float] = "auto"
    """Arrays: the numbers that are 0 and 1 to a model; auto = as in training."""
    max_bytes: int = DEFAULT_BYTES
    """Most bytes that one file of arrays may take in memory; a file that claims more is refused."""

    def __call__(self) -> None:
        from vae_jax import data as data_lib

        report = data_lib.prepare(
            self.name,
            self.source,
            self.data_dir,
            image_size=self.image_size,
            channels=self.channels,
            fit=self.fit,
            background=self.background,
            skip_broken=self.skip_broken,
            range=self.range,
            max_bytes=self.max_bytes,
        )
        print(f"{report.name}: {'already prepared' if report.existed else 'prepared'} in {report.folder}")
        print(f"  found: {report.where}")
        for note in report.notes:
            print(f"  note: {note}")
        print(f"  examples: {', '.join(f'{split} {size:,}' for split, size in report.sizes.items())}")
        for file, checksum in report.checksums.items():
            print(f"  sha256 {checksum}  {file}")
