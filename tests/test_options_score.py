"""Every option of score, and --input and --dpi of the commands that draw, against the model's own functions."""

import csv

import jax
import numpy as np
import pytest
from options import arrays, cli, close, covers, decoded, differ, done, make, mean_codes, numbers, tiny
from PIL import Image

from vae_jax import prng
from vae_jax.evaluation import anomaly

D = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", tiny())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, run):
    """Returns a folder of seven test images as pictures, in the order of the split."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, x in enumerate(np.asarray(run.examples("test", np.arange(7))["x"])):
        Image.fromarray(np.rint(255 * x[..., 0]).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.npz"


def scored(run, pictures, tmp_path, *words, table="s.csv"):
    done("score", run.path, "--input", pictures, "--out", tmp_path / table, "--regret-steps", 2, "--k", 3, *words)
    with (tmp_path / table).open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def column(found, name):
    return np.array(found[name], float)


def bounds(run, state, split, rows, seed=0, site="bounds", k=3):
    """Returns the ELBO and the bound of rows of the run's data, by the model itself."""
    key = prng.site_key(prng.site_key(jax.random.key(seed), "score"), site)
    batch = run.examples(split, np.asarray(rows))
    ctx = run.model.context(batch, train=False)._replace(index=batch["index"])
    args = state.eval_params, state.model_state
    elbo = run.model.terms(*args, prng.site_key(key, "elbo"), batch, ctx)["elbo"]
    return np.asarray(elbo), np.asarray(run.model.density.bound(*args, prng.site_key(key, "iw"), batch, ctx, k))


@covers("score", "input", "out", "k", "regret-steps", "seed", "step")
def test_scores_are_those_of_the_model(run, pictures, tmp_path):
    for seed, step in ((0, 4), (3, 2)):
        found, state = scored(run, pictures, tmp_path, "--seed", seed, "--step", step), run.restore(step)
        elbo, iw = bounds(run, state, "test", range(7), seed)
        close(column(found, "elbo"), elbo, atol=1e-3)
        close(column(found, "iw_3"), iw, atol=1e-3)
        x = np.asarray(run.examples("test", np.arange(7))["x"])
        made = decoded(run, state, mean_codes(run, state, "test", range(7)))
        close(column(found, "mse"), np.square(x - made).mean((1, 2, 3)))
        key = prng.site_key(prng.site_key(jax.random.key(seed), "score"), "regret")
        batches = [run.examples("test", np.arange(7))]
        close(column(found, "regret"), anomaly.regret(run.model, state, batches, key, 2), atol=1e-3)
    assert found["path"] == [f"{i}.png" for i in range(7)]
    assert found["label"] == [""] * 7
    done("score", run.path, "--input", pictures, "--out", tmp_path / "none.csv", "--regret-steps", 0, "--k", 1)
    assert "regret" not in (tmp_path / "none.csv").read_text()


@covers("score", "learn", "threshold", "batch-size")
def test_the_threshold_is_the_1st_percentile_of_training_examples(run, pictures, tmp_path, capsys):
    whole = scored(run, pictures, tmp_path)
    elbo = bounds(run, run.restore(), "train", range(1437), site="training")[0]
    close(column(whole, "threshold"), np.full(7, np.percentile(elbo, 1)), atol=1e-2)
    assert whole["training_examples"] == ["1437"] * 7
    assert "the 1st percentile of 1,437 training examples" in capsys.readouterr().out
    few = scored(run, pictures, tmp_path, "--learn", 40, "--batch-size", 3)
    close(column(few, "threshold"), np.full(7, np.percentile(elbo[:40], 1)), atol=1e-2)
    close(column(few, "elbo"), column(whole, "elbo"), atol=1e-3)
    middle = float(np.sort(column(whole, "elbo"))[3]) - 1e-4
    flagged = scored(run, pictures, tmp_path, "--threshold", middle)
    assert [int(v) for v in flagged["flag"]] == (column(whole, "elbo") < middle).astype(int).tolist()
    assert sum(map(int, flagged["flag"])) == 3
    assert flagged["training_examples"] == ["0"] * 7


@covers("score", "maps")
def test_maps_are_errors_on_one_scale(run, pictures, tmp_path, capsys):
    scored(run, pictures, tmp_path, "--maps", tmp_path / "maps")
    x = np.asarray(run.examples("test", np.arange(7))["x"])
    wrong = np.abs(x - decoded(run, run.restore(), mean_codes(run, run.restore(), "test", range(7))))[..., 0]
    files = sorted((tmp_path / "maps").iterdir())
    assert [file.name for file in files] == [f"0000{i}_{i}.png" for i in range(7)]
    for file, error in zip(files, wrong):
        with Image.open(file) as image:
            np.testing.assert_allclose(np.asarray(image), 255 * error / wrong.max(), atol=0.51)
    assert f"black 0 to white {wrong.max():.4g}" in capsys.readouterr().out


@covers("score", "split")
def test_score_takes_the_split_and_names_labels(run, tmp_path):
    done("score", run.path, "--input", "digits", "--split", "validation", "--out", tmp_path / "s.csv", "--k", 1,
         "--regret-steps", 0)  # fmt: skip
    with (tmp_path / "s.csv").open(newline="") as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels == [str(i) for i in np.asarray(run.source("validation").arrays["label"])]


# ---- --input of the others


@covers("reconstruct", "input")
def test_reconstruct_takes_a_folder(run, pictures, out):
    held, state = arrays("reconstruct", run.path, "--input", pictures, out=out), run.restore()
    x = np.asarray(run.examples("test", np.arange(7))["x"])
    close(held["images"], x, atol=1e-6)
    close(held["reconstructions"], decoded(run, state, mean_codes(run, state, "test", range(7))))


@covers("interpolate", "input")
def test_interpolate_goes_from_each_picture_to_the_next(run, pictures, out):
    files = [pictures / f"{i}.png" for i in (5, 0, 2)]
    held = arrays("interpolate", run.path, "--input", *files, "--steps", 3, out=out)
    a, b, c = mean_codes(run, run.restore(), "test", [5, 0, 2])
    close(held["codes"], [[a, (a + b) / 2, b], [b, (b + c) / 2, c]])
    close(held["images"], decoded(run, run.restore(), held["codes"]))
    assert held["index"].tolist() == [[0, 1], [1, 2]]


@covers("traverse", "input")
def test_traverse_starts_at_the_picture(run, pictures, out):
    words = ["--dims", 1, "--steps", 3]
    held = arrays("traverse", run.path, "--input", pictures / "4.png", *words, out=out)
    code = mean_codes(run, run.restore(), "test", [4])[0]
    close(held["codes"][0][:, [0, 2]], np.tile(code[[0, 2]], (3, 1)))
    again = arrays("traverse", run.path, "--input", pictures, "--index", 4, *words, out=out)
    close(again["codes"], held["codes"])


@covers("eval", "input")
def test_eval_measures_the_pictures_and_leaves_the_runs_file_alone(run, pictures, tmp_path, capsys):
    done("eval", run.path, "--metrics", "mse", "--limit", 9)
    own = (run.path / "eval.json").read_bytes()
    held = numbers("eval", run.path, "--input", pictures, "--metrics", "mse", out=tmp_path / "e.json")
    x = np.asarray(run.examples("test", np.arange(7))["x"])
    made = decoded(run, run.restore(), mean_codes(run, run.restore(), "test", range(7)))
    close(held["metrics"]["mse"]["value"], np.square(x - made).mean())
    assert (held["data"], held["split"], held["protocol"]["n"]) == (str(pictures), "input", 7)
    capsys.readouterr()
    done("eval", run.path, "--input", pictures, "--metrics", "mse")
    said = capsys.readouterr().out
    assert f"{pictures} 8x8x1, given with --input" in said
    assert "not written; name a file with --out" in said
    assert (run.path / "eval.json").read_bytes() == own


@covers("sample", "dpi")
def test_sample_has_so_many_dots_per_inch(run, tmp_path):
    dots(run, tmp_path, "sample", "--n", 2)


@covers("reconstruct", "dpi")
def test_reconstruct_has_so_many_dots_per_inch(run, tmp_path):
    dots(run, tmp_path, "reconstruct", "--n", 2)


@covers("interpolate", "dpi")
def test_interpolate_has_so_many_dots_per_inch(run, tmp_path):
    dots(run, tmp_path, "interpolate", "--indices", 0, 1, "--steps", 2)


@covers("traverse", "dpi")
def test_traverse_has_so_many_dots_per_inch(run, tmp_path):
    dots(run, tmp_path, "traverse", "--dims", 0, "--steps", 2)


@covers("arithmetic", "dpi")
def test_arithmetic_has_so_many_dots_per_inch(run, tmp_path):
    dots(run, tmp_path, "arithmetic", "--from", 0, "--to", 1, "--n", 1, "--steps", 2, "--learn", 50)


@covers("decode", "dpi")
def test_decode_has_so_many_dots_per_inch(run, tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((2, D), np.float32))
    dots(run, tmp_path, "decode", "--input", tmp_path / "z.npy")


def dots(run, tmp_path, command, *words):
    """Checks the pixels at 100 and 200 dots per inch, and that both vector formats are written."""
    size = {}
    for dpi in (100, 200):
        done(command, run.path, *words, "--out", tmp_path / f"{dpi}.png", "--dpi", dpi)
        with Image.open(tmp_path / f"{dpi}.png") as image:
            size[dpi] = np.array(image.size)
    assert np.abs(size[200] - 2 * size[100]).max() <= 1
    done(command, run.path, *words, "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "100.png").read_bytes()
    for suffix, begin in (("pdf", b"%PDF"), ("svg", b"<?xml")):
        done(command, run.path, *words, "--out", tmp_path / f"x.{suffix}", "--dpi", 50)
        assert (tmp_path / f"x.{suffix}").read_bytes().startswith(begin)
    assert cli(command, run.path, *words, "--out", tmp_path / "x.npz", "--dpi", 50) == 2
    assert not (tmp_path / "x.npz").exists()


def test_examples_in_another_place_have_other_noise(run, pictures, tmp_path):
    """The index of an example keys its noise: reversing the order of pictures changes their ELBO."""
    files = [pictures / f"{i}.png" for i in range(7)]
    found = scored(run, files[0], tmp_path)
    done("score", run.path, "--input", *files[::-1], "--out", tmp_path / "r.csv", "--k", 3, "--regret-steps", 2)
    with (tmp_path / "r.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert last["path"] == "0.png"
    assert differ(float(last["elbo"]), float(found["elbo"][0]))
    close(float(last["mse"]), float(found["mse"][0]))
