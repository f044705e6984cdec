"""eval.json: merged by metric and protocol, never emptied, and read well by every reader."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import support
from test_cli_look import config

from vae_jax import data, spec
from vae_jax.cli.main import run as cli
from vae_jax.data.fingerprint import fingerprint
from vae_jax.errors import InputError
from vae_jax.evaluation import eval_file as evaluations
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Evaluation
from vae_jax.runs.run import Run
from vae_jax.tasks.compare import measured
from vae_jax.tasks.measuring import evaluate_run

TARGETS = {"elbo": (-50.0, 20.0, "here"), "frechet_distance": (0.0, 1.0, "here", "at least")}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a finished run with targets, measured as the end of `train` measures it; tests copy it."""
    run = Run.create(
        tmp_path_factory.mktemp("made") / "run",
        "tiny",
        dataclasses.replace(config(VAE(3, MLP((8,)))), expected=TARGETS),
        spec.images(8, 8, 1),
    )
    support.checkpoint(run, 2)
    support.checkpoint(run)
    evaluate_run(run)
    return run.path


@pytest.fixture
def run(made, tmp_path):
    return Run.load(shutil.copytree(made, tmp_path / "run"))


def held(run: Run) -> dict:
    return json.loads((run.path / "eval.json").read_text())


def test_the_sequence_of_the_readme_leaves_compare_and_report_full(run, made, tmp_path, capsys):
    first = held(run)
    assert {"elbo", "rate", "distortion", "mse", "psnr", "active_units"} == first["metrics"].keys()
    assert cli(["eval", str(run.path), "--k", "1", "10", "--limit", "50"]) == 0
    assert "targets are judged on the test split, first 100 images, seed 0: elbo ok, frechet_distance not measured" in (
        capsys.readouterr().out.replace("\n", " ")
    )
    assert cli(["eval", str(run.path), "--metrics", "generation", "--samples", "40"]) == 0
    values = held(run)
    assert values["metrics"]["elbo"] == first["metrics"]["elbo"], "the run's own protocol wins, not the latest"
    assert values["metrics"]["iw_10"]["n"] == 50
    assert values["metrics"]["iw_10"]["protocol"] == {"limit": 50}
    assert "protocol" not in values["metrics"]["frechet_distance"]
    assert "40" in values["protocol"]["frechet_distance"]
    assert values["protocol"]["limit"] == 100
    assert values["protocol"]["importance_samples"] == [1, 10]
    assert values["latents"] == first["latents"]
    assert values["pass"] is True, "the elbo of the first call and the distance of the third are both judged"
    assert [e["protocol"]["limit"] for e in values["evaluations"]] == [50, 100], "two protocols, the latest last"

    assert cli(["compare", str(run.path), str(made)]) == 0
    out = capsys.readouterr().out
    for name in ("elbo", "iw_10", "frechet_distance", "precision", "coverage"):
        assert f" {name} " in out
    assert "iw_1, iw_10: limit 50, 50 images" in out.replace("\n", " ")
    page = tmp_path / "r.html"
    assert cli(["report", str(run.path), "--out", str(page)]) == 0
    text = page.read_text()
    for name in ("elbo", "iw_10", "frechet_distance", "precision", "coverage"):
        assert f">{name}<" in text
    assert "50; limit 50" in text
    assert "measured for this report" not in text


def test_a_later_call_replaces_only_what_it_measured_again(run):
    before = held(run)["metrics"]
    file = run.path / "eval.json"
    values = json.loads(file.read_text())
    for name in ("elbo", "mse"):  # numbers that no call would give
        values["evaluations"][0]["metrics"][name]["value"] = 1234.5
    file.write_text(json.dumps(values))
    assert evaluate_run(run, metrics=("elbo",))["metrics"].keys() == {"elbo"}, "a call returns what it measured"
    after = held(run)["metrics"]
    assert after["elbo"] == before["elbo"]
    assert after["mse"]["value"] == 1234.5
    assert list(after) == list(before)


def test_two_settings_of_one_measure_are_two_evaluations(run):
    evaluate_run(run, metrics=("frechet_distance",), settings={"samples": 30})
    thirty = held(run)["metrics"]["frechet_distance"]
    evaluate_run(run, metrics=("frechet_distance", "mse"), settings={"samples": 40})
    values = held(run)
    assert values["metrics"]["frechet_distance"]["value"] != thirty["value"]
    assert "40" in values["protocol"]["frechet_distance"], "the section is that of the value beside it"
    kept = [e["metrics"]["frechet_distance"] for e in values["evaluations"] if "frechet_distance" in e["metrics"]]
    assert kept[0] == thirty
    assert len(kept) == 2
    evaluate_run(run, metrics=("frechet_distance",), settings={"samples": 40})
    assert len(held(run)["evaluations"]) == 2, "the same call again adds nothing"


def test_another_step_split_or_seed_never_takes_the_place_of_the_newest(run):
    before = held(run)
    for options in ({"step": 2}, {"split": "train"}, {"seed": 1}):
        evaluate_run(run, **options)
    values = held(run)
    assert {k: v for k, v in values.items() if k != "evaluations"} == {
        k: v for k, v in before.items() if k != "evaluations"
    }
    seen = [(e["step"], e["split"], e["protocol"]["seed"]) for e in values["evaluations"]]
    assert seen == [(4, "test", 0), (2, "test", 0), (4, "train", 0), (4, "test", 1)]


def test_targets_are_judged_on_the_own_protocol_only(run):
    (run.path / "eval.json").unlink()
    result = evaluate_run(run, limit=50)
    assert result["targets_of"] == "test split, first 100 images, seed 0"
    values = held(run)
    assert values["metrics"]["elbo"]["n"] == 50, "better another protocol's number than none"
    assert values["protocol"]["limit"] == 50
    assert values["expected"]["elbo"]["pass"] is None
    result = evaluate_run(run, metrics=("elbo",))
    assert "targets_of" not in result
    assert held(run)["expected"]["elbo"]["pass"] is True
    assert held(run)["metrics"]["mse"]["protocol"] == {"limit": 50}


def test_a_file_of_before_is_read_and_kept_apart(run, made, capsys):
    file = run.path / "eval.json"
    old = json.loads(file.read_text())
    del old["evaluations"], old["protocol"]["data_sha256"]
    old["metrics"]["mse"]["value"] = 1234.5
    file.write_text(json.dumps(old))
    for command in (["compare", str(run.path), str(made)], ["report", str(run.path)]):
        assert cli(command) == 0
    capsys.readouterr()
    evaluate_run(run, metrics=("elbo",))
    values = held(run)
    assert values["metrics"]["mse"]["value"] == 1234.5
    # On what images the old numbers were measured nobody knows: they are kept, but not as of the new protocol.
    assert [list(entry["metrics"]) for entry in values["evaluations"]] == [list(old["metrics"]), ["elbo"]]
    assert "protocol" not in values["metrics"]["elbo"]
    assert values["metrics"]["mse"]["protocol"] == {"data_sha256": None}
    assert cli(["compare", str(run.path), str(made)]) == 0
    assert "mse, psnr, active_units: images of unknown SHA-256, 100 images" in capsys.readouterr().out.replace(
        "\n", " "
    )


def test_old_numbers_are_judged_beside_new_ones(run):
    file = run.path / "eval.json"
    old = json.loads(file.read_text())
    for entry in (old, *old["evaluations"]):
        del entry["protocol"]["data_sha256"]
    file.write_text(json.dumps(old))
    evaluate_run(run, metrics=("mse",))
    assert held(run)["expected"]["elbo"]["pass"] is True


@pytest.fixture
def own_split(tmp_path):
    """Returns a measured run on data with splits of their own, and what replaces their test images."""
    rng = np.random.default_rng(0)
    file = tmp_path / "mine.npz"
    arrays = {f"{name}_images": rng.integers(0, 256, (40, 8, 8), np.uint8) for name in ("train", "test")}
    np.savez(file, **arrays)
    base = config(VAE(3, MLP((8,))))
    options = dataclasses.replace(base.data, name="npz", source=str(file))
    whole = dataclasses.replace(base, data=options, expected=TARGETS)
    sha256 = fingerprint(data.load(options, "train"))
    run = Run.create(tmp_path / "mine", "tiny", whole, spec.images(8, 8, 1), data_sha256=sha256)
    support.checkpoint(run)

    def replace(seed: int) -> Run:
        test = np.random.default_rng(seed).integers(0, 256, (40, 8, 8), np.uint8) if seed else arrays["test_images"]
        np.savez(file, **(arrays | {"test_images": test}))
        return Run.load(run.path)

    evaluate_run(run)
    return run, replace


def test_numbers_of_replaced_test_images_are_two_evaluations(own_split, capsys):
    run, replace = own_split
    first = held(run)
    assert first["expected"]["elbo"]["pass"] is not None
    sha = fingerprint(run.source("test"))
    assert first["protocol"]["data_sha256"] == sha
    run = replace(1)
    evaluate_run(run, metrics=("mse",))
    values = held(run)
    assert [list(entry["metrics"]) for entry in values["evaluations"]] == [list(first["metrics"]), ["mse"]]
    assert values["metrics"]["elbo"] == first["metrics"]["elbo"] | {"protocol": {"data_sha256": sha}}
    assert values["metrics"]["mse"]["value"] != first["metrics"]["mse"]["value"]
    assert values["expected"]["elbo"]["pass"] is None, "not judged beside numbers of other images"
    assert cli(["compare", str(run.path), str(run.path.parent)]) == 2
    assert f"active_units: other images (SHA-256 {sha[:12]}), 40 images" in evaluations.notes(values["metrics"])[0]
    page = run.path.parent / "r.html"
    assert cli(["report", str(run.path), "--out", str(page)]) == 0
    assert f"40; other images (SHA-256 {sha[:12]})" in page.read_text()
    # The old images again: their evaluation takes the new numbers, and is judged.
    evaluate_run(replace(0), metrics=("mse",))
    values = held(run)
    assert len(values["evaluations"]) == 2
    assert values["metrics"] == first["metrics"]
    assert values["expected"] == first["expected"]


DAMAGED = [
    '{"step": 4',
    "[]",
    "null",
    '{"step": 4}',
    '{"step": 4, "split": "test", "protocol": {}, "metrics": {"elbo": 1}}',
    '{"step": "4", "split": "test", "protocol": {}, "metrics": {}}',
    '{"step": 4, "split": "test", "protocol": {"n": 9}, "metrics": {}}',
    '{"step": 4, "split": "test", "data": "d", "protocol": {}, "metrics": {}}',
    "\udcff",
]
NUMBERS = [("value", "abc"), ("value", True), ("stderr", "abc"), ("n", 9.5), ("n", None)]


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_is_kept_aside_and_said(run, text, capsys, caplog):
    file, whole = run.path / "eval.json", held(run)
    file.write_text(text, errors="surrogateescape")
    assert cli(["compare", str(run.path), str(run.path.parent)]) == 2
    assert cli(["report", str(run.path)]) == 2
    (_, error) = capsys.readouterr().err.splitlines()
    assert f"{file}: cannot be read" in error
    assert f"write it again with `vae-jax eval {run.path}`, which moves it aside" in error
    assert cli(["eval", str(run.path)]) == 0  # as the message says
    aside = run.path / "eval.damaged.json"
    assert f"{file}: could not be read; it is kept as {aside}" in caplog.text
    assert aside.read_text(errors="surrogateescape") == text
    assert held(run)["metrics"] == whole["metrics"]
    file.write_text(text, errors="surrogateescape")
    assert evaluate_run(run)["set_aside"] == str(run.path / "eval.damaged-2.json")


EDITED = {
    "a number of bounds": ("protocol", {"importance_samples": 5}, "protocol.importance_samples 5 is not a list"),
    "a bound": ("protocol", {"importance_samples": ["a"]}, "protocol.importance_samples ['a'] is not a list"),
    "a refusal": ("refused", 5, "refused 5 does not give a reason per metric"),
    "a reason": ("refused", {"mig": 5}, "refused {'mig': 5} does not give a reason per metric"),
    "a name": ("asked", "mig", "asked 'mig' is not a list of metrics"),
    "a note": ("metrics", {"elbo": {"value": 1, "stderr": None, "n": 9, "protocol": 5}}, "metrics.elbo.protocol is no"),
}


@pytest.mark.parametrize("name", EDITED)
def test_an_edited_file_is_kept_aside_and_costs_no_evaluation(run, name):
    key, value, said = EDITED[name]
    file, values = run.path / "eval.json", held(run)
    entry = values["evaluations"][0]
    entry[key] = entry.get(key, {}) | value if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=re.escape(f"cannot be read ({said}")):
        evaluations.read(file)
    whole = evaluate_run(run, metrics=("mse",))
    assert whole["set_aside"] == str(run.path / "eval.damaged.json")
    assert held(run)["metrics"] == whole["metrics"]


@pytest.mark.parametrize(("key", "value"), NUMBERS)
def test_a_metric_that_is_no_number_is_moved_aside_and_not_judged(run, key, value):
    file, whole = run.path / "eval.json", held(run)
    values = held(run)
    values["evaluations"][0]["metrics"]["elbo"][key] = value
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"cannot be read \(metrics.elbo holds what is no number\)"):
        evaluations.read(file)
    aside = run.path / "eval.damaged.json"
    _, moved = evaluations.update(file, run.path, "tiny", run.config, whole["evaluations"][0])
    assert moved == aside
    assert held(run)["metrics"] == whole["metrics"]


def test_out_is_merged_too_and_never_holds_two_runs(run, made, tmp_path, capsys):
    out = tmp_path / "mine.json"
    for words in (["--metrics", "elbo"], ["--metrics", "mse"]):
        assert cli(["eval", str(run.path), *words, "--out", str(out)]) == 0
    assert json.loads(out.read_text())["metrics"].keys() == {"elbo", "mse"}
    before = out.read_bytes()
    capsys.readouterr()
    assert cli(["eval", str(made), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert said == f"vae-jax: --out {out}: holds the numbers of {run.path}; choose another file for those of {made}\n"
    assert out.read_bytes() == before
    other = tmp_path / "other.json"
    other.write_text('{"my": "notes"}')
    assert cli(["eval", str(run.path), "--out", str(other)]) == 2
    assert f"--out {other}: is there and not a file of vae-jax eval; choose another file" in capsys.readouterr().err
    assert other.read_text() == '{"my": "notes"}'
    assert cli(["eval", str(run.path), "--metrics", "elbo", "--out", str(tmp_path / "another.json")]) == 0


def result(step: int, limit: int, **metrics: float) -> dict:
    return {
        "step": step,
        "split": "test",
        "protocol": {"limit": limit, "seed": 0},
        "metrics": {name: {"value": value, "stderr": None, "n": 9} for name, value in metrics.items()},
    }


def test_the_view_prefers_the_newest_step_then_the_own_protocol_then_the_latest():
    mine = Config(evaluation=Evaluation(limit=7))
    entries: list = []
    for one in (result(5, 7, a=1.0), result(9, 3, a=2.0, b=3.0), result(9, 4, b=4.0, c=5.0)):
        entries = evaluations.merged(entries, one)
    values = {name: m["value"] for name, m in evaluations.view("x", mine, entries)["metrics"].items()}
    assert values == {"b": 4.0, "c": 5.0, "a": 2.0}
    entries = evaluations.merged(entries, result(9, 7, b=6.0))
    seen = evaluations.view("x", mine, entries)
    assert {name: m["value"] for name, m in seen["metrics"].items()} == {"b": 6.0, "c": 5.0, "a": 2.0}
    assert evaluations.notes(seen["metrics"]) == ["c: limit 4, 9 images", "a: limit 3, 9 images"]
    assert evaluations.view("x", mine, entries, 5)["metrics"]["a"]["value"] == 1.0
    # A number that was not finite is kept as null, and misses its target.
    bad = dataclasses.replace(mine, expected={"a": (1.0, 1.0, "here")})
    entries = evaluations.merged(entries, result(11, 7, a=float("nan")))
    assert evaluations.view("x", bad, entries)["pass"] is False


def test_compare_says_which_eval_json_is_not_of_the_newest_step(run, made, capsys):
    assert cli(["eval", str(run.path), "--step", "2", "--out", str(run.path / "old.json")]) == 0
    (run.path / "eval.json").unlink()
    (run.path / "old.json").rename(run.path / "eval.json")
    now = run.config.steps
    footer = f"; eval.json is of step 2, the run is at step {now}; measure it again with `vae-jax eval {run.path}`"
    other = shutil.copytree(made, run.path.parent / "other")
    words = ["compare", str(run.path), str(other), "--out", str(run.path / "c.png")]
    capsys.readouterr()
    assert cli(words) == 0
    said = capsys.readouterr().out
    assert said.count("measure it again") == 1
    assert re.search(rf"^run: eval.json: .*{re.escape(footer)}$", said, re.MULTILINE)
    assert cli(["eval", str(run.path)]) == 0
    capsys.readouterr()
    assert cli(words) == 0
    assert "measure it again" not in capsys.readouterr().out
    # A stopped run is measured only at a step that is named.
    stopped = Run.create(run.path.parent / "stopped", "tiny", dataclasses.replace(run.config, steps=now + 1), run.spec)
    shutil.copytree(made / "checkpoints", stopped.path / "checkpoints")
    evaluate_run(stopped, step=2)
    said = measured(stopped.path)["from"]
    assert f'measure it again with `vj.evaluate_run("{stopped.path}", step={now})`' in said
    assert evaluate_run(stopped, step=now)["step"] == now
    assert "measure it again" not in measured(stopped.path)["from"]


def test_compare_warns_of_runs_on_different_data(run, made, tmp_path, capsys):
    words = ["compare", str(run.path), str(tmp_path / "other"), "--out", str(tmp_path / "c.png")]
    warning = "warning: Runs compare only on the same data, pixels and likelihood.\n"
    Run.create(tmp_path / "other", "tiny", run.config, run.spec)
    assert cli(words) == 0
    assert "warning:" not in capsys.readouterr().out
    for name, x in (("sprites", run.spec), ("digits", spec.images(16, 16, 1))):
        shutil.rmtree(tmp_path / "other")
        own = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, name=name))
        Run.create(tmp_path / "other", "tiny", own, x)
        assert cli(words) == 0
        assert capsys.readouterr().out.count(warning) == 1


def test_a_baseline_without_evaluations_is_compared(made, tmp_path):
    values = {k: v for k, v in json.loads((made / "eval.json").read_text()).items() if k != "evaluations"}
    (tmp_path / "eval.json").write_text(json.dumps(values))
    assert measured(tmp_path)["metrics"] == values["metrics"]
    (tmp_path / "eval.json").write_text("{}")
    with pytest.raises(InputError, match=r"cannot be read \(no 'step'\)"):
        measured(tmp_path)
