"""`--data PATH`: what is picked for a path, what is refused, and that no option of the old data set lingers."""

import dataclasses
import gzip
import hashlib
import shlex

import numpy as np
import pytest
from PIL import Image

from vae_jax import data
from vae_jax.api import experiment
from vae_jax.cli import main
from vae_jax.cli.options import parse_config
from vae_jax.data import digits, idx, limit, mnist, pick
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.runs.config import Config
from vae_jax.runs.run import Run

IMAGES = digits.arrays()["image"][:60]


@pytest.fixture(autouse=True)
def _at_the_command_line():
    """Messages are read as somebody at the command line reads them."""
    with on_command_line():
        yield


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with data of every kind: photos/, x.npz, x.npy, prepared/, idx/."""
    root = tmp_path_factory.mktemp("user")
    for i, image in enumerate(IMAGES):
        path = root / "photos" / f"class_{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    np.savez(root / "x.npz", images=IMAGES)
    np.save(root / "x.npy", IMAGES)
    prepared = data.prepare("npz", str(root / "x.npz"), str(root / "tfds")).folder
    (root / "prepared").symlink_to(prepared)
    (root / "idx").mkdir()
    return root


@pytest.fixture
def inside(here, monkeypatch):
    monkeypatch.chdir(here)
    return here


def _refused(capsys, *argv: str) -> str:
    assert main.run(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("given", "name", "source"),
    [
        ("photos", "image_folder", "photos"),
        ("photos/", "image_folder", "photos/"),
        ("./photos", "image_folder", "./photos"),
        ("x.npz", "npz", "x.npz"),
        ("x.npy", "npz", "x.npy"),
        ("prepared", "npz", "prepared"),
        ("digits", "digits", None),
        ("sprites", "sprites", None),
    ],
)
def test_the_reader_is_picked_by_what_the_path_is(inside, given, name, source):
    base = Config()
    for config in (
        parse_config(base, ["--data", given, "--data.batch-size", "5"], "train"),
        parse_config(base, [f"--data={given}", "--data.batch-size", "5"], "train"),
        experiment("vae_digits", data=given, **{"data.batch_size": 5}),
    ):
        assert (config.data.name, config.data.source, config.data.batch_size) == (name, source, 5)
        assert data.load(config.data).info.name == name


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_told_apart_by_their_bytes(tmp_path, monkeypatch, name, zipped):
    array = np.arange(10, dtype=np.uint8)
    raw = idx.to_bytes(array)
    sums = dict(mnist.EDITIONS[name].sha256) | {"t10k-labels-idx1-ubyte": hashlib.sha256(raw).hexdigest()}
    monkeypatch.setitem(mnist.EDITIONS, name, dataclasses.replace(mnist.EDITIONS[name], sha256=sums))
    (tmp_path / f"t10k-labels-idx1-ubyte{'.gz' if zipped else ''}").write_bytes(gzip.compress(raw) if zipped else raw)
    assert pick.pick(str(tmp_path), data.DATASETS) == (name, str(tmp_path))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx.to_bytes(np.arange(9, dtype=np.uint8)))
    with pytest.raises(
        InputError, match=r"train-labels-idx1-ubyte is neither MNIST's nor Fashion-MNIST's .*copy"
    ) as error:
        pick.pick(str(tmp_path), data.DATASETS)
    np.savez(tmp_path / "data.npz", images=IMAGES, labels=np.arange(60))  # as the message says
    assert "--data data.npz" in str(error.value)
    assert pick.pick(str(tmp_path / "data.npz"), data.DATASETS)[0] == "npz"


def test_options_of_the_old_data_set_do_not_linger():
    old = DataConfig("mnist", protocol="vampprior", binarize="dynamic", batch_size=7, source="elsewhere")
    assert data.choose(old, "digits") == DataConfig("digits", binarize="dynamic", batch_size=7)
    sprites = DataConfig("sprites", image_size=64, protocol="full")
    assert data.choose(sprites, "digits") == DataConfig("digits")
    assert data.choose(sprites, "sprites") == sprites
    load = data.load(data.choose(sprites, "digits"))
    assert load.info.shape == (8, 8, 1)


def test_options_beside_data_come_on_top_of_it(inside):
    config = parse_config(Config(), ["--data.image-size", "4", "--data", "photos", "--data.batch-size", "9"], "train")
    assert (config.data.image_size, config.data.batch_size) == (4, 9)
    assert data.load(config.data).info.shape == (4, 4, 1)


def _fix(message: str) -> list[str]:
    """Returns the words after the last "use " of a message."""
    return shlex.split(message.rpartition("use ")[2])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["train", "beta_vae", "--data.source", "photos"],
            "photos is not read, because the examples of 'sprites'",
        ),
        (
            ["train", "vae_digits", "--data.source", "x.npz"],
            "x.npz is not read, because the examples of 'digits'",
        ),
        (
            ["train", "vae_mnist", "--data.source", "photos"],
            "photos is 'image_folder' data, which 'mnist' does",
        ),
        (
            ["train", "vae_digits", "--data.name", "npz", "--data.source", "photos"],
            "data, which 'npz' does",
        ),
        (
            ["train", "vae_digits", "--data.name", "image_folder", "--data.source", "x.npz"],
            "'npz' data, which",
        ),
    ],
)
def test_a_source_that_is_not_read_is_refused_and_the_fix_reads_it(inside, capsys, argv, message):
    line = _refused(capsys, *argv, "--workdir", "never")
    assert message in line
    assert not (inside / "never").exists()
    words = _fix(line)
    assert words[0] == "--data"
    assert data.load(parse_config(Config(), [*words, "--data.batch-size", "5"], "train").data).info.where == words[1]


def test_a_source_of_nothing_is_left_out(inside, capsys):
    line = _refused(capsys, "train", "vae_digits", "--data.source", "absent")
    assert line.endswith(
        "data.source: absent is not read, because the examples of 'digits' are embedded; leave it out\n"
    )
    with pytest.raises(InputError, match="are embedded; use --data photos"):
        data.load(DataConfig("digits", source="photos"))
    assert data.load(DataConfig("digits")).size == 1437


def test_a_prepared_folder_of_embedded_images_is_left_out_or_its_name_is_used(inside, tmp_path, capsys):
    folder = str(data.prepare("digits", None, str(tmp_path)).folder)
    line = _refused(capsys, "train", "vae_digits", "--data.source", folder, "--workdir", "never")
    assert line.endswith(f"{folder} is not read, because the examples of 'digits' are embedded; leave it out\n")
    assert data.load(parse_config(experiment("vae_digits"), [], "train").data).info.name == "digits"
    for experiment_, name in (("beta_vae", "sprites"), ("vae_mnist", "mnist"), ("vae_digits", "image_folder")):
        argv = ["--data.name", name, "--data.source", folder, "--data.protocol", "standard"]
        line = _refused(capsys, "train", experiment_, *argv, "--workdir", "never")
        assert line.endswith("; use --data digits\n")
        options = parse_config(Config(), [*_fix(line), "--data.batch-size", "5"], "train")
        assert data.load(options.data).info.name == "digits"
    assert not (inside / "never").exists()


def test_a_folder_of_images_is_not_searched_for_what_else_it_may_be(inside, monkeypatch):
    def never(given, datasets):
        raise AssertionError(f"{given} was searched")

    config = DataConfig("image_folder", source="photos", batch_size=5)
    monkeypatch.setattr(pick, "pick", never)
    assert data.load(config, "train").size + data.load(config, "test").size == 60
    with pytest.raises(AssertionError, match=r"x\.npz was searched"):
        data.load(dataclasses.replace(config, source="x.npz"))


def test_data_prepare_refuses_what_it_would_not_read(inside, capsys):
    line = _refused(capsys, "data", "prepare", "digits", "--from", "photos", "--data-dir", "out")
    assert "'digits' is embedded, so --from photos is not read; leave it out" in line
    line = _refused(capsys, "data", "prepare", "digits", "--image-size", "9", "--data-dir", "out")
    assert "the images of 'digits' have a fixed size; leave out --image-size" in line
    assert not (inside / "out").exists()


def test_data_prepare_says_what_it_does_not_read(here, tmp_path, capsys):
    for split in ("Train", "test"):
        for i in range(3):
            path = tmp_path / "scans" / split / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(IMAGES[i, ..., 0]).save(path)
    (tmp_path / "scans/test/x.gif").write_bytes(b"x")
    words = ["--from", str(tmp_path / "scans"), "--data-dir", str(tmp_path / "out")]
    assert main.run(["data", "prepare", "image_folder", *words]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  note: ")]
    assert [note.partition("scans")[2] or note for note in notes] == [
        "  note: split folders are recognized by name: Train as train",
        "/test: 1 file is not read (1 .gif); only .png, .jpg, .jpeg, .bmp, .webp, .tif, .tiff are images here",
    ]


def test_paths_that_are_not_data(inside, capsys, monkeypatch):
    def refused(given: str) -> str:
        return _refused(capsys, "train", "vae_digits", "--data", given).partition(f"--data {shlex.quote(given)}: ")[2]

    assert "did you mean 'photos'?" in refused("photo")
    assert "did you mean 'digits'?" in refused("digit")
    (inside / "table.xlsx").write_text("1,2\n")
    line = refused("table.xlsx")
    assert ".xlsx is not read, only a folder of images, an .npz or .npy file, a table (.csv, .parquet)" in line
    np.savez("table.npz", images=IMAGES)
    words = _fix(line)
    assert words == ["--data", "table.npz"]
    assert data.load(parse_config(Config(), [*words, "--data.batch-size", "5"], "train").data).size > 0
    (inside / "noext").write_text("x")
    assert "a file without extension is not read" in refused("noext")
    line = refused("photos/class_0/0.png")
    assert "is one image; name its folder: --data photos/class_0" in line
    assert pick.pick("photos/class_0", data.DATASETS)[0] == "image_folder"
    (inside / "idx/train-labels-idx1-ubyte").write_bytes(b"x")
    assert "is one IDX file; name the folder of all four: --data idx" in refused("idx/train-labels-idx1-ubyte")
    (inside / "empty").mkdir()
    said = "holds no images (.png, .jpg, .jpeg, .bmp, .webp, .tif, .tiff); name one of: a folder of images"
    assert said in refused("empty")
    (inside / "arrays").mkdir()
    np.savez("arrays/a.npz", images=IMAGES)
    line = refused("arrays")
    assert "holds no images, but a.npz" in line
    assert _fix(line) == ["--data", "arrays/a.npz"]
    line = refused("tfds")
    assert pick.pick(_fix(line)[1], data.DATASETS)[0] == "npz"


def test_a_name_that_is_also_a_folder_is_refused_and_both_ways_out_work(inside, capsys):
    (inside / "digits").symlink_to("photos")
    try:
        line = _refused(capsys, "train", "vae_digits", "--data", "digits")
        assert "use --data ./digits for what is here, or --data.name digits for the data set" in line
        assert parse_config(Config(), ["--data", "./digits"], "train").data.name == "image_folder"
        assert parse_config(Config(), ["--data.name", "digits"], "train").data.source is None
    finally:
        (inside / "digits").unlink()


def test_a_prepared_folder_of_others_or_of_embedded_data(inside, tmp_path, capsys):
    (tmp_path / "dataset_info.json").write_text('{"name": "mnist"}')
    with pytest.raises(InputError, match="holds the TFDS data set 'mnist', which vae-jax did not prepare; save its"):
        pick.pick(str(tmp_path), data.DATASETS)
    (tmp_path / "dataset_info.json").write_text("[")
    with pytest.raises(InputError, match=r"dataset_info.json is missing or damaged .*; prepare the data set again"):
        pick.pick(str(tmp_path), data.DATASETS)
    (tmp_path / "dataset_info.json").write_text('{"name": "vae_jax_digits"}')
    with pytest.raises(InputError, match=r"'digits' is embedded .*; use --data digits") as error:
        data.choose(DataConfig(), str(tmp_path))
    assert data.choose(DataConfig(), _fix(str(error.value))[1]).name == "digits"


def test_data_needs_a_value(capsys):
    for words in (["--data"], ["--data="], ["--data", "--steps", "3"]):
        assert "--data: needs a path or the name of a data set, as in --data digits" in _refused(
            capsys, "train", "vae_digits", *words
        )


def test_workers_that_read_nothing_are_said():
    source = data.load(DataConfig("digits", workers=2))
    assert source.info.notes == (
        "data.workers 2 is not used: the examples are in memory (--data.pipeline grain reads)",
    )
    assert data.load(DataConfig("digits", workers=2, pipeline="grain")).info.notes == ()


@pytest.fixture(scope="module")
def trained(here):
    """A run on a class folder with a file that is not read; and what training printed."""
    import contextlib
    import io
    import os

    (here / "photos/notes.txt").write_text("x")
    before, out = os.getcwd(), io.StringIO()
    os.chdir(here)
    try:
        with contextlib.redirect_stdout(out):
            words = ["--data", "photos", "--workdir", "run", "--smoke", "--mesh.data", "1"]
            assert main.run(["train", "vae_digits", *words]) == 0
    finally:
        os.chdir(before)
    return here / "run", out.getvalue()


def test_training_on_a_path_says_what_is_not_read_and_keeps_the_class_names(trained):
    path, out = trained
    assert "note: photos: 1 file is not read (1 .txt); only .png, .jpg" in out
    run = Run.load(path)
    assert (run.config.data.name, run.config.data.source) == ("image_folder", "photos")
    assert run.spec.label_names == ("class_0", "class_1")
    assert run.config.expected == {}


def test_input_folders_are_numbered_by_the_names_of_the_run(trained, inside, capsys, tmp_path):
    path, _ = trained
    one = tmp_path / "one"
    for i in range(3):
        (one / "class_1").mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[i, ..., 0]).save(one / f"class_1/{i}.png")
    (one / "b.gif").write_bytes(b"x")
    words = ["encode", str(path), "--input", str(one), "--out", str(tmp_path / "codes.npz")]
    assert main.run(words) == 0
    assert "note: " in (err := capsys.readouterr().err)
    assert "1 file is not read (1 .gif)" in err
    with np.load(tmp_path / "codes.npz") as stored:
        assert stored["labels"].tolist() == [1, 1, 1]
    (one / "class_1").rename(one / "zebra")
    line = _refused(capsys, *words)
    assert "the classes zebra are not among those of the run (class_0, class_1); rename their folders" in line
    (one / "zebra").rename(one / "class_0")
    assert main.run(words) == 0
    with np.load(tmp_path / "codes.npz") as stored:
        assert stored["labels"].tolist() == [0, 0, 0]


def test_a_run_whose_folder_lost_a_class_is_numbered_as_before(trained, inside, tmp_path):
    import shutil

    path, _ = trained
    shutil.copytree("photos", tmp_path / "photos")
    shutil.rmtree(tmp_path / "photos/class_0")
    run = Run.load(path)
    config = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, source=str(tmp_path / "photos")))
    assert set(dataclasses.replace(run, config=config).source("train").arrays["label"].tolist()) == {1}
    shutil.move(tmp_path / "photos/class_1", tmp_path / "photos/other")
    with pytest.raises(InputError, match=r"image_folder: the classes other are not among those of the run"):
        dataclasses.replace(run, config=config).source("test")


def test_input_images_of_another_size_are_brought_to_that_of_the_run(trained, inside, capsys, tmp_path):
    path, _ = trained
    for i, side in enumerate((8, 9, 12)):
        (tmp_path / "big").mkdir(exist_ok=True)
        Image.fromarray(np.full((side, side), 90 * i + 30, np.uint8)).save(tmp_path / f"big/{i}.png")
    words = ["encode", str(path), "--input", str(tmp_path / "big"), "--out", str(tmp_path / "codes.npz")]
    assert main.run(words) == 0
    assert "2 images are resized and cropped to 8x8" in capsys.readouterr().err
    with np.load(tmp_path / "codes.npz") as stored:
        resized = stored["mean"]
    np.save(tmp_path / "flat.npy", np.full((3, 8, 8), 1, np.uint8) * np.array([30, 120, 210], np.uint8)[:, None, None])
    assert main.run(["encode", str(path), "--input", str(tmp_path / "flat.npy"), *words[4:]]) == 0
    with np.load(tmp_path / "codes.npz") as stored:
        np.testing.assert_array_equal(resized, stored["mean"])


def test_a_sweep_reads_data_as_well(inside, capsys):
    from vae_jax.cli.sweep import read_plan
    from vae_jax.runs import experiments as index

    base = index.load(index.find("vae_digits"))
    plan = read_plan(base, "vae_digits", {"--seeds": ["0:2"]}, ["--data", "x.npz"], smoke=True)
    assert {member.config.data.source for member in plan.members} == {"x.npz"}
    assert {member.config.data.name for member in plan.members} == {"npz"}


def test_eval_limit_of_a_class_folder_measures_every_class_and_says_so(trained, inside, monkeypatch):
    from vae_jax.tasks.measuring import evaluate_run

    run, seen, batches = Run.load(trained[0]), [], Run.batches

    def spied(self, *args, **kwargs):
        for batch in batches(self, *args, **kwargs):
            seen.append(np.asarray(batch["index"]).tolist())
            yield batch

    monkeypatch.setattr(Run, "batches", spied)
    metrics = ("elbo", "mutual_information")  # of the evaluation itself, and of what measures share
    result = evaluate_run(run, metrics=metrics, split="train", limit=4, batch_size=4, write=False)
    source = run.source("train")
    rows = limit.rows(source, 4).tolist()
    assert seen == [rows, rows]
    assert set(source.arrays["label"][rows].tolist()) == {0, 1}
    protocol = result["protocol"]
    assert (protocol["n"], protocol["rows"]) == (4, "evenly spread, as the split is in the order of classes")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "xyz",
            r"no such file, folder or data set; known: cifar10, color_sprites, counts, digits, fashion_mnist, mnist, "
            "sprites, wine",
        ),
        ("/dev/zero", r"is neither a file nor a folder; name a folder of images"),
        ("scans", r"holds \.gif, \.heic files, which are not read; convert them to \.png"),
    ],
)
def test_what_leads_nowhere_is_not_offered(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for name in ("a.heic", "deep/b.gif", "notes.txt"):
        (tmp_path / "scans" / name).write_bytes(b"II*")
    monkeypatch.setattr("vae_jax.data.pick.KINDS", "a folder of images")
    with pytest.raises(InputError, match=said):
        data.choose(DataConfig("digits"), given)
