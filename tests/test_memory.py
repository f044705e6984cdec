"""Series, tables and rows in memory train as from their files: the same reader, the same bits, the same refusals."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from options import tiny

import vae_jax as vj
from vae_jax import data
from vae_jax.data import memory, missing, table_read
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.likelihoods import GaussianLearned, NegativeBinomial, Table
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.run import Run
from vae_jax.tasks import training

RNG = np.random.default_rng(0)
N = 60
WAVES = RNG.normal(size=(N, 12, 3)).cumsum(1)
ROWS = np.where(RNG.random((N, 4)) < 0.1, np.nan, RNG.normal(size=(N, 4)))
COUNTS = RNG.poisson(3, (N, 6))
LABELS = np.arange(N) % 3
GROUPS = np.arange(N) // 4


class Frame:
    """What of a data frame is read: `columns`, `shape` and columns by name, which are arrays of objects or numbers."""

    def __init__(self, held):
        self.held, self.columns = held, list(held)
        self.shape = (N, len(held))

    def __getitem__(self, name):
        return self.held[name]

    def __array__(self, dtype=None, copy=None):
        return np.stack(list(self.held.values()), 1)


AGE = RNG.integers(20, 80, N)
DOSE = np.where(RNG.random(N) < 0.2, np.nan, RNG.lognormal(size=N))
KIND = np.array([None if i % 7 == 0 else "old, new"[: 3 + i % 5] for i in range(N)], object)
PEOPLE = {"age": AGE, "file": DOSE, "kind/a": KIND, "is new": AGE > 50, "columns": RNG.random(N)}


def config(name: str | None, likelihood, **options):
    """Returns a small config of a data set; None for one of an experiment's own."""
    given = DataConfig(name or "sprites", batch_size=16, protocol="held-out" if name else "standard", **options)
    return tiny(VAE(2, MLP((8,)), likelihood=likelihood), data=given)


def as_csv(path, held):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(held)
        cells = ([None if v is None or v != v else v for v in column.tolist()] for column in held.values())
        rows.writerows(zip(*cells, strict=True))


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["split"], line["loss"] if "loss" in line else line["elbo"]) for line in lines]


CASES = {
    "series": ("series", WAVES, {"": WAVES}, GaussianLearned()),
    "series by shape": (None, WAVES, {"": WAVES}, GaussianLearned()),
    "series by name": (None, {"series": WAVES, "labels": LABELS, "groups": GROUPS}, ..., GaussianLearned()),
    "whole numbers": ("series", np.rint(WAVES * 5).astype(int), ..., GaussianLearned()),
    "vectors": ("vectors", ROWS, {"": ROWS}, GaussianLearned()),
    "counts": (None, {"counts": COUNTS, "labels": LABELS, "groups": GROUPS}, ..., NegativeBinomial()),
    "array": ("table", ROWS, {"": ROWS}, Table()),
    "named": ("table", {"x": ROWS, "columns": np.array(list("abcd"))}, ..., Table()),
    "frame": (None, Frame(PEOPLE), "csv", Table()),
    "columns": ("table", {k: v.tolist() for k, v in PEOPLE.items()}, "csv", Table()),
    "frame of vectors": ("vectors", Frame({"a": ROWS[:, 0], "b": ROWS[:, 1]}), {"": ROWS[:, :2]}, GaussianLearned()),
}


@pytest.mark.parametrize("name", CASES)
def test_data_in_memory_train_as_from_their_file_bit_for_bit(tmp_path, name):
    reader, given, held, likelihood = CASES[name]
    c = config(reader, likelihood)
    path = tmp_path / "mine.csv"
    if isinstance(held, str):
        as_csv(path, PEOPLE)
    else:
        held = held if held is not ... else given if isinstance(given, dict) else {"": given}
        path = tmp_path / ("mine.npy" if "" in held else "mine.npz")
        np.save(path, held[""]) if "" in held else np.savez(path, **held)
    chosen = dataclasses.replace(c.data, source=str(path)) if reader else data.choose(c.data, str(path))
    if isinstance(held, str):
        chosen = data.choose(c.data, str(path))
    assert chosen.protocol == "held-out"
    first = vj.train_run(dataclasses.replace(c, data=chosen), tmp_path / "file", quiet=True)
    second = vj.train_run(c, tmp_path / "memory", data=given, quiet=True)
    assert losses(tmp_path / "file") == losses(tmp_path / "memory")
    assert second.trained_on == first.trained_on
    assert (second.config.data.name, second.config.data.protocol) == (chosen.name, "held-out")
    for split in ("train", "validation", "test"):
        one, other = first.source(split), second.source(split)
        assert one.info == dataclasses.replace(other.info, where=one.info.where, notes=one.info.notes)
        np.testing.assert_array_equal(one.division.rows[split], other.division.rows[split])
        # From another shell: by the file that the run keeps.
        again = Run.load(tmp_path / "memory").source(split)
        assert again.arrays.keys() == one.arrays.keys()
        for key, value in again.arrays.items():
            np.testing.assert_array_equal(value, one.arrays[key])


def test_a_run_on_series_in_memory_is_continued_and_measured_elsewhere(tmp_path):
    c = config("series", GaussianLearned())
    run = vj.train_run(c, tmp_path / "run", data=WAVES, quiet=True)
    run.path.rename(tmp_path / "moved")
    more = dataclasses.replace(vj.load(tmp_path / "moved").config, steps=4)
    again = vj.train_run(more, tmp_path / "moved", data=WAVES, resume=True, quiet=True)
    assert int(again.restore().step) == 4
    with pytest.raises(InputError, match="are not those that it was trained on"):
        vj.train_run(more, tmp_path / "moved", data=WAVES[::-1].copy(), resume=True, quiet=True)
    again = vj.resume(tmp_path / "moved", steps=5, quiet=True)
    assert np.isfinite(vj.evaluate_run(again)["metrics"]["elbo"]["value"])


def test_a_run_on_a_frame_writes_and_reads_its_columns(tmp_path):
    run = vj.train_run(config(None, Table()), tmp_path / "run", data=Frame(PEOPLE), quiet=True)
    assert [c.name for c in run.spec.columns] == list(PEOPLE)
    made = run.table(run.sample(5))
    assert list(made) == list(PEOPLE)
    assert run.encode(Frame(PEOPLE)).mean.shape == (N, 2)
    kinds = {"label": "kind/a", "ignore": ("file",)}
    c = config("table", Table(), table=data.Table(**kinds), groups="age")
    run = vj.train_run(c, tmp_path / "run2", data=Frame(PEOPLE), quiet=True)
    assert [c.name for c in run.spec.columns] == ["is new", "columns"]
    sides = [set(AGE[rows]) for rows in run.source("train").division.rows.values()]
    assert sum(map(len, sides)) == len(set(AGE))
    unnamed = vj.train_run(config("table", Table()), tmp_path / "run3", data=ROWS, quiet=True)
    np.testing.assert_array_equal(unnamed.encode(ROWS).mean, unnamed.encode(unnamed.path / "data.npz").mean)


class Arrow(Frame):
    """As a table of pyarrow: its columns are no names, but the columns themselves."""

    def __init__(self, held):
        super().__init__(held)
        self.column_names, self.columns = self.columns, list(held.values())


def test_a_run_on_an_arrow_table_reads_such_tables(tmp_path):
    run = vj.train_run(config(None, Table()), tmp_path / "run", data=Arrow(PEOPLE), quiet=True)
    np.testing.assert_array_equal(run.encode(Arrow(PEOPLE)).mean, run.encode(Frame(PEOPLE)).mean)


class NAType:
    """As pandas' NA: what it is compared with decides nothing."""

    def __ne__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


def test_what_is_missing_in_a_frame_is_missing():
    held = {"a": np.array([1, NAType(), 3], object), "b": np.array(["x", float("nan"), None], object)}
    found = memory.taken(Frame(held), "sprites")
    assert found.reader == "table"
    assert found.arrays["a"].tolist() == ["1", "", "3"]
    assert found.arrays["b"].tolist() == ["x", "", ""]


def test_what_a_masked_column_hides_is_missing():
    held = {"a": np.ma.masked_equal([1, 2, 3], 2), "b": np.ma.MaskedArray(["x", "y", "z"], [1, 0, 0]), "c": np.ones(3)}
    found = memory.taken(held, "table")
    assert [c.text.tolist() for c in table_read.of_arrays(found.arrays, "data")] == [
        ["1", "", "3"],
        ["", "y", "z"],
        ["1", "1", "1"],
    ]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 2), (6, 4, 4, 1)])
def test_a_mask_is_never_lost(shape, whole):
    hidden = RNG.random(shape) < 0.3
    x = np.ma.MaskedArray(RNG.integers(0, 256, shape).astype(np.uint8 if whole else float), hidden)
    with pytest.raises(InputError, match=r"^data: images is a masked array, whose mask is not read; give ") as error:
        memory.taken(x, "series" if len(shape) == 3 else "vectors")
    fix = str(error.value).partition("give ")[2]
    fix = f"{{{fix.replace(' and ', ', ')}}}" if fix.startswith('"') else fix
    given = eval(fix, {"numpy": np, "images": x})
    (value,) = [value for name, value in given.items() if name != "mask"] if isinstance(given, dict) else [given]
    assert value.dtype == (np.uint8 if whole and len(shape) > 2 else float)
    mask = given["mask"] if isinstance(given, dict) else None
    np.testing.assert_array_equal(missing.seen(value, "data", "x", mask), ~hidden)
    assert memory.taken(np.ma.MaskedArray(x.data), "vectors").arrays


BAD = {
    "series": ("series", WAVES[:, :, 0], r"^data: series must be numbers \[N, T, C\]", WAVES[:, :, 0][..., None]),
    "infinite": (None, np.where(WAVES > 3, np.inf, WAVES), "^data: series has .* infinite values", WAVES),
    "vectors": ("vectors", WAVES, r"^data: vectors must be numbers \[N, D\].*reshape", WAVES.reshape(N, -1)),
    "labels": ("vectors", {"counts": COUNTS, "labels": [1]}, "^data: 1 labels for 60 rows", COUNTS),
    "dates": (None, Frame({"day": AGE.astype("M8[D]")}), "^data: column day holds datetime64", Frame({"day": AGE})),
    "lists": (None, Frame({"a": AGE, "b": np.array([[1], [2, 3]] * 30, object)}), "^data: column b holds a list",
              Frame({"a": AGE})),
    "arrays": ("table", {"b": np.array([np.ones(2), np.ones(3)] * 30, object)}, "^data: column b holds a ndarray",
               Frame(PEOPLE)),
    "lengths": ("table", {"a": [1, 2], "b": [1]}, "^data: columns have different lengths", Frame(PEOPLE)),
    "words": ("table", np.full((9, 2), "a"), "^data: .* is an array of <U1; give an array of numbers", ROWS),
    "nothing": ("table", {}, "^data: a table is one array", ROWS),
    "empty": ("series", {}, "^data: .*series", WAVES),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_data_writes_nothing(tmp_path, monkeypatch, name):
    reader, given, said, good = BAD[name]
    c = config(reader, Table() if reader == "table" or isinstance(given, Frame) else GaussianLearned())
    with pytest.raises(InputError, match=said) as error:
        vj.train_run(c, tmp_path / "run", data=given, quiet=True)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    # Until the first step, when all that can be refused was; from there on they train like those of the tests above.
    monkeypatch.setattr(training, "_train", lambda start, *rest: start.run)
    assert vj.train_run(c, tmp_path / "run", data=good, quiet=True)


def test_columns_of_one_name_are_refused():
    twice = Frame(PEOPLE)
    twice.columns = ["age", "age"]
    with pytest.raises(InputError, match="data: columns 1 and 2 are both called 'age'; rename one"):
        memory.taken(twice, "table")


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_columns_that_no_file_can_keep_are_refused(name):
    # An .npz would keep the second as "a", and the run could not be continued.
    with pytest.raises(InputError, match=r"^data: column 1 is called '.*', which no file can keep; rename it$"):
        memory.taken(Frame({name: AGE, "age": AGE}), "table")


@pytest.mark.parametrize(
    ("given", "ways"),
    [
        (ROWS, ("table", "vectors")),
        (RNG.random((40, 50, 17)), ("series",)),
        (RNG.integers(0, 256, (40, 50, 3)), ("series",)),
    ],
    ids=["rows", "many channels", "integers"],
)
def test_what_may_be_either_is_refused_and_the_options_in_the_message_decide(tmp_path, given, ways):
    c = config(None, GaussianLearned())
    with pytest.raises(InputError) as error:
        vj.train_run(c, tmp_path / "run", data=given, quiet=True)
    options = [json.loads(text) for text in re.findall(r"\*\*(\{.*?\})", str(error.value))]
    assert [way["data.name"] for way in options] == list(ways)
    for way in options:
        likelihood = Table() if way["data.name"] == "table" else GaussianLearned()
        c = dataclasses.replace(config(None, likelihood), steps=1)
        c = dataclasses.replace(c, data=dataclasses.replace(c.data, name=way["data.name"]))
        assert vj.train_run(c, tmp_path / way["data.name"], data=given, quiet=True).config.data.name == way["data.name"]


def test_pictures_stay_pictures_whatever_the_config_reads():
    images = RNG.integers(0, 256, (9, 6, 6, 1), dtype=np.uint8)
    for name in ("sprites", "series", "vectors", "table", "npz"):
        assert memory.taken({"images": images}, name) == ("npz", {"images": images})
        assert memory.taken(images, name).arrays.keys() == {"images"}
    flat = RNG.integers(0, 256, (9, 6, 6), dtype=np.uint8)
    assert memory.taken(flat, "sprites").reader == "npz"
    assert memory.taken(flat, "series").reader == "series"


class Tensor:
    """As those of torch, whose types are not numpy's."""

    dtype = "torch.float64"

    def __init__(self, x):
        self.x, self.shape = x, x.shape

    def __array__(self, dtype=None, copy=None):
        return self.x


@pytest.mark.parametrize(("x", "kind"), [(WAVES, "series"), (ROWS, "vectors"), (Tensor(WAVES), "series")])
def test_two_arrays_are_given_by_the_name_in_the_message(x, kind):
    with pytest.raises(InputError) as error:
        memory.taken((x, LABELS), "sprites")
    (text,) = re.findall(r"\{.*?\}", str(error.value))
    assert memory.taken(eval(text, {"X": x, "y": LABELS}), "sprites").reader == kind
