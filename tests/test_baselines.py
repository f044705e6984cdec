"""Exact densities of pixels: against closed forms and scipy, their folder, and `compare` beside a VAE."""

import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vae_jax import data
from vae_jax.cli import main
from vae_jax.errors import InputError
from vae_jax.evaluation.baselines import fit
from vae_jax.tasks.baseline import fit_baseline


def rows(n=300, dims=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, dims)) @ rng.normal(size=(dims, dims)) + rng.normal(size=dims)


def test_ppca_is_the_maximum_of_its_likelihood_in_closed_form():
    """mean log p = -1/2 [d ln 2 pi + sum_{j <= q} ln l_j + (d - q) ln s^2 + d], l the eigenvalues with 1 / N."""
    x, q = rows(), 2
    values = np.linalg.eigvalsh(np.cov(x.T, ddof=0))[::-1]
    noise = values[q:].mean()
    d = len(values)
    want = -0.5 * (d * math.log(2 * math.pi) + np.log(values[:q]).sum() + (d - q) * math.log(noise) + d)
    density = fit("ppca", x, q)
    np.testing.assert_allclose(density.log_prob(x).mean(), want, rtol=1e-10)
    assert density.parameters == d + 1 + d * q - 1


def test_ppca_is_scipys_gaussian_on_other_data():
    x, other, q = rows(), rows(seed=1), 3
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    noise = values[:-q].mean()
    top = vectors[:, -q:]
    covariance = top @ np.diag(values[-q:] - noise) @ top.T + noise * np.eye(6)
    want = stats.multivariate_normal(x.mean(0), covariance).logpdf(other)
    density = fit("ppca", x, q)
    np.testing.assert_allclose(density.log_prob(other), want, rtol=1e-9)
    drawn = density.sample(200_000, 0)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.02 * covariance.max())
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=5 * math.sqrt(covariance.max() / 200_000))


def test_one_gaussian_is_the_maximum_likelihood_gaussian():
    x, other = rows(), rows(seed=1)
    want = stats.multivariate_normal(x.mean(0), np.cov(x.T, ddof=0)).logpdf(other)
    np.testing.assert_allclose(fit("mog", x, 1, floor=0.0).log_prob(other), want, rtol=1e-8)
    diagonal = stats.norm(x.mean(0), x.std(0)).logpdf(other).sum(1)
    np.testing.assert_allclose(fit("mog", x, 1, floor=0.0, covariance="diag").log_prob(other), diagonal, rtol=1e-8)


def test_mixture_finds_separated_clusters():
    """Three far clusters: log p is the log of a third of each cluster's own density."""
    rng = np.random.default_rng(0)
    centers = np.array([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    x = np.concatenate([c + rng.normal(size=(200, 2)) for c in centers])
    density = fit("mog", x, 3)
    own = [stats.multivariate_normal(part.mean(0), np.cov(part.T, ddof=0)) for part in np.split(x, 3)]
    want = np.concatenate([p.logpdf(part) for p, part in zip(own, np.split(x, 3))]) - math.log(3)
    np.testing.assert_allclose(density.log_prob(x), want, rtol=1e-4)
    assert density.converged
    assert density.parameters == 3 * (2 + 3) + 2
    drawn = density.sample(3000, 1)
    nearest = np.argmin(((drawn[:, None] - centers[None]) ** 2).sum(-1), 1)
    np.testing.assert_allclose(np.bincount(nearest) / 3000, 1 / 3, atol=0.05)
    assert len(set(nearest[:20])) > 1  # not ordered by component


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("baselines")
    made = {}
    for kind, components in (("ppca", 8), ("mog", 3)):
        made[kind] = fit_baseline("digits", kind=kind, components=components, workdir=base / kind)
    return base, made


def test_the_folder_has_what_a_run_has(folders):
    _, made = folders
    for kind, (path, result) in made.items():
        assert json.loads((path / "eval.json").read_text()) == result
        assert set(result) >= {"experiment", "step", "data", "split", "protocol", "metrics", "expected", "pass"}
        assert result["experiment"] == f"baseline-{kind}-digits"
        assert (path / "figures" / "samples.png").stat().st_size > 1000
        assert result["protocol"]["n"] == 180
        log_prob, bits = (result["metrics"][m] for m in ("log_prob", "bits_per_dim"))
        assert log_prob["stderr"] > 0
        np.testing.assert_allclose(bits["value"], 8 - log_prob["value"] / (64 * math.log(2)), rtol=1e-9)
        np.testing.assert_allclose(bits["stderr"], log_prob["stderr"] / (64 * math.log(2)), rtol=1e-9)
        assert 0 < bits["value"] < 8  # better than the uniform density, worse than knowing the image


def test_the_numbers_are_those_of_the_test_split(folders):
    """Fitted on the training images, not on the test images: by hand from the digits and the evaluation's noise."""
    _, made = folders
    config = data.DataConfig("digits", batch_size=1, dequantize=True)

    def images(split):
        source = data.load(config, split)
        return np.concatenate([b["x"] for b in data.eval_batches(source, config, 500)]).reshape(source.size, -1)

    x = images("train").astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(x.T, ddof=0))
    noise = values[:-8].mean()
    top = vectors[:, -8:]
    p = stats.multivariate_normal(x.mean(0), top @ np.diag(values[-8:] - noise) @ top.T + noise * np.eye(64))
    want = p.logpdf(images("test")).mean()
    got = made["ppca"][1]["metrics"]["log_prob"]
    assert abs(got["value"] - want) < 0.2 * got["stderr"]  # its training pixels have other noise


def test_compare_sets_a_baseline_beside_a_vae(folders, tmp_path, capsys, monkeypatch):
    base, _ = folders
    monkeypatch.setenv("COLUMNS", "200")
    run = tmp_path / "vae"
    options = ["--data.dequantize", "True", "--model.likelihood", "gaussian-learned", "--mesh.data", "1"]
    assert main.run(["train", "vae_digits", "--smoke", "--quiet", "--workdir", str(run), *options]) == 0
    capsys.readouterr()
    folders_ = [str(run), str(base / "ppca"), str(base / "mog")]
    assert main.run(["compare", *folders_, "--out", str(tmp_path / "c.png")]) == 0
    text = capsys.readouterr().out
    for word in ("log_prob", "bits_per_dim", "elbo", "model.components", "ppca", "180 images"):
        assert word in text
    bits = next(line for line in text.splitlines() if re.match(r"\W*bits_per_dim", line))
    assert len(re.findall(r"\d\.\d+ ± ", bits)) == 3  # all three have it
    assert (tmp_path / "c.png").stat().st_size > 1000


BAD = {
    "kind": (["digits", "--kind", "mgo"], "did you mean 'mog'"),
    "components": (["digits", "--components", "0"], "1 or more"),
    "more than examples": (["digits", "--components", "50", "--limit", "40"], "1 to 40"),
    "more than pixels": (["digits", "--kind", "ppca", "--components", "64"], "1 to 63"),
    "data set": (["digitz"], "did you mean 'digits'"),
    "no such split": (["npz", "--source", "{tmp}/train_only.npz"], "test"),
    "no validation": (["digits", "--protocol", "full", "--split", "validation"], "validation"),
    "binary": (["sprites", "--limit", "100"], "binary"),
    "missing": (["npz", "--source", "{tmp}/gaps.npz", "--dequantize", "False"], "has missing values"),
    "floats": (["npz", "--source", "{tmp}/float.npz"], "--dequantize False"),
    "seed": (["digits", "--seed", "-1"], "in [0, 2^31)"),
    "there": (["digits", "--workdir", "{tmp}"], "already there"),
    "degenerate": (["digits", "--components", "30", "--dequantize", "False", "--floor", "0"], "--floor"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "float.npz", images=rng.uniform(size=(40, 4, 4, 1)).astype(np.float32))
    gaps = rng.uniform(size=(40, 4, 4, 1)).astype(np.float32)
    gaps[rng.random(gaps.shape) < 0.2] = np.nan
    np.savez(tmp_path / "gaps.npz", images=gaps)
    images = rng.integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    np.savez(tmp_path / "train_only.npz", train_images=images, validation_images=images)
    words, message = BAD[name]
    assert main.run(["baseline", *(w.format(tmp=tmp_path) for w in words)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("npz", "--source: 'npz' needs a file; name it with --source FILE.npz"),
        ("npz --source plain.npz --split validation", "'standard'; use --protocol held-out"),
        ("image_folder --source plain.npz", "'image_folder' does not read; use `vae-jax baseline plain.npz`"),
        ("digits --source plain.npz", "the examples of 'digits' are embedded; use `vae-jax baseline plain.npz`"),
        ("npz --source gaps.npz --dequantize False", "vae-jax: gaps.npz: has missing values, which the density of a"),
        (
            "fashion_mnist --protocol vampprior",
            "held-out images are binary, for which a Gaussian density means nothing",
        ),
    ],
)
def test_options_have_the_names_of_this_command_and_the_advice_works(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
    np.savez("plain.npz", images=images)
    gaps = (images / 255).astype(np.float32)
    gaps[:5] = np.nan
    np.savez("gaps.npz", images=gaps)
    np.savez("kept.npz", images=gaps[5:])
    words = words.split()
    assert main.run(["baseline", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert "data." not in line.replace("gaussian", "")
    more = line.partition("; ")[2].removeprefix("name it with ").removeprefix("use ").strip("`").split()
    more = {"vae-jax": [*more[2:]], "keep": ["npz", "--source", "kept.npz", *words[3:]]}.get(more[0], [*words, *more])
    more = ["plain.npz" if word == "FILE.npz" else word for word in more]
    more += ["--components", "2", "--covariance", "diag", "--workdir", "run"]
    assert main.run(["baseline", *more, *(["--limit", "200"] if words[0] == "fashion_mnist" else [])]) == 0


@pytest.mark.parametrize("name", ["scores.npy", "sizes", "rows.npy", "signed.npy"])
@pytest.mark.parametrize("is_python", [False, True])
def test_no_advice_names_an_option_that_is_not_here(name, is_python, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(40, 16))
    np.save("scores.npy", x.reshape(40, 4, 4))
    np.save("rows.npy", x[:, :15])
    np.save("signed.npy", (x / 9).clip(-1, 1).reshape(40, 4, 4))
    (tmp_path / "sizes").mkdir()
    for i in range(12):
        Image.new("L", (4, 4 + i % 2)).save(f"sizes/{i}.png")
    if is_python:
        with pytest.raises(InputError) as error:
            fit_baseline(name)
        line = str(error.value)
    else:
        assert main.run(["baseline", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
    assert "data." not in line
    fix = line.partition("; ")[2]
    if name == "rows.npy":
        assert fix.startswith("save images.reshape(-1, H, W, 1) with H * W = 15, or")
    else:
        assert fix == "save images of one size, as gray levels 0 to 255 or as floats in [0, 1]"
    np.save("saved.npy", ((x - x.min()) / (x.max() - x.min())).reshape(-1, 4, 4, 1))
    assert fit_baseline("saved.npy", components=1, covariance="diag", dequantize=False)


def test_floats_are_measured_without_bits(tmp_path, capsys):
    images = np.random.default_rng(0).uniform(size=(200, 3, 3, 1)).astype(np.float32)
    np.savez(tmp_path / "float.npz", images=images)
    _, result = fit_baseline(
        "npz", components=2, covariance="diag", dequantize=False, source=str(tmp_path / "float.npz"),
        workdir=tmp_path / "run",
    )  # fmt: skip
    assert set(result["metrics"]) == {"log_prob"}
    # Uniform on the cube has log p = 0, which no Gaussian reaches: 9 (1/2 log(2 pi e / 12)) is lost by the best one.
    assert -9 * 0.5 * math.log(2 * math.pi * math.e / 12) - 1.0 < result["metrics"]["log_prob"]["value"] < 0.3


def test_a_damaged_baseline_folder_is_one_line(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "baseline.json").write_text("{")
    assert main.run(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "c.png")]) == 2
    assert "vae-jax baseline" in capsys.readouterr().err
    with pytest.raises(InputError, match="no baseline 'x'"):
        fit("x", rows(), 1)
