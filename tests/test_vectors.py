"""Rows of numbers of the user's own, above all counts: read as they are, split like all own data, in every command."""

import json
import re

import numpy as np
import pytest
from options import tiny
from PIL import Image

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.data import DataConfig, choose, load
from vae_jax.errors import InputError, on_command_line
from vae_jax.likelihoods import GaussianLearned
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.run import Run

RNG = np.random.default_rng(3)


def cells(n: int = 1000, d: int = 200) -> np.ndarray:
    """Returns negative binomial counts [n, d] of two kinds of cells; row 5 is empty."""
    mean = np.where(np.arange(n)[:, None] % 2, 2.0, 5.0) * RNG.gamma(2.0, 0.5, (n, d))
    x = RNG.poisson(mean)
    x[min(5, n - 1)] = 0
    return x


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run on 1,000 x 200 counts with an empty row, named as the README says."""
    folder = tmp_path_factory.mktemp("vectors")
    x = cells()
    np.savez(folder / "cells.npz", counts=x, labels=np.arange(1000) % 2)
    words = ["train", "counts_simulated", "--data", str(folder / "cells.npz"), "--steps", "4", "--quiet"]
    words += ["--data.batch-size", "40", "--logging.tensorboard", "False", "--evaluation.limit", "16"]
    assert main.run([*words, "--evaluation.k", "2", "--workdir", str(folder / "run")]) == 0
    return Run.load(folder / "run")


def test_counts_with_an_empty_row_train_and_are_measured(run):
    assert (run.config.data.name, run.config.data.protocol) == ("vectors", "held-out")
    assert set(run.source("train").info.sizes) == {"train", "validation", "test"}
    result = json.loads((run.path / "eval.json").read_text())
    assert np.isfinite([result["metrics"][name]["value"] for name in ("elbo", "rate", "iw_2")]).all()
    assert any("1 of 1,000 rows hold zeros alone" in note for note in run.source("train").info.notes)
    assert run.source("train").info.values == "count"


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_counts_that_float32_would_change_are_refused_and_both_ways_out_are_read(tmp_path, dtype):
    x = cells(40, 3).astype(dtype)
    x[3, 1] = 2**24 + 1
    config = DataConfig("vectors", str(tmp_path / "x.npz"), batch_size=4)
    np.savez(tmp_path / "x.npz", counts=x)
    with pytest.raises(InputError, match="counts has whole numbers up to 16777217, but float32 is exact") as error:
        load(config)
    for fix in re.search(r"save (.*), or (.*) if the last", str(error.value)).groups():
        np.savez(tmp_path / "x.npz", counts=eval(fix, {"counts": x}))
        assert load(config).size > 30


def test_commands_take_and_make_rows(run, tmp_path):
    np.save(tmp_path / "new.npy", cells(7))
    words = ["--input", str(tmp_path / "new.npy"), "--out"]
    assert main.run(["encode", str(run.path), *words, str(tmp_path / "codes.npz")]) == 0
    assert np.load(tmp_path / "codes.npz")["mean"].shape == (7, 4)
    assert main.run(["reconstruct", str(run.path), *words, str(tmp_path / "again.npy")]) == 0
    assert np.load(tmp_path / "again.npy").shape == (7, 200)
    made = str(tmp_path / "made.npy")
    assert main.run(["sample", str(run.path), "--n", "5", "--pixels", "sample", "--out", made]) == 0
    drawn = np.load(made)
    assert drawn.shape == (5, 200)
    assert np.array_equal(drawn, np.rint(drawn))
    assert vj.load(run.path).encode(cells(3)).mean.shape == (3, 4)


def test_what_no_picture_shows_is_written_as_arrays(run):
    for command, name in (("sample", "samples"), ("reconstruct", "reconstructions"), ("interpolate", "interpolations"),
                          ("traverse", "traversals"), ("arithmetic", "arithmetic")):  # fmt: skip
        more = {"arithmetic": ["--from", "0", "--to", "1"], "traverse": ["--dims", "0"]}.get(command, [])
        assert main.run([command, str(run.path), *more]) == 0
        with np.load(run.path / "figures" / f"{name}.npz") as held:
            assert held["images"].shape[-1] == 200


def test_examples_of_another_kind_or_length_are_refused_in_one_line(run, tmp_path, capsys):
    np.save(tmp_path / "short.npy", cells(7, 20))
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "b.png")
    said = f"but {run.path} was trained on vectors of 200 numbers; give such"
    for given, held in {
        ("short.npy",): "vectors of 20 numbers",
        ("digits",): "images of 8x8 with 1 channel",
        ("a.png",): "images of 8x8 with 1 channel",
        ("a.png", "b.png"): "images",
        (".",): "images",
    }.items():
        paths = [word if word == "digits" else str(tmp_path / word) for word in given]
        assert main.run(["encode", str(run.path), "--input", *paths, "--out", str(tmp_path / "c.npz")]) == 2
        assert f"holds {held}, {said}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "c.npz").exists()


def test_what_is_no_count_is_not_scored_by_a_run_of_counts(run, tmp_path, capsys):
    for value, wrong in ((0.5, "not whole"), (-1, "negative")):
        x = cells(7).astype(np.float32)
        x[2, 3] = value
        np.save(tmp_path / "new.npy", x)
        words = ["score", str(run.path), "--input", str(tmp_path / "new.npy"), "--out", str(tmp_path / "s.csv")]
        assert main.run([*words, "--k", "2", "--regret-steps", "0", "--threshold", "9"]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"new.npy: {value} in row 2, column 3 is {wrong}, but the negative-binomial likelihood" in line
        np.save(tmp_path / "new.npy", np.rint(np.abs(x)))
        assert main.run([*words, "--k", "2", "--regret-steps", "0", "--threshold", "9"]) == 0
        (tmp_path / "s.csv").unlink()


def test_rows_are_read_as_they_are(tmp_path):
    x = RNG.normal(size=(60, 5))
    np.save(tmp_path / "x.npy", x)
    source = load(DataConfig("vectors", str(tmp_path / "x.npy"), batch_size=8, protocol="full"))
    np.testing.assert_array_equal(source.arrays["x"], x.astype(np.float32))
    assert (source.info.values, source.info.kind, source.info.shape) == ("float", "vector", (5,))
    x[2, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = load(DataConfig("vectors", str(tmp_path / "x.npy"), batch_size=8, protocol="full"))
    assert np.argwhere(~source.arrays["mask"]).tolist() == [[2, 3]]
    assert source.arrays["x"][2, 3] == 0


def test_a_mask_beside_rows_says_what_nan_would_and_is_filled_in(tmp_path):
    x = RNG.normal(size=(60, 5)).astype(np.float32)
    seen = RNG.random(x.shape) > 0.2
    held = {}
    np.savez(tmp_path / "mask.npz", vectors=np.where(seen, x, 99), mask=seen)
    np.save(tmp_path / "nan.npy", np.where(seen, x, np.nan))
    for name in ("mask.npz", "nan.npy"):
        data = DataConfig("vectors", str(tmp_path / name), batch_size=16, protocol="held-out")
        c = tiny(VAE(2, MLP((8,)), likelihood=GaussianLearned()), data=data)
        held[name] = vj.train_run(c, tmp_path / f"run {name}", quiet=True)
        filled = vj.impute(held[name], tmp_path / name, k=20)
        np.testing.assert_array_equal(np.asarray(filled.x)[seen], x[seen])
        held[name] = filled.x, (held[name].path / "metrics.jsonl").read_text().splitlines()
    np.testing.assert_array_equal(held["mask.npz"][0], held["nan.npy"][0])
    elbos = [[json.loads(line)["elbo"] for line in lines] for _, lines in held.values()]
    assert elbos[0] == elbos[1]
    # Whole numbers are filled in with the nearest ones that their type holds.
    run, whole = vj.load(tmp_path / "run mask.npz"), RNG.integers(0, 9, x.shape)
    want = vj.impute(run, whole.astype(float), seen, k=20).x
    np.testing.assert_array_equal(vj.impute(run, whole, seen, k=20).x, np.rint(want))
    np.testing.assert_array_equal(vj.impute(run, whole.astype(np.uint8), seen, k=20).x, np.rint(want).clip(0))
    # They have no NaN; their likelihoods, of a total, take no mask.
    np.savez(tmp_path / "c.npz", counts=cells(60, 5), mask=seen)
    source = load(DataConfig("vectors", str(tmp_path / "c.npz"), batch_size=8, protocol="full"))
    assert np.array_equal(source.arrays["mask"], seen)
    np.savez(tmp_path / "t.npz", x=np.where(seen, x, 99), mask=seen)
    table = load(DataConfig("table", str(tmp_path / "t.npz"), batch_size=8, protocol="full"))
    assert np.array_equal(table.arrays["mask"], seen)


def test_a_row_stays_on_its_side_when_others_are_added(tmp_path):
    x, held = cells(300, 6), {}
    for name, rows in (("few", x[:200]), ("all", x)):
        np.savez(tmp_path / f"{name}.npz", counts=rows)
        options = choose(DataConfig("sprites", batch_size=8), str(tmp_path / f"{name}.npz"))
        held[name] = {split: load(options, split).division.rows[split] for split in ("train", "validation", "test")}
    for split, rows in held["few"].items():
        assert set(rows) == {row for row in held["all"][split] if row < 200}


def test_patients_never_cross(tmp_path):
    np.savez(tmp_path / "x.npz", counts=cells(200, 6), groups=np.arange(200) % 20)
    options = choose(DataConfig("sprites", batch_size=8), str(tmp_path / "x.npz"))
    groups = [set(load(options, split).division.rows[split] % 20) for split in ("train", "validation", "test")]
    assert sum(map(len, groups)) == 20


def test_labels_that_are_all_unknown_are_none(tmp_path):
    np.savez(tmp_path / "x.npz", counts=cells(60, 6), labels=np.full(60, -1))
    source = load(DataConfig("vectors", str(tmp_path / "x.npz"), batch_size=8))
    assert (source.info.num_classes, source.info.unlabeled, "label" in source.arrays) == (None, False, False)


ROWS = cells(20, 4)
CASES = {
    "two": ({"counts": ROWS, "more": ROWS}, r"needs one array of rows \(has: counts, more\); save"),
    "images": ({"counts": ROWS.reshape(20, 2, 2)}, r"counts must be numbers \[N, D\].*save counts\.reshape"),
    "mask": ({"counts": ROWS, "mask": np.ones((20, 3), bool)}, r"but the rows are \[20, 4\]; save one boolean"),
    "text": ({"counts": ROWS.astype("U3")}, r"has type <U3; save counts\.astype\('float32'\)"),
    "infinite": ({"counts": np.where(ROWS[0, 0] == ROWS, np.inf, ROWS)}, "infinite values, the first in row 0"),
    "huge": ({"counts": ROWS * 1e300}, r"beyond float32; save counts / 1e38"),
    "labels": ({"counts": ROWS, "labels": np.zeros(3, int)}, "3 labels for 20 rows; make them equal"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_row_of_numbers_is_refused(tmp_path, name):
    arrays, words = CASES[name]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(InputError, match=words) as caught:
        load(DataConfig("vectors", str(tmp_path / "x.npz"), batch_size=8))
    assert "\n" not in str(caught.value)


def test_the_advice_for_rows_in_place_of_pictures_works(tmp_path, capsys):
    np.save(tmp_path / "cells.npy", cells(60, 6))
    words = ["train", "counts_simulated", "--smoke", "--quiet", "--workdir", str(tmp_path / "run")]
    assert main.run([*words, "--data", str(tmp_path / "cells.npy")]) == 2
    line = capsys.readouterr().err
    advised = f"--data.name vectors --data.source {tmp_path / 'cells.npy'}"
    assert f"rows of counts {advised}" in line
    assert not (tmp_path / "run").exists()
    assert main.run([*words, *advised.split()]) == 0


def test_fractions_are_no_counts(tmp_path):
    np.savez(tmp_path / "x.npz", counts=ROWS + 0.5)
    words = ["train", "counts_simulated", "--smoke", "--quiet", "--workdir", str(tmp_path / "run")]
    with on_command_line():
        assert main.run([*words, "--data", str(tmp_path / "x.npz"), "--data.batch-size", "8"]) == 2
    assert not (tmp_path / "run").exists()


ODD = {
    "width": (
        ROWS,
        "holds vectors of 4 numbers, but .* was trained on vectors of 200 numbers; give such examples",
        cells(7),
    ),
    "pictures": (RNG.random((3, 8, 8)), r"must be numbers \[N, D\].*; save x.reshape\(len\(x\), -1\)$", cells(7)),
    "negative": (cells(7) - 1, "-1 in row .* is negative, .*; store the counts before they were centered$", cells(7)),
    "fractions": (cells(7) / 2, r"is not whole, .*; store numpy.rint\(x\) of the raw counts$", np.rint(cells(7) / 2)),
}


@pytest.mark.parametrize("name", ODD)
def test_rows_that_the_model_cannot_score_are_refused(run, tmp_path, capsys, name):
    bad, words, good = ODD[name]
    for command, out in (("encode", "c.npz"), ("score", "s.csv"), ("eval", "e.json"), ("reconstruct", "r.npy")):
        np.save(tmp_path / "x.npy", bad)
        line = [command, str(run.path), "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / out)]
        capsys.readouterr()
        assert main.run(line) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert re.search(words, said.strip())
        assert not (tmp_path / out).exists()
    np.save(tmp_path / "x.npy", good)
    assert main.run(["encode", *line[1:-1], str(tmp_path / "c.npz")]) == 0
