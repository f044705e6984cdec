"""What `vae-jax eval` does with a metric or a setting that it must refuse: the rest is measured and written."""

import json

import numpy as np
import pytest
import support

import vae_jax as vj
from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.evaluation import measures
from vae_jax.evaluation.settings import Settings
from vae_jax.evaluation.subject import Subject
from vae_jax.models import VAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.options.ranges import ranges
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run

SMALL = MLP((8,))
QUICK = {"--limit": "20", "--k": "3", "--chains": "2", "--temperatures": "3", "--leapfrog": "1"}


def make(folder, model):
    data = DataConfig("digits", batch_size=8, binarize="threshold")
    run = Run.create(folder, "tiny", Config(4, data=data, model=model, logging=Logging(1)), spec.images(8, 8, 1))
    support.checkpoint(run)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {"vae": make(folder / "vae", VAE(2, SMALL)), "ae": make(folder / "ae", Autoencoder(2, SMALL))}


def measured(run, out, metrics, **options):
    """Returns (exit code, names of the metrics that were written, bits left out; reasons of those that were not)."""
    read = {
        f"--{name}"
        for measure in measures.expand(tuple(metrics.split(",")))
        for name in measures.MEASURES[measure].reads
    }
    read |= {"--limit"} | ({"--k"} if "iwae" in metrics else set())
    words = [w for option, value in QUICK.items() if option in read and option not in options for w in (option, value)]
    words += [word for pair in options.items() for word in pair]
    code = cli(["eval", str(run), "--metrics", metrics, *words, "--out", str(out)])
    held = json.loads(out.read_text()) if out.exists() else {"metrics": {}}
    return code, {name for name in held["metrics"] if "bits" not in name}, held.get("refused", {})


# Option, a value out of range, what must be said, and what is lost of "elbo,iwae,ais".
BAD = {
    "chains": ("--chains", "0", "--chains: 0 is out of range; it must be 1 or more", {"ais"}),
    "temperatures": ("--temperatures", "1", "--temperatures: 1 is out of range; it must be 2 or more", {"ais"}),
    "leapfrog": ("--leapfrog", "0", "--leapfrog: 0 is out of range; it must be 1 or more", {"ais"}),
    "k": ("--k", "0", "--k: 0 is out of range; it must be 1 or more, below 2^31", {"iw_3"}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_setting_out_of_range_costs_only_those_that_read_it(runs, tmp_path, capsys, name):
    option, value, message, lost = BAD[name]
    code, found, refused = measured(runs["vae"], tmp_path / "e.json", "elbo,iwae,ais", **{option: value})
    assert code == 2
    assert found == {"elbo", "iw_3", "ais"} - lost
    assert set(refused.values()) == {message}
    error = capsys.readouterr().err
    assert error.endswith(f"vae-jax: {message}\n")
    assert error.count("\n") == 1


def test_one_k_of_several_out_of_range(runs, tmp_path, capsys):
    out = tmp_path / "e.json"
    assert cli(["eval", str(runs["vae"]), "--limit", "20", "--k", "0", "5", "--out", str(out)]) == 2
    assert "--k: 0 is out of range" in capsys.readouterr().err
    assert {"elbo", "iw_5", "mse"} <= set(json.loads(out.read_text())["metrics"])


@pytest.mark.parametrize("words", [(), ("--metrics", "elbo,iwae")])
def test_a_bad_k_of_the_standard_metrics_is_refused_before_any_work(runs, tmp_path, capsys, monkeypatch, words):
    out = tmp_path / "e.json"
    call = ["eval", str(runs["vae"]), *words, "--limit", "20", "--out", str(out), "--k"]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "load", lambda path: pytest.fail("the run was opened"))
        assert cli([*call, "0"]) == 2
    assert capsys.readouterr() == ("", "vae-jax: --k: 0 is out of range; it must be 1 or more, below 2^31\n")
    assert not out.exists()
    assert cli([*call, "1"]) == 0


def test_a_metric_that_the_model_has_not_costs_nothing_else(runs, tmp_path, capsys):
    code, found, refused = measured(runs["ae"], tmp_path / "e.json", "rate,mse,iwae,knn")
    assert (code, found) == (2, {"mse", "knn"})
    assert "has no rate (the model has none); it has" in refused["rate"]
    assert "its model does not provide a bound on log p(x)" in refused["iwae"]
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_is_written_where_nothing_can_be_measured(runs, tmp_path, capsys):
    code, found, _ = measured(runs["vae"], tmp_path / "e.json", "ais,bdmc", **{"--chains": "0"})
    assert (code, found) == (2, set())
    assert capsys.readouterr().err.count("--chains: 0") == 1
    assert not (tmp_path / "e.json").exists()


def test_a_metric_of_no_such_name(runs, tmp_path, capsys):
    assert measured(runs["vae"], tmp_path / "e.json", "elbow,mse") == (2, set(), {})
    assert "no metric 'elbow'; did you mean 'elbo'" in capsys.readouterr().err
    assert measured(runs["vae"], tmp_path / "e.json", "iw_0") == (2, set(), {})


def test_bits_of_binary_images_are_of_two_levels(runs):
    run = vj.Run.load(runs["vae"])
    metrics = vj.evaluate_run(run, metrics=("elbo", "bits_per_dim"), limit=20, write=False)["metrics"]
    np.testing.assert_allclose(
        metrics["bits_per_dim"]["value"], -metrics["elbo"]["value"] / (64 * np.log(2)), rtol=1e-6
    )


def test_every_setting_that_a_measure_reads_is_listed_in_its_entry(runs, monkeypatch):
    """`Measure.reads` decides whom a bad setting costs."""
    read = set()

    class Watched(Settings):
        def __getattribute__(self, name):
            if name in Settings.__dataclass_fields__:
                read.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(measures, "lacking", lambda name, model, info: "")  # whatever the run provides
    run, seen = Run.load(runs["vae"]), set()
    state = run.restore()
    small = Watched(k=(2,), chains=2, temperatures=3, leapfrog=1, local_steps=2, local_samples=1, samples=8, points=9)
    for name, measure in measures.MEASURES.items():
        read.clear()
        measures.measure((name,), Subject(run, state, "test", limit=20, settings=small))
        assert read <= set(measure.reads), name
        seen |= read
    assert seen >= {"k", "chains", "temperatures", "local_steps", "local_samples", "samples", "features", "points"}
    guarded = {name for name, allowed in ranges(Settings).items() if allowed is not None}
    assert guarded >= {"k", "chains", "temperatures", "points"}
    assert guarded <= {field for measure in measures.MEASURES.values() for field in measure.reads}
