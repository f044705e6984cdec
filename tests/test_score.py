"""Scores of single examples: what is flagged, in Python and without the training data, and bad input."""

import csv
import shlex

import numpy as np
import pytest
from options import done, make, tiny
from PIL import Image

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.data.digits import arrays as digits
from vae_jax.models import VAE, Autoencoder, Multimodal
from vae_jax.networks import MLP


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was trained for a moment: enough to tell digits from noise."""
    options = {"model.network": "mlp", "model.latent_dim": 2, "model.network.hidden": (16,), "optimizer.lr": 0.01}
    config = vj.experiment("vae_digits", steps=300, **options)
    return vj.train_run(config, tmp_path_factory.mktemp("runs") / "vae", quiet=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, run):
    """Returns a folder of eight test digits in classes, and one picture of noise."""
    folder, batch = tmp_path_factory.mktemp("pictures"), run.examples("test", np.arange(8))
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    shown = [(str(y), np.rint(255 * x[..., 0])) for x, y in zip(np.asarray(batch["x"]), np.asarray(batch["label"]))]
    for i, (label, pixels) in enumerate([*shown, ("9", noise)]):
        (folder / label).mkdir(exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / label / f"{i}.png")
    return folder


def test_noise_is_flagged_and_digits_are_not(run, pictures, tmp_path, capsys):
    out = tmp_path / "scores.csv"
    done("score", run.path, "--input", pictures, "--out", out, "--k", 20)
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows if row["flag"] == "1"] == ["9/8.png"]
    assert all(row["label"] == row["path"][0] for row in rows)
    # The file has the threshold in the sign of its column elbo, and the line says the same number.
    threshold = float(rows[0]["threshold"])
    assert [int(row["flag"]) for row in rows] == [int(float(row["elbo"]) < threshold) for row in rows]
    assert f"{out}: 9 examples, 1 flagged: ELBO below {threshold:.6g} nats, " in capsys.readouterr().out
    noise = next(row for row in rows if row["path"] == "9/8.png")
    rest = [row for row in rows if row is not noise]
    for name, sign in (("elbo", -1), ("iw_20", -1), ("mse", 1), ("regret", 1)):
        assert sign * float(noise[name]) > max(sign * float(row[name]) for row in rest)
    assert all(float(row["iw_20"]) > float(row["elbo"]) - 8 for row in rows)


def test_python_gives_the_same_as_arrays(run, pictures):
    found = vj.score(run, pictures, k=5, regret_steps=3, maps=True)
    assert found.paths == tuple(sorted(str(p.relative_to(pictures)) for p in pictures.rglob("*.png")))
    assert found.known == 1437
    np.testing.assert_array_equal(found.flag, found.elbo < found.threshold)
    x = vj.encode(run, pictures)
    # The error of a pixel is |x - x'|, and the squared error of an example its mean square over pixels.
    np.testing.assert_allclose(np.square(found.maps).mean((1, 2)), found.mse, rtol=1e-4)
    assert len(x.mean) == len(found.elbo) == 9
    again = run.score(pictures, k=5, regret_steps=3, batch_size=4)
    np.testing.assert_allclose(again.elbo, found.elbo, rtol=1e-5)
    np.testing.assert_allclose(again.regret, found.regret, rtol=1e-3, atol=1e-3)
    arrays = {"images": run.examples("test", np.arange(3))["x"], "labels": [4, 5, 6]}
    assert vj.score(run, arrays, k=1, regret_steps=0, threshold=1.0).labels == ["4", "5", "6"]


def test_about_one_in_a_hundred_of_the_training_data_is_flagged(run):
    x = np.asarray(run.examples("train", np.arange(1437))["x"])
    found = vj.score(run, x, k=1, regret_steps=0)
    assert 0.003 < found.flag.mean() < 0.02  # the noise of its posterior samples is other noise


def test_a_model_of_image_and_label_is_compared_by_the_image_alone(tmp_path):
    """A bound on log p(x, y) is another number: with the label in some examples, flags would follow from that."""
    run = make(tmp_path / "run", tiny(Multimodal(2, MLP((8,)), width=8)))
    x, y = digits()["image"][:6], digits()["label"][:6]
    options = {"k": 2, "regret_steps": 0, "learn": 100}
    want = vj.score(run, x, **options)
    for labels in (y, np.where(np.arange(6) % 2, -1, y)):
        found = vj.score(run, {"images": x, "labels": labels}, **options)
        np.testing.assert_array_equal(found.elbo, want.elbo)
        np.testing.assert_array_equal(found.iw, want.iw)
        assert found.threshold == want.threshold
        assert found.labels == [str(label) if label >= 0 else "" for label in labels]
    # The threshold is one of images alone as well: about that many of the training images are below it.
    train = vj.score(run, run.source("train").arrays["image"][:100], **options)
    assert train.flag.sum() <= 3


def test_without_the_training_data_the_threshold_is_named(tmp_path, capsys):
    np.savez(tmp_path / "mine.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    options = {"data.name": "npz", "data.source": str(tmp_path / "mine.npz"), "data.protocol": "full"}
    gone = make(tmp_path / "run", tiny(**options), (4,))
    (tmp_path / "mine.npz").rename(tmp_path / "other.npz")
    words = [
        "score",
        str(gone.path),
        "--input",
        str(tmp_path / "other.npz"),
        "--out",
        str(tmp_path / "s.csv"),
        "--k",
        "2",
    ]
    assert main.run(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "--threshold: the training data that give it cannot be read; name the ELBO in nats below which" in said
    assert not (tmp_path / "s.csv").exists()
    advice = shlex.split(said.split("as in ")[1].split(" (")[0])
    assert advice == ["--threshold", "-100.0"]
    done(*words, *advice)
    assert "below -100 nats, as given" in capsys.readouterr().out
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 41


def test_a_posterior_that_regret_cannot_move_leaves_it_out_and_says_so(tmp_path, capsys):
    from vae_jax.posteriors import FullCovariance

    full = make(tmp_path / "run", tiny(VAE(3, MLP((8,)), posterior=FullCovariance())), (4,))
    done("score", full.path, "--input", "digits", "--out", tmp_path / "s.csv", "--k", 2, "--learn", 30)
    said = capsys.readouterr().out
    assert "no regret: likelihood regret: it optimizes a diagonal Gaussian" in said
    assert "regret" not in (tmp_path / "s.csv").read_text()


BAD = {
    "missing": ("--input {tmp}/nix.png", "no such file"),
    "empty": ("--input {tmp}/empty", "holds no images"),
    "size": ("--input {tmp}/wide.npy", "resize them to 8x8"),
    "threshold": ("--input {pics} --threshold low", "--threshold: 'low' is not a number"),
    "infinite": ("--input {pics} --threshold inf", "--threshold"),
    "learn": ("--input {pics} --threshold 5 --learn 50", "--learn 50: is not used; leave it out"),
    "split": ("--input {pics} --split test", "--split test: is not used, for"),
    "k": ("--input {pics} --k 0", "--k: 0 is out of range; it must be in [1, 2147483648)"),
    "maps": ("--input {pics} --maps {tmp}/full", "full holds 1 files already, and nothing is overwritten; use "),
    "maps nowhere": ("--input {pics} --maps {tmp}/no/maps", "make it first"),
    "no input": ("", "--input: is required"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case, run, pictures, tmp_path, capsys):
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 8, 1), np.uint8))
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    words, said = BAD[case]
    capsys.readouterr()
    places = {"tmp": tmp_path, "pics": pictures}
    line = ["score", str(run.path), "--out", f"{tmp_path}/s.csv", *shlex.split(words.format(**places))]
    assert main.run(line) == 2
    found = capsys.readouterr().err
    assert found.count("\n") == 1
    assert said in found
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_table_and_what_has_no_bound_are_refused(run, pictures, tmp_path, capsys):
    assert main.run(["score", str(run.path), "--input", str(pictures), "--out", f"{tmp_path}/s.npz"]) == 2
    assert "end it with .csv" in capsys.readouterr().err
    point = make(tmp_path / "ae", tiny(Autoencoder(3, MLP((8,)))), (4,))
    assert main.run(["score", str(point.path), "--input", "digits", "--out", f"{tmp_path}/s.csv"]) == 2
    said = capsys.readouterr().err
    assert "does not provide a bound on log p(x)" in said
    done(*shlex.split(said.split("`vae-jax ")[1].split("`")[0]), "--out", tmp_path / "r.png")
