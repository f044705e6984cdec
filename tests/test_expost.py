"""Densities fitted to the codes of a finished run: scipy, integrals, their own samples; and the two commands."""

import json

import jax
import numpy as np
import pytest
import support
from scipy import stats
from scipy.special import logsumexp

from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.evaluation import density_files, expost
from vae_jax.models import VAE, Autoencoder
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.posteriors import POSTERIORS
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run

CENTERS = np.array([[-6.0, 30.0], [2.0, 32.0], [6.0, 26.0]])
STD = np.array([1.5, 0.5])


def truth(z):
    """Returns the log density that `codes` are drawn from."""
    parts = [stats.norm.logpdf(z, c, STD).sum(-1) for c in CENTERS]
    return logsumexp(parts, axis=0) - np.log(3)


def codes(n, seed=0):
    rng = np.random.default_rng(seed)
    return (CENTERS[rng.integers(3, size=n)] + STD * rng.normal(size=(n, 2))).astype(np.float32)


@pytest.fixture(scope="module", params=list(expost.KINDS))
def density(request):
    return expost.fit(request.param, codes(3000), components=3, steps=600)


def test_the_density_is_near_the_true_one_on_fresh_codes(density):
    """KL(truth || fit), an average over codes that the fit did not see, is small; a single Gaussian's is not."""
    fresh = codes(2000, seed=1)
    gap = truth(fresh) - density.log_prob(fresh)
    slack = {"gmm": 0.02, "flow": 0.5, "two-stage": 1.2}[density.kind]
    assert -3 * gap.std() / np.sqrt(len(gap)) - 0.01 < gap.mean() < slack
    single = expost.fit("gmm", codes(3000), components=1)
    assert np.mean(truth(fresh) - single.log_prob(fresh)) > 1.4


def test_the_density_integrates_to_one(density):
    """To at most one where it is a bound. The units of the codes count: their scale is not 1."""
    a, b = np.linspace(-16, 16, 65), np.linspace(20, 38, 73)
    points = np.stack(np.meshgrid(a, b), -1).reshape(-1, 2)
    total = np.exp(density.log_prob(points)).sum() * (a[1] - a[0]) * (b[1] - b[0])
    assert total < 1.02
    assert total > (0.98 if density.exact else 0.9)


def test_samples_follow_the_density(density):
    """Mean, spread, and the mean of log p over samples against that over quadrature or the true codes."""
    z, real = density.sample(jax.random.key(2), 6000), codes(6000, seed=3)
    np.testing.assert_allclose(z.mean(0), real.mean(0), atol=0.6)  # of spreads of 5 and 2.6
    np.testing.assert_allclose(z.std(0), real.std(0), rtol=0.1)
    entropies = [-density.log_prob(values).mean() for values in (z, real)]
    assert abs(entropies[0] - entropies[1]) < 0.6
    again = density.sample(jax.random.key(2), 6000)
    np.testing.assert_array_equal(z, again)
    cold = density.sample(jax.random.key(2), 6000, temperature=0.0)
    if density.kind == "gmm":
        assert len(np.unique(cold.round(3), axis=0)) == 3
    if density.kind == "flow":
        assert np.ptp(cold, axis=0).max() < 1e-4


def test_a_density_comes_back_from_its_files(density, tmp_path):
    path = density_files.save(density, tmp_path / "new" / "folder")
    found = density_files.load(path)
    fresh = codes(50, seed=4)
    np.testing.assert_array_equal(found.log_prob(fresh), density.log_prob(fresh))
    np.testing.assert_array_equal(found.sample(jax.random.key(0), 20), density.sample(jax.random.key(0), 20))
    assert found.about == json.loads(json.dumps(density.about))
    assert sorted(p.name for p in path.parent.iterdir()) == [f"{density.kind}.json", f"{density.kind}.npz"]


def test_the_mixture_is_that_of_scipy():
    """The stored weights, means and Cholesky factors of standardized codes, as a mixture of the codes themselves."""
    found = expost.fit("gmm", codes(500), components=4)
    fresh = np.float64(codes(40, seed=5))
    parts = []
    for w, m, chol in zip(*(np.float64(found.arrays[k]) for k in ("log_weights", "mean", "chol")), strict=True):
        scaled = np.diag(found.scale) @ chol
        parts.append(w + stats.multivariate_normal.logpdf(fresh, found.shift + found.scale * m, scaled @ scaled.T))
    np.testing.assert_allclose(found.log_prob(fresh), logsumexp(parts, axis=0), rtol=1e-4, atol=1e-4)


def test_one_component_is_the_gaussian_of_the_codes():
    z = np.float64(codes(400))
    found = expost.fit("gmm", z, components=1)
    want = stats.multivariate_normal.logpdf(z, z.mean(0), np.cov(z.T, ddof=0))
    np.testing.assert_allclose(found.log_prob(z), want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["gmm", "two-stage"])
def test_a_dimension_that_never_varies_is_no_trouble(kind):
    z = np.concatenate([codes(200), np.full((200, 1), 5.0, np.float32)], 1)
    found = expost.fit(kind, z, components=2, steps=50)
    assert np.isfinite(found.log_prob(z)).all()
    assert np.isfinite(found.sample(jax.random.key(0), 10)).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gmn", codes(30)), "kind=.gmn.: no such density of codes"),
        (
            ("gmm", codes(30), {"components": 0}),
            "components: 0 is out of range; it must be from 1 to the number of codes, 30",
        ),
        (
            ("gmm", codes(30), {"components": 31}),
            "components: 31 is out of range; it must be from 1 to the number of codes, 30",
        ),
        (("flow", codes(30), {"steps": 0}), "steps=0, 30 codes: flow takes 1 step or more, and 20 codes or more"),
        (("two-stage", codes(5)), "5 codes: two-stage takes"),
        (("gmm", np.full((9, 2), np.nan)), "two or more finite codes"),
        (("gmm", np.zeros(9)), "two or more finite codes"),
    ],
)
def test_bad_codes_and_numbers(arguments, message):
    kind, z, *options = arguments
    with pytest.raises(InputError, match=message):
        expost.fit(kind, z, **(options[0] if options else {}))


D = 3


def make(folder, model):
    """Returns a run folder whose checkpoint is the untrained state."""
    evaluation = Evaluation(batch_size=64, limit=100)
    config = Config(4, data=DataConfig("digits", batch_size=8), model=model, evaluation=evaluation, logging=Logging(1))
    source_facts = Run(folder, "tiny", config, spec.images(8, 8, 1))
    from vae_jax.runs.training_data import spec_of

    run = Run.create(folder, "tiny", config, spec_of(source_facts.source("train")))
    support.checkpoint(run, 0)
    return folder


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", VAE(D, MLP((8,))))


@pytest.fixture(scope="module")
def ae(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "ae", Autoencoder(D, MLP((8,))))


def test_an_autoencoder_gets_something_to_sample_from(ae, tmp_path, capsys):
    out = tmp_path / "x.npz"
    assert cli(["sample", str(ae), "--out", str(out)]) == 2
    assert "fit one with `vae-jax fit-prior" in capsys.readouterr().err
    assert cli(["sample", str(ae), "--out", str(out), "--prior", "gmm"]) == 2
    error = capsys.readouterr().err
    assert "not fitted yet" in error
    assert f"run `vae-jax fit-prior {ae} --kind gmm` first" in error
    assert not out.exists()
    assert cli(["fit-prior", str(ae), "--components", "2", "--limit", "200"]) == 0
    said = capsys.readouterr().out
    assert "gmm fitted to 200 codes, one code per image" in said
    assert "log density of 180 codes of the test split" in said
    assert cli(["sample", str(ae), "--out", str(out), "--prior", "gmm", "--n", "7"]) == 0
    with np.load(out) as held:
        assert held["images"].shape == (7, 8, 8, 1)
    assert cli(["sample", str(ae), "--prior", "gmm", "--n", "7"]) == 0
    assert (ae / "figures" / "samples_expost.png").stat().st_size > 500


def test_the_codes_of_a_vae_are_draws_and_what_is_written_is_repeatable(vae, tmp_path, capsys):
    for name in ("a", "b"):
        assert cli(["fit-prior", str(vae), "--components", "2", "--limit", "100", "--out", str(tmp_path / name)]) == 0
    first, second = ((tmp_path / name / "gmm.json").read_text() for name in ("a", "b"))
    assert first == second
    words = ["fit-prior", str(vae), "--kind", "two-stage", "--steps", "3", "--limit", "100"]
    assert cli([*words, "--out", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert "two-stage fitted to 100 codes, one draw of q(z|x) per image" in said
    assert "bound on the log density (100 importance samples)" in said
    about = json.loads(first)
    assert about["log_density"]["held_out"]["n"] == 100
    assert about["step"] == 0
    out = tmp_path / "x.npz"
    path = str(tmp_path / "a" / "two-stage.json")
    assert cli(["sample", str(vae), "--prior", path, "--n", "3", "--out", str(out), "--pixels", "sample"]) == 0
    with np.load(out) as held:
        assert set(np.unique(held["images"])) <= {0.0, 1.0}


def test_a_temperature_beyond_float32_is_refused(vae, tmp_path, capsys):
    prior, out = tmp_path / "gmm.json", tmp_path / "x.npz"
    fit = ["fit-prior", str(vae), "--kind", "gmm", "--components", "2", "--limit", "60", "--out", str(tmp_path)]
    assert cli(fit) == 0
    capsys.readouterr()
    words = ["sample", str(vae), "--prior", str(prior), "--n", "4", "--out", str(out), "--temperature"]
    assert cli([*words, "1e300"]) == 2
    said = "--temperature: 1e+300 is out of range; it makes codes that are not finite in float32; lower it"
    assert capsys.readouterr().err == f"vae-jax: {said}\n"
    assert not out.exists()
    assert cli([*words, "2"]) == 0


def test_bad_input_is_one_line_and_writes_nothing(vae, tmp_path, capsys):
    damaged = tmp_path / "gmm.json"
    damaged.write_text("{")
    file = tmp_path / "file"
    file.write_text("")
    for words, message in [
        (["fit-prior", str(vae), "--kind", "gmn"], "--kind gmn: no such density of codes"),
        (["fit-prior", str(vae), "--components", "0"], "--components: 0 is out of range; it must be 1 or more"),
        (["fit-prior", str(vae), "--components", "400", "--limit", "300"], "to the number of codes, 300"),
        (["fit-prior", str(vae), "--kind", "flow", "--steps", "0"], "--steps: 0 is out of range; it must be 1 or more"),
        (["fit-prior", str(vae), "--limit", "-1"], "--limit: -1"),
        (["fit-prior", str(vae), "--split", "tset"], "tset"),
        (["fit-prior", str(vae), "--out", str(file)], "is a file"),
        (["fit-prior", str(tmp_path / "none")], "not a run folder"),
        (["sample", str(vae), "--prior", "gm"], "--prior gm: no such density of codes"),
        (["sample", str(vae), "--prior", "flow"], "not fitted yet"),
        (["sample", str(vae), "--prior", str(damaged)], "cannot be read"),
    ]:
        assert cli(words) == 2, words
        error = capsys.readouterr().err
        assert message in error, error
        assert error.count("\n") == 1
    assert not (vae / "prior").exists()


def test_a_density_of_another_checkpoint_or_model_is_refused(vae, tmp_path, capsys):
    density = expost.fit("gmm", codes(50), components=1)
    density.about["step"] = 7
    path = density_files.save(density, tmp_path)
    assert cli(["sample", str(vae), "--prior", str(path)]) == 2
    assert "fitted to the codes of step 7, but the checkpoint is step 0" in capsys.readouterr().err
    density.about["step"] = 0
    density_files.save(density, tmp_path)
    assert cli(["sample", str(vae), "--prior", str(path)]) == 2
    assert "has codes of width 2, but the model's are 3" in capsys.readouterr().err


def test_runs_without_such_codes_are_refused(tmp_path, capsys):
    conditional = make(tmp_path / "cvae", VAE(D, MLP((8,)), condition=Condition("label")))
    assert cli(["fit-prior", str(conditional)]) == 2
    assert "use a run with --model.condition.on none" in capsys.readouterr().err
    if "categorical" in POSTERIORS:
        import support

        discrete = make(tmp_path / "discrete", support.fitting(D, MLP((8,)), posterior=POSTERIORS["categorical"]()))
        assert cli(["fit-prior", str(discrete)]) == 2
        assert "its latents are one-hot vectors" in capsys.readouterr().err
