"""The experiments to start from with data of one's own, and the refusal of data that an experiment is not for.

An experiment is made for one kind of data, and what others lack shows at each of its parts: augmentation, network,
prior, likelihood. Here the kinds meet before any of these parts, and before the data are read, in one refusal that
names the experiment for these data.
"""

from __future__ import annotations

import math
from pathlib import Path

from vae_jax import data
from vae_jax.data import pick
from vae_jax.errors import InputError, either, option, options, shown
from vae_jax.runs.config import Config
from vae_jax.runs.kinds import components, kind

# Reader of the user's own data -> what it reads, and the experiment with defaults for it. Arrays of images fit, or need
# one option, wherever a network takes images at all.
_STARTS = {
    "image_folder": ("pictures", "own_images"),
    "table": ("a table", "own_table"),
    "series": ("series", "own_series"),
    "vectors": ("rows of numbers", "counts_simulated"),
}


def check(config: Config) -> None:
    """Checks that the parts of a model take data of the user's own that are of this kind; reads nothing.

    Args:
      config: what will be trained.

    Raises:
      InputError: a part does not; the line names the experiment to train instead.
    """
    c = config.data
    if c.name not in _STARTS or c.source is None or not (part := _misfit(config)):
        return
    what, start = _STARTS[c.name]
    # Arrays in memory have no file yet that could be typed.
    is_file = Path(c.source).expanduser().exists()
    words = _words(c.name, c.source) if is_file else ""
    place = f"{option('data')} {shown(c.source)}: holds" if is_file else "data: they are"
    fix = either(f"`vae-jax train {start} {words}`", f'`vj.experiment("{start}"{words and ", "}{words})`')
    raise InputError(f"{place} {what}, which {part} does not take; use {fix}")


def _words(name: str, source: str) -> str:
    """Returns the options that name these data: `--data PATH` where the path alone is read so."""
    try:
        is_picked = pick.pick(source, data.DATASETS)[0] == name
    except InputError:
        is_picked = False
    return option("data", source) if is_picked else options({"data.name": name, "data.source": source})


def _misfit(config: Config) -> str:
    """Returns the first part of a model that does not take the kind of its data, in words; "" for none."""
    row, is_table, found = data.entry(config.data.name), config.data.name in data.TABLES, components(config)
    if row.kind != "image" and config.data.augment.changes:
        return "data.augment"
    for place in ("model.network", "model.prior"):
        part = found.get(place)
        if part is not None and row.kind not in getattr(part, "kinds", (row.kind,)):
            return f"the {place.rpartition('.')[2]} {kind(place, part)}"
    likelihood = found.get("model.likelihood")
    if likelihood is None:
        return ""
    of_columns = hasattr(likelihood, "of_columns")
    # Standardized numbers need the real line. Other bounded data are refused by their values, with a likelihood.
    bounded = likelihood.counts or likelihood.levels is not None or likelihood.support != (-math.inf, math.inf)
    wrong = not of_columns and bounded if is_table else of_columns or (likelihood.counts and row.kind != "vector")
    return f"the likelihood {kind('model.likelihood', likelihood)}" if wrong else ""
