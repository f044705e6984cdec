"""Tables out of a run: rows in the units and the words of its data, and missing cells filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.data import table_codes
from vae_jax.data.pipeline import eval_batches
from vae_jax.data.table_read import Cells
from vae_jax.errors import InputError
from vae_jax.evaluation.imputation import impute_all
from vae_jax.runs import tables
from vae_jax.runs.run import Run
from vae_jax.train import TrainState


class Filled(NamedTuple):
    """A table with its empty cells filled in.

    Attributes:
      x: column name -> array [N], every column of the input, with E[x_mis | x_obs] in the empty cells of those that
        are modeled: the most probable level, whole numbers rounded.
      samples: the same with a draw of p(x_mis | x_obs) in each of S copies.
      bound: log 1/K sum_k p(x_obs, z_k) / q(z_k|x_obs) of each row, nats [N].
    """

    x: dict[str, np.ndarray]
    samples: tuple[dict[str, np.ndarray], ...]
    bound: np.ndarray


def rows(run: Run, x: Any) -> dict[str, np.ndarray]:
    """Returns samples or reconstructions of a run in the units and the words of its table: column name -> array [N].

    Args:
      run: of a table.
      x: in the encoded form, as `sample`, `decode` and `reconstruct` return it, [N, E]; leading axes are joined.

    Raises:
      InputError: the run is not of a table, or x is not of its form.
    """
    columns = run.spec.columns
    if not columns:
        raise InputError(f"{run.path}: its data are no table; use the array itself")
    array = np.asarray(x)
    if array.ndim < 2 or array.shape[-1] != run.spec.x.size:
        raise InputError(
            f"x: has shape {list(array.shape)}, and encoded rows of {run.path} are [N, {run.spec.x.size}]; give what "
            "sample, decode or reconstruct return"
        )
    return table_codes.decode(array.reshape(-1, array.shape[-1]), columns)


def fill(
    run: Run,
    x: Any,
    what: str,
    *,
    k: int,
    samples: int,
    seed: int,
    batch_size: int,
    state: TrainState,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Filled:
    """Fills in the empty cells of a table; the arguments, checked, are those of `imputing.impute`.

    Args:
      run: of a table.
      x: the table, as of `runs.tables.read`.
      what: the argument and its value, for messages.
      k: importance samples per row.
      samples: copies with draws.
      seed: of all noise.
      batch_size: rows at a time.
      state: the weights.
      report: called with (rows done, rows in all).

    Returns:
      every column of the table; what was observed, and what is not modeled, is as it was.

    Raises:
      InputError: nothing is missing, or rows that this model cannot take.
    """
    given = tables.read(run, x, what)
    if not given.source.info.mask:
        raise InputError(
            f"{what}: has no empty cells in the columns of the model, so there is nothing to fill in; leave the cells "
            "empty that are missing"
        )
    batches = eval_batches(given.source, given.config, batch_size)
    total = given.source.size
    found = impute_all(
        run.model,
        state,
        batches,
        key=jax.random.key(seed),
        k=k,
        draws=samples,
        report=lambda done: report(done, total),
    )

    def whole(estimate: np.ndarray) -> dict[str, np.ndarray]:
        made = table_codes.decode(estimate, run.spec.columns)
        return {c.name: _filled(c, made) for c in given.cells}

    return Filled(whole(found.mean), tuple(whole(draw) for draw in found.draws), found.bound)


def _filled(cells: Cells, made: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns a column with what was made where it had nothing; other columns are returned as they are."""
    values = made.get(cells.name)
    if values is None:
        return cells.text if cells.number is None else cells.number
    if cells.number is None or values.dtype.kind not in "if":
        return table_codes.filled(cells, values).text
    return np.where(cells.seen, cells.number, values)
