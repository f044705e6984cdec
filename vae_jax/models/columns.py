"""The likelihood of a table: of its columns, or refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from vae_jax.errors import InputError, option
from vae_jax.likelihoods import LIKELIHOODS
from vae_jax.spec import DataSpec


def bound(config: Any, spec: DataSpec) -> Any:
    """Returns the options of a model with the likelihood of these data.

    Args:
      config: of a model, with a `likelihood`.
      spec: the data. Those without columns change nothing.

    Returns:
      the options, where a likelihood of columns (`of_columns`) knows those of the data.

    Raises:
      InputError: the likelihood cannot score what the columns hold.
    """
    if not spec.columns:
        return config
    of_columns = getattr(config.likelihood, "of_columns", None)
    if of_columns is not None:
        return dataclasses.replace(config, likelihood=of_columns(spec.columns))
    # Standardized numbers are real numbers: any density on the real line can score them.
    other = sorted({column.kind for column in spec.columns if not column.is_numeric})
    if other or config.likelihood.support != (-math.inf, math.inf) or config.likelihood.levels is not None:
        cls = type(config.likelihood)
        name = next((n for n, known in LIKELIHOODS.items() if known is cls), cls.__name__)
        what = f"{' and '.join(other)} columns" if other else "columns of standardized numbers"
        raise InputError(
            f"model.likelihood: {name} cannot score the {what} of a table; use {option('model.likelihood', 'table')}"
        )
    return config
