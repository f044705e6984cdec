"""Detection of outliers: AUROC against scikit-learn, WAIC and likelihood regret against plain forms."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from test_cli_look import config, make
from test_evaluation import KEY, batches, trained

from vae_jax.cli.main import run as cli
from vae_jax.errors import InputError
from vae_jax.evaluation import anomaly, evaluate
from vae_jax.evaluation.needs import has_joint
from vae_jax.metrics import outliers
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.runs.run import Run

RNG = np.random.default_rng(0)


def test_auroc_equals_scikit_learn():
    inside, outside = RNG.normal(size=40).round(1), (0.5 + RNG.normal(size=30)).round(1)  # with ties
    got = outliers.auroc(inside, outside)
    truth = np.repeat([0, 1], [40, 30])
    np.testing.assert_allclose(got.value, roc_auc_score(truth, np.concatenate([inside, outside])))
    np.testing.assert_allclose(outliers.auroc(-inside, -outside).value, 1 - got.value)
    assert got.n == 70
    assert outliers.auroc(np.zeros(3), np.ones(4)).value == 1.0
    assert outliers.auroc(np.zeros(3), np.zeros(4)).value == 0.5


def test_the_error_of_auroc_is_its_spread():
    made = [outliers.auroc(RNG.normal(size=80), 1 + RNG.normal(size=50)) for _ in range(200)]
    np.testing.assert_allclose(np.mean([m.stderr or 0.0 for m in made]), np.std([m.value for m in made]), rtol=0.15)


def test_waic_of_an_ensemble():
    log_prob = np.array([[-1.0, -5.0], [-3.0, -5.0], [-5.0, -5.0]])
    np.testing.assert_allclose(outliers.waic(log_prob), [-3.0 - 4.0, -5.0])
    with pytest.raises(InputError, match="fewer than two models is undefined; give rows of two models or more"):
        outliers.waic(log_prob[:1])
    assert np.isfinite(outliers.waic(log_prob[:2])).all()


@pytest.mark.parametrize(("inside", "outside"), [(0, 3), (3, 0)])
def test_empty_sides(inside, outside):
    with pytest.raises(InputError, match="auroc: inside or outside is empty; give one score or more of each"):
        outliers.auroc(np.zeros(inside), np.zeros(outside))
    assert outliers.auroc(np.zeros(max(inside, 1)), np.zeros(max(outside, 1))).value == 0.5


def test_scores_that_are_not_numbers():
    broken = np.array([0.0, np.nan])
    message = "auroc: score 1 of {} is not a number; leave out scores that are not numbers"
    with pytest.raises(InputError, match=message.format("inside")):
        outliers.auroc(broken, np.zeros(2))
    with pytest.raises(InputError, match=message.format("outside")):
        outliers.auroc(np.zeros(2), broken)
    assert outliers.auroc(broken[~np.isnan(broken)], np.ones(2)).value == 1.0


def test_bounds_are_those_of_evaluate():
    model, state = trained()
    found = anomaly.bounds(model, state, batches(10), KEY, 20)
    want = evaluate(model, state, batches(10), key=jax.random.key(9), k=(20,)).metrics
    assert found["elbo"].shape == found["iw"].shape == (23,)
    np.testing.assert_allclose(found["elbo"].mean(), want["elbo"].value, atol=1.0)
    np.testing.assert_allclose(found["iw"].mean(), want["iw_20"].value, atol=0.3)
    parts = anomaly.bounds(model, state, batches(7), KEY, 20)
    np.testing.assert_allclose(parts["iw"], found["iw"], rtol=1e-4)


def test_regret_is_the_gain_of_a_better_posterior():
    model, state = trained()
    assert has_joint(model)
    found = anomaly.regret(model, state, batches(23), KEY, 300)
    assert found.shape == (23,)
    assert (found >= 0).all()
    assert found.max() > 0.05
    np.testing.assert_allclose(anomaly.regret(model, state, batches(7), KEY, 300), found, rtol=0.02, atol=0.02)
    # No q gains more than the whole gap, and none without a step.
    batch = next(batches(23))
    elbo = np.mean([anomaly.bounds(model, state, [batch], jax.random.key(i), 1)["elbo"] for i in range(64)], 0)
    whole = anomaly.bounds(model, state, [batch], KEY, 2000)["iw"] - elbo
    assert (found <= whole + 0.3).all()
    assert (anomaly.regret(model, state, batches(23), KEY, 0) == 0).all()


def test_regret_of_a_spoilt_encoder_is_all_of_what_was_spoilt():
    """Where q is moved away, the best q is found again: the regret is about the loss of the bound."""
    model, state = trained()
    shift = jnp.zeros(8).at[:4].set(1.0)  # of the four means
    params = jax.tree.map(lambda p: p, state.params)
    params["vae"]["encoder"]["out"]["bias"] = params["vae"]["encoder"]["out"]["bias"] + shift
    spoilt = dataclasses.replace(state, params=params)
    before, after = (
        np.mean([anomaly.bounds(model, s, batches(23), jax.random.key(i), 1)["elbo"] for i in range(64)], 0)
        for s in (state, spoilt)
    )
    own, moved = (anomaly.regret(model, s, batches(23), KEY, 400) for s in (state, spoilt))
    lost = before - after
    assert lost.mean() > 2.0
    np.testing.assert_allclose((moved - own).mean(), lost.mean(), rtol=0.1)


def test_regret_needs_densities():
    model, state = trained("ae")
    with pytest.raises(InputError, match="likelihood regret: needs densities"):
        anomaly.regret(model, state, batches(23), KEY, 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    vae, ae = config(VAE(3, MLP((8,)))), config(Autoencoder(3, MLP((8,))))
    other = dataclasses.replace(vae, seed=1)
    return {"vae": make(folder / "vae", vae), "other": make(folder / "other", other), "ae": make(folder / "ae", ae)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    np.save(folder / "noise.npy", RNG.uniform(size=(50, 8, 8, 1)).astype(np.float32))
    np.save(folder / "wide.npy", RNG.uniform(size=(50, 8, 9, 1)).astype(np.float32))
    np.savez(folder / "empty.npz", images=np.zeros((0, 8, 8, 1), np.float32))
    return folder


def measured(run, out, *words) -> tuple[int, Any]:
    code = cli(["eval", str(run), "--limit", "30", "--out", str(out), *map(str, words)])
    return code, json.loads(out.read_text()) if out.exists() else None


def test_a_run_against_noise(runs, files, tmp_path):
    words = ("--metrics", "anomaly", "--outliers", files / "noise.npy", "--outlier-k", 5, "--regret-steps", 10)
    code, found = measured(runs["vae"], tmp_path / "a.json", *words, "--others", runs["other"])
    assert code == 0
    assert found["metrics"].keys() == {"auroc_elbo", "auroc_iw", "auroc_waic", "auroc_regret"}
    assert all(m["n"] == 60 for m in found["metrics"].values())
    text = found["protocol"]["anomaly"]
    assert "30 images of" in text
    assert "auroc_waic of IW-5 of 2 runs" in text
    assert "10 steps" in text
    alone = measured(runs["vae"], tmp_path / "b.json", *words, "--batch-size", 7)[1]
    assert alone["metrics"].keys() == {"auroc_elbo", "auroc_iw", "auroc_regret"}
    assert "no auroc_waic" in alone["protocol"]["anomaly"]
    for name, metric in alone["metrics"].items():
        np.testing.assert_allclose(found["metrics"][name]["value"], metric["value"], atol=0.02)


def test_bad_input_costs_its_own_metric_only(runs, files, tmp_path, capsys):
    cases = [
        ("vae", (), "name one with --outliers"),
        ("vae", ("--outliers", files / "wide.npy"), "images are 8x9 with 1 channel"),
        ("vae", ("--outliers", "fashoin_mnist"), "no such file, folder or data set"),
        ("vae", ("--outliers", files / "noise.npy", "--others", runs["ae"]), "not a model of the same data"),
        ("vae", ("--outliers", files / "empty.npz"), "and not empty"),
        ("ae", ("--outliers", files / "noise.npy"), "needs a bound on log p(x)"),
    ]
    for i, (name, words, message) in enumerate(cases):
        code, found = measured(runs[name], tmp_path / f"{i}.json", "--metrics", "anomaly,mse", *words)
        err = capsys.readouterr().err
        assert code == 2, message
        assert message in err
        assert err.count("\n") == 1
        assert list(found["metrics"]) == ["mse"]
        assert message in found["refused"]["anomaly"]


def test_a_run_that_diverged_is_named(runs, files, tmp_path, capsys):
    """The scores say what is wrong with arrays; that a run should be trained anew is said of the run."""
    run = Run.load(runs["vae"])
    state = run.restore()
    broken = make(tmp_path / "broken", run.config)
    params = jax.tree.map(lambda p: p * jnp.nan, state.params)
    checkpoints = Run.load(broken).checkpoints()
    checkpoints.save(dataclasses.replace(state, params=params, step=state.step + 1), {})
    checkpoints.close()
    words = ("--metrics", "anomaly", "--outliers", files / "noise.npy")
    code, found = measured(broken, tmp_path / "a.json", *words, "--step", int(state.step) + 1)
    err = capsys.readouterr().err
    assert code == 2
    assert "broken: auroc_elbo of some images is not a number; lower the learning rate" in err
    # The advice, as far as it can be followed here: the run that did not diverge is measured.
    code, found = measured(broken, tmp_path / "b.json", *words, "--step", int(state.step))
    assert code == 0
    assert {"auroc_elbo", "auroc_iw"} <= found["metrics"].keys()


@pytest.mark.parametrize(("option", "value"), [("--outlier-k", 0), ("--regret-steps", 0)])
def test_out_of_range(runs, tmp_path, capsys, option, value):
    code, found = measured(runs["vae"], tmp_path / "a.json", "--metrics", "anomaly", option, value)
    assert (code, found) == (2, None)
    assert f"{option}: {value} is out of range; it must be 1 or more" in capsys.readouterr().err
