"""More than memory: an .npy read by rows gives what the same arrays in memory give, and a second start is quick."""

import contextlib
import dataclasses
import pickle
import re
import shlex

import jax
import numpy as np
import pytest
from options import cli

from vae_jax import data
from vae_jax.data import file_rows, folder_index, idx, index_cache, npz
from vae_jax.data.config import DataConfig
from vae_jax.data.fingerprint import fingerprint
from vae_jax.data.pipeline import make_batch_fn, make_transform
from vae_jax.data.stream import GrainStream
from vae_jax.errors import InputError

pytestmark = pytest.mark.usefixtures("command_line")  # whose words the messages below are

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (60, 6, 5, 2), dtype=np.uint8)
UNIT = (GRAY / 255).astype(np.float32)
HOLED = np.where(RNG.random(GRAY.shape) < 0.2, np.nan, UNIT * 2 - 1)
FILES = {
    "gray": GRAY,
    "square": RNG.integers(0, 256, (60, 6, 6), dtype=np.uint8),
    "bool": GRAY > 99,
    "big endian": GRAY.astype(">i4"),
    "float": UNIT,
    "double": GRAY / 255,
    "signed": UNIT * 2 - 1,
    "0..255": GRAY.astype(np.float32),
    "holed": HOLED,
    "holed unit": np.where(np.isnan(HOLED), np.nan, UNIT).astype(np.float32),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Gives every test a cache of its own, which keeps entries of files of any size."""
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(file_rows, "KEEP", 0)
    monkeypatch.setattr(file_rows, "_CHUNK", 700)
    yield tmp_path / "cache" / "index"
    file_rows._found.cache_clear()


def saved(tmp_path, images, name="mine.npy"):
    np.save(tmp_path / name, images)
    return tmp_path / name


def config(path, pipeline="grain", **options):
    return DataConfig("npz", str(path), pipeline=pipeline, **{"batch_size": 7} | options)


def forget():
    """Makes the next load like that of a new process."""
    file_rows._found.cache_clear()


@pytest.mark.parametrize("name", FILES)
def test_rows_from_the_file_are_the_rows_in_memory(tmp_path, name):
    path = saved(tmp_path, FILES[name])
    key = jax.random.key(3)
    for split in ("train", "test"):
        streamed, held = (data.load(config(path, pipeline), split) for pipeline in ("grain", "device"))
        assert (streamed.pipeline, streamed.arrays) == ("grain", {})
        assert dataclasses.asdict(streamed.info) == dataclasses.asdict(held.info)
        assert fingerprint(streamed) == fingerprint(held)
        index = np.array([2, 1, 1, 0, streamed.size - 1])
        for array, value in streamed.records.rows(index).items():
            assert value.dtype == held.arrays[array].dtype
            np.testing.assert_array_equal(value, held.arrays[array][index])
    # Epochs of training: the same order and the same noise.
    c = config(path, binarize="dynamic")
    streamed, held = data.load(c), data.load(config(path, "device"))
    fetch, apply = jax.jit(make_batch_fn(held, c)), jax.jit(make_transform(streamed, c))
    stream = GrainStream(streamed, c, key)
    for step in range(12):
        want, got = fetch(held.arrays, key, step), apply(key, next(stream))
        assert want.keys() == got.keys()
        for entry in want:
            np.testing.assert_array_equal(np.asarray(got[entry]), np.asarray(want[entry]))
    stream.close()


@pytest.mark.parametrize("protocol", ["full", "random-tenth"])
def test_other_protocols_and_a_limit(tmp_path, protocol):
    path = saved(tmp_path, UNIT)
    for limit in (None, 20):
        options = {"protocol": protocol, "limit": limit}
        streamed, held = (data.load(config(path, pipeline, **options)) for pipeline in ("grain", "device"))
        assert streamed.info == held.info
        assert fingerprint(streamed) == fingerprint(held)
        np.testing.assert_array_equal(streamed.records.rows(np.arange(20))["image"], held.arrays["image"][:20])


def test_large_files_are_read_by_rows_whatever_max_bytes_says(tmp_path, monkeypatch):
    path = saved(tmp_path, UNIT)
    assert data.load(config(path, "auto")).pipeline == "device"
    monkeypatch.setattr(npz, "DEVICE_BYTES", UNIT.nbytes - 1)
    assert data.load(config(path, "auto", max_bytes=1)).pipeline == "grain"
    # What is requested in memory is held there, or refused.
    assert data.load(config(path, "device")).pipeline == "device"
    with pytest.raises(InputError, match=r"more than the limit of 1; if it is yours, use --data\.max-bytes"):
        data.load(config(path, "device", max_bytes=1))


def test_records_go_to_reader_processes(tmp_path):
    records = data.load(config(saved(tmp_path, HOLED))).records
    again = pickle.loads(pickle.dumps(records))
    np.testing.assert_array_equal(again.rows(np.arange(9))["mask"], records.rows(np.arange(9))["mask"])
    assert len(pickle.dumps(records)) < 5000


def test_a_run_trains_on_a_file_and_encodes_it(tmp_path, monkeypatch, capsys):
    path = saved(tmp_path, RNG.random((60, 6, 5, 1)) * 2 - 1)
    run, codes = tmp_path / "run", tmp_path / "codes.npz"
    words = ["train", "vae_digits", "--data", path, "--data.pipeline", "grain", "--smoke", "--workdir", run]
    assert cli(*words, "--model.likelihood", "gaussian", "--data.batch-size", 8, "--mesh.data", 1) == 0
    assert "numbers from -1 to 1 are 0 to 1 to the model" in "".join(capsys.readouterr())
    monkeypatch.setattr(npz, "DEVICE_BYTES", 1)
    assert cli("encode", run, "--input", path, "--out", codes) == 0
    with np.load(codes) as held:
        assert held["mean"].shape[0] == 60
    streamed = np.load(codes)["mean"]
    monkeypatch.undo()
    assert cli("encode", run, "--input", path, "--out", codes) == 0
    np.testing.assert_array_equal(np.load(codes)["mean"], streamed)


# ---- the cached index


def unread(monkeypatch):
    """Makes reading a file through an error."""
    monkeypatch.setattr(file_rows, "_read", lambda *args: pytest.fail("the file was read through again"))


def test_a_second_start_reads_the_header_alone(tmp_path, cache, monkeypatch):
    path = saved(tmp_path, HOLED)
    first = data.load(config(path))
    sums = fingerprint(first)
    forget()
    with monkeypatch.context() as patch:
        unread(patch)
        again = data.load(config(path))
        patch.setattr(
            file_rows.FileRecords, "rows", lambda *args: {"image": HOLED[:1].astype("f4"), "mask": HOLED[:1] > 9}
        )
        assert fingerprint(again) == sums
    assert again.info == first.info
    for file in cache.glob("*"):  # nothing in it can run code
        with np.load(file, allow_pickle=False) as held:
            assert "made_of" in held.files
    # Another state of the file is read anew.
    saved(tmp_path, HOLED[::-1])
    forget()
    assert fingerprint(data.load(config(path))) != sums


def cut(file):
    file.write_bytes(file.read_bytes()[:-30])


def empty(file):
    file.write_bytes(b"")


def other(file):
    with np.load(file) as held:
        arrays = dict(held)
    first = next(name for name in arrays if name != "made_of")
    np.savez(file, **{**arrays, first: np.zeros(3, np.int8)})


@pytest.mark.parametrize("damage", [cut, empty, other])
def test_a_damaged_entry_is_made_again_without_a_word(tmp_path, cache, damage, capsys, monkeypatch):
    path = saved(tmp_path, UNIT)
    first = data.load(config(path))
    sums = fingerprint(first)
    files = list(cache.glob("*.npz"))
    assert len(files) == 2
    for file in files:
        damage(file)
    forget()
    again = data.load(config(path))
    assert again.info == first.info
    assert fingerprint(again) == sums
    assert capsys.readouterr() == ("", "")
    forget()
    unread(monkeypatch)
    data.load(config(path))


def test_a_cache_that_cannot_be_written_is_told_and_the_advice_works(tmp_path, monkeypatch):
    path = saved(tmp_path, UNIT)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "file"))
    source = data.load(config(path))
    (note,) = source.info.notes
    assert "cannot be kept in" in note
    assert "\n" not in note
    assert note.endswith("set VAE_JAX_CACHE to a folder that can be written")
    assert data.load(config(path), "test").size + source.size == 60
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "new" / "cache"))
    forget()
    assert not data.load(config(path)).info.notes
    forget()
    unread(monkeypatch)
    data.load(config(path))


def test_the_cache_is_where_downloads_are(monkeypatch, tmp_path):
    monkeypatch.delenv("VAE_JAX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert idx.cache_folder() == tmp_path / "vae_jax"
    assert index_cache._file("rows", tmp_path).parent == tmp_path / "vae_jax" / "index"


# ---- bad files


def refused(path, **options) -> str:
    with pytest.raises(InputError) as error:
        data.load(config(path, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_that_cannot_be_read_by_rows(tmp_path, monkeypatch):
    path = saved(tmp_path, UNIT)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert "bytes, but" in refused(path)
    path.write_bytes(whole + b"x")
    assert "follow; save it again" in refused(path)
    np.save(path, np.array([{}]), allow_pickle=True)
    assert "holds Python objects, which are not read" in refused(path)
    np.save(path, GRAY.astype("U3"))
    assert "has type <U3; save uint8" in refused(path)
    endless = UNIT.copy()
    endless[[31, 50], 2, 2, 0] = np.inf
    np.save(path, endless)
    assert "images has 2 infinite values, the first in row 31; if they are missing, save" in refused(path)
    np.save(path, np.full((9, 4, 4), np.nan))
    assert "every value is missing" in refused(path)
    np.save(path, UNIT * 7 - 3)
    assert "use --data.range -3 4" in refused(path)
    assert data.load(config(path, range=(-3.0, 4.0))).size > 1
    np.save(path, RNG.random((9, 8, 5)))
    assert "is 'series' data, which 'npz' does not read; use --data" in refused(path)


def test_fortran_order_is_turned_in_memory_or_by_the_line_in_the_message(tmp_path, monkeypatch):
    path = saved(tmp_path, np.asfortranarray(UNIT))
    want = data.load(config(saved(tmp_path, UNIT, "c.npy"))).info.sizes
    assert data.load(config(path)).info.sizes == want
    monkeypatch.setattr(npz, "DEVICE_BYTES", 1000)
    line = refused(path, pipeline="auto")
    assert "is in Fortran order" in line
    monkeypatch.chdir(tmp_path)
    expression = re.search(r"save (numpy\.save\(.*\)) and use (.*)", line)
    assert expression is not None
    eval(expression[1], {"numpy": np})
    assert shlex.split(expression[2]) == ["--data", "rows.npy"]
    assert data.load(config("rows.npy", "auto")).info.sizes == want


def test_a_file_that_changes_while_it_is_read(tmp_path):
    path = saved(tmp_path, UNIT)
    records = data.load(config(path)).records
    saved(tmp_path, UNIT[::-1])
    with pytest.raises(InputError, match=r"mine\.npy: changed while it was read; start again"):
        records.rows(np.arange(3))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(InputError, match="changed while it was read"):
        records.rows(np.arange(len(records)))
    path.unlink()
    with pytest.raises(InputError, match=r"cannot be read \(No such file or directory\); put it back"):
        records.rows(np.arange(3))


# ---- folders


def folder(tmp_path, n=24):
    from PIL import Image

    for i in range(n):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i:02d} é\n.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def indexed(monkeypatch):
    """Keeps the index of folders of any size, and forgets what this process knows of them."""
    monkeypatch.setattr(folder_index, "KEEP", 1)
    folder_index.forget()
    yield
    folder_index.forget()


def pictures_of(root, **options):
    return data.load(DataConfig("image_folder", str(root), batch_size=4, **options))


def test_a_second_start_reads_no_header_and_no_file(tmp_path, indexed, monkeypatch, cache):
    root = folder(tmp_path)
    first = pictures_of(root)
    folder_index.forget()
    with monkeypatch.context() as patch:
        for name in ("_hash", "pictures"):
            patch.setattr(folder_index, name, type("", (), {"hushed": contextlib.nullcontext})())
        again = pictures_of(root, pipeline="grain")
    assert again.info == first.info
    np.testing.assert_array_equal(again.records.rows(np.arange(9))["image"], first.arrays["image"][:9])
    # A picture that changes is looked at again, alone.
    changed = sorted(root.glob("a/*"))[0]
    from PIL import Image

    Image.fromarray(RNG.integers(0, 256, (9, 5, 3), dtype=np.uint8)).save(changed)
    looked = []
    header = folder_index.pictures.header
    folder_index.forget()
    monkeypatch.setattr(folder_index.pictures, "header", lambda path: (looked.append(path), header(path))[1])
    with pytest.raises(InputError, match="mixed image sizes"):
        pictures_of(root)
    assert looked == [changed]


def short(file):
    with np.load(file) as held:
        arrays = dict(held)
    np.savez(file, **{**arrays, "headers": arrays["headers"][:3]})


@pytest.mark.parametrize("damage", [cut, empty, other, short])
def test_a_damaged_index_of_a_folder_is_made_again(tmp_path, indexed, cache, damage, capsys):
    root = folder(tmp_path)
    first = pictures_of(root)
    (file,) = cache.glob("*.npz")
    whole = file.read_bytes()
    damage(file)
    folder_index.forget()
    assert pictures_of(root).info == first.info
    assert capsys.readouterr() == ("", "")
    assert len(file.read_bytes()) == len(whole)


def test_an_index_of_a_folder_that_cannot_be_kept_is_told(tmp_path, indexed, monkeypatch):
    root = folder(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "file"))
    (note,) = pictures_of(root).info.notes
    assert "cannot be kept in" in note
    assert "\n" not in note
    folder_index.forget()
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "other"))
    assert not pictures_of(root).info.notes


def test_large_files_are_read_in_threads_to_the_same_end(tmp_path, indexed, monkeypatch):
    root = folder(tmp_path)
    one = pictures_of(root)
    folder_index.forget()
    monkeypatch.setattr(folder_index, "LARGE", 1)
    monkeypatch.setenv("VAE_JAX_CACHE", str(tmp_path / "other"))
    many = pictures_of(root)
    np.testing.assert_array_equal(many.arrays["image"], one.arrays["image"])
    assert many.info == one.info
