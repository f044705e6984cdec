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


@pytest.mark.parametrize("k", [0, -1, 1.5, 3.0, True, np.nan, "3", None])
@pytest.mark.parametrize("score", [g.precision_recall, g.density_coverage])
def test_neighbors_that_cannot_be_counted(score, k):
    refused(f"k: {k!r} must be a whole number from 1", score, ROWS, ROWS, k=k)
    refused("features: 12 real images are too few; this metric needs 13", score, ROWS, ROWS, k=12)
    assert score(ROWS, ROWS, k=np.int64(11)) == score(ROWS, ROWS, k=11)


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("mean", "cov", "message"),
    [
        ([0.0], EYE, "mean_a (1,) and cov_a (2, 2) do not fit"),
        ([0.0, 0.0], [1.0, 1.0], "mean_a (2,) and cov_a (2,) do not fit"),
        ([[0.0, 0.0]], EYE, "mean_a (1, 2) and cov_a (2, 2) do not fit"),
        ([0.0] * 3, np.eye(3), "mean_a has 3 features and mean_b 2"),
        ([0.0, np.nan], EYE, "mean_a is not finite"),
        ([0.0, 0.0], np.diag([1.0, np.inf]), "cov_a is not finite"),
        ([0.0, 0.0], [[1.0, 0.5], [0.0, 1.0]], "cov_a is not symmetric"),
        ([0.0, 0.0], [[1.0, 2.0], [2.0, 1.0]], "cov_a has the negative eigenvalue -1;"),
        ([0.0, 1j], EYE, "mean_a: the numbers are complex"),
    ],
)
def test_gaussians_that_are_none(mean, cov, message):
    refused(f"gaussian_distance: {message}", g.gaussian_distance, mean, cov, [0.0, 0.0], EYE.tolist())
    if "has 3" not in message:
        other = message.replace("_a", "_b")
        refused(f"gaussian_distance: {other}", g.gaussian_distance, [0.0, 0.0], EYE.tolist(), mean, cov)
    # Lists, and a covariance that rounding leaves a little off.
    found = g.gaussian_distance([0, 3], [[1, 1e-7], [0, -1e-8]], [0, 0], [[1, 0], [0, 0]])  # type: ignore[arg-type]
    assert found == pytest.approx(9.0)


@pytest.mark.parametrize(
    ("score", "huge"),
    [(g.frechet_distance, 1e76), (g.precision_recall, 1e153), (g.density_coverage, 1e153), (g.mmd, 1e25)],
)
def test_features_that_overflow(score, huge):
    rows = ROWS.copy()
    rows[[2, 7], 1] = -huge
    refused(
        f"features: feature 1 of generated image 2 is {-huge:.3g}, and sums of its powers overflow", score, ROWS, rows
    )
    rows[[2, 7], 1] = -huge / 1e3
    found = score(ROWS, rows)
    assert all(np.isfinite(e.value) for e in (found.values() if isinstance(found, dict) else [found]))


LABELS = np.arange(12) % 2
IMAGES = RNG.uniform(size=(2, 8, 8, 1))
NAN = np.where(ROWS[2, 1] == ROWS, np.nan, ROWS)


@pytest.mark.parametrize(
    ("score", "args", "message"),
    [
        (g.cluster, (NAN, LABELS), "clustering: code dimension 1 is not finite (row 2)"),
        (g.cluster, (ROWS[:, 0], LABELS), "clustering: codes (12,) and label (12,) do not fit"),
        (g.cluster, (ROWS, LABELS[:, None]), "clustering: codes (12, 3) and label (12, 1) do not fit"),
        (g.cluster, (ROWS, LABELS[:11]), "clustering: 12 codes and 11 labels"),
        (g.cluster, (ROWS, np.r_[LABELS[:11], np.nan]), "clustering: label 11 is not finite"),
        (g.cluster, (ROWS, np.ma.masked_equal(LABELS, 1)), "clustering: label: 6 masked entries"),
        (g.agreement, ([1, 2],), "agreement: the table has 1 axes"),
        (g.agreement, ([[1, -1], [2, 3]],), "agreement: entry [0, 1] is -1"),
        (g.agreement, ([[1, 1], [0.5, 3]],), "agreement: entry [1, 0] is 0.5"),
        (g.agreement, ([[1, 1], [np.nan, 3]],), "agreement: entry [1, 0] is nan"),
        (g.agreement, ([[1, np.inf], [2, 3]],), "agreement: entry [0, 1] is inf"),
        (g.agreement, ([[0, 0], [0, 0]],), "agreement: the table counts no example"),
        (g.agreement, (np.zeros((0, 0)),), "agreement: the table counts no example"),
        *(
            (g.expected_calibration_error, args, f"expected_calibration_error: {message}")
            for args, message in [
                (([2, 2], [1.0], [0, 2]), "counts (2,), stated (1,) and seen (2,) do not fit"),
                (([2, -2], [1.0, 0.0], [0, 0]), "counts must be 0 or more"),
                (([0, 0], [0.0, 0.0], [0, 0]), "counts must be 0 or more, with a positive sum"),
                (([2, np.nan], [0.0, 0.0], [0, 0]), "counts must be 0 or more"),
                (([2, 2], [1.0, 2.5], [0, 2]), "stated of bin 1 is 2.5, outside 0 to its count 2"),
                (([2, 2], [1.0, np.nan], [0, 2]), "stated of bin 1 is nan"),
                (([2, 2], [1.0, 2.0], [-1, 2]), "seen of bin 0 is -1"),
            ]
        ),
        (g.auroc, (ROWS, ROWS[:, 0]), "auroc: inside (12, 3) and outside (12,) do not fit"),
        (g.auroc, (ROWS[:, 0], 1.0), "auroc: inside (12,) and outside () do not fit"),
        (g.waic, (ROWS[0],), "waic: log_prob has 1 axes"),
        (g.waic, (ROWS[None],), "waic: log_prob has 3 axes"),
        *(
            (score, args, f"{score.__name__}: {message}")
            for score in (g.ssim, g.ms_ssim)
            for args, message in [
                ((IMAGES, IMAGES[:1]), "x is (2, 8, 8, 1) and y (1, 8, 8, 1)"),
                ((IMAGES[0], IMAGES[0]), "the images are (8, 8, 1)"),
                ((IMAGES[:0], IMAGES[:0]), "the images are (0, 8, 8, 1)"),
                ((IMAGES, 1.1 * np.ones_like(IMAGES)), "values of y are from 1.1 to 1.1"),
                ((np.full((1, 8, 8, 1), -0.5), np.zeros((1, 8, 8, 1))), "values of x are from -0.5 to -0.5"),
                ((np.full((1, 8, 8, 1), np.nan), np.zeros((1, 8, 8, 1))), "values of x are from nan to nan"),
            ]
        ),
    ],
)
def test_input_of_other_scores(score, args, message):
    refused(message, score, *args)


def test_lists_are_input():
    assert g.bits_per_dim([-2.0 * np.log(2.0)], 2, 1.0).tolist() == [1.0]  # type: ignore[arg-type]
    assert g.expected_calibration_error([2, 2], [0.5, 1.5], [0, 2]) == 0.25  # type: ignore[arg-type]
    assert g.cluster([[0.0], [0.1], [5.0], [5.1]], [1, 1, 0, 0])["cluster_accuracy"].value == 1.0  # type: ignore[arg-type]
    assert g.waic([[0.0], [2.0]]).tolist() == [-1.0]  # type: ignore[arg-type]
    np.testing.assert_allclose(g.ssim(IMAGES.tolist(), IMAGES.tolist()), 1.0, rtol=1e-5)  # type: ignore[arg-type]
