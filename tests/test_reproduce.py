"""Targets and their verdicts, and the table of what papers have and what was obtained."""

import dataclasses
import json
import re
import statistics

import pytest
import support
from test_cli_look import config

import vae_jax
from benchmarks import reproduce
from vae_jax import spec
from vae_jax.cli.evaluate import print_result
from vae_jax.cli.main import run as cli
from vae_jax.errors import InputError
from vae_jax.evaluation import Estimate, measures
from vae_jax.models import VAE, SecondStage
from vae_jax.networks import MLP
from vae_jax.runs import config as configs
from vae_jax.runs.config import Config
from vae_jax.runs.config_json import from_dict, to_json
from vae_jax.runs.run import Run
from vae_jax.runs.targets import judge, meets, target_text
from vae_jax.tasks.measuring import evaluate_run


@pytest.mark.parametrize(
    ("target", "good", "bad"),
    [
        ((10.0, 2.0, "here"), (8.0, 10.0, 12.0), (7.9, 12.1)),
        ((10.0, 2.0, "here", "at least"), (8.0, 100.0), (7.9,)),
        ((10.0, 2.0, "here", "at most"), (12.0, -100.0), (12.1,)),
        ((-104.0, 0.0, "here", "at least"), (-104.0, -96.0), (-104.1, float("nan"))),
    ],
)
def test_targets(target, good, bad):
    assert all(meets(target, v) for v in good)
    assert not any(meets(target, v) for v in bad)


def test_target_in_words():
    assert target_text(72.5, 2.5) == "72.5 ± 2.5"
    assert target_text(-104.0, 0.0, "at least") == "at least -104"


def test_a_direction_survives_the_config_file():
    config = Config(expected={"elbo": (-1.0, 0.1, "here", "at least"), "rate": (2.0, 0.1, "there")})
    again = from_dict(json.loads(to_json(config)))
    assert again.expected == config.expected


@pytest.mark.parametrize("target", [(1.0, -0.1, "here"), (1.0, float("nan"), "here"), (1.0, 0.1, "here", "about")])
def test_targets_that_say_nothing_are_refused(target):
    with pytest.raises(InputError, match="expected: elbo: give"):
        configs.check(Config(expected={"elbo": target}))


def test_targets_hold_for_the_experiment_as_it_is_written():
    written = configs.put(Config(), "expected", {"elbo": (-1.0, 0.1, "here")})
    for option, value in (("seed", 4), ("logging.log_every", 7), ("data.workers", 2), ("evaluation.k", (5,))):
        assert configs.keep_targets(configs.put(written, option, value), written).expected == written.expected
    for option, value in (("steps", 3), ("model.latent_dim", 3), ("evaluation.limit", 9), ("data.name", "digits")):
        assert configs.keep_targets(configs.put(written, option, value), written).expected == {}
    other = configs.choose(written, "model.likelihood", "gaussian")
    assert configs.keep_targets(other, written).expected == {}
    mine = configs.put(other, "expected", {"elbo": (-2.0, 0.1, "mine")})
    assert configs.keep_targets(mine, written).expected == mine.expected


def test_commands_and_python_drop_targets_of_another_experiment(tmp_path):
    assert vae_jax.experiment("vae_mnist", seed=3).expected
    assert vae_jax.experiment("vae_mnist", steps=3).expected == {}
    folder = tmp_path / "run"
    assert cli(["train", "vae_digits", "--smoke", "--quiet", "--mesh.data", "1", "--workdir", str(folder)]) == 0
    assert Run.load(folder).config.expected == {}


def test_verdicts_name_the_direction():
    verdict = judge({"elbo": (-104.0, 0.0, "here", "at least")}, {"elbo": Estimate(-96.0, 0.1, 10)})
    assert verdict["pass"] is True
    assert verdict["expected"]["elbo"]["direction"] == "at least"
    assert "direction" not in judge({"elbo": (1.0, 0.1, "here")}, {})["expected"]["elbo"]


def half(subject):
    return {"half": Estimate(0.5, 0.1, subject.size)}


@pytest.fixture
def run(tmp_path):
    """Returns a finished run whose config expects a metric that is made only when it is asked for."""
    asked = dataclasses.replace(config(VAE(3, MLP((8,)))), expected={"half": (0.4, 0.2, "here")})
    run = Run.create(tmp_path / "run", "tiny", asked, spec.images(8, 8, 1))
    support.checkpoint(run)
    return run


def test_metrics_made_on_request_are_judged(run, monkeypatch, capsys):
    monkeypatch.setitem(measures.MEASURES, "half", measures.Measure("test_reproduce:half", "", "", "test"))
    result = evaluate_run(run, write=False)
    assert result["pass"] is None
    print_result(result)
    assert "targets not measured: half" in capsys.readouterr().out
    assert evaluate_run(run, metrics=("half",), write=False)["pass"] is True
    assert not (run.path / "eval.json").exists()


# The table


def an_eval(**metrics):
    return {
        "experiment": "one",
        "step": 100,
        "data": "digits",
        "split": "test",
        "protocol": {"n": 1000},
        "metrics": {name: {"value": v, "stderr": 0.5, "n": 1000} for name, v in metrics.items()},
        "latents": {"kl_per_dim": [1.0], "variance_of_mean": [1.0]},
        "training": {"seed": 0, "commit": "0123456789abcdef+changes", "processor": "a | b", "devices": ["cpu:0 cpu"]},
    }


ONE = reproduce.Experiment(Config(steps=200, expected={"elbo": (-90.0, 1.0, "arXiv:1"), "mig": (0.5, 0.1, "x")}), "")


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_row_says_target_value_verdict_and_where_it_was_made():
    (met, _), (missed, absent) = (reproduce.rows("one", ONE, an_eval(elbo=v)) for v in (-89.5, -92.0))
    assert met == ("one", "elbo", "-90 ± 1 (arXiv:1)", "-89.5 ± 0.5", "met", "1", "100 of 200", "test, 1,000",
                   "a | b, cpu:0 cpu", "0123456+changes")  # fmt: skip
    assert missed[4] == "**missed**"
    assert absent[1:5] == ("mig", "0.5 ± 0.1 (x)", "-", "not measured")


def test_an_experiment_without_targets_shows_its_headline_and_the_published_number():
    plain = reproduce.Experiment(Config(steps=100), "-85.5 (arXiv:2)")
    (row,) = reproduce.rows("one", plain, an_eval(distortion=1.0, elbo=-3.0))
    assert row[1:5] == ("elbo", "-85.5 (arXiv:2)", "-3 ± 0.5", "-")
    assert row[6] == "100"


def test_markdown_names_everything():
    known = {"one": ONE, "two": reproduce.Experiment(Config(steps=5_000), "-1 (arXiv:3)")}
    text = reproduce.markdown(known, {"one": an_eval(elbo=-90.0), "else": {"what": "another thing"}, "iw": {}})
    first, missing = text.split("## No result yet")
    missing, others = missing.split("## Other measurements")
    table = [cells(line) for line in first.splitlines() if line.startswith("|")]
    assert [row[0] for row in table] == ["experiment", "---", "one", "one"]
    assert {len(row) for row in table} == {10}, "a bar inside a cell is no border"
    assert "| two | -1 (arXiv:3) | 5,000 |" in missing
    assert "`else.json`: another thing" in others
    assert re.search(r"`iw.json`: \w.*bound", others), "the first line of its module"


def test_seeds_are_merged():
    elbos = (-90.0, -92.0, -95.0)
    whole = {seed: an_eval(elbo=v) for seed, v in enumerate(elbos)}
    merged = reproduce.merge(whole)
    elbo = merged["metrics"]["elbo"]
    assert elbo["value"] == pytest.approx(statistics.fmean(elbos))
    assert elbo["stderr"] == pytest.approx(statistics.stdev(elbos) / 3**0.5)
    assert merged["seeds"] == {str(i): {"elbo": v} for i, v in enumerate(elbos)}
    assert reproduce.rows("one", ONE, merged)[0][5] == "3"
    assert reproduce.is_of_experiment("one", merged)
    whole[1]["metrics"] = {}
    assert reproduce.merge(whole)["metrics"]["elbo"]["value"] is None, "no mean over some of the seeds"
    assert reproduce.merge({0: whole[0]}) == whole[0]


def test_seed_words():
    assert reproduce.seeds_of(["0:3"]) == (0, 1, 2)
    assert reproduce.seeds_of(["4", "1", "4"]) == (4, 1)
    for words in (["a"], ["3:1"], ["-1"]):
        with pytest.raises(InputError, match="--seeds"):
            reproduce.seeds_of(words)


def test_published_numbers_are_read_from_docstrings():
    source = '"""Title.\n\nCommand:    x\nPublished:  -85 (arXiv:1,\n            table 1).\nReference:  y\n"""\n'
    assert reproduce.published(source) == "-85 (arXiv:1, table 1)."
    assert reproduce.published('"""Title."""') == ""
    assert "-85.54" in reproduce.experiments()["iwae_mnist"].published


def test_first_stages_are_read_from_docstrings():
    known = reproduce.experiments()
    firsts = {name: one.first for name, one in known.items() if one.first}
    assert firsts["transformer_prior_digits"] == "vq_vae_digits"
    # A second stage without one could not be trained, and a first one must be there to be trained before it.
    assert set(firsts) == {name for name, one in known.items() if isinstance(one.config.model, SecondStage)}
    assert set(firsts.values()) <= set(known)


def test_the_table_is_that_of_the_files():
    text = reproduce.markdown(reproduce.experiments(), reproduce.held())
    found = (reproduce.RESULTS / "README.md").read_text()
    assert found == text, "results or experiments have changed: run `make reproduce` and commit results/README.md"


def test_training_measuring_and_going_on(tmp_path, capsys):
    words = ["vae_digits", "--steps", "2", "--workdir", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    (tmp_path / "results").mkdir()
    assert reproduce.main([*words, "--seeds", "0", "1"]) == 0
    result = json.loads((tmp_path / "results" / "vae_digits.json").read_text())
    assert list(result["seeds"]) == ["0", "1"]
    assert result["seeds"]["0"]["elbo"] != result["seeds"]["1"]["elbo"]
    assert {"experiment", "step", "data", "split", "protocol", "metrics", "expected", "pass"} <= result.keys()
    assert "2 of 5,000" in (tmp_path / "results" / "README.md").read_text()
    assert "beta_vae" in capsys.readouterr().out.partition("no result yet")[2]
    # What is finished is not trained or measured again; a third seed is added to it.
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*") if p.is_file()}
    assert reproduce.main([*words, "--seeds", "0:2", "--metrics", "probe_logistic"]) == 0
    changed = [p.name for p, at in files.items() if p.stat().st_mtime_ns != at]
    assert changed == ["eval.json"] * 2
    again = json.loads((tmp_path / "results" / "vae_digits.json").read_text())
    assert again["seeds"]["0"]["elbo"] == result["seeds"]["0"]["elbo"]
    assert 0 <= again["metrics"]["probe_logistic"]["value"] <= 1
    # Evaluations of a version that kept no hash of the images are read as before.
    for file in (tmp_path / "runs").glob("*/eval.json"):
        values = json.loads(file.read_text())
        for entry in (values, *values["evaluations"]):
            del entry["protocol"]["data_sha256"]
        file.write_text(json.dumps(values))
    assert reproduce.main([*words, "--seeds", "0:2", "--metrics", "probe_logistic"]) == 0
    old = json.loads((tmp_path / "results" / "vae_digits.json").read_text())
    assert old["metrics"] == again["metrics"]


def test_the_first_stage_is_made_before_the_second_with_its_seed(tmp_path, monkeypatch):
    made, (first, second) = [], ("vq_vae_digits", "transformer_prior_digits")

    def run_seed(name, config, folder, metrics, below=None):
        made.append((name, config.seed, config.steps, folder.name, metrics, below))
        return an_eval(elbo=-20.0 - config.seed) | {"experiment": name, "step": config.steps}

    monkeypatch.setattr(reproduce, "run_seed", run_seed)
    words = [second, "--seeds", "3", "4", "--steps", "2", "--metrics", "mig", "--workdir", str(tmp_path / "runs")]
    assert reproduce.main([*words, "--results", str(tmp_path)]) == 0
    folders = {seed: f"{first}-seed{seed}-steps2" for seed in (3, 4)}
    assert made == [
        run
        for seed, folder in folders.items()
        for run in (
            (first, seed, 2, folder, (), None),
            (second, seed, 2, f"{second}-seed{seed}-steps2", ("mig",), tmp_path / "runs" / folder),
        )
    ]
    # The results file is that of the second stage alone.
    [file] = tmp_path.rglob("*.json")
    assert file.name == f"{second}.json"
    assert json.loads(file.read_text())["seeds"] == {"3": {"elbo": -23.0}, "4": {"elbo": -24.0}}


@pytest.mark.parametrize(
    ("words", "said"),
    [(["vae_digit"], "did you mean 'vae_digits'"), (["vae_digits", "--steps", "0"], "--steps: 0 is out of range"),
     (["vae_digits", "--seeds", "x"], "--seeds x")],
)  # fmt: skip
def test_bad_input_writes_nothing(words, said, tmp_path, capsys):
    assert reproduce.main([*words, "--workdir", str(tmp_path / "runs"), "--results", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
