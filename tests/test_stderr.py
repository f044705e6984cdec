"""Standard errors against the true spread: scores of synthetic codes, drawn anew again and again."""

import json

import numpy as np
import pytest

from benchmarks import stderr
from vae_jax import metrics
from vae_jax.errors import InputError
from vae_jax.metrics.arrays import bootstrap_error

# Of these, `irs` claimed half of its spread while its error came from parts of the rows (coverage 65 %).
SCORES = {
    "irs": lambda z, y, seed: metrics.irs(z, y, seed=seed),
    "sap": lambda z, y, seed: metrics.sap(z[:, :3], y[:, :2], train=150, test=100, resamples=15, seed=seed),
    "betavae_score": lambda z, y, seed: metrics.betavae_score(
        z, y[:, 1:3], train=100, test=50, batch=8, resamples=15, seed=seed
    ),
    "factorvae_score": lambda z, y, seed: metrics.factorvae_score(z, y, train=400, test=200, batch=16, seed=seed),
    "modularity": lambda z, y, seed: metrics.modularity(z, y, resamples=20, seed=seed),
}


def measured(name: str, count: int) -> tuple[float, float]:
    """Returns (share of intervals of 1.96 standard errors that hold the mean, standard error over true spread)."""
    found = [SCORES[name](*stderr.rows(np.random.default_rng([3, r]), 600, "mixed"), r) for r in range(count)]
    values, errors = (np.array([getattr(f, part) for f in found]) for part in ("value", "stderr"))
    held = np.abs(values - values.mean()) <= 1.96 * errors
    return float(np.mean(held)), float(np.sqrt(np.mean(errors**2)) / values.std(ddof=1))


@pytest.mark.parametrize("name", SCORES)
def test_intervals_hold_the_mean_nearly_as_often_as_they_say(name):
    """Of 16 intervals of 95 % a right one loses more than 3 once in 140 times; half its error fails by the ratio."""
    held, ratio = measured(name, 16)
    assert held >= 13 / 16
    assert 0.7 < ratio < 1.8


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_intervals_hold_the_mean_as_often_as_they_say(name):
    """Of 40 intervals of 1.96 standard errors, on fresh rows and seeds, at least 85 % hold the mean of all scores."""
    held, ratio = measured(name, 40)
    assert held >= 0.85
    assert 0.8 < ratio < 1.6


def test_the_bootstrap_of_a_mean_is_its_standard_error():
    """Of rows and of test rows alike, each drawn from by itself; another seed, another draw."""
    x = np.random.default_rng(0).normal(size=4000)
    rows, shown = np.arange(3000), np.arange(3000, 4000)

    def errors(seed, resamples=400):
        return bootstrap_error(lambda a, b: (x[a].mean(), x[b].mean()), rows, shown, resamples=resamples, seed=seed)

    np.testing.assert_allclose(errors(0), [3000**-0.5, 1000**-0.5], rtol=0.1)
    assert errors(0) == errors(0) != errors(1)
    assert errors(0, resamples=1) == ()
    with pytest.raises(InputError, match=r"^resamples: -1 must be 0 or more$"):
        errors(0, resamples=-1)


def test_the_measurement_writes_what_it_measured(tmp_path, capsys):
    """`benchmarks.stderr`: every repetition has rows of its own; spread and coverage are those of its scores."""
    out = tmp_path / "stderr.json"
    assert stderr.main(["--repeats", "6", "--train", "200", "--only", "mig", "--out", str(out)]) == 0
    held = json.loads(out.read_text())
    assert held["protocol"]["repeats"] == 6
    seen, drawn = held["scores"]["mig"]["clear"], [stderr.rows(np.random.default_rng([0, r]), 300) for r in range(6)]
    found = [metrics.mig(z[:200], y[:200], seed=r) for r, (z, y) in enumerate(drawn)]
    values, errors = (np.array([getattr(f, part) for f in found]) for part in ("value", "stderr"))
    spread = np.std(values, ddof=1)
    assert seen["spread"] == pytest.approx(spread)
    assert seen["ratio"] == pytest.approx(np.sqrt(np.mean(errors**2)) / spread)
    assert seen["coverage"] == np.mean(np.abs(values - values.mean()) <= 1.96 * errors)
    assert "mixed  mig" in capsys.readouterr().out
