"""Tables: what is read, what columns are, what is refused, and a run from a .csv to a .csv."""

import csv
import dataclasses
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax.cli import main
from vae_jax.data import DataConfig, load, table_codes, table_read
from vae_jax.data.table_options import Table
from vae_jax.errors import InputError, on_command_line
from vae_jax.files.columns import Column, width
from vae_jax.runs.run import Run

# The runs of this file draw their figures (conftest.py).
FIGURES = True
ROWS = 120
HEADER = ["height", "age", "smoker", "city", "grade", "visits", "income", "name", "kind"]
NAMED = Table(ordinal=("grade=low,middle,high",), count=("visits",), log=("income",), ignore=("name",))
# As they are typed.
OPTIONS = [
    *["--data.table.ordinal", "grade=low,middle,high", "--data.table.count", "visits"],
    *["--data.table.log", "income", "--data.table.ignore", "name"],
]


def people(seed=0, rows=ROWS):
    """Returns rows of cells: a tenth of the heights are empty."""
    rng = np.random.default_rng(seed)
    return [
        [
            f"{rng.normal(170, 10):.1f}" if i % 10 else "",
            str(rng.integers(20, 80)),
            str(int(rng.random() < 0.3)),
            ["Rome", "Oslo", "Bern, west"][rng.integers(3)],
            ["low", "middle", "high"][rng.integers(3)],
            str(rng.poisson(5)),
            f"{np.exp(rng.normal(8, 1)):.2f}",
            f"person {i}",
            ["yes", "no"][rng.integers(2)],
        ]
        for i in range(rows)
    ]


def write(path, rows, header=HEADER, delimiter=","):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def config(path, table=NAMED, **more):
    return DataConfig("table", str(path), batch_size=1, table=table, **more)


def columns(path, table=NAMED):
    return {c.name: c for c in load(config(path, table)).info.columns}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(tmp_path_factory.mktemp("people") / "people.csv", people())


# --- reading ---


def test_kinds_are_told_by_the_values(file):
    found = columns(file, Table(ignore=("name",)))
    assert {name: c.kind for name, c in found.items()} == {
        "height": "numeric",
        "age": "numeric",
        "smoker": "binary",
        "city": "categorical",
        "grade": "categorical",
        "visits": "numeric",
        "income": "numeric",
        "kind": "binary",
    }
    assert found["city"].levels == ("Bern, west", "Oslo", "Rome")
    assert found["kind"].levels == ("no", "yes")
    assert found["age"].whole
    assert not found["height"].whole


def test_options_name_kinds(file):
    found = columns(file, NAMED)
    assert found["grade"].levels == ("low", "middle", "high")
    assert [found[n].kind for n in ("grade", "visits")] == ["ordinal", "count"]
    assert "name" not in found
    income = np.log([float(row[6]) for row in people()])
    train = load(config(file))
    kept = income[np.isin(np.arange(ROWS), rows_of(train))]
    np.testing.assert_allclose([found["income"].mean, found["income"].std], [kept.mean(), kept.std()], rtol=1e-6)
    other = columns(file, Table(student=("age",), categorical=("smoker", "age")[:1], ignore=("name",)))
    assert [other["age"].kind, other["smoker"].kind, other["smoker"].levels] == ["student", "categorical", ("0", "1")]


def rows_of(source):
    """Returns the rows of the file that a split holds, by their ages and incomes."""
    made = table_codes.decode(source.arrays["x"], source.info.columns)
    keys = {(int(a), f"{i:.5g}") for a, i in zip(made["age"], made["income"], strict=True)}
    return [n for n, row in enumerate(people()) if (int(row[1]), f"{float(row[6]):.5g}") in keys]


def test_training_split_is_standardized_and_the_way_back_is_exact(file):
    train, test = load(config(file)), load(config(file), "test")
    assert train.size + test.size == ROWS
    held = {c.name: i for c, i in zip(train.info.columns, table_codes.starts(train.info.columns)[:-1], strict=True)}
    x, mask = train.arrays["x"], train.arrays["mask"]
    for name in ("height", "age", "income"):
        seen = x[mask[:, held[name]], held[name]]
        np.testing.assert_allclose([seen.mean(), seen.std()], [0, 1], atol=1e-5)
    assert np.all(x[~mask] == 0)
    every = sorted([*rows_of(train), *rows_of(test)])
    assert every == list(range(ROWS))
    # Statistics are those of training in every split.
    assert train.info.columns == test.info.columns
    assert sum(c.width for c in train.info.columns) == width(train.info.columns) == x.shape[1] == 12


def test_delimiters_quotes_and_order_of_columns_change_nothing(file, tmp_path):
    wanted = load(config(file))
    for delimiter in ";\t":
        found = load(config(write(tmp_path / "t.csv", people(), delimiter=delimiter)))
        np.testing.assert_array_equal(found.arrays["x"], wanted.arrays["x"])
    turned = load(config(write(tmp_path / "u.csv", [row[::-1] for row in people()], HEADER[::-1])))
    assert rows_of(turned) == rows_of(wanted)
    comma = write(tmp_path / "c.csv", [["1,5", "a"], ["2", "b"], ["", "a"]], ["x", "y"], ";")
    np.testing.assert_array_equal(table_read.read(comma)[0].number, [1.5, 2, np.nan])


def test_added_rows_move_no_other(file, tmp_path):
    more = load(config(write(tmp_path / "more.csv", people() + people(1, 40))), "train")
    assert set(rows_of(load(config(file)))) <= set(rows_of(more))


def test_parquet_is_the_same_table(file, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    from pyarrow import csv as arrow

    parquet.write_table(arrow.read_csv(file), tmp_path / "t.parquet")
    wanted, found = load(config(file)), load(config(tmp_path / "t.parquet"))
    np.testing.assert_array_equal(found.arrays["x"], wanted.arrays["x"])
    assert found.info.columns == wanted.info.columns


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"needs pyarrow.*pip install 'vae_jax\[parquet\]', or use \.csv$"):
        load(config(tmp_path / "t.parquet", Table()))


def test_arrays_are_tables_by_name(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(60, 3)) * [1, 10, 100]
    x[3, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    found = load(config(tmp_path / "x.npy", Table(), protocol="full"))
    np.testing.assert_allclose(table_codes.decode(found.arrays["x"], found.info.columns)["x2"], x[:, 2], rtol=1e-5)
    assert not found.arrays["mask"][3, 1]
    np.savez(tmp_path / "x.npz", x=x, columns=["a", "b", "c"])
    assert [c.name for c in load(config(tmp_path / "x.npz", Table())).info.columns] == ["a", "b", "c"]
    # Rows of numbers may be pictures to --data, which says what to type for a table.
    train = ["train", "own_table", "--smoke", "--workdir", str(tmp_path / "r")]
    assert main.run([*train, "--data", str(tmp_path / "x.npy")]) == 2
    words = shlex.split(capsys.readouterr().err.partition("rows of a table need ")[2].partition(",")[0])
    assert words == ["--data.name", "table", "--data.source", str(tmp_path / "x.npy")]
    assert main.run([*train, *words]) == 0


def test_the_kinds_are_said_in_one_line(file):
    kinds, missing = load(config(file)).info.notes
    assert kinds == (
        "columns: 3 numeric: height, age, income (log); 2 binary: smoker, kind; 1 categorical: city (3); 1 ordinal: "
        "grade (3); 1 count: visits"
    )
    assert missing == "1.2% of the cells are empty and count as missing, in 1 column"


def test_a_label_is_no_column(file):
    train = load(config(file, Table(label="kind", ignore=("name",))))
    assert train.info.label_names == ("no", "yes")
    assert "kind" not in {c.name for c in train.info.columns}
    made = rows_of(train)
    np.testing.assert_array_equal(train.arrays["label"], [["no", "yes"].index(people()[i][8]) for i in made])


# --- bad input ---


TWO, AB, ABC = [["1.5", "a"]] * 4 + [["2.5", "b"]], [["a"], ["b"]], [["a"], ["b"], ["c"]]
IGNORE = r"use --data\.table\.ignore y"
WITHOUT = Table(ignore=("y",))
PEOPLE = [[str(i / 2), f"p{i}"] for i in range(30)]
ENDLESS, HUGE = [["1.5", "inf"], ["2.5", "3"]], [["1", "1e300"], ["2", "-1e300"]]
# name -> rows, header, options, the message, the options that its advice makes.
CASES = {
    "unknown": (TWO, "xy", Table(count=("z",)), r"table\.count: .* no column 'z'; known: x, y", Table()),
    "twice": (TWO, "xy", Table(numeric=("x",), student=("x",)), "named as numeric too", Table(student=("x",))),
    "empty": ([["1.5", ""], ["2.5", ""]], "xy", Table(), f"column y has no value; {IGNORE}$", WITHOUT),
    "id": (PEOPLE, "xy", Table(), f"names rows and is no category; {IGNORE}$", WITHOUT),
    "infinite": (ENDLESS, "xy", Table(), f"y has 1 infinite values, the first in row 1.*{IGNORE}$", WITHOUT),
    "huge": (HUGE, "xy", Table(), f"beyond float64; {IGNORE}, or", WITHOUT),
    "negative": ([["1"], ["-2.5"]], "x", Table(log=("x",)), r"holds -2\.5.*table\.student x$", Table(student=("x",))),
    "fraction": ([["1.5"], ["2"]], "x", Table(count=("x",)), r"1\.5 .* not whole.*numeric x$", Table(numeric=("x",))),
    "words": (AB, "x", Table(count=("x",)), r"words such as 'a'; use .*categorical x$", Table(categorical=("x",))),
    "three": (ABC, "x", Table(binary=("x",)), r"has 3 values; use .*categorical x$", Table(categorical=("x",))),
    "order": (AB, "x", Table(ordinal=("x",)), r"order is not known.*ordinal x=a,b$", Table(ordinal=("x=a,b",))),
    "unlisted": (ABC, "x", Table(ordinal=("x=b,a",)), r"value 'c'.*ordinal x=b,a,c$", Table(ordinal=("x=b,a,c",))),
    "log of words": (
        AB,
        "x",
        Table(log=("x",)),
        r"column x is binary, .*; leave it out of --data\.table\.log$",
        Table(),
    ),
    "label": ([["1.5", ""], ["2.5", ""]], "xy", Table(label="y"), f"no row of .* has a y.*{IGNORE}$", WITHOUT),
    "names as label": (PEOPLE, "xy", Table(label="y"), r"names rows.*; name another in --data\.table\.label$", WITHOUT),
    "all ignored": ([["1.5"], ["2.5"]], "x", Table(ignore=("x",)), r"no column is left", Table()),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_columns_are_refused_and_the_advice_works(name, tmp_path):
    rows, header, options, words, advised = CASES[name]
    path = write(tmp_path / "t.csv", rows, header)
    with on_command_line(), pytest.raises(InputError, match=words) as caught:
        load(config(path, options, protocol="full"))
    assert "\n" not in str(caught.value)
    load(config(path, advised, protocol="full"))


FILES = {
    "ragged": ("x,y\n1.5,2\n1,2,3\n", r"line 3 has 3 cells, and the header 2", "x,y\n1.5,2\n1,2\n"),
    "twice": ("x,y,x\n1,2,3\n2,3,4\n", r"columns 1 and 3 are both called x; rename one", "x,y,z\n1,2,3\n2,3,4\n"),
    "numbers": ("1,2\n3,4\n5,6\n", r"first line holds numbers.*write a line of names", "a,b\n1,2\n3,4\n"),
    "unnamed": (",x\n0,1.5\n1,2.5\n", r"column 1 has no name.*index=False", "x\n1.5\n2.5\n"),
    "empty": ("", r"is empty; save a header", "x\n1.5\n2\n"),
    "no rows": ("x,y\n", r"no row besides the header", "x,y\n1.5,2\n2,3\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_bad_files_are_refused_and_the_advice_works(name, tmp_path):
    text, words, good = FILES[name]
    path = tmp_path / f"{name}.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load(config(path, Table(), protocol="full"))
    assert "\n" not in str(caught.value)
    path.write_text(good)
    load(config(path, Table(), protocol="full"))


def visits(tmp_path, label=str):
    """Returns the file of 60 visits of 12 patients: their numbers, names, and what `label` makes of the row."""
    rows = [[f"{i / 7:.3f}", f"p{i % 12}", label(i)] for i in range(60)]
    return write(tmp_path / "visits.csv", rows, ["x", "patient", "y"])


def test_no_patient_of_a_table_is_in_two_splits(tmp_path):
    path = visits(tmp_path, lambda i: "ab"[i % 2])
    options = DataConfig("table", str(path), batch_size=8, protocol="held-out", groups="patient")
    parts = {split: load(options, split) for split in ("train", "validation", "test")}
    patients = {split: {int(v) % 12 for v in source.division.rows[split]} for split, source in parts.items()}
    assert sorted(p for held in patients.values() for p in held) == list(range(12))
    assert [column.name for column in parts["train"].info.columns] == ["x", "y"]
    assert "no group is in two splits" in " ".join(parts["train"].info.notes)
    with pytest.raises(InputError, match="has no column patients; did you mean 'patient'"):
        load(dataclasses.replace(options, groups="patients"))


def test_a_tenth_of_each_class_of_a_table_is_held_out(tmp_path):
    path = visits(tmp_path, lambda i: "rare" if i < 20 else "common")
    held = Table(label="y", ignore=("patient",))
    test = load(DataConfig("table", str(path), batch_size=8, table=held, stratify=True), "test")
    assert np.bincount(test.arrays["label"]).tolist() == [4, 2]


def test_rows_without_a_label_are_unlabeled(tmp_path):
    path = visits(tmp_path, lambda i: "" if i % 3 else "ab"[i % 2])
    source = load(config(path, Table(label="y", ignore=("patient",)), protocol="full"))
    assert (source.info.unlabeled, source.info.label_names) == (True, ("a", "b"))
    assert source.arrays["label"].tolist() == [-1 if i % 3 else i % 2 for i in range(60)]
    assert source.labeled.tolist() == list(range(0, 60, 3))
    assert "the labels of 40 of 60 examples are unknown" in " ".join(source.info.notes)


def test_a_constant_column_is_kept_and_said(tmp_path):
    path = write(tmp_path / "t.csv", [["1.5", "7.5", "a"], ["2.5", "7.5", "a"]], ["x", "y", "z"])
    source = load(config(path, Table(), protocol="full"))
    assert "constant columns, which say nothing: y, z" in source.info.notes[1]
    assert source.info.columns[1] == Column("y", mean=7.5)
    assert table_codes.decode(source.arrays["x"], source.info.columns)["y"].tolist() == [7.5, 7.5]


@pytest.mark.parametrize("options", [Table(ignore=("x", "y")), Table(ignore=("x",), label="y")])
def test_a_table_of_which_nothing_is_left_is_no_matter_of_splits(tmp_path, options):
    path = write(tmp_path / "t.csv", [[str(i / 3), "ab"[i % 2]] for i in range(30)], ["x", "y"])
    with pytest.raises(InputError, match="no column is left to model; name fewer in"):
        load(DataConfig("table", str(path), batch_size=4, protocol="held-out", table=options))


def test_table_options_are_for_tables_alone():
    with on_command_line(), pytest.raises(InputError, match=r"data\.table\.count: is read for tables alone"):
        load(DataConfig("digits", table=Table(count=("x",))))
    load(DataConfig("digits"))


def test_pictures_are_no_table_and_a_table_no_pictures(tmp_path, capsys):
    run = ["train", "vae_digits", "--smoke", "--workdir", str(tmp_path / "r")]
    assert main.run([*run, "--model.likelihood", "table"]) == 2
    assert "use --model.likelihood bernoulli" in capsys.readouterr().err
    assert main.run([*run, "--data", "wine"]) == 2
    assert capsys.readouterr().err.strip().endswith("use --model.likelihood table")
    assert main.run([*run, "--data", "wine", "--model.network", "lenet", "--model.likelihood", "table"]) == 2
    assert "choose --model.network mlp" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


# --- a whole run ---


@pytest.fixture(scope="module")
def run(file):
    """A run of two steps."""
    folder = file.parent / "run"
    assert main.run(["train", "own_table", "--smoke", "--workdir", str(folder), "--data", str(file), *OPTIONS]) == 0
    return folder


def read(path):
    return {c.name: c for c in table_read.read(path)}


def go(*words):
    assert main.run([str(word) for word in words]) == 0


def refused(capsys, *words):
    capsys.readouterr()
    assert main.run([str(word) for word in words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def check_form(path, rows):
    """Checks that a written table has the columns, the kinds and the units of the run's."""
    found = read(path)
    assert list(found) == [name for name in HEADER if name != "name"]
    assert all(len(c.text) == rows and c.seen.all() for c in found.values())
    assert set(found["city"].text) <= {"Rome", "Oslo", "Bern, west"}
    assert set(found["grade"].text) <= {"low", "middle", "high"}
    assert set(found["smoker"].text) <= {"0", "1"}
    assert np.all(found["income"].number > 0)
    for name in ("age", "visits"):
        assert np.all(found[name].number == np.rint(found[name].number))
    assert np.all(np.abs(found["height"].number - 170) < 80)


def test_samples_reconstructions_and_decoded_codes_are_tables(run, file, tmp_path):
    go("sample", run, "--n", 7, "--out", tmp_path / "s.csv")
    check_form(tmp_path / "s.csv", 7)
    go("reconstruct", run, "--n", 3, "--out", tmp_path / "r.csv")
    check_form(tmp_path / "r.csv", 3)
    go("encode", run, "--input", file, "--out", tmp_path / "c.npz")
    go("decode", run, "--input", tmp_path / "c.npz", "--out", tmp_path / "d.csv")
    check_form(tmp_path / "d.csv", ROWS)
    go("sample", run)
    check_form(run / "figures" / "samples.csv", 64)
    go("sample", run, "--n", 7, "--out", tmp_path / "s.parquet")
    for name, column in read(tmp_path / "s.parquet").items():
        assert column.text.tolist() == read(tmp_path / "s.csv")[name].text.tolist()
    go("sample", run, "--n", 7, "--out", tmp_path / "s.npz")
    with np.load(tmp_path / "s.npz", allow_pickle=False) as held:
        for name, column in read(tmp_path / "s.csv").items():
            assert [table_codes.text_of(v) for v in held[name].tolist()] == column.text.tolist()
    # Means do not vary as rows do.
    go("sample", run, "--n", 64, "--pixels", "mean", "--out", tmp_path / "m.csv")
    assert read(tmp_path / "m.csv")["age"].number.std() < read(run / "figures" / "samples.csv")["age"].number.std()


def test_a_table_is_encoded_by_the_names_of_its_columns(run, file, tmp_path, capsys):
    turned = write(tmp_path / "t.csv", [row[::-1] for row in people()], HEADER[::-1])
    go("encode", run, "--input", file, "--out", tmp_path / "a.npz")
    go("encode", run, "--input", turned, "--out", tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_array_equal(a["mean"], b["mean"])
    cut = write(tmp_path / "cut.csv", [row[1:] for row in people()], HEADER[1:])
    out = ["--out", tmp_path / "c.npz"]
    assert "has no column 'height'" in refused(capsys, "encode", run, "--input", cut, *out)
    strange = people()
    strange[2][3] = "Paris"
    path = write(tmp_path / "p.csv", strange)
    err = refused(capsys, "encode", run, "--input", path, *out)
    assert "'Paris' in row 3 is no value of column city, whose values are Bern, west, Oslo, Rome" in err
    strange[2][3] = ""
    write(path, strange)
    go("encode", run, "--input", path, *out)
    strange[4][1] = "old"
    err = refused(capsys, "encode", run, "--input", write(path, strange), *out)
    assert "'old' in row 5 of column age is no number" in err
    strange[4][1] = ""
    go("encode", run, "--input", write(path, strange), *out)


def test_inputs_of_another_kind_are_refused_with_both_kinds(run, file, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photos" / "a.png")
    for given, seen in ((tmp_path / "photos", "a folder"), (tmp_path / "photos" / "a.png", "an image")):
        for command in ("encode", "impute"):
            err = refused(capsys, command, run, "--input", given, "--out", tmp_path / "o.csv")
            assert f"--input {given}: is {seen}, but {run} was trained on a table with columns height, age, " in err
    pictures = Path(__file__).parent / "runs" / "vae"
    wanted = f"is a table, but {pictures} was trained on images of 8x8 with 1 channel; give such examples"
    assert wanted in refused(capsys, "reconstruct", pictures, "--input", file, "--out", tmp_path / "o.png")
    assert wanted in refused(capsys, "impute", pictures, "--input", file, "--out", tmp_path / "o.npy")


def test_a_class_that_is_not_there_conditions_nothing(tmp_path, capsys):
    path = visits(tmp_path, lambda i: "ab"[i % 2])
    words = ["train", "own_table", "--smoke", "--quiet", "--data", path, "--workdir", tmp_path / "run"]
    words += ["--data.table.label", "y", "--data.table.ignore", "patient", "--data.batch-size", "8"]
    go(*words, "--model.condition.on", "label")
    lacking = write(tmp_path / "new.csv", [["0.5", "p1", "a"], ["0.7", "p2", ""]], ["x", "patient", "y"])
    out = ["--out", tmp_path / "c.npz"]
    err = refused(capsys, "encode", tmp_path / "run", "--input", lacking, *out)
    assert "is conditioned on column y, which is empty in 1 rows, the first is row 2; fill it in" in err
    go("encode", tmp_path / "run", "--input", write(lacking, [["0.5", "p1", "a"]], ["x", "patient", "y"]), *out)
    # From class to class a walk is a table as well.
    go("arithmetic", tmp_path / "run", "--from", 0, "--to", 1, "--n", 1, "--steps", 3, "--split", "train")
    assert list(read(tmp_path / "run" / "figures" / "arithmetic.csv")) == ["x"]
    # A model without a condition takes rows of which no label is known.
    go(*words[:7], tmp_path / "free", *words[8:])
    write(lacking, [["0.5", "p1", ""], ["0.7", "p2", ""]], ["x", "patient", "y"])
    go("encode", tmp_path / "free", "--input", lacking, *out)


def test_no_command_writes_over_what_it_reads(run, file, tmp_path, capsys):
    holes = tmp_path / "holes.csv"
    holes.write_bytes(file.read_bytes())
    (tmp_path / "link.csv").symlink_to(holes)
    for command in ("impute", "score", "encode"):
        for out in ("holes.csv", "link.csv"):
            err = refused(capsys, command, run, "--input", holes, "--out", tmp_path / out)
            assert f"--out {tmp_path / out}: the command reads this file; choose another" in err
    assert holes.read_bytes() == file.read_bytes()
    go("impute", run, "--input", holes, "--out", tmp_path / "filled.csv")


def test_empty_cells_are_filled_and_nothing_else_changes(run, file, tmp_path, capsys):
    go("impute", run, "--input", file, "--out", tmp_path / "u.csv", "--k", 5)
    before, after = read(file), read(tmp_path / "u.csv")
    assert list(after) == HEADER
    assert after["height"].seen.all()
    for name in HEADER:
        seen = before[name].seen
        assert after[name].text[seen].tolist() == before[name].text[seen].tolist()
    assert np.all(np.abs(after["height"].number - 170) < 60)
    go("impute", run, "--input", file, "--out", tmp_path / "m.csv", "--k", 5, "--samples", 2)
    many = read(tmp_path / "m.csv")
    assert many["imputation"].number.tolist() == [1] * ROWS + [2] * ROWS
    drawn = many["height"].number.reshape(2, ROWS)
    assert np.all((drawn[0] != drawn[1]) == ~before["height"].seen)
    out = ["--out", tmp_path / "v.csv"]
    assert "has no empty cells" in refused(capsys, "impute", run, "--input", tmp_path / "u.csv", *out)


def test_the_run_remembers_its_columns(run, file, tmp_path):
    opened = Run.load(run)
    assert opened.spec.columns == load(opened.config.data).info.columns
    # Of a table with other rows the means and the levels are still those of training.
    rows = [[f"{float(row[0]) + 50}" if row[0] else "", *row[1:]] for row in people()]
    held = file.read_bytes()
    try:
        write(file, rows)
        assert Run.load(run).source("test").info.columns == opened.spec.columns
        write(file, rows, [*HEADER[:-1], "other"])
        with pytest.raises(InputError, match="has no column 'kind'"):
            Run.load(run).source("test")
    finally:
        file.write_bytes(held)


def test_python_returns_and_takes_columns(run):
    opened = vj.load(run)
    held = opened.table(opened.sample(5))
    assert list(held) == [name for name in HEADER if name != "name"]
    assert held["age"].dtype.kind == "i"
    assert held["city"].dtype.kind == "U"
    again = opened.reconstruct(held)
    assert again.shape == (5, 12)
    held["height"] = [None, *held["height"][1:]]
    filled = opened.impute(held, k=3)
    np.testing.assert_array_equal(filled.x["height"][1:], held["height"][1:])
    assert abs(filled.x["height"][0] - 170) < 60
    with pytest.raises(InputError, match="give a dict of columns"):
        opened.encode(np.zeros((2, 12)))


def test_reports_and_figures_show_columns(run):
    go("report", run)
    page = (run / "report.html").read_text()
    for name in (n for n in HEADER if n != "name"):
        assert f'<th scope="row">{name}</th>' in page
    assert "accuracy" in page
    assert (run / "figures" / "columns.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """A file of 2,000 x 5 correlated log-normal numbers, with medians over four decades, and the medians."""
    rng = np.random.default_rng(0)
    medians = 10.0 ** np.arange(-1, 4)
    x = medians * np.exp(rng.normal(size=(2000, 1)) + 0.5 * rng.normal(size=(2000, 5)))
    rows = [[f"{v:.6g}" for v in row] for row in x]
    return write(tmp_path_factory.mktemp("skewed") / "t.csv", rows, [f"m{i}" for i in range(5)]), medians


def trained(folder, file, steps, *words):
    """Trains on a file without an evaluation to speak of, and returns every ELBO of training."""
    train = ["train", "own_table", "--data", file, "--steps", steps, "--workdir", folder, "--data.batch-size", 128]
    go(*train, "--optimizer.lr", 0.003, "--logging.log-every", 10, "--logging.tensorboard", False, *words)
    return vj.load(folder).history()["elbo"]


def test_logs_of_log_normal_columns_keep_their_medians(skewed, tmp_path):
    """Samples have the medians within 15 %, the spread of the logs within 20 %, and their correlation."""
    file, medians = skewed
    elbo = trained(tmp_path / "log", file, 300, "--data.table.log", *(f"m{i}" for i in range(5)))
    assert np.all(np.isfinite(elbo))
    go("sample", tmp_path / "log", "--n", 4000, "--out", tmp_path / "s.csv")
    found = np.array([c.number for c in read(tmp_path / "s.csv").values()])
    np.testing.assert_allclose(np.median(found, 1), medians, rtol=0.15)
    np.testing.assert_allclose(np.log(found).std(1), np.sqrt(1.25), rtol=0.2)
    assert np.corrcoef(np.log(found))[0, 4] > 0.6


def test_log_normal_columns_train_without_logs_too(skewed, tmp_path):
    elbo = trained(tmp_path / "raw", skewed[0], 60)
    assert np.all(np.isfinite(elbo))
    assert elbo[-1] > elbo[0]


def _edited(columns, entry, value):
    return [{**columns[0], entry: value}, *columns[1:]]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: _edited(c, "std", 0.0), r"columns\[0\]\.std: 0\.0 is out of range"),
        (lambda c: _edited(c, "kind", "number"), r"columns\[0\]\.kind: \"number\""),
        (lambda c: _edited(c, "unit", "cm"), r"columns\[0\]\.unit: no such entry"),
        (lambda c: c[1:], r"columns: take 11 numbers, and data_spec\.x\.shape is \[12\]; restore the file"),
    ],
)
def test_columns_of_an_edited_config_are_checked(edit, words, run):
    held = (run / "config.json").read_text()
    values = json.loads(held)
    values["data_spec"]["columns"] = edit(values["data_spec"]["columns"])
    try:
        (run / "config.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match=words) as caught:
            Run.load(run)
        assert "\n" not in str(caught.value)
    finally:
        (run / "config.json").write_text(held)
    assert Run.load(run).spec.columns[0].name == "height"
