"""Impossible input of the scores on arrays: one line that names what is wrong, and the fix."""

import re

import numpy as np
import pytest

from vae_jax import metrics as g
from vae_jax.errors import InputError

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(12, 3))
FEATURES = [g.frechet_distance, g.precision_recall, g.density_coverage, g.mmd]
FACTORS = np.stack(np.meshgrid(range(3), range(3), range(2), indexing="ij"), -1).reshape(-1, 3)
CODES = FACTORS + 0.1 * RNG.normal(size=FACTORS.shape)
SCORES = [
    g.mig,
    g.rmig,
    g.jemmig,
    g.sap,
    g.dci,
    g.betavae_score,
    g.factorvae_score,
    g.modularity,
    g.explicitness,
    g.irs,
    g.info_mec,
]
MASKED = np.ma.masked_greater(ROWS, ROWS.max() - 1e-9)


def refused(message: str, call, *args, **kwargs) -> None:
    """Asserts that a call is refused with this beginning of a message, on one line and with a fix."""
    with pytest.raises(InputError, match=f"^{re.escape(message)}") as found:
        call(*args, **kwargs)
    assert "\n" not in str(found.value)
    assert "; " in str(found.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS[:, :0], "features: real images have 0 features"),
        (ROWS + 1j, "features: real: the numbers are complex"),
        (MASKED, "features: real: 1 masked entries; fill or drop them"),
        ([[1.0], [2.0, 3.0]], "features: real: the rows have several lengths"),
        ([["a"], ["b"]], "features: real: entries of type <U1 are not numbers"),
    ],
)
@pytest.mark.parametrize("score", FEATURES)
def test_features_that_are_no_numbers(score, rows, message):
    refused(message, score, rows, ROWS)
    refused(message.replace("real", "generated"), score, ROWS, rows)
    score(np.ma.masked_array(ROWS), ROWS.tolist())  # nothing is masked, and lists suffice


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES + 1j, "codes: the numbers are complex"),
        (np.ma.masked_greater(CODES, CODES.max() - 1e-9), "codes: 1 masked entries; fill or drop them"),
        ([[1.0], [2.0, 3.0]], "codes: the rows have several lengths"),
    ],
)
@pytest.mark.parametrize("score", SCORES)
def test_codes_that_are_no_numbers(score, codes, message):
    refused(f"{score.__name__}: {message}", score, codes, FACTORS)
    if np.ma.is_masked(codes):
        refused(f"{score.__name__}: factors: 12 masked entries", score, CODES, np.ma.masked_equal(FACTORS, 2))
    with pytest.raises(InputError, match=re.escape(message.replace("codes", "udr: codes of model 1"))):
        g.udr([CODES, codes])
