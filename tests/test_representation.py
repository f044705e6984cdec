"""Codes against labels, calibration of pixels, latent arithmetic."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from PIL import Image
from scipy.stats import norm
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from test_cli_look import arrays, config, make

from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.evaluation import calibration, encode_all, latents
from vae_jax.evaluation.subject import Subject
from vae_jax.likelihoods import ContinuousBernoulli, Gaussian
from vae_jax.metrics import classifiers, partitions, reliability
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.runs.run import Run

RNG = np.random.default_rng(0)


def blobs(n: int, distance: float):
    """Returns n codes in three blobs, and their labels 3, 5, 8."""
    which = RNG.integers(3, size=n)
    return distance * np.eye(3)[which] + RNG.normal(size=(n, 3)), np.array([3, 5, 8])[which]


def test_separable_blobs_are_found():
    codes, label = blobs(90, 40.0)
    found = partitions.cluster(codes, label)
    for metric in found.values():
        assert (metric.value, metric.n) == (pytest.approx(1.0), 90)
    guess = classifiers.fit("knn", codes, label)(codes)
    assert (guess == label).all()


def test_agreement_equals_scikit_learn():
    truth, found = RNG.integers(4, size=200), RNG.integers(4, size=200)
    found[:120] = truth[:120]
    table = np.zeros((4, 4))
    np.add.at(table, (found, truth), 1)
    accuracy, nmi, ari = partitions.agreement(table)
    np.testing.assert_allclose(nmi, normalized_mutual_info_score(truth, found))
    np.testing.assert_allclose(ari, adjusted_rand_score(truth, found))
    np.testing.assert_allclose(accuracy, (truth == found).mean())
    # Names of clusters mean nothing.
    np.testing.assert_allclose(partitions.agreement(table[[2, 0, 3, 1]]), (accuracy, nmi, ari))
    assert partitions.agreement(np.diag([3.0, 4.0])) == pytest.approx((1, 1, 1))
    # One cluster for two labels: the larger of them is matched, and nothing is known of it.
    assert partitions.agreement(np.array([[6.0, 4.0], [0.0, 0.0]])) == pytest.approx((0.6, 0.0, 0.0))


def test_codes_without_labels_in_them():
    codes, label = RNG.normal(size=(600, 3)), RNG.integers(3, size=600)
    found = partitions.cluster(codes, label)
    assert abs(found["cluster_ari"].value) < 0.03
    assert found["cluster_nmi"].value < 0.03
    assert 1 / 3 <= found["cluster_accuracy"].value < 0.45
    assert found["cluster_accuracy"].stderr == pytest.approx(0.02, abs=0.01)


def test_refused_clusterings():
    with pytest.raises(InputError, match="20 examples of 1 label; it needs two"):
        partitions.cluster(RNG.normal(size=(20, 2)), np.zeros(20, int))
    with pytest.raises(InputError, match="2 examples of 2 labels"):
        partitions.cluster(RNG.normal(size=(2, 2)), np.arange(2))


def test_knn_is_a_vote_of_five():
    codes, label = RNG.normal(size=(50, 2)), RNG.integers(2, size=50)
    asked = RNG.normal(size=(20, 2))
    near = np.argsort(np.linalg.norm(asked[:, None] - codes, axis=2), axis=1)[:, :5]
    want = (label[near].mean(1) > 0.5).astype(int)
    np.testing.assert_array_equal(classifiers.fit("knn", codes, label)(asked), want)
    with pytest.raises(InputError, match="4 labeled examples are fewer than its 5 neighbors; give 5 or more"):
        classifiers.fit("knn", codes[:4], np.arange(4))
    classifiers.fit("knn", codes[:5], np.arange(5))
    with pytest.raises(InputError, match="knn: the labels are all of one class; give examples of two classes or more"):
        classifiers.fit("knn", codes, np.zeros(50, int))
    codes[3, 1] = np.nan
    message = "code 1 of example 3 is not finite; leave out examples that are not finite"
    with pytest.raises(InputError, match=message):
        classifiers.fit("knn", codes, label)
    kept = np.isfinite(codes).all(1)
    assert classifiers.fit("knn", codes[kept], label[kept])(asked).shape == (20,)


def ece(p, x):
    """The expected calibration error by its definition, a bin at a time."""
    total = 0.0
    for b in range(15):
        held = (p * 15 >= b) & ((p * 15 < b + 1) | (b == 14))
        if held.any():
            total += held.mean() * abs(p[held].mean() - x[held].mean())
    return total


def test_calibration_of_known_probabilities():
    p = RNG.uniform(size=(50, 400))
    p[0, :3] = 0.0, 1.0, 1 / 15
    right, wrong = (RNG.uniform(size=p.shape) < p).astype(float), (RNG.uniform(size=p.shape) < p**2).astype(float)
    for x in (right, wrong):
        sums = reliability.binned(p, x).sum(0)
        assert sums[0].sum() == p.size
        np.testing.assert_allclose(reliability.expected_calibration_error(*sums), ece(p, x), rtol=1e-9)
    assert ece(p, right) < 0.02
    np.testing.assert_allclose(ece(p, wrong), 1 / 6, atol=0.01)  # the integral of p - p^2

    def error(sums):
        return reliability.expected_calibration_error(*sums)

    spread = [error(reliability.binned(p, RNG.uniform(size=p.shape) < p**2).sum(0)) for _ in range(40)]
    stderr = reliability.bootstrap(reliability.binned(p, wrong), error, 0)
    assert stderr == pytest.approx(np.std(spread), rel=0.4)


def test_quantiles_of_a_gaussian():
    x = RNG.normal(size=100_000)

    def error(spread):
        u = np.sort(norm.cdf(x / spread))
        return reliability.quantile_error(np.searchsorted(u, reliability.LEVELS, side="right"), len(x))

    assert error(1.0) < 0.003
    # With a spread that is twice too large, P(u <= p) = Phi(2 Phi^-1(p)).
    want = np.abs(norm.cdf(2 * norm.ppf(reliability.LEVELS)) - reliability.LEVELS).mean()
    np.testing.assert_allclose(error(2.0), want, atol=0.005)


def sized(likelihood=None, **data):
    whole = config(VAE(3, MLP((8,)), *([likelihood] if likelihood else [])))
    return dataclasses.replace(whole, data=dataclasses.replace(whole.data, **data))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "grey": make(folder / "grey", sized()),
        "binary": make(folder / "binary", sized(binarize="threshold")),
        "gaussian": make(folder / "gaussian", sized(Gaussian(0.3))),
        "continuous": make(folder / "continuous", sized(ContinuousBernoulli())),
    }


def measured(run, out, *words) -> tuple[int, Any]:
    code = cli(["eval", str(run), "--limit", "60", "--out", str(out), *map(str, words)])
    return code, json.loads(out.read_text()) if out.exists() else None


def test_calibration_of_runs(runs, tmp_path, capsys):
    found = {}
    for name in ("grey", "binary", "gaussian"):
        code, held = measured(runs[name], tmp_path / f"{name}.json", "--metrics", "calibration")
        assert code == 0
        found[name] = held["metrics"]["calibration_error"]["value"]
        assert ("grey levels count as shares" in held["protocol"]["calibration"]) == (name == "grey")
    again = measured(runs["binary"], tmp_path / "b.json", "--metrics", "calibration", "--batch-size", 7)[1]
    np.testing.assert_allclose(again["metrics"]["calibration_error"]["value"], found["binary"], atol=2e-4)
    for name in ("grey", "binary"):
        run = Run.load(runs[name])
        subject = Subject(run, run.restore(), "test", limit=60)
        # An untrained decoder says about 1/2 everywhere: the error is about |1/2 - mean|.
        np.testing.assert_allclose(found[name], abs(0.5 - subject.images.mean()), atol=0.08)
    code, held = measured(runs["continuous"], tmp_path / "c.json", "--metrics", "calibration,mse")
    assert code == 2
    assert list(held["metrics"]) == ["mse"]
    assert "of ContinuousBernoulli pixels no distribution function is at hand" in capsys.readouterr().err


def test_gaussian_quantiles_are_of_the_decoder(runs):
    run = Run.load(runs["gaussian"])
    state = run.restore()
    subject = Subject(run, state, "test", limit=20)
    got = calibration.measure(subject)["calibration_error"].value
    # The untrained code hardly moves the decoder, so the mean code gives nearly the same quantiles.
    codes = encode_all(run.model, state, subject.batches())
    loc = np.asarray(run.model.decode(state.params, state.model_state, jnp.asarray(codes.mean)).mean())
    u = norm.cdf((subject.images - loc) / 0.3)
    want = np.mean([abs((u <= level).mean() - level) for level in np.arange(1, 20) / 20])
    np.testing.assert_allclose(got, want, atol=0.05)


def test_codes_and_labels_of_a_run(runs, tmp_path):
    code, held = measured(runs["grey"], tmp_path / "a.json", "--metrics", "clustering,knn,mse")
    assert code == 0
    assert set(held["metrics"]) == {"cluster_accuracy", "cluster_nmi", "cluster_ari", "knn", "mse"}
    assert "10 clusters" in held["protocol"]["clustering"]
    assert "1,000 labelled" in held["protocol"]["knn"]
    assert held["metrics"]["knn"]["value"] > 0.2  # three random projections
    assert held["metrics"]["knn"]["n"] == 60


@pytest.fixture(scope="module")
def sprites(tmp_path_factory):
    run = config(Autoencoder(3, MLP((8,))))
    run = dataclasses.replace(run, data=DataConfig("sprites", batch_size=8, image_size=32, limit=600))
    folder = tmp_path_factory.mktemp("runs") / "sprites"
    made = Run.create(folder, "tiny", run, spec.images(32, 32, 1))
    support.checkpoint(made, 4)
    return folder


@pytest.fixture(scope="module")
def unlabeled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unlabeled")
    np.savez(folder / "x.npz", images=RNG.uniform(size=(300, 8, 8, 1)).astype(np.float32))
    run = dataclasses.replace(sized(), data=DataConfig("npz", batch_size=8, source=str(folder / "x.npz")))
    return make(folder / "run", run)


def test_no_labels(unlabeled, tmp_path, capsys):
    code, held = measured(unlabeled, tmp_path / "a.json", "--metrics", "clustering,knn,mse")
    assert code == 2
    assert list(held["metrics"]) == ["mse"]
    err = capsys.readouterr().err
    assert "clustering: needs labels, which the data set 'npz' does not provide" in err
    assert "knn: needs labels, which the data set 'npz' does not provide" in held["refused"]["knn"]
    assert err.count("\n") == 1


def test_codes_that_are_not_finite(runs, tmp_path, capsys):
    run = Run.load(runs["grey"])
    broken = make(tmp_path / "broken", run.config)
    state = run.restore()
    state = dataclasses.replace(state, params=jax.tree.map(lambda p: p * jnp.nan, state.params), step=state.step + 1)
    checkpoints = Run.load(broken).checkpoints()
    checkpoints.save(state, {})
    checkpoints.close()
    code, held = measured(
        broken, tmp_path / "a.json", "--metrics", "clustering,knn,ssim,mmd,calibration,mse", "--step", 5
    )
    assert code == 2
    assert list(held["metrics"]) == ["mse"]
    err = capsys.readouterr().err
    for words in (
        "broken: code 0 of example 0 is not finite",
        "samples of the prior are not finite",
        "decoded pixels are not finite",
    ):
        assert err.count(words) == 1


def test_direction_of_an_attribute():
    codes, values = RNG.normal(size=(30, 2)), RNG.integers(3, size=30)
    got = latents.attribute(codes, values, 0, 2)
    np.testing.assert_allclose(got, codes[values == 2].mean(0) - codes[values == 0].mean(0))
    np.testing.assert_allclose(latents.attribute(codes, values, 2, 0), -got)
    with pytest.raises(InputError, match="value 7: none of 30 examples has it; choose of 0, 1, 2"):
        latents.attribute(codes, values, 0, 7)


def test_arithmetic_by_label(runs, tmp_path):
    words = ["arithmetic", str(runs["grey"]), "--from", "3", "--to", "8", "--n", "4", "--steps", "3"]
    assert cli([*words, "--strength", "2", "--out", str(tmp_path / "a.npz")]) == 0
    assert cli([*words, "--out", str(tmp_path / "a.png")]) == 0
    held = arrays(tmp_path / "a.npz")
    run = Run.load(runs["grey"])
    known = encode_all(run.model, run.restore(), run.batches("train", 256))
    label = known.extra["label"]
    want = known.mean[label == 8].mean(0) - known.mean[label == 3].mean(0)
    np.testing.assert_allclose(held["direction"], want, rtol=1e-4, atol=1e-6)
    shown = encode_all(run.model, run.restore(), run.batches("test", 256))
    rows = np.flatnonzero(shown.extra["label"] == 3)[:4]
    np.testing.assert_array_equal(held["index"], rows)
    ways = shown.mean[rows][:, None] + np.array([0.0, 1.0, 2.0])[:, None] * want
    np.testing.assert_allclose(held["codes"], ways, rtol=1e-4, atol=1e-5)
    assert held["images"].shape == (4, 3, 8, 8, 1)
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"


def test_arithmetic_by_factor(sprites, tmp_path):
    words = ["arithmetic", str(sprites), "--factor", "shape", "--from", "0", "--to", "2", "--n", "2"]
    assert cli([*words, "--learn", "300", "--out", str(tmp_path / "a.npz")]) == 0
    held = arrays(tmp_path / "a.npz")
    assert held["images"].shape == (2, 6, 32, 32, 1)
    source = Run.load(sprites).source("test")
    factors = np.asarray(source.fetch({}, jnp.asarray(held["index"]))["factors"])
    assert (factors[:, source.info.factor_names.index("shape")] == 0).all()


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("grey", ["--from", "3", "--to", "12"], "--to: 12: no training example has it"),
        ("grey", ["--from", "3", "--to", "3"], "is where --from starts"),
        ("grey", ["--from", "3", "--to", "8", "--factor", "shape"], "'digits' has no factors"),
        ("grey", ["--from", "3", "--to", "8", "--n", "900"], "only 18 examples of the test split have 3; use --n 18"),
        ("grey", ["--from", "3", "--to", "8", "--steps", "1"], "--steps: 1 is out of range; it must be 2 or more"),
        ("grey", ["--from", "three", "--to", "8"], "--from"),
        ("unlabeled", ["--from", "0", "--to", "1"], "the data set 'npz' has no labels and no factors"),
        ("sprites", ["--from", "0", "--to", "1", "--factor", "color"], "none such"),
    ],
)
def test_refused_arithmetic(runs, sprites, unlabeled, tmp_path, capsys, name, words, message):
    run = {"sprites": sprites, "unlabeled": unlabeled}.get(name) or runs[name]
    assert cli(["arithmetic", str(run), *words, "--out", str(tmp_path / "a.npz")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
