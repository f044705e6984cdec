"""What people bring, from the file to the number: inputs of public reports through the command line."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import vae_jax as vj
from vae_jax.cli import main

pytestmark = pytest.mark.usefixtures("programs_are_freed")

DIGITS = load_digits().images / 16
SCENE = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
LIGHT = np.random.default_rng(2).integers(0, 256, (8, 8), dtype=np.uint8)
FEW = ["--model.network.hidden", 8, "--model.latent-dim", 2, "--data.batch-size", 8, "--evaluation.limit", 16]
FEW += ["--mesh.data", 1, "--evaluation.k", 2, "--logging.tensorboard", False, "--quiet"]
FEW += ["--logging.figures-minutes", 0]


def go(*words) -> None:
    assert main.run([str(word) for word in words]) == 0


def refused(capsys, *words) -> str:
    """Returns the one line that a command is refused with."""
    capsys.readouterr()
    assert main.run([str(word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def train(experiment, source, folder, *words, steps=2):
    """Trains a tiny model on a file and returns the metrics of its evaluation."""
    go("train", experiment, "--data", source, "--workdir", folder, "--steps", steps, *FEW, *words)
    metrics = json.loads((folder / "eval.json").read_text())["metrics"]
    assert np.isfinite(metrics["elbo"]["value"])
    return metrics


# ---- gaps


def test_digits_of_which_a_third_is_missing_are_trained_on_and_filled_in(tmp_path):
    rng = np.random.default_rng(0)
    whole, gone = DIGITS[:64], rng.random((64, 8, 8)) < 0.3
    np.save(tmp_path / "gaps.npy", np.where(gone, np.nan, whole))
    train("vae_digits", tmp_path / "gaps.npy", tmp_path / "run")
    assert json.loads((tmp_path / "run/config.json").read_text())["data_spec"]["mask"]
    words = ["--input", tmp_path / "gaps.npy", "--k", 4]
    go("impute", tmp_path / "run", *words, "--out", tmp_path / "mean.npy")
    filled = np.load(tmp_path / "mean.npy").reshape(whole.shape)
    np.testing.assert_allclose(filled[~gone], whole[~gone], atol=1e-6)
    assert ((filled[gone] > 0) & (filled[gone] < 1)).all()
    go("impute", tmp_path / "run", *words, "--samples", 3, "--out", tmp_path / "draws.npy")
    draws = np.load(tmp_path / "draws.npy")
    assert draws.shape == (3, *whole.shape)
    np.testing.assert_allclose(draws[:, ~gone], np.tile(whole[~gone], (3, 1)), atol=1e-6)
    assert (np.ptp(draws[:, gone], 0) > 0).any()


def test_few_examples_are_shown_with_a_note(tmp_path, capsys):
    """By default commands show more examples than small data hold out."""
    np.savez(tmp_path / "d.npz", images=DIGITS[:40], labels=load_digits().target[:40] % 2)
    train("vae_digits", tmp_path / "d.npz", tmp_path / "run")
    out = tmp_path / "o.npz"
    for words in (["reconstruct"], ["interpolate"], ["arithmetic", "--from", 0, "--to", 1]):
        capsys.readouterr()
        go(words[0], tmp_path / "run", *words[1:], "--out", out)
        assert "fewer than the usual" in capsys.readouterr().out
        out.unlink()
    line = refused(capsys, "reconstruct", tmp_path / "run", "--n", 30, "--out", out)
    assert not out.exists()
    go("reconstruct", tmp_path / "run", "--out", out, *line.split("; use ")[1].removesuffix(", say").split())


def test_nine_labels_of_ten_unknown(tmp_path):
    digits = load_digits()
    label = np.where(np.arange(400) % 10 == 0, digits.target[:400], -1)
    np.savez(tmp_path / "d.npz", images=DIGITS[:400], labels=label)
    metrics = train("m2_unlabelled", tmp_path / "d.npz", tmp_path / "run")
    assert 0 < metrics["accuracy"]["n"] < metrics["elbo"]["n"]


# ---- pictures


def _palette(colors):
    index = (LIGHT // 64).astype(np.uint8)
    image = Image.frombytes("P", (8, 8), index.tobytes())
    image.putpalette([level for color in colors for level in color])
    return image, np.array(colors, np.uint8)[index]


def _over_white(pixels, alpha):
    a = alpha[..., None] / 255
    return np.rint(pixels * a + 255 * (1 - a)).astype(np.uint8)


GRAYS, COLORS = [(0,) * 3, (80,) * 3, (160,) * 3, (255,) * 3], [(0, 9, 200), (90, 90, 90), (255, 0, 0), (9, 200, 9)]
# Name -> the picture, its suffix, and the pixels that are in it.
KINDS = {
    "16-bit": lambda: (Image.fromarray(LIGHT.astype(np.uint16) * 257), "png", LIGHT[..., None]),
    "16-bit TIFF": lambda: (Image.fromarray(LIGHT.astype(np.uint16) * 257), "tif", LIGHT[..., None]),
    "TIFF": lambda: (Image.fromarray(SCENE), "tiff", SCENE),
    "RGBA": lambda: (Image.fromarray(np.dstack([SCENE, LIGHT])), "png", _over_white(SCENE, LIGHT)),
    "LA": lambda: (
        Image.fromarray(np.dstack([SCENE[..., 0], LIGHT])),
        "png",
        _over_white(SCENE[..., :1], LIGHT),
    ),
    "gray palette": lambda: (_palette(GRAYS)[0], "png", _palette(GRAYS)[1][..., :1]),
    "colored palette": lambda: (_palette(COLORS)[0], "png", _palette(COLORS)[1]),
    "CMYK": lambda: (Image.fromarray(SCENE).convert("CMYK"), "tif", SCENE),
    "one bit": lambda: (Image.fromarray(LIGHT > 127), "png", (LIGHT > 127)[..., None] * np.uint8(255)),
}


@pytest.fixture(scope="module")
def pictured(tmp_path_factory):
    """Returns a folder of pictures of every kind, in photos/, and of runs on them in gray (1/) and in color (3/).

    As after a copy to another machine: neither the pictures nor the folders of the runs are where they were.
    """
    was = tmp_path_factory.mktemp("pictured") / "was"
    (was / "every").mkdir(parents=True)
    for i, make in enumerate(KINDS.values()):
        image, suffix, _ = make()
        image.save(was / f"every/{i}.{suffix}")
    for i in range(24):
        Image.fromarray(np.roll(LIGHT, i, 0)).save(was / f"every/l{i:02}.png")
    for name, channels in (("grey", 1), ("rgb", 3)):
        words = ["--data.channels", name, "--model.likelihood", "gaussian-learned", "--data.binarize", "none"]
        train("vae_digits", was / "every", was / f"{channels}", *words)
    now = was.with_name("now")
    was.rename(now)
    return (now / "every").rename(now / "photos").parent


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside L"])
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_every_kind_are_encoded_as_the_pixels_in_them(pictured, tmp_path, kind, beside):
    image, suffix, pixels = KINDS[kind]()
    (tmp_path / "mine").mkdir()
    image.save(tmp_path / f"mine/a.{suffix}")
    if beside:
        Image.fromarray(LIGHT).save(tmp_path / "mine/b.png")
    channels = pixels.shape[-1]
    rows = [pixels, LIGHT[..., None].repeat(channels, -1)][: 1 + beside]
    np.save(tmp_path / "x.npy", np.stack(rows))
    found = []
    for given in ("mine", "x.npy"):
        out = tmp_path / f"{given}.npz"
        go("encode", pictured / str(channels), "--input", tmp_path / given, "--out", out)
        with np.load(out) as held:
            found.append(held["mean"])
    assert found[0].shape == (1 + beside, 2)
    np.testing.assert_allclose(*found, atol=1e-6)


def test_a_run_is_used_where_its_pictures_are_not(pictured, tmp_path, capsys):
    run, photos, out = pictured / "3", pictured / "photos", tmp_path / "out"
    out.mkdir()
    go("sample", run, "--n", 3, "--out", out / "s.npz")
    go("encode", run, "--input", photos / "2.tiff", "--out", out / "c.npz")
    go("decode", run, "--input", out / "c.npz", "--out", out / "d.npz")
    go("reconstruct", run, "--input", photos / "2.tiff", "--out", out / "r.npz")
    with np.load(out / "d.npz") as decoded, np.load(out / "r.npz") as again:
        np.testing.assert_allclose(decoded["images"], again["reconstructions"], atol=1e-6)
    go("traverse", run, "--out", out / "t.png")
    go("report", run, "--out", out / "r.html")
    line = refused(capsys, "fit-prior", run, "--components", 1)
    assert "were in training; restore them" in line
    assert not (run / "prior").exists()
    go("fit-prior", run, "--components", 1, "--source", photos)
    go("sample", run, "--n", 3, "--prior", "gmm", "--out", out / "p.npz")


def test_few_photographs_are_trained_on_for_some_epochs(tmp_path):
    """The README's command, not shrunk: fewer steps than the experiment has by itself."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(24):
        pixels = rng.integers(0, 256, (20 + i, 30 - i % 3, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"photos/{i}.jpg")
    words = ["--model.network.hidden", 8, "--data.image-size", 16]
    words += ["--data", tmp_path / "photos", "--epochs", 2, "--workdir", tmp_path / "run", "--data.batch-size", 8]
    go("train", "own_images", *words, "--logging.tensorboard", False, "--mesh.data", 1, "--quiet")
    assert json.loads((tmp_path / "run/eval.json").read_text())["step"] < 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["interpolate", "--out", "o.png"], "a path goes from one to another"),
        (["eval", "--metrics", "ebo"], "no metric 'ebo'"),
        (["eval", "--metrics", "knn"], "knn"),
        (["eval", "--metrics", "elbo", "--step", "9"], "step 9"),
    ],
)
def test_a_refusal_is_one_line_whatever_is_said_of_pictures(pictured, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(SCENE.repeat(2, 0)).save("tall.png")
    assert said in refused(capsys, words[0], pictured / "3", "--input", "tall.png", *words[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["tall.png"]
    go("eval", pictured / "3", "--input", "tall.png", "--metrics", "mse")
    assert "note: tall.png: 1 images are resized and cropped" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["command line", "Python"])
def test_what_is_said_of_pictures_is_said_once(pictured, tmp_path, monkeypatch, capsys, command):
    """`anomaly` reads the outliers twice."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    for i in range(3):
        Image.fromarray(np.roll(SCENE, i, 0).repeat(2, 0)).save(f"out/{i}.png")
    Image.fromarray(SCENE).save("in.png")
    settings = {"outliers": "out", "regret_steps": 1}
    if command == "Python":
        vj.evaluate_run(pictured / "3", ["in.png"], metrics=["anomaly"], settings=settings)
    else:
        words = ["--metrics", "anomaly", "--outliers", "out", "--regret-steps", 1]
        go("eval", pictured / "3", "--input", "in.png", *words)
    assert capsys.readouterr().err.count("3 images are resized and cropped") == 1


# ---- sizes


SIZES = [(64, 78, 1), (80, 128, 3), (65, 65, 1)]


@pytest.mark.parametrize("shape", SIZES, ids=lambda v: "x".join(map(str, v)))
def test_arrays_of_odd_sizes(tmp_path, capsys, shape):
    np.savez(tmp_path / "x.npz", images=np.random.default_rng(0).integers(0, 256, (24, *shape), dtype=np.uint8))
    words = ["--model.likelihood", "gaussian-learned", "--data.binarize", "none"]
    if shape != (80, 128, 3):
        line = refused(
            *(capsys, "train", "vae_digits", "--data", tmp_path / "x.npz", "--workdir", tmp_path / "run"),
            *(*FEW[2:], *words, "--model.network", "conv64"),
        )
        assert "multiples of 16" in line
        fewer = ", or at most 1 --model.network.channels and as many --model.network.kernels" if shape[1] == 78 else ""
        assert line.endswith(f"use another network (mlp, pooled-conv){fewer}")
        assert not (tmp_path / "run").exists()
    train("vae_digits", tmp_path / "x.npz", tmp_path / "run", *words, "--evaluation.limit", 4)
    go("sample", tmp_path / "run", "--n", 2, "--out", tmp_path / "s.npy")
    assert np.load(tmp_path / "s.npy").reshape(2, *shape).std() > 0


# ---- patients


def test_a_split_by_patients_measures_less_than_a_split_by_rows(tmp_path):
    """Each patient has marks of its own, which a model that saw the patient knows."""
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 16, 640)
    marked = (DIGITS[:640] > 0.47) ^ (rng.random((16, 8, 8)) < 0.3)[patient]
    held = {}
    for name, arrays in (("rows", {}), ("patients", {"groups": patient})):
        np.savez(tmp_path / f"{name}.npz", images=marked, **arrays)
        words = ["--model.network.hidden", 64, "--model.latent-dim", 8, "--data.batch-size", 64]
        words += ["--optimizer.lr", 0.01, "--evaluation.limit", 0]
        held[name] = train("vae_digits", tmp_path / f"{name}.npz", tmp_path / name, *words, steps=120)["elbo"]
    with np.load(tmp_path / "patients/splits.npz") as splits:
        sides = [set(patient[splits[part]]) for part in ("train", "validation", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 16
    assert held["rows"]["value"] - held["patients"]["value"] > 3 * max(m["stderr"] for m in held.values())
