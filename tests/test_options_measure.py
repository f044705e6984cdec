"""Every option of eval, fit-prior, arithmetic, compare and report, against numbers computed without the command."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from options import arrays, cli, close, covers, decoded, differ, done, make, mean_codes, numbers, posterior, tiny

from vae_jax import data, metrics, prng
from vae_jax.data import pipeline
from vae_jax.data.fingerprint import fingerprint
from vae_jax.evaluation import ais, anomaly, sandwich
from vae_jax.evaluation import inference_gaps as gaps
from vae_jax.evaluation.settings import Settings
from vae_jax.metrics import frechet_distance, outliers
from vae_jax.model import Context
from vae_jax.models import VAE, Classifier
from vae_jax.networks import MLP
from vae_jax.pages.page import show
from vae_jax.priors import Normal
from vae_jax.tasks.measuring import evaluate_run

D = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    return make(folder / "vae", tiny())


@pytest.fixture(scope="module")
def other(folder):
    return make(folder / "other", tiny(VAE(2, MLP((4,)))), (4,))


@pytest.fixture(scope="module")
def flat(folder):
    """A run whose codes have two dimensions, with the usual prior: what sampling of chains takes least time for."""
    return make(folder / "flat", tiny(VAE(2, MLP((4,)))), (4,))


@pytest.fixture(scope="module")
def sprites(folder):
    return make(folder / "sprites", tiny(VAE(D, MLP((8,)), prior=Normal()), **{"data.name": "sprites"}), (4,))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "eval.json"


def measured(run, state, n=180, split="test", seed=0):
    """Returns (terms of each of the first n examples, their inputs), as `eval` measures them."""
    batch = run.examples(split, np.arange(n))
    batch = {name: batch[name] for name in ("x", "label", "factors", "cond") if name in batch}
    ctx = Context(state.step, jnp.arange(n), state.hyper, train=False)
    args = state.eval_params, state.model_state
    terms = jax.jit(lambda args, key, batch: run.model.terms(*args, key, batch, ctx))
    return terms(args, jax.random.key(seed), batch), (args, batch, ctx)


def value(result, name):
    return result["metrics"][name]["value"]


# ---- eval: what is measured


@covers("eval", "seed", "out", "limit")
def test_eval_measures_the_first_examples_with_the_noise_of_its_seed(run, out):
    found = {}
    for seed in (0, 6):
        result = numbers("eval", run.path, "--limit", 10, "--seed", seed, out=out)
        terms, _ = measured(run, run.restore(), 10, seed=seed)
        for name in ("elbo", "rate", "distortion", "mse"):
            close(value(result, name), np.mean(terms[name]), atol=1e-3)
            assert result["metrics"][name]["n"] == 10
        assert (result["protocol"]["seed"], result["protocol"]["limit"], result["protocol"]["n"]) == (seed, 10, 10)
        found[seed] = value(result, "elbo")
    assert differ(found[0], found[6])
    assert value(numbers("eval", run.path, "--limit", 10, out=out), "elbo") == found[0]
    assert not (run.path / "eval.json").exists()
    whole = numbers("eval", run.path, "--limit", 0, out=out)
    assert whole["protocol"]["n"] == 180
    # The whole split by default, into the run.
    done("eval", run.path)
    assert json.loads((run.path / "eval.json").read_text())["metrics"]["elbo"] == whole["metrics"]["elbo"]
    (run.path / "eval.json").unlink()


def test_eval_takes_its_defaults_from_the_runs_config(folder, out):
    options = {"evaluation.limit": 7, "evaluation.split": "validation", "evaluation.k": (2,)}
    own = make(folder / "own", tiny(**options), (4,))
    result = numbers("eval", own.path, out=out)
    assert (result["split"], result["protocol"]["n"], result["protocol"]["importance_samples"]) == (
        "validation",
        7,
        [2],
    )
    terms, _ = measured(own, own.restore(), 7, "validation")
    close(value(result, "elbo"), np.mean(terms["elbo"]), atol=1e-3)
    # 0 is all of the split, whatever the config says; a k that is given replaces those of the config.
    result = numbers("eval", own.path, "--limit", 0, "--k", 3, out=out)
    assert (result["protocol"]["n"], result["protocol"]["importance_samples"]) == (180, [3])
    # From Python: () is no bound, None what the config says.
    for k, want in (((), []), (None, [2])):
        made = evaluate_run(own, k=k, limit=4, write=False)
        assert made["protocol"]["importance_samples"] == want


@covers("eval", "split", "step")
def test_eval_takes_the_split_and_the_checkpoint(run, out):
    result = numbers("eval", run.path, "--split", "train", "--limit", 20, "--step", 2, out=out)
    terms, _ = measured(run, run.restore(2), 20, "train")
    close(value(result, "elbo"), np.mean(terms["elbo"]), atol=1e-3)
    assert (result["step"], result["split"]) == (2, "train")


@covers("eval", "k")
def test_eval_bounds_of_k_samples(run, out):
    result = numbers("eval", run.path, "--k", 2, 5, "--limit", 6, out=out)
    state = run.restore()
    _, (args, batch, ctx) = measured(run, state, 6)
    for k in (2, 5):
        found = jax.jit(lambda key, batch, k=k: run.model.density.bound(*args, key, batch, ctx, k))
        bound = found(prng.site_key(jax.random.key(0), "iw"), batch)
        close(value(result, f"iw_{k}"), np.mean(bound), atol=1e-3)
    assert "iw_2" not in numbers("eval", run.path, "--limit", 6, out=out)["metrics"]


@covers("eval", "metrics")
def test_eval_keeps_the_metrics_that_are_named(run, out):
    assert list(numbers("eval", run.path, "--metrics", "rate,elbo", out=out)["metrics"]) == ["rate", "elbo"]
    assert list(numbers("eval", run.path, "--metrics", "iw_3", out=out)["metrics"]) == ["iw_3"]
    assert list(numbers("eval", run.path, "--metrics", "iwae", "--limit", 2, out=out)["metrics"]) == ["iw_50"]


@covers("eval", "batch-size")
def test_eval_takes_so_many_at_a_time_and_no_number_changes(run, out, monkeypatch):
    sizes, made = [], pipeline.examples
    monkeypatch.setattr(pipeline, "examples", lambda s, c, i, **kw: sizes.append(len(i)) or made(s, c, i, **kw))
    whole = numbers("eval", run.path, "--limit", 30, out=out)
    parts = numbers("eval", run.path, "--limit", 30, "--batch-size", 12, out=out)
    assert sizes == [30, 12, 12, 6]
    for name in whole["metrics"]:
        close(value(parts, name), value(whole, name), atol=1e-4)


# ---- eval: settings of single metrics

CHAINS = ["--chains", 3, "--temperatures", 6, "--leapfrog", 2]


@covers("eval", "chains", "temperatures", "leapfrog", "anneal-from")
def test_annealing_has_these_chains_temperatures_and_moves(flat, out):
    for start in ("prior", "posterior"):
        words = ["--metrics", "ais", "--limit", 4, *CHAINS, "--anneal-from", start]
        result = numbers("eval", flat.path, *words, out=out)
        settings = Settings(chains=3, temperatures=6, leapfrog=2, anneal_from=start)
        key = prng.site_key(jax.random.key(0), "ais")
        batch = flat.examples("test", np.arange(4))
        chains = sandwich.annealed(flat.model, flat.restore(), [batch], key, settings)
        assert chains.log_weight.shape == (4, 3)
        close(value(result, "ais"), chains.log_mean.mean(), atol=1e-3)
        about = result["protocol"]["ais"]
        shape = [about[name] for name in ("chains", "temperatures", "leapfrog", "anneal_from")]
        assert shape == [3, 6, 2, start]


@pytest.mark.parametrize("begin", ["prior", "posterior"])
def test_annealed_chains_are_those_of_the_settings(flat, begin):
    """The chains, put together from their parts."""
    settings = Settings(chains=3, temperatures=6, leapfrog=2, anneal_from=begin)
    key, state, batch = jax.random.key(5), flat.restore(), flat.examples("test", np.arange(4))
    got = sandwich.annealed(flat.model, state, [batch], key, settings).log_weight
    betas, images = ais.sigmoid_temperatures(6), {"x": batch["x"]}

    def each(site):
        return prng.sample_keys(prng.example_keys(prng.site_key(key, site), jnp.arange(4)), jnp.arange(3))

    @jax.jit
    def chains(params):
        joint = flat.model.density.joint(params, {}, images)
        q = flat.model.encode(params, {}, None, images).posterior
        draw, densities = joint.sample_prior, (joint.prior.log_prob, joint.log_likelihood)
        if begin == "posterior":
            draw = q.sample
            densities = q.log_prob, lambda z: joint.prior.log_prob(z) + joint.log_likelihood(z) - q.log_prob(z)
        start, trial = (jax.vmap(draw)(each(site)) for site in ("start", "trial"))
        steps = ais.tune(*densities, trial, betas, each("tune"), leapfrog=2)
        return ais.ais(*densities, start, betas, each("forward"), steps, leapfrog=2).log_weight

    close(got, np.asarray(chains(state.eval_params)).T, atol=1e-3)


@covers("eval", "local-steps", "local-samples")
def test_the_local_posterior_has_these_steps_and_samples(flat, out):
    words = ["--metrics", "amortisation_gap", "--limit", 4, "--local-steps", 5, "--local-samples", 3]
    result = numbers("eval", flat.path, *words, out=out)
    key = prng.site_key(jax.random.key(0), "local")
    batch = flat.examples("test", np.arange(4))
    local = gaps.local_bounds(flat.model, flat.restore(), [batch], key, steps=5, samples=3)
    close(value(result, "amortisation_gap"), (local.optimized - local.amortized).mean(), atol=1e-3)
    about = result["protocol"]["amortisation_gap"]
    assert (about["local_steps"], about["local_samples"]) == (5, 3)


@covers("eval", "samples")
def test_so_many_images_are_generated(run, out):
    result = numbers("eval", run.path, "--metrics", "frechet_distance", "--samples", 70, out=out)
    state = run.restore()
    key = jax.random.fold_in(prng.site_key(jax.random.key(0), "generation"), 0)
    made = run.model.sample(state.eval_params, {}, prng.site_key(key, "prior"), 500, temperature=1.0).mean()[:70]
    real = data.load(run.config.data, "test").arrays["image"] / 255.0
    want = frechet_distance(real.reshape(180, -1), np.asarray(made).reshape(70, -1)).value
    np.testing.assert_allclose(value(result, "frechet_distance"), want, rtol=1e-3)
    assert result["protocol"]["frechet_distance"].startswith("70 samples")
    usual = numbers("eval", run.path, "--metrics", "frechet_distance", out=out)
    assert usual["protocol"]["frechet_distance"].startswith("180 samples")


@covers("eval", "features")
def test_features_are_those_of_the_file_or_of_the_classifier(run, folder, tmp_path, out):
    rng = np.random.default_rng(3)
    held = {"real": rng.normal(size=(60, 4)), "generated": rng.normal(1, 2, size=(50, 4))}
    np.savez(tmp_path / "own.npz", **held)
    words = ["--metrics", "frechet_distance", "--samples", 90]
    result = numbers("eval", run.path, *words, "--features", tmp_path / "own.npz", out=out)
    close(value(result, "frechet_distance"), frechet_distance(held["real"], held["generated"]).value)

    judge = make(folder / "judge", tiny(Classifier(2, MLP((8,)), width=5)), (4,))
    result = numbers("eval", run.path, *words, "--features", judge.path, out=out)
    state, own = run.restore(), judge.restore()
    key = jax.random.fold_in(prng.site_key(jax.random.key(0), "generation"), 0)
    made = run.model.sample(state.eval_params, {}, prng.site_key(key, "prior"), 500, temperature=1.0).mean()[:90]
    sets = (run.examples("test", np.arange(180))["x"], made)
    real, fake = (np.asarray(judge.model.classifier.embed(own.eval_params, own.model_state, {"x": x})) for x in sets)
    np.testing.assert_allclose(value(result, "frechet_distance"), frechet_distance(real, fake).value, rtol=1e-2)


@covers("eval", "outliers", "outlier-k", "regret-steps")
def test_outliers_bounds_and_regret_are_those_asked_for(flat, tmp_path, out):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "odd.npz", images=rng.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8))
    words = ["--outliers", tmp_path / "odd.npz", "--outlier-k", 4, "--regret-steps", 3]
    result = numbers("eval", flat.path, "--metrics", "anomaly", "--limit", 9, *words, out=out)
    state, key = flat.restore(), prng.site_key(jax.random.key(0), "anomaly")
    odd = data.load(data.DataConfig("npz", str(tmp_path / "odd.npz"), batch_size=1, protocol="full"), "train")
    inside = flat.examples("test", np.arange(9))
    outside = {"x": jnp.asarray(odd.arrays["image"][:9]) / 255.0, "index": np.arange(9)}
    found = [
        anomaly.bounds(flat.model, state, [side], prng.site_key(key, "bounds"), 4)["iw"] for side in (inside, outside)
    ]
    close(value(result, "auroc_iw"), outliers.auroc(-found[0], -found[1]).value)
    assert result["metrics"]["auroc_iw"]["n"] == 18
    moved = [anomaly.regret(flat.model, state, [side], prng.site_key(key, "regret"), 3) for side in (inside, outside)]
    close(value(result, "auroc_regret"), outliers.auroc(*moved).value)
    assert "9 images of" in result["protocol"]["anomaly"]
    assert "of 4 samples" in result["protocol"]["anomaly"]
    assert "of 3 steps of Adam" in result["protocol"]["anomaly"]


@covers("eval", "points", "bins")
def test_scores_learn_from_so_many_points_in_so_many_bins(sprites, out):
    words = ["--metrics", "mig,modularity", "--limit", 300, "--points", 90, "--bins", 6]
    result = numbers("eval", sprites.path, *words, out=out)
    rows = np.sort(np.random.default_rng([0, 0]).permutation(300)[:135])
    order = np.random.default_rng([0, 1]).permutation(135)[:90]
    codes = mean_codes(sprites, sprites.restore(), "test", rows)[order]
    factors = np.asarray(sprites.examples("test", rows)["factors"])[order]
    close(value(result, "mig"), metrics.mig(codes, factors, bins=6).value, atol=1e-4)
    close(value(result, "modularity"), metrics.modularity(codes, factors, bins=6).value, atol=1e-4)
    assert result["metrics"]["mig"]["n"] == 90
    other = numbers("eval", sprites.path, *words[:-2], out=out)
    close(value(other, "mig"), metrics.mig(codes, factors, bins=20).value, atol=1e-4)


@covers("eval", "others")
def test_others_are_compared_with(sprites, folder, out):
    far = make(folder / "far", tiny(VAE(D, MLP((4,))), **{"data.name": "sprites"}), (4,))
    result = numbers(
        "eval", sprites.path, "--metrics", "udr", "--limit", 60, "--others", sprites.path, far.path, out=out
    )
    assert result["protocol"]["udr"].startswith("3 runs")
    alone = numbers("eval", sprites.path, "--metrics", "udr", "--limit", 60, "--others", sprites.path, out=out)
    # A run agrees with itself; with a stranger beside it the median over the others is less.
    assert value(alone, "udr") > 0.5
    assert value(result, "udr") < value(alone, "udr") - 0.05


# ---- fit-prior


def fitted(run, tmp_path, *words):
    """Runs fit-prior into a folder of its own; returns the density and what it says."""
    from vae_jax.evaluation import density_files

    target = tmp_path / f"prior{len(list(tmp_path.iterdir()))}"
    done("fit-prior", run.path, *words, "--out", target)
    (file,) = target.glob("*.json")
    density = density_files.load(file)
    return density, density.about


def drawn(run, state, split, seed=0, limit=0):
    """Returns the codes that fit-prior draws of a split, by the model itself."""
    size = data.load(run.config.data, split).size
    rows = np.arange(size)
    if limit and limit < size:
        rows = np.sort(np.random.default_rng(seed).permutation(size)[:limit])
    _, z = posterior(run, state, split, rows, prng.site_key(jax.random.key(seed), f"codes/{split}"))
    return np.asarray(z)


@covers("fit-prior", "limit", "split", "seed", "components", "step", "out")
def test_fit_prior_fits_components_to_codes_of_the_seed(run, tmp_path):
    from sklearn.mixture import GaussianMixture

    words = ["--limit", 50, "--split", "validation", "--seed", 3, "--components", 2, "--step", 2]
    density, about = fitted(run, tmp_path, *words)
    assert (about["codes"], about["step"], about["seed"], about["split"]) == (50, 2, 3, "validation")
    codes = drawn(run, run.restore(2), "train", 3, 50)
    close(density.shift, codes.mean(0), atol=1e-4)
    close(density.scale, codes.std(0), atol=1e-4)
    scaled = (codes - codes.mean(0)) / codes.std(0)
    model = GaussianMixture(2, covariance_type="full", reg_covar=1e-6, random_state=3).fit(scaled)
    held = drawn(run, run.restore(2), "validation", 3, 50)
    want = model.score((held - codes.mean(0)) / codes.std(0)) - np.log(codes.std(0)).sum()
    close(about["log_density"]["held_out"]["value"], want, atol=0.02)
    assert about["log_density"]["held_out"]["n"] == 50
    assert not (run.path / "prior").exists()


@covers("fit-prior", "limit")
def test_fit_prior_takes_every_code_of_the_evaluated_split_into_the_run(run, tmp_path):
    density, about = fitted(run, tmp_path, "--limit", 0, "--components", 1)
    assert (about["codes"], about["split"], about["log_density"]["held_out"]["n"]) == (1437, "test", 180)
    close(density.shift, drawn(run, run.restore(), "train").mean(0), atol=1e-4)
    done("fit-prior", run.path, "--components", 1)
    assert (run.path / "prior" / "gmm.json").is_file()
    (run.path / "prior" / "gmm.json").unlink()
    (run.path / "prior" / "gmm.npz").unlink()
    (run.path / "prior").rmdir()


@covers("fit-prior", "kind", "steps")
def test_fit_prior_makes_steps_of_a_flow(run, tmp_path):
    from vae_jax.evaluation import expost

    density, about = fitted(run, tmp_path, "--kind", "flow", "--steps", 3, "--limit", 60)
    assert density.kind == "flow"
    assert about["steps"] == 3
    codes = drawn(run, run.restore(), "train", 0, 60)
    want = expost.fit("flow", codes, steps=3).log_prob(codes)
    close(about["log_density"]["train"]["value"], want.mean(), atol=1e-2)
    other, _ = fitted(run, tmp_path, "--kind", "gmm", "--components", 1, "--limit", 60)
    assert other.kind == "gmm"


# ---- arithmetic


@covers("arithmetic", "from", "to", "n", "steps", "strength", "learn", "split", "step", "out")
def test_arithmetic_adds_the_difference_of_mean_codes(run, tmp_path):
    out = tmp_path / "a.npz"
    words = ["--from", 3, "--to", 8, "--n", 2, "--steps", 3, "--strength", 1.5, "--learn", 200]
    held = arrays("arithmetic", run.path, *words, "--split", "validation", "--step", 2, out=out)
    state = run.restore(2)
    known = mean_codes(run, state, "train", np.arange(200))
    label = data.load(run.config.data, "train").arrays["label"][:200]
    direction = known[label == 8].mean(0) - known[label == 3].mean(0)
    rows = np.flatnonzero(data.load(run.config.data, "validation").arrays["label"] == 3)[:2]
    z = mean_codes(run, state, "validation", rows)[:, None] + np.array([0, 0.75, 1.5])[:, None] * direction
    assert held["index"].tolist() == rows.tolist()
    close(held["direction"], direction, atol=1e-4)
    close(held["shares"], [0, 0.75, 1.5])
    close(held["codes"], z, atol=1e-4)
    close(held["images"], decoded(run, state, z), atol=1e-4)


def test_arithmetic_by_default_is_eight_images_six_steps_and_one_difference(run, tmp_path):
    held = arrays("arithmetic", run.path, "--from", 0, "--to", 1, out=tmp_path / "a.npz")
    assert held["images"].shape == (8, 6, 8, 8, 1)
    close(held["shares"], np.linspace(0, 1, 6))
    known = mean_codes(run, run.restore(), "train", np.arange(1437))
    label = data.load(run.config.data, "train").arrays["label"]
    close(held["direction"], known[label == 1].mean(0) - known[label == 0].mean(0), atol=1e-4)


@covers("arithmetic", "factor")
def test_arithmetic_of_a_factor(sprites, tmp_path):
    words = ["--from", 0, "--to", 2, "--n", 1, "--learn", 100]
    found = {}
    for number, factor in enumerate(("shape", "scale")):
        held = arrays("arithmetic", sprites.path, *words, "--factor", factor, out=tmp_path / "a.npz")
        known = sprites.examples("train", np.arange(100))
        codes = mean_codes(sprites, sprites.restore(), "train", np.arange(100))
        values = np.asarray(known["factors"])[:, number]
        close(held["direction"], codes[values == 2].mean(0) - codes[values == 0].mean(0), atol=1e-4)
        found[factor] = held["direction"]
    assert differ(found["shape"], found["scale"])


# ---- compare, report


@covers("compare", "out")
def test_compare_writes_its_curves_where_it_is_told(run, other, tmp_path):
    done("compare", run.path, other.path, "--out", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").is_file()
    assert not (run.path / "figures" / "compare.png").exists()
    done("compare", run.path, other.path)
    assert (run.path / "figures" / "compare.png").is_file()


def page(*words, out):
    done("report", *words, "--out", out)
    text = out.read_text()
    return text, re.findall(r"data:image/png;base64,[A-Za-z0-9+/=]+", text)


@covers("report", "out", "seed", "map")
def test_report_draws_with_its_seed_and_maps_as_told(run, tmp_path):
    from vae_jax.evaluation.codes import draw
    from vae_jax.pages.pictures import tiles

    text, pictures = page(run.path, out=tmp_path / "r.html")
    mapped, others = page(run.path, "--map", "tsne", "--seed", 1, out=tmp_path / "r.html")
    # Of the pictures only the samples are drawn: reconstructions and traversals stay.
    assert [i for i, (a, b) in enumerate(zip(pictures, others, strict=True)) if a != b] == [0]
    for seed, found in enumerate((pictures, others)):
        images = draw(run.model, run.restore(), jax.random.key(seed), 64).reshape(8, 8, 8, 8, 1)
        assert found[0] == tiles(images).uri
    assert "PCA: two directions" in text
    assert "t-SNE of 3 dimensions" in mapped
    assert "PCA: two directions" not in mapped
    assert not (run.path / "report.html").exists()


@covers("report", "step")
def test_report_shows_the_checkpoint_in_the_run_by_default(run):
    found = {}
    for step, words in ((2, ("--step", 2)), (4, ())):
        done("report", run.path, *words)
        found[step] = (run.path / "report.html").read_text()
        elbo = np.asarray(measured(run, run.restore(step))[0]["elbo"])
        assert f"step {step} of 4" in found[step]
        assert show(elbo.mean(), elbo.std(ddof=1) / len(elbo) ** 0.5) in found[step]
    (run.path / "report.html").unlink()


@covers("fit-prior", "source")
def test_a_density_is_fitted_where_the_data_are_now(tmp_path, capsys):
    images = data.load(data.DataConfig("digits"), "train").arrays["image"][:60]
    np.savez(tmp_path / "own.npz", images=images)
    np.savez(tmp_path / "others.npz", images=255 - images)
    run = make(tmp_path / "run", tiny(**{"data.name": "npz", "data.source": str(tmp_path / "own.npz")}))
    dataclasses.replace(run, data_sha256=fingerprint(run.source("train"))).write_config()
    done("fit-prior", run.path, "--components", 1, "--out", tmp_path / "here")
    (tmp_path / "own.npz").rename(tmp_path / "moved.npz")
    done("fit-prior", run.path, "--components", 1, "--out", tmp_path / "there", "--source", tmp_path / "moved.npz")
    with np.load(tmp_path / "here" / "gmm.npz") as a, np.load(tmp_path / "there" / "gmm.npz") as b:
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name])
    capsys.readouterr()
    for name, reason in (("others.npz", "not the data that"), ("none.npz", "cannot be read as the data of")):
        assert cli("fit-prior", run.path, "--source", tmp_path / name) == 2
        line = capsys.readouterr().err
        assert line.startswith(f"vae-jax: --source {tmp_path / name}: {reason} {run.path}")
        assert "; name " in line
        assert not (run.path / "prior").exists()
