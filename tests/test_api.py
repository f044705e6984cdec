"""The Python face: each call against the model's own functions, messages for Python, arrays in memory, a loop."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from options import close, decoded, make, mean_codes, tiny

import vae_jax as vj
from vae_jax import data, errors, spaces
from vae_jax import spec as specs
from vae_jax.cli import main
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.runs import own_data
from vae_jax.runs.config import Logging
from vae_jax.tasks import codes as codes_task
from vae_jax.tasks import preflight, training

D = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", tiny())


@pytest.fixture(scope="module")
def run(made):
    return vj.load(made.path)


def refused(call, *said):
    with pytest.raises(vj.InputError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line
    assert "--" not in line, "a flag is nothing that can be typed in Python"
    for words in said:
        assert words in line
    return line


# ---- calls


def test_a_run_is_opened_once_and_shown_in_one_line(run, made):
    assert repr(run) == f"OpenRun({str(made.path)!r}, 'tiny', step 4 of 4)"
    assert repr(made) == repr(run).replace("OpenRun", "Run")
    assert vj.load(run) is run
    assert vj.load(made).model is made.model  # nothing is compiled twice
    refused(lambda: vj.load(3), 'vj.load("runs/mine")')


def test_sample_is_the_same_by_path_run_and_command(run, made, tmp_path):
    want = run.sample(5, seed=3)
    np.testing.assert_array_equal(vj.sample(str(made.path), 5, seed=3), want)
    np.testing.assert_array_equal(vj.sample(vj.Run.load(made.path), 5, seed=3), want)
    out = tmp_path / "x.npz"
    assert main.run(["sample", str(made.path), "--n", "5", "--seed", "3", "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out)["images"], want)
    assert np.abs(run.sample(5, seed=3, step=2) - want).max() > 1e-3


def test_encode_decode_and_reconstruct_take_arrays_paths_and_names(run, tmp_path):
    x, state = np.asarray(run.examples("test", np.arange(9))["x"]), run.restore()
    codes = run.encode(x)
    close(codes.mean, mean_codes(run, state, "test", range(9)))
    gray = np.rint(255 * x[..., 0]).astype(np.uint8)  # [N, H, W] of bytes is the same
    np.save(tmp_path / "x.npy", gray)
    for given in (
        gray,
        gray.tolist(),
        (x * 1.0).tolist(),
        {"images": gray, "labels": np.arange(9)},
        tmp_path / "x.npy",
        jax.numpy.asarray(x),
    ):
        close(vj.encode(run, given).mean, codes.mean)
    assert vj.encode(run, {"images": gray, "labels": np.arange(9)}).extra["label"].tolist() == list(range(9))
    close(vj.encode(run, "digits").mean[:9], codes.mean)
    want = decoded(run, state, codes.mean)
    for z in (codes, codes.mean):
        close(vj.decode(run, z), want)
    close(run.reconstruct(x), want)
    close(run.reconstruct(n=9), want)
    assert run.encode(x, draw=True, seed=1).z.shape == (9, D)


def test_walks_are_named_arrays_with_a_figure(run):
    path = run.interpolate([0, 1], steps=3)
    close(path.codes[0, 1], run.encode(path.ends[0]).mean.mean(0))
    walk = run.traverse([2], steps=3, index=1)
    assert walk.walk.dims.tolist() == [2]
    moves = vj.arithmetic(run, 3, 8, n=2, steps=2)
    close(moves.codes[:, 1] - moves.codes[:, 0], np.tile(moves.direction, (2, 1)))
    for figure in (path.figure(), walk.figure(), moves.figure(), run.plot_samples(4), run.plot_reconstructions(4)):
        assert figure.axes[0].get_images()
    assert run.plot_curves().axes


def test_history_is_arrays_by_name(run, made):
    lines = (made.path / "metrics.jsonl").read_text()
    assert run.history()["elbo"].tolist() == [-40.0]
    assert run.history()["step"].tolist() == [4.0]
    refused(lambda: run.history("test"), "split: nothing was logged on 'test'; use split=\"train\"")
    with (made.path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "split": "train", "elbo": None, "mse": 1.0}) + "\n")
    np.testing.assert_array_equal(run.history()["elbo"], [-40.0, np.nan])
    np.testing.assert_array_equal(run.history()["mse"], [np.nan, 1.0])
    (made.path / "metrics.jsonl").write_text(lines)


def test_prior_baseline_compare_and_report(run, tmp_path):
    path, about = vj.fit_prior(run, "gmm", components=2, limit=60, out=tmp_path / "prior")
    assert about["codes"] == 60
    assert run.sample(3, prior=str(path)).shape == (3, 8, 8, 1)
    folder, result = vj.fit_baseline("digits", kind="ppca", components=4, workdir=tmp_path / "ppca")
    assert json.loads((folder / "eval.json").read_text()) == result
    found = vj.compare([run, folder])
    assert found.names == ("vae", "ppca")
    assert found.metrics["ppca"]["log_prob"]["value"] == result["metrics"]["log_prob"]["value"]
    assert found.rows()["elbo"][1] == "-"
    assert found.options["model"] == ["vae", "ppca"]
    page = vj.report(run, tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert "tiny" in page.read_text()
    measured = vj.evaluate_run(str(run.path), metrics=("mse",), write=False)["metrics"]
    assert measured.keys() == {"mse"}


def test_every_command_is_a_documented_call():
    """Apart from those that show what there is, or fetch data."""
    calls = {"train": "train_run", "eval": "evaluate_run", "baseline": "fit_baseline"}
    for command in main.COMMANDS.keys() - {"list", "data"}:
        doc = getattr(vj, calls.get(command, command.replace("-", "_"))).__doc__
        assert doc, command
        assert "Args:" in doc, command
        assert "Raises:" in doc, command
    assert "resume" in dir(vj)


def test_no_call_is_hidden_by_a_package_of_its_name():
    """A package that is imported becomes an attribute of `vae_jax`, in place of what is loaded on first use."""
    calls = set(vj.__all__) - {"metrics", "quantizers"}
    modules = {path.stem for path in Path(vj.__file__).parent.iterdir()}
    assert not calls & modules


def test_the_face_imports_no_command():
    code = "import sys, vae_jax.api; print(*[m for m in sys.modules if m.startswith('vae_jax.cli')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


# ---- messages


BAD = {
    "n": (lambda r: r.sample(0), "n: 0 is out of range; it must be 1 or more"),
    "type": (lambda r: r.sample("8"), "n: '8'", "write 8 without quotes"),
    "seed": (lambda r: r.sample(seed=-1), "seed: -1 is out of range; it must be in [0, 2^31)"),
    "temperature": (lambda r: r.sample(temperature=-1), "temperature: -1.0 is out of range"),
    "label": (lambda r: r.sample(label=3), "label=3: ", "does not take labels"),
    "prior": (lambda r: r.sample(prior="gmn"), 'prior="gmn": no such density of codes; did you mean'),
    "fit": (lambda r: r.sample(prior="flow"), "run `vj.fit_prior(", 'kind="flow")`'),
    "split": (lambda r: r.reconstruct(split="tset"), "tset"),
    "indices": (lambda r: r.reconstruct(indices=[99999]), "indices: 99999 is out of range"),
    "x": (lambda r: r.encode(np.zeros((2, 4, 4, 1))), "x: images are 4x4", "resize them to 8x8"),
    "x shape": (lambda r: r.encode(np.zeros(3)), "x: images must be [N, H, W]"),
    "x tuple": (lambda r: r.encode((1, 2)), "x: images must be [N, H, W] or [N, H, W, C] and not empty, is (2,)"),
    "x ragged": (lambda r: r.encode([[[1, 2], [3]]]), "x: images has parts of different shapes"),
    "x pair": (lambda r: r.encode((np.zeros((2, 8, 8)), np.zeros(2))), "x: two arrays", 'give {"images": X, "labels"'),
    "x name": (lambda r: r.encode("digit"), "x digit: no such file, folder or data set; did you mean 'digits'?"),
    "z": (lambda r: r.decode(np.zeros((2, 4))), "z: has codes of width 4, but those of the model are [N, 3]"),
    "z nan": (lambda r: r.decode(np.full((2, 3), np.nan)), "z: 2 codes hold NaN"),
    "steps": (lambda r: r.interpolate(steps=1), "steps: 1 is out of range; it must be 2 or more"),
    "odd": (lambda r: r.interpolate([1, 2, 3]), "indices: 3 examples do not make pairs"),
    "dims": (lambda r: r.traverse([3]), "dims: 3 is out of range", "choose 0 to 2"),
    "to": (lambda r: vj.arithmetic(r, 1, 1), "to: 1 is where from_ starts"),
    "limit": (lambda r: vj.evaluate_run(r, limit=-1), "limit: -1 is out of range; it must be 0 or more"),
    "batch": (lambda r: vj.evaluate_run(r, batch_size=0), "batch_size: 0 is out of range; it must be 1 or more"),
    "metrics": (lambda r: vj.evaluate_run(r, metrics=("elbow",)), "metrics: no metric 'elbow'; did you mean 'elbo'"),
    "components": (lambda r: vj.fit_prior(r, components=0), "components: 0 is out of range"),
    "kind": (lambda r: vj.fit_baseline("digits", kind="x"), "kind: no baseline 'x'"),
    "option": (
        lambda r: vj.fit_baseline("digits", component=3),
        "component: no such option; did you mean 'components'",
    ),
    "baseline": (lambda r: vj.fit_baseline(np.zeros((4, 8, 8))), "data: ndarray is not the name of a data set"),
    "experiment": (lambda r: vj.experiment(3), "name: 3 is neither the name of an experiment nor the path of its file"),
    "sweep name": (lambda r: vj.sweep(3), "name: 3 is neither", "write 'vae_digits', for example"),
    "no name": (lambda r: vj.experiment(""), "name: '' is neither", "write 'vae_digits', for example"),
    "one": (lambda r: vj.compare([r]), "compare: 1 run; give two or more"),
    "no run": (lambda r: vj.sample("nowhere"), "nowhere: not a run folder"),
    "sweep": (lambda r: vj.sweep("vae_digits", data=np.zeros((4, 8, 8))), "numpy.savez('data.npz', images=images)"),
}


@pytest.mark.parametrize("name", BAD)
def test_python_reads_messages_of_python(name, run):
    call, *said = BAD[name]
    refused(lambda: call(run), *said)


def test_what_lists_and_makes_is_python_in_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(lambda: vj.experiment("vae_digit"), "did you mean 'vae_digits'? (all: vj.")
    assert "vae_digits" in eval(re.search(r"vj\.\S+\(\)", line)[0])
    refused(lambda: vj.experiment("nowhere/a.py"), "`vj.runs.experiments.all_experiments()` shows what can be named")
    np.savez(tmp_path / "my own.npz", images=np.zeros((4, 6, 6)))
    for given, name, source in (("sprites", "sprites", None), ("my own.npz", "npz", "my own.npz")):
        line = refused(lambda given=given: vj.experiment(given), "did you mean `vj.experiment(")
        config = eval(re.search(r"`(.*)`", line)[1])
        assert (config.data.name, config.data.source) == (name, source)
    assert eval(re.search(r"`(.*)`", refused(lambda: vj.experiment("mnist")))[1]) == vj.experiment("vae_mnist")
    line = refused(lambda: vj.load("runs/none"), "runs/none: not a run folder (no such folder); runs are made by")
    trained = SimpleNamespace(experiment=vj.experiment, train_run=lambda config: config)
    assert eval(re.search(r"`(.*)`", line)[1], {"vj": trained}) == vj.experiment("vae_digits")


def test_a_baseline_of_arrays_is_read_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    line = refused(lambda: vj.fit_baseline(images), "arrays are read from a file")
    save, call = re.search(r"file: (.*), then (.*)", line).groups()
    exec(save, {"numpy": np, "images": images})
    path, result = eval(call.replace("source", "kind='ppca', components=2, source"))
    assert json.loads((path / "eval.json").read_text()) == result


def test_an_experiment_is_named_by_a_path_too(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from vae_jax.config import Config\n\ndef get_config():\n    return Config(steps=7)\n")
    assert vj.experiment(path).steps == vj.experiment(str(path)).steps == 7


def test_the_command_line_reads_the_same_in_flags(run, capsys):
    assert main.run(["sample", str(run.path), "--n", "0"]) == 2
    assert capsys.readouterr().err == "vae-jax: --n: 0 is out of range; it must be 1 or more\n"
    assert main.run(["sample", str(run.path), "--prior", "flow"]) == 2
    assert f"run `vae-jax fit-prior {run.path} --kind flow` first" in capsys.readouterr().err
    assert main.run(["interpolate", str(run.path), "--steps", "1"]) == 2
    assert "--steps: 1 is out of range" in capsys.readouterr().err
    assert errors.option("n") == "n", "the words of the command line end with it"


def test_options_and_calls_are_written_for_their_reader():
    def both(make):
        with errors.on_command_line():
            return make(), _python(make)

    def _python(make):
        token = errors._on_command_line.set(False)
        try:
            return make()
        finally:
            errors._on_command_line.reset(token)

    assert both(lambda: errors.option("batch_size", 7)) == ("--batch-size 7", "batch_size=7")
    assert both(lambda: errors.option("k", 1, 10)) == ("--k 1 10", "k=(1, 10)")
    assert both(lambda: errors.option("data.batch_size", 64)) == ("--data.batch-size 64", '**{"data.batch_size": 64}')
    assert both(lambda: errors.choice("split", ("test", "train"))) == (
        "--split test or train",
        'split="test" or "train"',
    )
    shell, python = both(lambda: errors.command("resume", "my runs/a", **{"optimizer.lr": 1e-4}))
    assert shell == "`vae-jax train --resume 'my runs/a' --optimizer.lr 0.0001`"
    assert python == '`vj.resume("my runs/a", **{"optimizer.lr": 0.0001})`'
    call = ast.parse(python.strip("`"), mode="eval").body  # it can be typed
    assert isinstance(call, ast.Call)


def test_a_cell_that_is_run_again_says_how_to_continue(tmp_path, capsys):
    run = make(tmp_path / "again", tiny(), (4,))
    line = refused(lambda: vj.train_run(run.config, run.path, quiet=True), "already there; continue it with")
    call = re.search(r"`(vj\.resume\(.*?\))`", line)[1]
    assert eval(call, {"vj": SimpleNamespace(resume=lambda path: path)}) == str(run.path)
    assert main.run(["train", "vae_digits", "--workdir", str(run.path)]) == 2
    assert (
        f"continue it with `vae-jax train --resume {run.path}`, or choose another --workdir" in capsys.readouterr().err
    )


# ---- codes of any latent space


@pytest.mark.parametrize("kind", ["categorical", "joint"])
def test_discrete_codes_go_there_and_back(kind, tmp_path, capsys):
    model = VAE(2, MLP((8,)), posterior=POSTERIORS[kind](), prior=PRIORS[kind]())
    run = make(tmp_path / kind, tiny(model), (4,))
    assert spaces.size(run.model.about.latents) != 2
    file, out = tmp_path / "codes.npz", tmp_path / "x.npz"
    assert main.run(["encode", str(run.path), "--input", "digits", "--out", str(file)]) == 0
    assert main.run(["decode", str(run.path), "--input", str(file), "--out", str(out)]) == 0
    close(np.load(out)["images"], decoded(run, run.restore(), np.load(file)["mean"]))


class Levels:
    """Stands for the run of a model with a latent of shape [2, 2] and one of shape [3]."""

    def __init__(self, latents):
        self.model = SimpleNamespace(about=SimpleNamespace(latents=latents))


def test_codes_of_several_levels_are_read_by_name_and_order(tmp_path):
    run = Levels({"top": spaces.Real((3,)), "bottom": spaces.Real((2, 2))})
    assert codes_task.names(run) == ["bottom", "top"]
    flat = np.arange(14, dtype=np.float32).reshape(2, 7)
    held = codes_task.arrays(run, codes_task.Codes(flat, None, None, np.arange(2), {}))
    assert {name: value.shape for name, value in held.items() if value is not None} == {
        "mean/bottom": (2, 2, 2),
        "mean/top": (2, 3),
        "index": (2,),
    }
    np.testing.assert_array_equal(held["mean/top"], flat[:, 4:])
    np.savez(tmp_path / "codes.npz", **{name: value for name, value in held.items() if value is not None})
    levels = {"top": held["mean/top"], "bottom": held["mean/bottom"]}
    for z in (tmp_path / "codes.npz", levels, tuple(levels[name] for name in ("bottom", "top")), flat):
        np.testing.assert_array_equal(codes_task.read(run, z)[0], flat)
    refused(lambda: codes_task.read(run, {"top": flat[:, 4:]}), "z: its levels are top, the model's bottom, top")
    refused(lambda: codes_task.read(run, {**levels, "top": flat[:, :2]}), "z/top: has codes of width 2", "[N, 3]")
    written = {name: value for name, value in held.items() if value is not None}
    for changed, said in (
        ({**written, "mean/third": flat}, "mean/third is not a level of the model, whose levels are bottom, top"),
        ({**written, "mean": flat}, "holds both mean and mean/bottom"),
        ({"mean/top": flat[:, 4:]}, "mean/bottom is missing"),
    ):
        np.savez(tmp_path / "codes.npz", **changed)
        refused(lambda: codes_task.read(run, tmp_path / "codes.npz"), "codes.npz", said)
        refused(lambda: codes_task.read(run, tmp_path / "codes.npz", "mean"), "codes.npz", said)
    np.savez(tmp_path / "codes.npz", **{**written, "z/third": flat})
    np.testing.assert_array_equal(codes_task.read(run, tmp_path / "codes.npz")[0], flat)
    one = Levels(spaces.Real((2, 2)))
    np.testing.assert_array_equal(codes_task.read(one, held["mean/bottom"])[0], flat[:, :4])
    assert codes_task.arrays(one, codes_task.Codes(flat[:, :4], None, None, np.arange(2), {}))["mean"].shape == (2, 4)
    refused(lambda: codes_task.read(one, np.zeros((2, 4, 1))), "z: has codes of shape (4, 1)", "[N, 4] or [N, 2, 2]")


# ---- training


def small(**options):
    return tiny(**{"steps": 2, "logging": Logging(1, tensorboard=False), "mesh.data": 1, **options})


@pytest.fixture
def loads(monkeypatch):
    """Collects the splits that are loaded."""
    found = []
    real = data.load

    def load(config, split="train", read=None):
        found.append(split)
        return real(config, split, read)

    for module in (data, training.data):
        monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(preflight.data, "load", load)
    return found


def test_training_and_its_evaluation_read_each_split_once(tmp_path, loads):
    run = vj.train_run(small(), tmp_path / "run", quiet=True)
    vj.evaluate_run(run)
    assert sorted(loads) == ["test", "train"]
    loads.clear()
    vj.evaluate_run(vj.resume(run.path, steps=3, quiet=True))
    assert sorted(loads) == ["test", "train"]


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    labels = np.arange(60) % 3
    return vj.train_run(small(), folder, data={"images": IMAGES, "labels": labels}, quiet=True)


def test_arrays_in_memory_are_kept_with_the_run(own, tmp_path):
    assert own.spec.x.shape == (6, 6, 1)
    assert own.spec.classes == 3
    held = np.load(own.path / "data.npz")
    np.testing.assert_array_equal(held["images"], IMAGES)
    done = subprocess.run(["sha256sum", "-c", "data.sha256"], cwd=own.path, capture_output=True, text=True)
    assert done.returncode == 0
    assert json.loads((own.path / "config.json").read_text())["data"]["source"] == "RUN/data.npz"
    before = vj.evaluate_run(own, write=False)["metrics"]["mse"]
    # From another shell, in another folder, after the run folder was moved: commands and Python.
    moved = own.path.rename(tmp_path / "moved")
    try:
        for words in (["eval", "moved"], ["train", "--resume", "moved", "--steps", "3", "--quiet"]):
            subprocess.run([sys.executable, "-m", "vae_jax", *words], cwd=tmp_path, check=True, capture_output=True)
        assert json.loads((moved / "eval.json").read_text())["step"] == 3
        assert vj.evaluate_run(vj.load(moved), step=2, write=False)["metrics"]["mse"] == before
        assert vj.load(moved).reconstruct(n=2).shape == (2, 6, 6, 1)
    finally:
        moved.rename(own.path)


def test_own_arrays_that_are_changed_or_gone_are_one_line(own, capsys):
    file, sums = own.path / "data.npz", own.path / "data.sha256"
    content = file.read_bytes()
    try:
        np.savez(file, images=IMAGES[::-1], labels=np.arange(60) % 3)
        refused(
            lambda: vj.evaluate_run(vj.load(own.path)), "data.npz: is not the file that data.sha256 has the hash of"
        )
        assert main.run(["eval", str(own.path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
        file.unlink()
        refused(lambda: vj.resume(own.path, steps=9, quiet=True), "data=images, resume=True)")
    finally:
        file.write_bytes(content)
        assert own_data._sha256(file) in sums.read_text()


def test_the_same_arrays_continue_a_run_and_others_do_not(own):
    config, labels = vj.load(own.path).config, np.arange(60) % 3
    written = (own.path / "data.npz").stat().st_mtime_ns
    steps = dataclasses.replace(config, steps=4)
    again = vj.train_run(steps, own.path, data={"images": IMAGES, "labels": labels}, resume=True, quiet=True)
    assert int(again.restore().step) == 4
    assert (own.path / "data.npz").stat().st_mtime_ns == written
    other = {"images": IMAGES[::-1].copy(), "labels": labels}
    with pytest.raises(vj.InputError, match="are not those that it was trained on"):
        vj.train_run(steps, own.path, data=other, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((4, 3)), """rows of a table need **{"data.name": "table"}, and rows of counts **{"data.name": """),
        (np.full((9, 6, 6), "a"), "data: images is an array of <U1; give an array of numbers"),
        (np.full((9, 6, 6, 1), 7.0), "data: images"),
        ({"image": IMAGES}, "data: has no array 'images'"),
        ((IMAGES.tolist(), [0, 1]), "data: images has parts of different shapes"),
        ({"images": [IMAGES[0], IMAGES[0, :3]]}, "data: images has parts of different shapes"),
        ({"images": IMAGES, "labels": [0, 1]}, "data: 2 labels for 60 images"),
    ],
)
def test_arrays_that_are_no_data_write_nothing(given, said, tmp_path):
    refused(lambda: vj.train_run(small(), tmp_path / "bad", data=given, quiet=True), said)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("y", [np.arange(60) % 3, IMAGES], ids=["labels", "images"])
def test_two_arrays_are_given_by_name(y, tmp_path):
    line = refused(lambda: vj.train_run(small(), tmp_path / "run", data=(IMAGES, y), quiet=True), "data: two arrays")
    assert not (tmp_path / "run").exists()
    names = re.findall(r"\{.*?\}", line)
    data = eval(names[y.ndim > 1], {"X": IMAGES, "y": y})
    run = vj.train_run(small(), tmp_path / "run", data=data, quiet=True)
    assert run.spec.classes == (3 if y.ndim == 1 else 0)
    assert (y.ndim > 1) == (run.source("test").size == 60)


def test_an_experiment_takes_no_arrays_and_says_who_does():
    line = refused(lambda: vj.experiment("vae_digits", data=IMAGES), "vj.train_run(vj.experiment('vae_digits'), data=")
    assert "train_run" in line


def test_the_loop_of_the_docs_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "custom_loop.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.S)[1].replace("range(300)", "range(40)")
    assert len([line for line in block.splitlines() if line.strip()]) <= 28
    scope: dict = {}
    exec(compile(block, "custom_loop.md", "exec"), scope)
    assert scope["samples"].shape == (16, 8, 8, 1)
    elbo = ast.literal_eval(capsys.readouterr().out)["elbo"]
    first = scope["vj"].init_state(scope["model"], scope["tx"], jax.random.key(0), {"x": scope["x"][:64]})
    _, before = scope["step"](first, {"x": scope["x"][:64]})
    assert elbo > float(before["elbo"]) + 3
    step = scope["vj"].make_train_step(scope["model"], scope["tx"])
    _, metrics = jax.jit(step)(first, {"x": scope["x"][:64]})
    assert abs(float(metrics["elbo"]) - float(before["elbo"])) < 2  # the runner's step, with other noise


def test_the_context_of_a_batch_is_that_of_the_step():
    model = VAE(2, MLP((8,))).build(specs.images(8, 8, 1))
    ctx = model.context({"x": np.zeros((5, 8, 8, 1))}, step=7, train=False)
    assert ctx.index.tolist() == [0, 1, 2, 3, 4]
    assert int(ctx.step) == 7
    assert {name: float(v) for name, v in ctx.hyper.items()} == dict(model.training.hyper)
    assert not ctx.train
