"""Splits of the user's own data: a validation part by default, files of splits, groups, and shares of classes."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import vae_jax as vj
from vae_jax import data
from vae_jax.cli.main import run as command
from vae_jax.data import group_shares, split, split_file
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.runs import splits
from vae_jax.runs.run import Run

RNG = np.random.default_rng(0)
MANY = RNG.integers(0, 256, (400, 8, 8), dtype=np.uint8)
LABELS = np.repeat(np.arange(4), [200, 120, 70, 10])
TINY = ["--steps", 4, "--model.network.hidden", 8, "--data.batch-size", 4, "--logging.log-every", 2, "--quiet"]
TINY += [
    "--mesh.data",
    1,
    "--evaluation.k",
    2,
    "--logging.tensorboard",
    False,
    "--model.likelihood",
    "gaussian-learned",
    "--data.binarize",
    "none",
]


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


def saved(folder, **arrays):
    """Returns the path of an .npz with these arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mine.npz", **arrays)
    return str(folder / "mine.npz")


def rows(file, **options):
    """Returns the row numbers of each split, as the data set divides them."""
    config = data.choose(DataConfig("digits"), file)
    config = DataConfig("npz", source=file, batch_size=1, **{"protocol": config.protocol, **options})
    return data.load(config, "train").division.rows


def refusal(call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    (line,) = str(caught.value).splitlines()
    return line


def train(*words):
    """Returns the exit code of `vae-jax train vae_digits` with small options."""
    return command(["train", "vae_digits", *map(str, [*TINY, *words])])


def folder_of(root, count=60, depth=None):
    """Writes pictures, into the folders that `depth` names for each number."""
    for i, pixels in enumerate(MANY[:count]):
        path = root / (depth(i) if depth else "") / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return str(root)


# ---- the validation split by default


def test_own_files_named_by_data_have_a_validation_split_and_the_test_split_of_before(tmp_path):
    file = saved(tmp_path, images=MANY)
    config = data.choose(DataConfig("digits"), file)
    assert config.protocol == "held-out"
    new, old = rows(file), rows(file, protocol="standard")
    assert list(new) == ["train", "validation", "test"]
    np.testing.assert_array_equal(new["test"], old["test"])
    np.testing.assert_array_equal(np.sort(np.concatenate([new["train"], new["validation"]])), old["train"])
    hashes = split.pixel_hashes(MANY[..., None])
    np.testing.assert_array_equal(
        new["validation"], np.flatnonzero((hashes >= split.HELD_OUT) & (hashes < 2 * split.HELD_OUT))
    )
    # Growth moves nothing.
    more = saved(tmp_path / "more", images=np.concatenate([MANY, 255 - MANY]))
    for part, held in rows(more).items():
        np.testing.assert_array_equal(held[held < 400], new[part])


def test_what_a_config_or_the_data_say_comes_before_the_default(tmp_path):
    file, folder = saved(tmp_path / "a", images=MANY), folder_of(tmp_path / "b", 30)
    assert data.choose(DataConfig("digits"), folder).protocol == "held-out"
    assert data.choose(DataConfig("image_folder"), folder).protocol == "held-out"
    assert data.choose(DataConfig("npz", protocol="full"), file).protocol == "full"
    # A run that is continued elsewhere keeps the protocol that it was made with.
    assert data.choose(DataConfig("npz", source="gone.npz"), file).protocol == "standard"
    assert data.choose(DataConfig("npz", source=file), "digits").protocol == "standard"
    own = saved(tmp_path / "c", train_images=MANY[:300], test_images=MANY[300:])
    config = data.choose(DataConfig("digits"), own)
    assert data.load(config, "train").info.sizes == {"train": 300, "test": 100}
    assert "data.splits" not in refusal(data.load, config, "validation")
    report = data.prepare("npz", file, str(tmp_path / "prepared"))
    assert data.choose(DataConfig("digits"), str(report.folder)).protocol == "standard"


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_few_examples_still_train_and_say_so(tmp_path, count):
    for seed in range(10):
        images = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), dtype=np.uint8)
        source = data.load(data.choose(DataConfig(batch_size=1), saved(tmp_path, images=images)), "train")
        sizes = source.info.sizes
        assert sum(sizes.values()) == count
        assert sizes["train"] >= 1
        assert sizes["test"] >= 1
        assert ("validation" in sizes) == (count > 2)
        (note,) = source.info.notes
        assert f"{count} examples are few for three splits" in note
        assert ("too few for a validation split" in note) == (count == 2)


def test_a_run_on_own_data_measures_validation_while_it_trains_and_test_at_its_end(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, images=MANY)
    assert train("--data", file, "--workdir", "run", "--logging.eval-every", 2, "--logging.best", "elbo") == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "validation"}
    held = json.loads((tmp_path / "run/eval.json").read_text())
    assert held["split"] == "test"
    assert held["protocol"]["data_protocol"] == "held-out"
    assert (tmp_path / "run/best").is_dir()
    # The same on arrays in memory.
    run = vj.train_run(Run.load("run").config, "again", data=MANY, resume=False, quiet=True)
    assert run.config.data.protocol == "held-out"
    assert "validation" in [json.loads(x)["split"] for x in (tmp_path / "again/metrics.jsonl").read_text().splitlines()]


def test_best_without_a_validation_split_names_the_protocol_that_has_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file, words = saved(tmp_path, images=MANY), ["--logging.eval-every", 2, "--logging.best", "elbo"]
    assert train("--data", file, "--data.protocol", "standard", "--workdir", "run", *words) == 2
    said = capsys.readouterr().err
    assert "use --data.protocol held-out" in said
    assert not (tmp_path / "run").exists()
    assert train("--data", file, "--data.protocol", "held-out", "--workdir", "run", *words) == 0
    line = refusal(data.load, DataConfig("npz", source=file), "validation")
    assert "use --data.protocol held-out" in line
    assert train("--data", file, "--data.protocol", "standard", "--evaluation.split", "validation") == 2
    assert "or --data.protocol held-out" in capsys.readouterr().err


# ---- the rows that a run writes, and files of splits


def test_a_run_writes_its_rows_and_they_can_be_given_back(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, images=MANY)
    assert train("--data", file, "--workdir", "a") == 0
    with np.load("a/splits.npz") as held:
        assert sorted(held.files) == ["test", "train", "validation"]
        for part, expected in rows(file).items():
            np.testing.assert_array_equal(held[part], expected)
    assert train("--data", file, "--data.splits", "a/splits.npz", "--workdir", "b") == 0
    first, second = (json.loads((tmp_path / run / "eval.json").read_text()) for run in ("a", "b"))
    assert first["metrics"]["elbo"] == second["metrics"]["elbo"]
    assert second["protocol"]["data_protocol"] == "data.splits"
    assert "user's file" in second["protocol"]["splits"]
    # The run reads its own copy: the user's file may go, and the folder may move.
    shutil.move("b", "moved")
    shutil.rmtree("a")
    assert json.loads((tmp_path / "moved/config.json").read_text())["data"]["splits"] == "RUN/splits.npz"
    assert command(["eval", "moved", "--split", "validation"]) == 0
    assert command(["train", "--resume", "moved", "--steps", "6", "--quiet"]) == 0


def test_the_file_of_a_folder_names_its_pictures_and_can_be_given_back(tmp_path):
    root = folder_of(tmp_path / "pictures")
    config = DataConfig("image_folder", source=root, protocol="held-out", batch_size=1)
    source = data.load(config, "train")
    splits.store(tmp_path, source)
    with np.load(tmp_path / "splits.npz") as held:
        for part, expected in source.division.rows.items():
            np.testing.assert_array_equal(held[part], expected)
            assert held[f"{part}_paths"].tolist() == [f"{i:03}.png" for i in expected]
    # By name, not by number: a picture that comes in front moves none.
    Image.fromarray(MANY[99]).save(f"{root}/0.png")
    given = DataConfig("image_folder", source=root, splits=str(tmp_path / "splits.npz"), batch_size=1)
    for part in ("train", "validation", "test"):
        again = data.load(given, part)
        np.testing.assert_array_equal(again.arrays["image"], data.load(config, part).arrays["image"][-again.size :])
        assert again.size == len(source.division.rows[part])
    # Where all examples are in both splits there is nothing to keep.
    (tmp_path / "full").mkdir()
    splits.store(tmp_path / "full", data.load(DataConfig("image_folder", source=root, protocol="full", batch_size=1)))
    assert not list((tmp_path / "full").iterdir())


@pytest.mark.parametrize("form", ["npz", "json", "csv"])
def test_splits_of_the_users_own(tmp_path, form):
    given = {"train": [5, 3, 9, 17], "validation": [0, 1], "test": [2, 399]}
    path = tmp_path / f"splits.{form}"
    if form == "npz":
        np.savez(path, **given)
    elif form == "json":
        path.write_text(json.dumps({"train": given["train"], "val": given["validation"], "test": given["test"]}))
    else:
        lines = [f"{row},{part}" for part, held in given.items() for row in held]
        path.write_text("row,split\n" + "\n".join(lines) + "\n")
    file = saved(tmp_path, images=MANY, labels=LABELS)
    config = DataConfig("npz", source=file, splits=str(path), batch_size=1)
    for part, held in given.items():
        source = data.load(config, part)
        np.testing.assert_array_equal(source.arrays["image"][..., 0], MANY[sorted(held)])
        np.testing.assert_array_equal(source.arrays["label"], LABELS[sorted(held)])
        assert source.info.protocol == "data.splits"
        assert any("392 of 400 examples are in no split" in note for note in source.info.notes)


@pytest.mark.parametrize("form", ["npz", "json", "csv"])
def test_splits_of_a_folder_name_its_files(tmp_path, form):
    root = folder_of(tmp_path / "p", 12, depth=lambda i: "ab"[i % 2])
    given = {"train": ["a/000.png", "b/001.png", "a/010.png"], "test": ["b/003.png"]}
    path = tmp_path / f"splits.{form}"
    if form == "npz":
        np.savez(path, **{part: np.array(held) for part, held in given.items()})
    elif form == "json":
        path.write_text(json.dumps(given))
    else:
        path.write_text("path,split\n" + "".join(f"{n},{part}\n" for part, held in given.items() for n in held))
    source = data.load(DataConfig("image_folder", source=root, splits=str(path), batch_size=1), "train")
    np.testing.assert_array_equal(source.arrays["image"][..., 0], MANY[[0, 10, 1]])
    assert source.arrays["label"].tolist() == [0, 0, 1]
    assert source.info.sizes == {"train": 3, "test": 1}


BAD_SPLITS = {
    "out of range": ({"train": [0, 400], "test": [1]}, "train has row 400, but the rows are 0 to 399; remove it"),
    "negative": ({"train": [0, -1], "test": [1]}, "train has row -1"),
    "twice": ({"train": [0, 0], "test": [1]}, "row 0 is twice in train; list it once"),
    "two splits": ({"train": [0, 2], "test": [1, 2]}, "row 2 is in train and in test; list it once"),
    "empty": ({"train": [], "test": [1]}, "has nothing to train on; add the list train"),
    "no train": ({"test": [1]}, "has nothing to train on"),
    "another name": ({"train": [0], "tests": [1]}, "has a split tests; did you mean 'test'?"),
    "a mask": ({"train": [True, False], "test": [1]}, "train = numpy.flatnonzero(train)"),
    "names": ({"train": ["a.png"], "test": [1]}, "must be a list of row numbers from 0"),
    "floats": ({"train": [0.5], "test": [1]}, "holds float64"),
}


@pytest.mark.parametrize("case", BAD_SPLITS)
def test_a_file_of_splits_that_does_not_fit_is_refused(tmp_path, case):
    given, said = BAD_SPLITS[case]
    path = tmp_path / "s.json"
    path.write_text(json.dumps(given))
    assert said in refusal(split_file.read, str(path), 400)


def test_the_advice_about_files_of_splits_can_be_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, images=MANY)
    for text, mended in (
        ({"train": [0, 1, 2, 3, 400], "test": [4]}, {"train": [0, 1, 2, 3], "test": [4]}),
        ({"train": [0, 1, 2, 3, 4], "test": [4]}, {"train": [0, 1, 2, 3], "test": [4]}),
        ({"test": [4]}, {"train": [0, 1, 2, 3], "test": [4]}),
    ):
        (tmp_path / "s.json").write_text(json.dumps(text))
        shutil.rmtree("run", ignore_errors=True)
        assert train("--data", file, "--data.splits", "s.json", "--workdir", "run") == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
        assert not (tmp_path / "run").exists()
        (tmp_path / "s.json").write_text(json.dumps(mended))
        assert train("--data", file, "--data.splits", "s.json", "--workdir", "run") == 0
    for name in ("none.npz", "mine.txt"):
        (tmp_path / "mine.txt").touch()
        assert "data.splits" in refusal(split_file.read, name, 4)
    (tmp_path / "t.csv").write_text("file,split\na,train\n")
    assert "make it row,split" in refusal(split_file.read, "t.csv", 4)
    # No test split: the run is told so before it starts, and what is offered works.
    (tmp_path / "s.json").write_text(json.dumps({"train": [0, 1, 2, 3], "validation": [4]}))
    words = ["--data", file, "--data.splits", "s.json", "--workdir", "run2"]
    assert train(*words) == 2
    assert "use --evaluation.split validation" in capsys.readouterr().err
    assert train(*words, "--evaluation.split", "validation") == 0


def test_options_of_splits_are_refused_where_nothing_reads_them(tmp_path):
    file = saved(tmp_path / "a", images=MANY)
    own = saved(tmp_path / "b", train_images=MANY[:300], test_images=MANY[300:])
    (tmp_path / "s.json").write_text(json.dumps({"train": [0], "test": [1]}))
    given = str(tmp_path / "s.json")
    for options, said in (
        ({"name": "digits", "splits": given}, "data.splits: is read for your own files alone"),
        ({"name": "digits", "stratify": True}, "data.stratify: is read for your own files alone"),
        ({"name": "npz", "source": own, "splits": given}, "is not read; leave it out"),
        ({"name": "npz", "source": own, "stratify": True}, "use --data.stratify False"),
        ({"name": "npz", "source": file, "groups": "folder"}, "save an array groups [N]"),
        ({"name": "npz", "source": file, "stratify": True}, "has no labels; use --data.stratify False"),
        ({"name": "npz", "source": file, "splits": given, "protocol": "full"}, "use --data.protocol standard"),
        (
            {"name": "npz", "source": file, "stratify": True, "protocol": "full"},
            "use --data.protocol standard or held-out",
        ),
    ):
        assert said in refusal(data.load, DataConfig(batch_size=1, **options), "train")
    prepared = data.prepare("npz", file, str(tmp_path / "prepared"))
    line = refusal(data.load, DataConfig("npz", source=str(prepared.folder), splits=given), "train")
    assert "its splits were fixed when it was prepared" in line


# ---- groups


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("protocol", ["standard", "held-out"])
def test_no_group_is_in_two_splits(tmp_path, kind, protocol):
    groups = RNG.integers(0, 60, 400).astype(kind)
    file = saved(tmp_path, images=MANY, groups=groups)
    found = rows(file, protocol=protocol)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(400))
    sides = [set(groups[held].tolist()) for held in found.values()]
    assert sum(map(len, sides)) == len(set(groups.tolist()))
    # The hash of the group alone decides: other examples of it, and other groups, change nothing.
    more = saved(tmp_path / "more", images=255 - MANY, groups=np.where(np.arange(400) % 2, groups, kind(77)))
    for part, held in rows(more, protocol=protocol).items():
        kept = [row for row in held if row % 2]
        assert all(groups[row] in groups[found[part]] for row in kept)
    source = data.load(DataConfig("npz", source=file, protocol=protocol, batch_size=1), "train")
    assert "the hash is that of the group" in source.info.protocol_text
    assert "groups" not in source.arrays
    assert any("no group is in two splits; groups: train" in note for note in source.info.notes)


def test_groups_that_are_too_few_and_what_to_do(tmp_path):
    two = saved(tmp_path / "two", images=MANY, groups=np.arange(400) % 2)
    line = refusal(rows, two)
    assert "2 groups cannot be on 3 sides; use --data.protocol standard" in line
    found = rows(two, protocol="standard")
    assert [len(held) for held in found.values()] == [200, 200]
    one = saved(tmp_path / "one", images=MANY, groups=np.zeros(400, int))
    assert "1 group cannot be on 3 sides; remove the groups" in refusal(rows, one)
    assert list(rows(one, protocol="full")) == ["train", "test"]
    assert list(rows(saved(tmp_path / "none", images=MANY))) == ["train", "validation", "test"]
    drawn = saved(tmp_path / "drawn", images=MANY, groups=np.arange(400) // 4)
    assert "use --data.protocol standard or held-out" in refusal(rows, drawn, protocol="random-tenth")
    for bad, fix in ((np.ones(400), "groups.astype(int)"), (np.ones((400, 2), int), "one number or name per example")):
        assert fix in refusal(rows, saved(tmp_path / "bad", images=MANY, groups=bad))
    assert "3 groups for 400 images" in refusal(rows, saved(tmp_path / "few", images=MANY, groups=np.arange(3)))


def test_groups_in_memory_and_a_file_of_splits_that_crosses_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    groups = np.array([f"patient {i // 10}" for i in range(400)])
    config = vj.experiment("vae_digits", steps=1, **{"data.binarize": "none", "model.likelihood": "gaussian-learned"})
    run = vj.train_run(config, "run", data={"images": MANY, "groups": groups}, quiet=True)
    with np.load("run/splits.npz") as held:
        sides = [set(groups[held[part]]) for part in ("train", "validation", "test")]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]
    assert len(run.config.data.source) > 0
    (tmp_path / "s.json").write_text(json.dumps({"train": list(range(95)), "test": list(range(95, 110))}))
    file = saved(tmp_path, images=MANY, groups=groups)
    assert "group 'patient 9' is in train and test" in refusal(rows, file, splits="s.json")
    (tmp_path / "s.json").write_text(json.dumps({"train": list(range(90)), "test": list(range(90, 110))}))
    assert [len(held) for held in rows(file, splits="s.json").values()] == [90, 20]


def test_groups_of_a_folder(tmp_path):
    root = folder_of(tmp_path / "p", 60, depth=lambda i: f"{'ab'[i % 2]}/patient{i // 6}")
    config = DataConfig("image_folder", source=root, groups="folder", protocol="held-out", batch_size=1)
    source = data.load(config, "train")
    owner = [name.split("/")[1] for name in source.division.names]
    sides = [{owner[row] for row in held} for held in source.division.rows.values()]
    # A patient of both classes is one group.
    assert sum(map(len, sides)) == 10
    assert source.info.num_classes == 2
    table = tmp_path / "groups.csv"
    by_table = DataConfig("image_folder", source=root, groups=str(table), protocol="held-out", batch_size=1)
    table.write_text("path,group\n" + "".join(f"{n},{o}\n" for n, o in zip(source.division.names, owner, strict=True)))
    again = data.load(
        DataConfig("image_folder", source=root, groups=str(table), protocol="held-out", batch_size=1), "test"
    )
    for part, held in source.division.rows.items():
        np.testing.assert_array_equal(again.division.rows[part], held)
    lines = table.read_text().splitlines()
    table.write_text("\n".join(lines[:-1]) + "\n")
    missing = refusal(data.load, by_table, "train")
    assert f"add a line {lines[-1].split(',')[0]},GROUP" in missing
    table.write_text("\n".join([*lines, f"{lines[-1].split(',')[0]},other"]))
    assert "two groups" in refusal(
        data.load, DataConfig("image_folder", source=root, groups=str(table), batch_size=1), "train"
    )
    flat = folder_of(tmp_path / "flat", 12)
    line = refusal(data.load, DataConfig("image_folder", source=flat, groups="folder", batch_size=1), "train")
    assert "sort the images into CLASS/GROUP/" in line


# ---- shares of classes


@pytest.mark.parametrize("protocol", ["standard", "held-out"])
def test_each_class_is_held_out_in_the_same_share(tmp_path, protocol):
    file = saved(tmp_path, images=MANY, labels=LABELS)
    found = rows(file, stratify=True, protocol=protocol)
    for part in found.keys() - {"train"}:
        assert np.bincount(LABELS[found[part]]).tolist() == [20, 12, 7, 1]
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(400))
    # By hash order: those held out of a class are its lowest.
    hashes = split.pixel_hashes(MANY[..., None])
    assert all(hashes[found["test"]][LABELS[found["test"]] == 0] <= np.sort(hashes[:200])[19])
    text = data.load(DataConfig("npz", source=file, stratify=True, protocol=protocol), "train").info.protocol_text
    assert "tenths are those of each class" in text
    assert "moves no other" not in text
    alone = saved(tmp_path / "alone", images=MANY[:3], labels=np.arange(3))
    assert "use --data.stratify False" in refusal(rows, alone, stratify=True)


def cohort(seed=0, patients=200):
    """Returns groups and labels of visits: patients of very different numbers of visits, each mostly of one class."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), random.poisson(random.gamma(1, 10, patients)) + 1)
    kinds = [0.6, 0.3, 0.07, 0.03]
    main = random.choice(4, patients, p=kinds)
    return group, np.where(random.random(len(group)) < 0.7, main[group], random.choice(4, len(group), p=kinds))


@pytest.mark.parametrize("protocol", ["standard", "held-out"])
def test_whole_groups_are_held_out_with_the_share_of_each_class(tmp_path, protocol):
    group, labels = cohort()
    images = RNG.integers(0, 256, (len(group), 4, 4), dtype=np.uint8)
    file = saved(tmp_path, images=images, groups=group, labels=labels)
    found = rows(file, stratify=True, protocol=protocol)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(group)))
    assert sum(len(np.unique(group[held])) for held in found.values()) == 200
    total = np.bincount(labels)
    # By patients alone the shares are off by several times that.
    for part in found.keys() - {"train"}:
        np.testing.assert_allclose(np.bincount(labels[found[part]]) / total, 0.1, atol=0.03)
    plain = np.bincount(labels[rows(file, protocol=protocol)["test"]], minlength=4) / total
    assert abs(plain - 0.1).max() > 0.06
    # Neither the order of the rows nor that of the names decides.
    order = RNG.permutation(len(group))
    file = saved(tmp_path / "again", images=images[order], groups=group[order], labels=labels[order])
    again = rows(file, stratify=True, protocol=protocol)
    for part, held in found.items():
        assert set(order[again[part]]) == set(held)
    config = DataConfig("npz", source=file, stratify=True, protocol=protocol)
    info = data.load(config, "train").info
    assert "as near a tenth of each class as whole groups allow" in info.protocol_text
    assert re.search(r"no group is in two splits; groups: train 1\d\d, .*; of each class .* % in test", info.notes[0])


@pytest.mark.filterwarnings("ignore:The least populated class")
def test_groups_of_equal_shares_are_at_least_as_near_as_those_of_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold

    for seed in range(4):
        group, labels = cohort(seed, (40, 200, 400, 1000)[seed])
        hashes = np.random.default_rng(seed).integers(0, 2**63, group.max() + 1).astype(np.uint64)
        total = np.bincount(labels)

        def off(held, labels=labels, total=total):
            return np.square(np.bincount(labels[held], minlength=4) / total - 0.1).sum()

        folds = [test for _, test in StratifiedGroupKFold(10).split(labels, labels, group)]
        best = sorted(map(off, folds))[:2]
        mine = sorted(map(off, group_shares.sides(group, labels, hashes, 2)))
        assert all(a <= b + 1e-6 for a, b in zip(mine, best, strict=True))


@pytest.mark.parametrize("patients", [3, 4, 7, 15])
def test_few_groups_still_have_three_sides(patients):
    group, labels = np.repeat(np.arange(patients), 5), np.tile([0, 0, 0, 1, -1], patients)
    sides = group_shares.sides(group, labels, np.arange(patients, dtype=np.uint64), 2)
    held = [set(group[rows]) for rows in sides]
    assert all(held)
    assert not held[0] & held[1]
    assert len(held[0] | held[1]) < patients


def test_groups_and_shares_of_a_folder_and_of_a_table(tmp_path):
    root = folder_of(tmp_path / "p", 240, depth=lambda i: f"{'ab'[i % 6 == 0]}/patient{i // 6}")
    config = DataConfig("image_folder", source=root, groups="folder", stratify=True, protocol="held-out", batch_size=1)
    division = data.load(config, "train").division
    owner = np.array([name.split("/")[1] for name in division.names])
    label = np.array([name[0] for name in division.names])
    assert sum(len(set(owner[held])) for held in division.rows.values()) == 40
    assert [(label[division.rows[part]] == "b").sum() for part in ("test", "validation")] == [4, 4]
    (tmp_path / "t.csv").write_text(
        "who,kind,x\n" + "".join(f"{i // 6},{'ab'[i % 6 == 0]},{i / 7}\n" for i in range(240))
    )
    options = {"groups": "who", "stratify": True, "protocol": "held-out", "batch_size": 1}
    config = DataConfig("table", source=str(tmp_path / "t.csv"), table=data.Table(label="kind"), **options)
    held = data.load(config, "train").division.rows
    assert [(held[part] % 6 == 0).sum() for part in ("test", "validation")] == [4, 4]
    assert sum(len(set(found // 6)) for found in held.values()) == 40
    config = DataConfig("table", source=str(tmp_path / "t.csv"), **options)
    assert "has no labels; use --data.stratify False" in refusal(data.load, config, "train")


def test_a_run_whose_rows_may_have_moved_is_not_measured_as_held_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file = saved(tmp_path, images=MANY, labels=LABELS)
    assert train("--data", file, "--data.stratify", True, "--workdir", "run") == 0
    saved(tmp_path, images=MANY[10:], labels=LABELS[10:])
    assert command(["eval", "run"]) == 2
    assert "data.stratify holds out a tenth of each class" in capsys.readouterr().err
    saved(tmp_path, images=MANY, labels=LABELS)
    assert command(["eval", "run"]) == 0


@pytest.mark.slow
def test_a_split_by_rows_flatters_what_a_split_by_patients_measures(tmp_path, monkeypatch):
    """Each patient has a pattern of its own, which a model that saw the patient knows: the reason for groups."""
    from sklearn.datasets import load_digits

    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    patient = random.integers(0, 20, 800)
    marks = random.random((20, 8, 8)) < 0.3
    binary = (load_digits().images[:800] > 7.5) ^ marks[patient]
    options = {"model.latent_dim": 16, "model.network.hidden": (128,), "optimizer.lr": 3e-3, "mesh.data": 1}
    config = vj.experiment("vae_digits", steps=500, **options, **{"evaluation.k": ()})
    found = {}
    for name, arrays in (("rows", {}), ("patients", {"groups": patient})):
        run = vj.train_run(config, name, data={"images": binary, **arrays}, quiet=True)
        found[name] = vj.evaluate_run(run)["metrics"]["elbo"]
    gap = found["rows"]["value"] - found["patients"]["value"]
    assert gap > 5 * max(held["stderr"] for held in found.values())
