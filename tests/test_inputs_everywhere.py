"""The user's own pictures in every command: several files, file and class names, tables, folders of PNG files."""

import dataclasses
import os
import re
import shlex

import jax
import numpy as np
import pytest
import support
from options import arrays, close, done, make, mean_codes, tiny
from PIL import Image

import vae_jax as vj
from vae_jax import data
from vae_jax.cli import main
from vae_jax.data.config import DataConfig
from vae_jax.evaluation import latents
from vae_jax.evaluation.codes import Codes
from vae_jax.figures.folder import save_folder
from vae_jax.models import VAE
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.tasks import sampling

D = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make(tmp_path_factory.mktemp("runs") / "vae", tiny(), (4,))


@pytest.fixture(scope="module")
def labeled(tmp_path_factory):
    """A run conditioned on the label."""
    config = tiny(VAE(D, MLP((8,)), condition=Condition("label")))
    return make(tmp_path_factory.mktemp("runs") / "label", config, (4,))


@pytest.fixture(scope="module")
def gone(tmp_path_factory):
    """A run whose data are no longer there."""
    folder = tmp_path_factory.mktemp("gone")
    np.savez(folder / "mine.npz", images=np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8))
    options = {"data.name": "npz", "data.source": str(folder / "mine.npz"), "data.protocol": "full"}
    make(folder / "run", tiny(**options), (4,))
    (folder / "mine.npz").unlink()
    return vj.Run.load(folder / "run")


@pytest.fixture
def pictures(tmp_path, run):
    """Writes test images 0 to 3 as pictures, and one of another size; returns the folder and the arrays."""
    x = np.rint(255 * np.asarray(run.examples("test", np.arange(4))["x"])[..., 0]).astype(np.uint8)
    (tmp_path / "mine").mkdir()
    for name, pixels in zip("dbca", x):
        Image.fromarray(pixels).save(tmp_path / "mine" / f"{name}.png")
    return tmp_path / "mine", x


def error(capsys, *words, code=2):
    capsys.readouterr()
    assert main.run([str(word) for word in words]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == (1 if code else 0), said
    return said.removeprefix("vae-jax: ").strip()


# ---- several files


def test_several_files_are_read_in_their_order_and_brought_to_one_size(run, pictures, tmp_path):
    folder, x = pictures
    Image.fromarray(x[3].repeat(3, 0).repeat(3, 1)).save(tmp_path / "large.png")
    files = [folder / "c.png", tmp_path / "large.png", folder / "d.png", folder / "c.png"]
    held = arrays("encode", run.path, "--input", *files, out=tmp_path / "c.npz")
    close(held["mean"][[0, 2, 3]], mean_codes(run, run.restore(), "test", [2, 0, 2]))
    assert held["paths"].tolist() == ["mine/c.png", "large.png", "mine/d.png", "mine/c.png"]
    close(held["mean"][1], vj.encode(run, tmp_path / "large.png").mean[0])
    found = vj.encode(run, files)
    np.testing.assert_array_equal(found.mean, held["mean"])
    one = vj.encode(run, [files[0]])
    assert one.paths == ("c.png",)


def test_a_run_of_pictures_converts_several_files_as_its_own(run, tmp_path):
    (tmp_path / "own").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(tmp_path / "own" / f"{i:02}.png")
    config = DataConfig("image_folder", str(tmp_path / "own"), 8, "full", image_size=8, channels="grey", fit="pad")
    mine = make(tmp_path / "run", tiny(data=config), (4,))
    files = sorted((tmp_path / "own").iterdir())
    several, whole = vj.encode(mine, files[::-1]), vj.encode(mine, tmp_path / "own")
    close(several.mean[::-1], whole.mean)
    assert several.paths[::-1] == whole.paths == tuple(f"{i:02}.png" for i in range(12))


@pytest.mark.parametrize("command", ["encode", "reconstruct", "eval"])
def test_the_run_may_follow_the_inputs(command, run, pictures, tmp_path):
    out = tmp_path / ("e.json" if command == "eval" else "o.npz")
    done(command, "--input", pictures[0] / "a.png", pictures[0] / "b.png", run.path, "--out", out)
    if command != "eval":
        with np.load(out) as held:
            assert len(held["index"]) == 2


# ---- codes with names, and as a table


@pytest.fixture
def classes(tmp_path, run):
    """Writes test images into folders by class, and returns the folder."""
    batch = run.examples("test", np.arange(6))
    for i, (x, label) in enumerate(zip(np.asarray(batch["x"]), np.asarray(batch["label"]))):
        (tmp_path / "classes" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.rint(255 * x[..., 0]).astype(np.uint8)).save(tmp_path / f"classes/{label}/{i}.png")
    return tmp_path / "classes"


def test_codes_carry_files_and_classes_and_come_back_from_a_table(labeled, classes, tmp_path):
    held = arrays("encode", labeled.path, "--input", classes, out=tmp_path / "c.npz")
    files = sorted(path.relative_to(classes) for path in classes.rglob("*.png"))
    assert held["paths"].tolist() == [str(file) for file in files]
    assert held["label_names"][held["labels"]].tolist() == [file.parts[0] for file in files]
    done("encode", labeled.path, "--input", classes, "--out", tmp_path / "c.csv")
    lines = [line.split(",") for line in (tmp_path / "c.csv").read_text().splitlines()]
    names = [f"{name}_{i}" for name, count in (("z", D), ("std", D), ("cond", 10)) for i in range(count)]
    assert lines[0] == ["path", "label", *names]
    assert [line[:2] for line in lines[1:]] == [[str(file), file.parts[0]] for file in files]
    numbers = np.array([line[2:] for line in lines[1:]], np.float64)
    np.testing.assert_array_equal(numbers[:, :D].astype(np.float32), held["mean"])
    np.testing.assert_allclose(numbers[:, D : 2 * D], np.exp(held["log_var"] / 2), rtol=1e-6)
    # Bit for bit: the table has all digits of the codes and of their condition.
    a, b = (
        arrays("decode", labeled.path, "--input", tmp_path / f"c.{s}", out=tmp_path / "x.npz") for s in ("npz", "csv")
    )
    np.testing.assert_array_equal(a["images"], b["images"])


def test_a_table_whose_columns_are_in_another_order_is_read_by_their_names(run, tmp_path):
    (tmp_path / "c.csv").write_text("z_2,note,z_0,z_1\n3,a b,1,2\n\n6,,4,5\n")
    images = arrays("decode", run.path, "--input", tmp_path / "c.csv", out=tmp_path / "x.npz")["images"]
    close(images, vj.decode(run, np.array([[1, 2, 3], [4, 5, 6]], np.float32)))


def test_names_of_files_that_are_no_text_come_through(run, pictures, tmp_path):
    folder = pictures[0]
    strange = os.path.join(os.fsencode(folder), b'e \xff,".png')
    os.rename(folder / "d.png", strange)
    done("encode", run.path, "--input", folder, "--out", tmp_path / "c.csv")
    assert b'"e \xff,"".png"' in (tmp_path / "c.csv").read_bytes()
    arrays("decode", run.path, "--input", tmp_path / "c.csv", out=tmp_path / "x.npz")


# ---- folders of PNG files


def test_samples_of_a_class_are_read_back_as_a_folder_of_data(labeled, tmp_path):
    out = tmp_path / "made"
    done("sample", labeled.path, "--label", 9, "--n", 500, "--out", f"{out}/")
    done("sample", labeled.path, "--label", 3, "--n", 2, "--out", f"{out}/")
    assert sorted(path.name for path in (out / "9").iterdir()) == [f"{i:05}.png" for i in range(500)]
    config = DataConfig("image_folder", str(out), 1, "full")
    source = data.load(config, "train")
    assert source.info.label_names == ("3", "9")
    rows = np.flatnonzero(source.arrays["label"] == 1)
    read = source.arrays["image"][rows] / 255
    assert read.shape == (500, 8, 8, 1)
    np.testing.assert_allclose(read, vj.sample(labeled, 500, label=9), atol=0.5 / 255 + 1e-6)


def test_reconstructions_codes_and_paths_go_into_folders(run, pictures, tmp_path):
    folder, _ = pictures
    done("reconstruct", run.path, "--input", folder, "--out", f"{tmp_path}/rec/")
    names = [path.name for path in sorted((tmp_path / "rec").iterdir())]
    assert names == [f"0000{i}_{name}.png" for i, name in enumerate("abcd")]
    assert_pixels(tmp_path / "rec", vj.reconstruct(run, folder))
    done("encode", run.path, "--input", folder, "--out", tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    done("decode", run.path, "--input", tmp_path / "c.csv", "--out", tmp_path / "empty")  # a folder, without /
    assert_pixels(tmp_path / "empty", vj.reconstruct(run, folder))
    done("interpolate", run.path, "--input", folder, "--steps", 3, "--out", f"{tmp_path}/way/")
    names = [path.name for path in sorted((tmp_path / "way").iterdir())]
    assert names == [f"00{row}_00{column}.png" for row in range(3) for column in range(3)]
    assert_pixels(tmp_path / "way", vj.interpolate(run, x=folder, steps=3).images.reshape(9, 8, 8, 1))


def assert_pixels(folder, images):
    read = [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
    np.testing.assert_allclose(np.stack(read) / 255, images[..., 0], atol=0.5 / 255 + 1e-6)


def test_a_folder_that_holds_something_is_left_alone_and_the_advice_works(run, tmp_path, capsys):
    for name in ("made", "made-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("mine")
    said = error(capsys, "sample", run.path, "--n", 2, "--out", f"{tmp_path}/made/")
    assert re.match(r"--out: .*made holds 1 files already, and nothing is overwritten; use .*made-3/, say$", said)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["mine.txt"]
    done("sample", run.path, "--n", 2, "--out", said.split("use ")[1].removesuffix(", say"))
    assert len(list((tmp_path / "made-3").iterdir())) == 2
    (tmp_path / "file").write_text("x")
    assert "file is a file" in error(capsys, "sample", run.path, "--n", 2, "--out", f"{tmp_path}/file/")
    assert "make it first" in error(capsys, "sample", run.path, "--n", 2, "--out", f"{tmp_path}/no/where/")
    said = error(capsys, "sample", run.path, "--n", 2, "--out", tmp_path / "samples")
    assert said.endswith(
        "no extension; end it with .png, .pdf, .svg, .npz or .npy, or with / for a folder of PNG files"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "made", "made-2", "made-3"]


def test_a_full_folder_is_seen_before_any_work_and_again_before_anything_is_written(run, tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine.txt").write_text("mine")
    with pytest.raises(vj.InputError, match="holds 1 files already"):
        save_folder(np.zeros((1, 2, 2, 1)), tmp_path / "made")
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "samples", lambda *args, **options: pytest.fail("images were drawn"))
        assert main.run(["sample", str(run.path), "--out", f"{tmp_path}/made/"]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "mine.txt"]


def test_images_of_two_channels_go_into_arrays(tmp_path, capsys):
    np.savez(tmp_path / "two.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 2), dtype=np.uint8))
    two = make(tmp_path / "run", tiny(data=DataConfig("npz", str(tmp_path / "two.npz"), 8, "full")), (4,))
    said = error(capsys, "sample", two.path, "--n", 2, "--out", f"{tmp_path}/made/")
    assert said == "--out: PNG files hold images of 1 or 3 channels, not images of 2 channels; end --out with .npz"
    assert not (tmp_path / "made").exists()
    assert arrays("sample", two.path, "--n", 2, out=tmp_path / "made.npz")["images"].shape == (2, 8, 8, 2)


# ---- figures


def test_unused_dimensions_are_counted_and_not_drawn():
    rng = np.random.default_rng(0)
    codes = Codes(rng.normal(size=(9, 5)).astype(np.float32), np.zeros((9, 5), np.float32), None, np.arange(9), {})
    walk = latents.walk(codes, [0.2, 0.009, 3.0, 0.0, np.nan])
    assert walk.dims.tolist() == [2, 0, 4]  # what is no number is shown
    assert walk.words_for_unused == "2 dimensions with a KL below 0.01 nats not drawn"
    assert latents.walk(codes, [0.2, 0.009, 3.0, 0.0, 0.01], rows=1).unused == 2
    chosen = latents.walk(codes, [0.2, 0.009, 3.0, 0.0, 0.5], dims=(3, 1))
    assert (chosen.dims.tolist(), chosen.unused, chosen.words_for_unused) == ([3, 1], 0, "")
    assert latents.walk(codes, [0.001, 0.002, 0, 0, 0]).dims.tolist() == [1]  # of none the largest
    assert latents.walk(codes, None).dims.shape == (5,)
    blocks = latents.walk(codes, [0.001, 0.5], blocks=(3, 2))
    assert (blocks.dims.tolist(), blocks.words_for_unused) == ([1], "1 dimension with a KL below 0.01 nats not drawn")


def test_a_collapsed_run_is_said_in_one_line(tmp_path, capsys):
    # Without weights q(z|x) is the prior, whatever x is.
    run = make(tmp_path / "run", tiny(VAE(D, MLP((8,)))), (2,))
    state = run.init()
    support.checkpoint(run, 4, dataclasses.replace(state, params=jax.tree.map(lambda v: 0 * v, state.params)))
    out = tmp_path / "t.npz"
    assert arrays("traverse", run.path, out=out)["dims"].tolist() == [0]
    assert "2 dimensions with a KL below 0.01 nats not drawn; name dimensions with --dims" in capsys.readouterr().out
    assert arrays("traverse", run.path, "--dims", 2, 1, out=out)["dims"].tolist() == [2, 1]
    assert "not drawn" not in capsys.readouterr().out


# ---- Python


def test_python_takes_arrays_paths_and_lists(run, pictures):
    folder, x = pictures
    files = [folder / f"{name}.png" for name in "dbca"]
    path = vj.interpolate(run, x=files, steps=2)
    assert path.names == tuple(f"{name}.png" for name in "dbca")
    close(vj.interpolate(run, x=x, steps=2).codes, path.codes)
    close(path.ends[:, 0], x[:3, ..., None] / 255)
    walk = vj.traverse(run, (0,), x=x[:1])
    close(walk.walk.codes[0, 0, 1:], mean_codes(run, run.restore(), "test", [0])[0, 1:])
    found = vj.evaluate_run(run, x, metrics=("mse",))
    assert (found["data"], found["protocol"]["n"]) == ("arrays", 4)
    assert not (run.path / "eval.json").exists()
    with pytest.raises(vj.InputError, match=r"indices=\(1, 2\): is not used with x, whose examples are all taken"):
        vj.reconstruct(run, x, indices=(1, 2))
    with pytest.raises(vj.InputError, match=r"indices=\(4, 5\): is not used with x"):
        vj.interpolate(run, (4, 5), x=x)
    with pytest.raises(
        vj.InputError, match="x: holds 4 examples, but a traversal starts from one; name it with index=0"
    ):
        vj.traverse(run, x=x)
    with pytest.raises(vj.InputError, match="index: 4 is out of range; x holds 4 examples, 0 to 3"):
        vj.traverse(run, x=x, index=4)


def test_commands_read_pictures_without_the_runs_data(gone, pictures, tmp_path):
    folder, _ = pictures
    done("traverse", gone.path, "--input", folder / "a.png", "--out", tmp_path / "t.png")
    done("interpolate", gone.path, "--input", folder, "--out", tmp_path / "i.png")
    done("reconstruct", gone.path, "--input", folder, "--out", tmp_path / "r.png")
    done("eval", gone.path, "--input", folder, "--metrics", "elbo,iw_5", "--out", tmp_path / "e.json")


# ---- bad input


BAD = {
    "missing": ("reconstruct {run} --input {tmp}/nix.png --out {tmp}/o.png", "no such file"),
    "missing of several": (
        "reconstruct {run} --input {pics}/a.png {tmp}/nix.png --out {tmp}/o.png",
        "nix.png: no such",
    ),
    "text of several": ("interpolate {run} --input {pics}/a.png {tmp}/notes.txt --out {tmp}/o.png", "is no image"),
    "folder of several": ("interpolate {run} --input {pics}/a.png {pics} --out {tmp}/o.png", "is no image; of several"),
    "no picture": ("reconstruct {run} --input {tmp}/empty --out {tmp}/o.png", "holds no images"),
    "no picture to measure": ("eval {run} --input {tmp}/empty --out {tmp}/o.json", "holds no images"),
    "size": ("interpolate {run} --input {tmp}/wide.npy --out {tmp}/o.png", "resize them to 8x8"),
    "size to measure": ("eval {run} --input {tmp}/wide.npy", "resize them to 8x8"),
    "split": ("reconstruct {run} --input {pics} --split test --out {tmp}/o.png", "--split test: is not used"),
    "split of several": (
        "reconstruct {run} --input {pics}/a.png {pics}/b.png --split test --out {tmp}/o.png",
        "--split test: is not used, for single images hold no splits; leave it out",
    ),
    "indices": (
        "reconstruct {run} --input {pics} --indices 1 2 --out {tmp}/o.png",
        "--indices 1 2: is not used with --in",
    ),
    "pairs": (
        "interpolate {run} --input {pics} --indices 1 2 --out {tmp}/o.png",
        "--indices 1 2: is not used with --inp",
    ),
    "n": ("reconstruct {run} --input {pics} --n 5 --out {tmp}/o.png", "--n 5: is not used; leave it out"),
    "one": ("interpolate {run} --input {pics}/a.png --out {tmp}/o.png", "holds 1 example, but a path goes from one to"),
    "several to start": ("traverse {run} --input {pics} --out {tmp}/o.png", "holds 4 examples, but a traversal starts"),
    "index": (
        "traverse {run} --input {pics} --index 4 --out {tmp}/o.png",
        "--index: 4 is out of range; --input holds 4",
    ),
    "no value": ("traverse {run} --out {tmp}/o.png --input", "--input: needs a path or the name of a data set"),
    "no value before": ("traverse {run} --input --out {tmp}/o.png", "--input: needs a path or the name of a data set"),
    "own file": ("eval {run} --input {pics} --out {run}/eval.json", "holds the numbers of the run's own data"),
    "draws": (
        "encode {run} --input {pics} --draw True --out {tmp}/o.csv",
        "--draw True: is not used by a .csv of means",
    ),
    "dpi": ("sample {run} --n 2 --dpi 50 --out {tmp}/o/", "--dpi 50: is not used; end --out with .png, .pdf, .svg"),
    "low dpi": ("sample {run} --n 2 --dpi 5 --out {tmp}/o.png", "--dpi: 5 is out of range; it must be in [10, 1200]"),
    "table": ("decode {run} --input {tmp}/none.csv --out {tmp}/o.npz", "has no columns z_0, z_1, ..."),
    "gap": ("decode {run} --input {tmp}/gap.csv --out {tmp}/o.npz", "are not z_0 to z_1, each once"),
    "text": ("decode {run} --input {tmp}/text.csv --out {tmp}/o.npz", "z_1 of line 3 is 'x', not a number"),
    "short": ("decode {run} --input {tmp}/short.csv --out {tmp}/o.npz", "z_2 of line 2 is missing, not a number"),
    "no row": ("decode {run} --input {tmp}/bare.csv --out {tmp}/o.npz", "has no row"),
    "width": ("decode {run} --input {tmp}/width.csv --out {tmp}/o.npz", "has codes of width 2, but those of the model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_nothing_is_written(case, run, pictures, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 8, 1), np.uint8))
    for name, text in {
        "notes.txt": "x",
        "none.csv": "path,label\na,b\n",
        "gap.csv": "z_0,z_2\n1,2\n",
        "text.csv": "z_0,z_1,z_2\n1,2,3\n1,x,3\n",
        "short.csv": "z_0,z_1,z_2\n1,2\n",
        "bare.csv": "z_0,z_1,z_2\n",
        "width.csv": "z_0,z_1\n1,2\n",
    }.items():
        (tmp_path / name).write_text(text)
    before = sorted([*tmp_path.rglob("*"), *run.path.rglob("*")])
    words, said = BAD[case]
    places = {"run": run.path, "tmp": tmp_path, "pics": pictures[0]}
    assert said in error(capsys, *shlex.split(words.format(**places)))
    assert sorted([*tmp_path.rglob("*"), *run.path.rglob("*")]) == before


@pytest.mark.parametrize("case", ["split", "split of several", "indices", "pairs", "n"])
def test_leaving_out_what_excludes_the_pictures_works(case, run, pictures, tmp_path):
    words = shlex.split(BAD[case][0].format(run=run.path, tmp=tmp_path, pics=pictures[0]))
    at = next(i for i, word in enumerate(words) if word in ("--split", "--indices", "--n"))
    end = next(i for i in range(at + 1, len(words)) if words[i].startswith("--"))
    done(*words[:at], *words[end:])
    assert (tmp_path / "o.png").is_file()
