"""The commands that look at a run: what they write, and one line and nothing written for bad input."""

import dataclasses
import json

import numpy as np
import pytest
import support
from PIL import Image

from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.data.config import DataConfig
from vae_jax.models import MODELS, VAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Evaluation, Logging
from vae_jax.runs.run import Run
from vae_jax.tasks.given import chosen

D = 3


def make(folder, config):
    """Returns a run folder whose checkpoint is the untrained state, as that of the last step."""
    run = Run.create(folder, "tiny", config, spec.images(8, 8, 1))
    support.checkpoint(run)
    line = {"step": 1, "split": "train", "elbo": -40.0, "distortion": 39.0, "rate": 1.0, "beta": 1.0}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def config(model):
    evaluation = Evaluation(batch_size=64, limit=100)
    return Config(4, data=DataConfig("digits", batch_size=8), model=model, evaluation=evaluation, logging=Logging(1))


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", config(VAE(D, MLP((8,)))))


@pytest.fixture(scope="module")
def ae(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "ae", config(Autoencoder(D, MLP((8,)))))


def arrays(path):
    with np.load(path) as held:
        return {name: held[name] for name in held.files}


class Known:
    """The functions of a run, called without any of the code that the commands share."""

    def __init__(self, path):
        self.run = Run.load(path)
        state = self.run.restore()
        self.weights = state.params, state.model_state

    def images(self, split, index):
        return np.asarray(self.run.examples(split, np.asarray(index))["x"])

    def encode(self, images):
        code = self.run.model.encode(*self.weights, None, {"x": images})
        return np.asarray(code.z), np.asarray(code.posterior.variance())

    def decode(self, z):
        flat = np.reshape(z, (-1, np.shape(z)[-1])).astype(np.float32)
        return np.asarray(self.run.model.decode(*self.weights, flat).mean()).reshape(*np.shape(z)[:-1], 8, 8, 1)


def look(run, tmp_path, *words):
    """Returns the arrays that a command writes; the same command must also draw a picture, and write nothing else."""
    for name in ("a.npz", "a.png"):
        assert cli([words[0], str(run), *words[1:], "--out", str(tmp_path / name)]) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "a.png"]
    return arrays(tmp_path / "a.npz")


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_sample(vae, tmp_path):
    images = look(vae, tmp_path, "sample", "--n", "500")["images"]
    known = Known(vae)
    z = np.random.default_rng(0).normal(size=(4000, D))
    # Means of z ~ N(0, I), decoded; other draws than the command's.
    assert images.shape == (500, 8, 8, 1)
    np.testing.assert_allclose(images.mean(0), known.decode(z).mean(0), atol=0.03)
    assert images.std(0).mean() == pytest.approx(known.decode(z).std(0).mean(), rel=0.1)


def test_reconstruct(vae, tmp_path):
    held, known = look(vae, tmp_path, "reconstruct", "--indices", "7", "0", "3"), Known(vae)
    images = known.images("test", [7, 0, 3])
    np.testing.assert_array_equal(held["images"], images)
    assert held["index"].tolist() == [7, 0, 3]
    close(held["reconstructions"], known.decode(known.encode(images)[0]))
    close(held["mse"], np.square(images - held["reconstructions"]).mean((1, 2, 3)))
    (tmp_path / "more").mkdir()
    np.testing.assert_array_equal(
        look(vae, tmp_path / "more", "reconstruct", "--n", "4")["images"], known.images("test", range(4))
    )


def test_interpolate(vae, tmp_path):
    held = look(vae, tmp_path, "interpolate", "--indices", "0", "5", "9", "2", "--steps", "4")
    known = Known(vae)
    a, b = (known.encode(known.images("test", index))[0] for index in ([0, 9], [5, 2]))
    want = a[:, None] + np.linspace(0, 1, 4)[:, None] * (b - a)[:, None]
    close(held["codes"], want)
    close(held["images"], known.decode(want))
    assert held["index"].tolist() == [[0, 5], [9, 2]]


def test_interpolate_along_a_great_circle(vae, tmp_path):
    held = look(vae, tmp_path, "interpolate", "--indices", "0", "5", "--steps", "3", "--path", "spherical")
    known = Known(vae)
    a, b = known.encode(known.images("test", [0, 5]))[0]
    first, middle, last = held["codes"][0]
    close(first, a)
    close(last, b)
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    close(middle, (a + b) / (2 * np.cos(angle / 2)))  # a (a + b) / 2 whose norm does not shrink with the angle
    close(held["images"], known.decode(held["codes"]))


def test_traverse(vae, tmp_path):
    held = look(vae, tmp_path, "traverse", "--dims", "2", "0", "--steps", "3", "--reach", "2", "--index", "6")
    known = Known(vae)
    mean, variance = known.encode(known.images("test", range(180)))
    assert held["dims"].tolist() == [2, 0]
    np.testing.assert_allclose(held["values"], [[-2, 0, 2]] * 2, atol=1e-6)
    want = np.tile(mean[6], (2, 3, 1))
    want[0, :, 2] = want[1, :, 0] = [-2, 0, 2]
    close(held["codes"], want)
    close(held["images"], known.decode(want))
    kl = 0.5 * (np.square(mean) + variance - 1 - np.log(variance)).mean(0)
    np.testing.assert_allclose(held["kl"], kl[[2, 0]], rtol=1e-3)


def test_codes_there_and_back(vae, tmp_path, capsys):
    codes, out = tmp_path / "codes.npz", tmp_path / "x.npz"
    assert cli(["encode", str(vae), "--input", "digits", "--out", str(codes), "--draw", "True"]) == 0
    held, known = arrays(codes), Known(vae)
    source = known.run.source("test")
    n = source.size
    images = known.images("test", range(n))
    mean, variance = known.encode(images)
    assert held.keys() == {"mean", "log_var", "z", "index", "labels", "label_names"}
    close(held["mean"], mean)
    close(held["log_var"], np.log(variance))
    noise = (held["z"] - mean) / np.sqrt(variance)
    assert abs(noise.mean()) < 4 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert held["index"].tolist() == list(range(n))
    np.testing.assert_array_equal(held["labels"], np.asarray(source.arrays["label"]))
    assert cli(["decode", str(vae), "--input", str(codes), "--out", str(out)]) == 0
    close(arrays(out)["images"], known.decode(mean))

    np.save(tmp_path / "x.npy", images[:9])
    assert cli(["encode", str(vae), "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / "c.npz")]) == 0
    close(arrays(tmp_path / "c.npz")["mean"], mean[:9])
    (tmp_path / "pictures").mkdir()
    grays = np.uint8([0, 40, 200])
    for i, gray in enumerate(grays):
        Image.fromarray(np.full((8, 8), gray, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    assert cli(["encode", str(vae), "--input", str(tmp_path / "pictures"), "--out", str(tmp_path / "d.npz")]) == 0
    flat = np.broadcast_to(np.float32(grays / 255)[:, None, None, None], (3, 8, 8, 1))
    close(arrays(tmp_path / "d.npz")["mean"], known.encode(flat)[0])


def test_arithmetic(vae, tmp_path):
    """Codes of the first threes move by the mean code of all training eights less that of all threes."""
    held = look(vae, tmp_path, "arithmetic", "--from", "3", "--to", "8", "--n", "2", "--steps", "3", "--strength", "2")
    known = Known(vae)
    train, test = known.run.source("train"), known.run.source("test")
    mean, label = known.encode(known.images("train", range(train.size)))[0], np.asarray(train.arrays["label"])
    direction = mean[label == 8].mean(0) - mean[label == 3].mean(0)
    rows = np.flatnonzero(np.asarray(test.arrays["label"]) == 3)[:2]
    assert held["index"].tolist() == rows.tolist()
    close(held["direction"], direction)
    want = known.encode(known.images("test", rows))[0][:, None] + np.float32([0, 1, 2])[:, None] * direction
    close(held["codes"], want)
    close(held["images"], known.decode(want))


def test_what_stands_for_a_sorted_split_has_every_class(tmp_path, capsys, monkeypatch):
    data = support.sorted_data(tmp_path / "sorted.npz", each=300)
    run = make(tmp_path / "run", dataclasses.replace(config(VAE(D, MLP((8,)))), data=data))
    seen, out = [], tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(
        "vae_jax.tasks.given.chosen", lambda run, split, rows: seen.append(rows) or chosen(run, split, rows)
    )
    look(run, out, "traverse", "--steps", "2")
    assert len(seen[0]) == 500
    assert set(np.array(seen[0]) // 300) == {0, 1, 2, 3}
    words = ["arithmetic", "--from", "0", "--to", "3", "--n", "1", "--steps", "2"]
    held = look(run, out, *words, "--learn", "40")
    known = Known(run)
    rows = known.run.rows("train", 40)
    mean, label = known.encode(known.images("train", rows))[0], rows // 300
    close(held["direction"], mean[label == 3].mean(0) - mean[label == 0].mean(0))


def test_a_value_that_no_example_read_has_is_found_by_reading_all(vae, tmp_path, capsys):
    words = ["arithmetic", str(vae), "--from", "0", "--to", "9", "--n", "1", "--steps", "2", "--learn", "3"]
    words += ["--out", str(tmp_path / "x.npz")]
    assert cli(words) == 2
    line = capsys.readouterr().err
    assert "none of the 3 training examples that were read has it; choose of" in line
    assert line.endswith(", or read all with --learn 1437\n")
    assert cli([*words[:-4], "--learn", "1437", *words[-2:]]) == 0


def test_eval_json(vae, tmp_path, capsys):
    out = tmp_path / "eval.json"
    assert cli(["eval", str(vae), "--k", "3", "--out", str(out)]) == 0
    held = json.loads(out.read_text())
    assert {"experiment", "step", "data", "split", "protocol", "metrics", "expected", "pass"} <= held.keys()
    assert {"elbo", "distortion", "rate", "iw_3", "mse", "psnr", "active_units"} == held["metrics"].keys()
    for metric in held["metrics"].values():
        assert metric.keys() == {"value", "stderr", "n"}
        assert metric["n"] == 100
    assert held["pass"] is None
    assert "elbo" in capsys.readouterr().out
    other = tmp_path / "other.json"
    words = ["--metrics", "iwae,elbo", "--k", "3", "--batch-size", "7", "--out", str(other)]
    assert cli(["eval", str(vae), *words]) == 0
    again = json.loads(other.read_text())["metrics"]
    assert list(again) == ["iw_3", "elbo"]
    for name, metric in again.items():
        np.testing.assert_allclose(metric["value"], held["metrics"][name]["value"], rtol=1e-5)
    # Another seed draws other posterior samples, which mean codes do not have.
    assert cli(["eval", str(vae), "--metrics", "elbo,mse", "--seed", "1", "--out", str(tmp_path / "seed.json")]) == 0
    seeded = json.loads((tmp_path / "seed.json").read_text())
    assert seeded["protocol"]["seed"] == 1
    assert seeded["metrics"]["mse"]["value"] == pytest.approx(held["metrics"]["mse"]["value"], rel=1e-6)
    change = abs(seeded["metrics"]["elbo"]["value"] - held["metrics"]["elbo"]["value"])
    assert 1e-4 < change < 6 * held["metrics"]["elbo"]["stderr"]


def test_expected_values_are_judged():
    from vae_jax.evaluation import Estimate
    from vae_jax.runs.targets import judge

    seen = {"elbo": Estimate(-100.0, 0.1, 10), "rate": Estimate(25.0, 0.1, 10)}
    assert judge({}, seen)["pass"] is None
    assert judge({"elbo": (-101.0, 2.0, "here")}, seen)["pass"] is True
    assert judge({"elbo": (-101.0, 2.0, "here"), "rate": (20.0, 1.0, "here")}, seen)["pass"] is False
    assert judge({"elbo": (-101.0, 2.0, "here"), "iw_50": (20.0, 1.0, "here")}, seen)["pass"] is None


def test_compare(vae, ae, tmp_path, capsys):
    assert cli(["compare", str(vae), str(ae), "--out", str(tmp_path / "c.png")]) == 0
    text = capsys.readouterr().out
    assert "model.objective" in text
    assert "distortion" in text
    assert (tmp_path / "c.png").is_file()


def test_list(capsys):
    assert cli(["list"]) == 0
    text = capsys.readouterr().out
    for word in (
        "beta_vae",
        "conv64",
        "bernoulli",
        "cyclical",
        "mnist",
        "active_units",
        "stands for ais, bdmc",
        "arXiv:1312.6114",
    ):
        assert word in text
    assert cli(["list", "models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MODELS)
    assert cli(["list", "modelz"]) == 2
    assert capsys.readouterr().err == "vae-jax: list: no kind 'modelz'; did you mean 'models'?\n"
    assert cli(["data", "list"]) == 0
    assert "protocols" in capsys.readouterr().out


BAD = {
    "no run": (["sample", "{tmp}/none"], "not a run folder"),
    "no folder": (["sample", "{vae}", "--out", "{tmp}/none/a.png"], "no folder"),
    "extension": (["sample", "{vae}", "--out", "{tmp}/a.jpg"], "'.jpg'"),
    "out is a folder": (["reconstruct", "{vae}", "--out", "{tmp}/dir.png"], "is a folder"),
    "no images": (["sample", "{vae}", "--n", "0"], "1 or more"),
    "too many": (["reconstruct", "{vae}", "--n", "4000"], "has"),
    "does not provide a prior": (["sample", "{ae}"], "does not provide a prior"),
    "does not provide a bound": (["eval", "{ae}", "--metrics", "iwae", "--k", "5"], "does not provide a bound"),
    "dimension": (["traverse", "{vae}", "--dims", "3"], "choose 0 to 2"),
    "steps": (["traverse", "{vae}", "--steps", "0"], "1 or more"),
    "far": (["traverse", "{vae}", "--reach", "1e300"], "--reach: 1e+300 is out of range; it makes codes that are not"),
    "strong": (
        ["arithmetic", "{vae}", "--from", "0", "--to", "1", "--strength", "1e300"],
        "--strength: 1e+300 is out of range; it makes codes that are not finite in float32; lower it",
    ),
    "back": (["arithmetic", "{vae}", "--from", "0", "--to", "1", "--strength=-1e300"], "--strength: -1e+300 is out of"),
    "hot": (["sample", "{vae}", "--temperature", "1e300"], "--temperature: 1e+300 is out of range; it makes codes"),
    "odd": (["interpolate", "{vae}", "--indices", "1", "2", "3"], "pairs"),
    "index": (["interpolate", "{vae}", "--indices", "1", "99999"], "99999"),
    "split": (["reconstruct", "{vae}", "--split", "tset"], "'test'"),
    "metric": (["eval", "{vae}", "--metrics", "elbo,rat"], "'rate'"),
    "absent metric": (["eval", "{vae}", "--metrics", "bits_per_dim"], "bits_per_dim"),
    "k": (["eval", "{vae}", "--metrics", "iwae", "--k", "0"], "1 or more"),
    "large k": (["eval", "{vae}", "--metrics", "iwae", "--k", "5", "2147483648"], "--k: 2147483648 is out of range"),
    "batch size": (["eval", "{vae}", "--batch-size", "0"], "1 or more"),
    "input": (["encode", "{vae}", "--input", "digit", "--out", "{tmp}/c.npz"], "'digits'"),
    "size": (["encode", "{vae}", "--input", "{tmp}/wide.npy", "--out", "{tmp}/c.npz"], "resize them to 8x8"),
    "channels": (["encode", "{vae}", "--input", "{tmp}/rgb.npy", "--out", "{tmp}/c.npz"], "convert them to gray"),
    "range": (["encode", "{vae}", "--input", "{tmp}/range.npy", "--out", "{tmp}/c.npz"], "divide by 255"),
    "nan": (["encode", "{vae}", "--input", "{tmp}/nan.npy", "--out", "{tmp}/c.npz"], "infinite values"),
    "encode to png": (["encode", "{vae}", "--input", "digits", "--out", "{tmp}/c.png"], ".npz"),
    "width": (["decode", "{vae}", "--input", "{tmp}/codes4.npy", "--out", "{tmp}/x.npz"], "width 4"),
    "nan codes": (["decode", "{vae}", "--input", "{tmp}/codesnan.npy", "--out", "{tmp}/x.npz"], "NaN"),
    "no codes": (["decode", "{vae}", "--input", "{tmp}/none.npz", "--out", "{tmp}/x.npz"], "no such file"),
    "text": (["decode", "{vae}", "--input", "{tmp}/text.npz", "--out", "{tmp}/x.npz"], "numpy"),
    "one run": (["compare", "{vae}"], "two or more"),
    "same run": (["compare", "{vae}", "{vae}"], "twice"),
    "verb": (["data", "lst"], "'list'"),
    "data set": (["data", "prepare", "minst", "--data-dir", "{tmp}"], "'mnist'"),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Returns a folder of things that cannot be used."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "dir.png").mkdir()
    (folder / "text.npz").write_text("no arrays")
    images = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype(np.float32)
    np.save(folder / "wide.npy", images.repeat(2, 2))
    np.save(folder / "rgb.npy", images.repeat(3, 3))
    np.save(folder / "range.npy", 200 * images)
    np.save(folder / "nan.npy", np.where(images > 0.9, np.inf, images))
    np.save(folder / "codes4.npy", np.zeros((2, 4), np.float32))
    np.save(folder / "codesnan.npy", np.full((2, D), np.nan, np.float32))
    return folder


def snapshot(*folders):
    return {p: p.stat().st_mtime_ns for folder in folders for p in folder.rglob("*")}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, vae, ae, given, capsys):
    words, said = BAD[name]
    before = snapshot(vae, ae, given)
    code = cli([word.format(vae=vae, ae=ae, tmp=given) for word in words])
    error = capsys.readouterr().err
    assert code == 2, error
    assert len(error.splitlines()) == 1, error
    assert said in error
    assert snapshot(vae, ae, given) == before
