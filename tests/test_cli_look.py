"""The commands that look at a run: what they write, and one line and nothing written for bad input."""

import json

import numpy as np
import pytest
import support
from PIL import Image

from vae_jax.cli.main import run as cli
from vae_jax.config import Config, Evaluation, Logging
from vae_jax.data.config import DataConfig
from vae_jax.models import MODELS, VAE, Autoencoder
from vae_jax.networks import MLP
from vae_jax.runs import Run

D = 3


def make(folder, config):
    """Returns a run folder whose checkpoint is the untrained state, as that of the last step."""
    run = Run.create(folder, "tiny", config, (8, 8, 1))
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


@pytest.mark.parametrize(
    ("words", "shapes"),
    [
        (["sample", "--n", "5"], {"images": (5, 8, 8, 1)}),
        (["reconstruct", "--n", "4"], {"images": (4, 8, 8, 1), "reconstructions": (4, 8, 8, 1), "mse": (4,)}),
        (["interpolate", "--indices", "0", "5", "--steps", "4", "--path", "spherical"], {"images": (1, 4, 8, 8, 1)}),
        (["traverse", "--dims", "2", "0", "--steps", "3"], {"images": (2, 3, 8, 8, 1), "dims": (2,), "kl": (2,)}),
    ],
)
def test_arrays_and_pictures(vae, tmp_path, words, shapes):
    for name in ("a.npz", "a.png"):
        assert cli([words[0], str(vae), *words[1:], "--out", str(tmp_path / name)]) == 0
    held = arrays(tmp_path / "a.npz")
    assert {name: held[name].shape for name in shapes} == shapes
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "a.png"]


def test_codes_there_and_back(vae, tmp_path, capsys):
    codes, out = tmp_path / "codes.npz", tmp_path / "x.npz"
    assert cli(["encode", str(vae), "--input", "digits", "--out", str(codes), "--draw", "True"]) == 0
    held = arrays(codes)
    n = Run.load(vae).source("test").size
    assert {k: v.shape[0] for k, v in held.items()} == dict.fromkeys(("mean", "log_var", "z", "index", "labels"), n)
    assert held["index"].tolist() == list(range(n))
    assert cli(["decode", str(vae), "--input", str(codes), "--out", str(out)]) == 0
    assert arrays(out)["images"].shape == (n, 8, 8, 1)

    np.save(tmp_path / "x.npy", arrays(out)["images"][:9])
    assert cli(["encode", str(vae), "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / "c.npz")]) == 0
    assert arrays(tmp_path / "c.npz")["mean"].shape == (9, D)
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    assert cli(["encode", str(vae), "--input", str(tmp_path / "pictures"), "--out", str(tmp_path / "d.npz")]) == 0
    assert arrays(tmp_path / "d.npz")["mean"].shape == (3, D)


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


def test_expected_values_are_judged():
    from vae_jax.evaluation import Estimate
    from vae_jax.targets import judge

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
        "none yet",
        "arXiv:1312.6114",
    ):
        assert word in text
    assert cli(["list", "models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(MODELS)
    assert cli(["data", "list"]) == 0
    assert "protocols" in capsys.readouterr().out


BAD = {
    "no run": (["sample", "{tmp}/none"], "not a run folder"),
    "no folder": (["sample", "{vae}", "--out", "{tmp}/none/a.png"], "no folder"),
    "extension": (["sample", "{vae}", "--out", "{tmp}/a.jpg"], "'.jpg'"),
    "out is a folder": (["reconstruct", "{vae}", "--out", "{tmp}/dir.png"], "is a folder"),
    "no images": (["sample", "{vae}", "--n", "0"], "1 or more"),
    "too many": (["reconstruct", "{vae}", "--n", "4000"], "has"),
    "no prior": (["sample", "{ae}"], "no prior"),
    "no bound": (["eval", "{ae}", "--metrics", "iwae", "--k", "5"], "no bound"),
    "dimension": (["traverse", "{vae}", "--dims", "3"], "choose 0 to 2"),
    "steps": (["traverse", "{vae}", "--steps", "0"], "1 or more"),
    "odd": (["interpolate", "{vae}", "--indices", "1", "2", "3"], "pairs"),
    "index": (["interpolate", "{vae}", "--indices", "1", "99999"], "99999"),
    "split": (["reconstruct", "{vae}", "--split", "tset"], "'test'"),
    "metric": (["eval", "{vae}", "--metrics", "elbo,rat"], "'rate'"),
    "absent metric": (["eval", "{vae}", "--metrics", "bits_per_dim"], "bits_per_dim"),
    "k": (["eval", "{vae}", "--metrics", "iwae", "--k", "0"], "1 or more"),
    "batch size": (["eval", "{vae}", "--batch-size", "0"], "1 or more"),
    "input": (["encode", "{vae}", "--input", "digit", "--out", "{tmp}/c.npz"], "'digits'"),
    "size": (["encode", "{vae}", "--input", "{tmp}/wide.npy", "--out", "{tmp}/c.npz"], "resize them to 8x8"),
    "channels": (["encode", "{vae}", "--input", "{tmp}/rgb.npy", "--out", "{tmp}/c.npz"], "convert them to grey"),
    "range": (["encode", "{vae}", "--input", "{tmp}/range.npy", "--out", "{tmp}/c.npz"], "divide by 255"),
    "nan": (["encode", "{vae}", "--input", "{tmp}/nan.npy", "--out", "{tmp}/c.npz"], "NaN"),
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
    np.save(folder / "nan.npy", np.where(images > 0.9, np.nan, images))
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
