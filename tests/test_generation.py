"""Metrics of generated and reconstructed images: closed forms, and plain loops."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import support
from test_cli_look import config, make

from vae_jax import metrics as g
from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.errors import InputError
from vae_jax.evaluation import features
from vae_jax.evaluation.settings import Settings
from vae_jax.evaluation.subject import Subject
from vae_jax.metrics import frechet, image_pairs, manifolds
from vae_jax.models import VAE, Autoencoder, Classifier
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.runs.run import Run

RNG = np.random.default_rng(0)
GENERATION = {
    "frechet_distance",
    "precision",
    "recall",
    "density",
    "coverage",
    "mmd_polynomial",
    "mmd_rbf",
}


def covariance(size: int, rank: int | None = None) -> np.ndarray:
    root = RNG.normal(size=(size, rank or size))
    return root @ root.T


def test_distance_of_known_gaussians():
    a, b = np.array([1.0, 2.0, 0.0]), np.array([0.0, 4.0, 0.0])
    # Diagonal: |a - b|^2 + sum (s - t)^2.
    s, t = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 0.5])
    got = g.gaussian_distance(a, np.diag(s**2), b, np.diag(t**2))
    np.testing.assert_allclose(got, 5.0 + np.square(s - t).sum(), rtol=1e-12)
    A, B = covariance(3), covariance(3)
    root = np.real(scipy.linalg.sqrtm(A @ B))
    np.testing.assert_allclose(g.gaussian_distance(a, A, b, B), 5.0 + np.trace(A + B - 2 * root), rtol=1e-9)


def test_distance_of_singular_gaussians():
    """Roots of rounding errors would give some 1e-7; with one common factor the distance is known."""
    A = covariance(40, 3)
    zero = np.zeros(40)
    assert abs(g.gaussian_distance(zero, A, zero, A)) < 1e-10
    np.testing.assert_allclose(g.gaussian_distance(zero, A, zero, 4 * A), np.trace(A), rtol=1e-9)
    np.testing.assert_allclose(g.gaussian_distance(zero, A, zero, 0 * A), np.trace(A), rtol=1e-9)


def test_frechet_distance_of_samples(monkeypatch):
    x = RNG.normal(size=(300, 4))
    same = g.frechet_distance(x, x)
    assert abs(same.value) < 1e-10
    moved = g.frechet_distance(x, 2.0 * x + 3.0)
    # The covariances are S and 4 S, the means m and 2 m + 3.
    want = np.square(x.mean(0) + 3.0).sum() + np.trace(np.cov(x.T))
    np.testing.assert_allclose(moved.value, want, rtol=1e-9)
    y = RNG.normal(size=(200, 4)) @ RNG.normal(size=(4, 4))
    want = g.gaussian_distance(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    np.testing.assert_allclose(g.frechet_distance(x, y).value, want, rtol=1e-9)
    monkeypatch.setattr(frechet, "WIDEST", 3)  # as a picture of many pixels: no error, and the same distance
    np.testing.assert_allclose(g.frechet_distance(x, y).value, want, rtol=1e-9)
    assert g.frechet_distance(x, y).stderr is None


def test_frechet_error_is_the_spread_over_samples():
    made = [g.frechet_distance(RNG.normal(size=(400, 3)), 0.5 + RNG.normal(size=(400, 3))) for _ in range(60)]
    spread = np.std([m.value for m in made], ddof=1)
    np.testing.assert_allclose(np.mean([m.stderr or 0.0 for m in made]), spread, rtol=0.3)
    # |m - m'|^2 = 0.75, and the bias of 400 images is small.
    assert abs(np.mean([m.value for m in made]) - 0.75) < 0.05


def test_precision_recall_equals_a_loop():
    x, y, k = RNG.normal(size=(40, 3)), 1.0 + RNG.normal(size=(30, 3)), 3

    def share(points, manifold):
        reach = [
            sorted(np.linalg.norm(m - o) for j, o in enumerate(manifold) if j != i)[k - 1]
            for i, m in enumerate(manifold)
        ]
        return np.mean([any(np.linalg.norm(p - m) <= r for m, r in zip(manifold, reach)) for p in points])

    got = g.precision_recall(x, y)
    np.testing.assert_allclose(got["precision"].value, share(y, x))
    np.testing.assert_allclose(got["recall"].value, share(x, y))
    assert 0 < got["precision"].value < 1
    assert (got["precision"].n, got["recall"].n) == (30, 40)


def test_density_coverage_equals_a_loop():
    x, y, k = RNG.normal(size=(40, 3)), 1.0 + RNG.normal(size=(30, 3)), 5
    reach = [np.sort(np.linalg.norm(x - row, axis=1))[k] for row in x]
    inside = np.array([[np.linalg.norm(p - c) < r for c, r in zip(x, reach)] for p in y])
    got = g.density_coverage(x, y)
    np.testing.assert_allclose(got["density"].value, inside.sum() / (k * len(y)))
    np.testing.assert_allclose(got["coverage"].value, inside.any(0).mean())


def test_equal_and_disjoint_sets(monkeypatch):
    monkeypatch.setattr(manifolds, "ROWS", 17)  # several blocks, the last one smaller
    x = RNG.normal(size=(60, 5))
    same = g.precision_recall(x, x) | g.density_coverage(x, x)
    assert {name: m.value for name, m in same.items()} == dict(precision=1.0, recall=1.0, density=1.0, coverage=1.0)
    far = g.precision_recall(x, x + 100.0) | g.density_coverage(x, x + 100.0)
    assert {m.value for m in far.values()} == {0.0}


def test_coverage_of_equal_distributions():
    """1 - P(no one of M points among the k nearest of N - 1 + M)."""
    n = m = 1500
    got = g.density_coverage(RNG.normal(size=(n, 2)), RNG.normal(size=(m, 2)))
    miss = np.prod([(n - 1 - i) / (n - 1 + m - i) for i in range(5)])
    np.testing.assert_allclose(got["coverage"].value, 1 - miss, atol=0.015)
    np.testing.assert_allclose(got["density"].value, 1.0, atol=0.05)


def test_mmd_equals_a_loop():
    x, y = RNG.normal(size=(23, 3)), 0.5 + RNG.normal(size=(31, 3))
    scale = np.median([np.square(a - b).sum() for i, a in enumerate(x) for b in x[:i]])
    kernels = {
        "mmd_polynomial": lambda a, b: (a @ b / 3 + 1) ** 3,
        "mmd_rbf": lambda a, b: np.exp(-np.square(a - b).sum() / (2 * scale)),
    }
    got = g.mmd(x, y)
    for name, k in kernels.items():
        xx = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
        yy = np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
        xy = np.mean([k(a, b) for a in x for b in y])
        np.testing.assert_allclose(got[name].value, xx + yy - 2 * xy, rtol=1e-10)


def test_mmd_is_unbiased_and_its_error_is_honest():
    null = [g.mmd(RNG.normal(size=(40, 2)), RNG.normal(size=(40, 2))) for _ in range(150)]
    for name in ("mmd_polynomial", "mmd_rbf"):
        values = np.array([m[name].value for m in null])
        assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
        assert (values < 0).mean() > 0.3  # a biased estimator is never negative
    apart = [g.mmd(RNG.normal(size=(150, 2)), 1.0 + RNG.normal(size=(150, 2)))["mmd_rbf"] for _ in range(60)]
    spread = np.std([m.value for m in apart], ddof=1)
    np.testing.assert_allclose(np.mean([m.stderr or 0.0 for m in apart]), spread, rtol=0.35)


def ssim_loop(x, y, size):
    """SSIM of one channel by the definition: weighted moments in each window."""
    offset = np.arange(size) - size // 2
    w = np.exp(-0.5 * np.square(offset / 1.5))
    w = np.outer(w, w) / np.outer(w, w).sum()
    found = []
    for i in range(x.shape[0] - size + 1):
        for j in range(x.shape[1] - size + 1):
            a, b = x[i : i + size, j : j + size], y[i : i + size, j : j + size]
            p, q = (w * a).sum(), (w * b).sum()
            va, vb, cov = (w * (a - p) ** 2).sum(), (w * (b - q) ** 2).sum(), (w * (a - p) * (b - q)).sum()
            luminance = (2 * p * q + 1e-4) / (p * p + q * q + 1e-4)
            found.append((luminance, (2 * cov + 9e-4) / (va + vb + 9e-4)))
    found = np.array(found)
    return found.prod(1).mean(), found[:, 1].mean()


def test_ssim_equals_a_loop(monkeypatch):
    monkeypatch.setattr(image_pairs, "CHUNK", 2)
    x = RNG.uniform(size=(3, 14, 15, 2)).astype(np.float32)
    y = np.clip(x + 0.2 * RNG.normal(size=x.shape), 0, 1).astype(np.float32)
    want = [np.mean([ssim_loop(a[..., c], b[..., c], 11)[0] for c in range(2)]) for a, b in zip(x, y)]
    np.testing.assert_allclose(g.ssim(x, y), want, rtol=1e-4)
    np.testing.assert_allclose(g.ssim(x, x), 1.0, rtol=1e-5)
    small = RNG.uniform(size=(2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(
        g.ssim(small, 1 - small), [ssim_loop(a[..., 0], 1 - a[..., 0], 7)[0] for a in small], rtol=1e-3
    )


def test_ms_ssim_equals_a_loop():
    x = RNG.uniform(size=(24, 24)).astype(np.float32)
    y = np.clip(x + 0.1 * RNG.normal(size=x.shape), 0, 1).astype(np.float32)
    half = [a.reshape(12, 2, 12, 2).mean((1, 3)) for a in (x, y)]
    weights = np.array([0.0448, 0.2856]) / 0.3304  # the third scale, of 6 pixels, does not fit the window
    want = ssim_loop(x, y, 11)[1] ** weights[0] * ssim_loop(half[0], half[1], 11)[0] ** weights[1]
    got = g.ms_ssim(x[None, ..., None], y[None, ..., None])
    np.testing.assert_allclose(got, [want], rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x, y[:, :2]), "3 features and generated ones 2"),
        (lambda x, y: (x[:0], y), "0 real images are too few"),
        (lambda x, y: (x, y[:1]), "1 generated images are too few"),
        (
            lambda x, y: (x + np.where(x == x[2, 1], np.nan, 0.0), y),
            "feature 1 of real image 2 is not finite; leave out",
        ),
        (lambda x, y: (x[:, 0], y), "1 axes"),
    ],
)
@pytest.mark.parametrize("metric", [g.frechet_distance, g.precision_recall, g.density_coverage, g.mmd])
def test_refused_features(metric, change, words):
    x, y = RNG.normal(size=(12, 3)), RNG.normal(size=(12, 3))
    with pytest.raises(InputError, match=words):
        metric(*change(x, y))


def test_refused_neighbors_and_constant_features():
    x = RNG.normal(size=(5, 3))
    with pytest.raises(InputError, match=r"5 real images are too few; this metric needs 6"):
        g.density_coverage(x, x)
    # 7 of 9 alike are 21 of 36 pairs, 6 are 15: it is the pairs that count.
    distinct, repeated = RNG.normal(size=(9, 2)), np.r_[0, 0, 0, 0, 0, 0, 0, 1, 2]
    with pytest.raises(
        InputError, match="more than half of the pairs of real images have the same features; use other"
    ):
        g.mmd(distinct[repeated], RNG.normal(size=(9, 2)))
    repeated[6] = 3
    assert g.mmd(distinct[repeated], distinct).keys() == {"mmd_polynomial", "mmd_rbf"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    classifier = config(Classifier(2, MLP((12,))))
    made = {
        "vae": make(folder / "vae", config(VAE(3, MLP((8,))))),
        "ae": make(folder / "ae", config(Autoencoder(3, MLP((8,))))),
    }
    for name, shape in (("classifier", (8, 8, 1)), ("wider", (8, 9, 1))):
        about = spec.images(*shape, examples=Run.load(made["vae"]).spec.examples, classes=10)
        run = Run.create(folder / name, "tiny", classifier, about)
        support.checkpoint(run, 4)
        made[name] = folder / name
    return made


def measured(run, out, *words) -> tuple[int, Any]:
    code = cli(["eval", str(run), "--limit", "40", "--out", str(out), *map(str, words)])
    return code, json.loads(out.read_text()) if out.exists() else None


def test_pixels_and_samples_of_a_run(runs, tmp_path):
    words = ("--metrics", "generation,ssim,ms_ssim,mse", "--samples", 30)
    code, found = measured(runs["vae"], tmp_path / "a.json", *words)
    assert code == 0
    assert GENERATION | {"ssim", "ms_ssim", "mse"} == found["metrics"].keys()
    assert found["metrics"]["frechet_distance"]["n"] == 30
    assert found["metrics"]["recall"]["n"] == 40
    text = found["protocol"]["frechet_distance"]
    assert "30 samples E[x|z], z ~ p(z), against 40 images of the test split; features: raw pixels, 64" in text
    assert "fewer images than features" in text
    again = measured(runs["vae"], tmp_path / "b.json", *words, "--batch-size", 7)[1]
    for name, metric in found["metrics"].items():
        np.testing.assert_allclose(again["metrics"][name]["value"], metric["value"], rtol=1e-4, atol=1e-6)


def test_sorted_images_are_mixed_and_shuffled_ones_are_not(runs, tmp_path, monkeypatch):
    """Bandwidth, jackknife groups and the conditions of few samples are of the first rows."""
    from vae_jax import data
    from vae_jax.runs.training_data import spec_of

    about = support.sorted_data(tmp_path / "sorted.npz")
    options = dataclasses.replace(config(VAE(3, MLP((8,)), condition=Condition("label"))), data=about)
    run = Run.create(tmp_path / "run", "tiny", options, spec_of(data.load(about, "train")))
    support.checkpoint(run)
    subject = Subject(run, run.restore(), "test", limit=200, settings=Settings(samples=20))
    conditions, draw = [], features.draw

    def spied(*args, cond):
        conditions.append(np.asarray(cond))
        return draw(*args, cond=cond)

    monkeypatch.setattr(features, "draw", spied)
    classes = (features.pair(subject).real.mean(1) * 255).astype(int) // 50
    assert np.bincount(classes).tolist() == [50] * 4
    assert set(classes[:20]) == {0, 1, 2, 3}
    assert len(np.unique(conditions[0][:20], axis=0)) == 4
    shuffled = Subject(Run.load(runs["vae"]), subject.state, "test", limit=40)
    assert shuffled.mixing.tolist() == list(range(40))


def test_features_of_a_classifier(runs, tmp_path):
    words = ("--metrics", "frechet_distance", "--features", runs["classifier"])
    code, found = measured(runs["vae"], tmp_path / "a.json", *words)
    assert code == 0
    assert "features: classifier:tiny@4, 12 of them" in found["protocol"]["frechet_distance"]


def test_a_classifier_that_diverged_is_named(runs, tmp_path, capsys):
    run = Run.load(runs["classifier"])
    state = run.restore()
    broken = Run.create(tmp_path / "broken", "tiny", run.config, run.spec)
    checkpoints = broken.checkpoints(create=True)
    params = jax.tree.map(lambda p: p * jnp.nan, state.params)
    checkpoints.save(dataclasses.replace(state, params=params), {})
    checkpoints.close()
    words = ("--metrics", "frechet_distance", "--features")
    assert measured(runs["vae"], tmp_path / "a.json", *words, broken.path)[0] == 2
    err = capsys.readouterr().err
    fix = f"not finite; name another classifier, or use --features {features.PIXELS}"
    assert f"--features {broken.path}: its features of these images are {fix}" in err
    assert measured(runs["vae"], tmp_path / "b.json", *words, features.PIXELS)[0] == 0


def test_the_classifiers_features_are_what_its_last_layer_sees(runs):
    run = Run.load(runs["classifier"])
    state, x = run.restore(), RNG.uniform(size=(5, 8, 8, 1)).astype(np.float32)
    assert run.model.classifier.embed is not None
    got = run.model.classifier.embed(state.params, state.model_state, {"x": jnp.asarray(x)})
    layer = state.params["vae"]["classifier"]["hidden_0"]
    want = np.maximum(x.reshape(5, -1) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"]), 0)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_features_of_ones_own(runs, tmp_path):
    x, y = RNG.normal(size=(20, 6)), RNG.normal(size=(25, 6))
    np.savez(tmp_path / "f.npz", real=x, generated=y)
    words = ("--metrics", "frechet_distance", "--features", tmp_path / "f.npz")
    code, found = measured(runs["vae"], tmp_path / "a.json", *words)
    assert code == 0
    np.testing.assert_allclose(found["metrics"]["frechet_distance"]["value"], g.frechet_distance(x, y).value)
    assert "25 against 20 rows of features in f.npz" in found["protocol"]["frechet_distance"]


def test_bad_input_costs_its_own_metric_only(runs, tmp_path, capsys):
    np.savez(tmp_path / "sizes.npz", real=np.zeros((9, 3)), generated=np.zeros((9, 4)))
    np.savez(tmp_path / "half.npz", real=np.zeros((9, 3)))
    np.savez(tmp_path / "none.npz", real=np.zeros((0, 3)), generated=np.zeros((9, 3)))
    (tmp_path / "text.npz").write_text("no")
    cases = [
        ("vae", ("--features", tmp_path / "sizes.npz"), "real images have 3 features and generated ones 4"),
        ("vae", ("--features", tmp_path / "half.npz"), "no array 'generated'"),
        ("vae", ("--features", tmp_path / "none.npz"), "0 real images are too few"),
        ("vae", ("--features", tmp_path / "text.npz"), "cannot be read"),
        ("vae", ("--features", tmp_path / "gone"), "no such file or folder"),
        ("vae", ("--features", runs["ae"]), "its model does not provide a classifier"),
        ("vae", ("--features", runs["wider"]), "a classifier of 8x9x1 images cannot look at 8x8x1 ones"),
        ("ae", (), "needs a prior to draw from"),
    ]
    for i, (name, words, message) in enumerate(cases):
        asked = ("--metrics", "frechet_distance,mse", *words)
        code, found = measured(runs[name], tmp_path / f"{i}.json", *asked)
        err = capsys.readouterr().err
        assert code == 2, message
        assert message in err
        assert err.count("\n") == 1
        assert found is not None
        assert list(found["metrics"]) == ["mse"]
        assert message in found["refused"]["frechet_distance"]


def test_out_of_range(runs, tmp_path, capsys):
    for words, message in (
        (("--samples", 1), "--samples: 1 is out of range; it must be 2 or more"),
        (("--split", "tset"), "unknown split"),
    ):
        code, found = measured(runs["vae"], tmp_path / "a.json", "--metrics", "mmd", *words)
        assert code == 2
        assert found is None
        assert message in capsys.readouterr().err


def test_nothing_is_overwritten_where_all_was_refused(runs, tmp_path):
    out = tmp_path / "a.json"
    out.write_text("{}")
    assert measured(runs["ae"], out, "--metrics", "mmd")[0] == 2
    assert out.read_text() == "{}"
