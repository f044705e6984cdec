"""Attacks by data from elsewhere: code to run, files to open, memory to fill."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vae_jax import data
from vae_jax.api import experiment
from vae_jax.data import idx, prepared, record_files
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError, on_command_line
from vae_jax.evaluation import features
from vae_jax.files import bounded
from vae_jax.tasks import codes, training

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (60, 8, 8), dtype=np.uint8)
LABELS = np.arange(60) % 3


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("original")
    arrays = {
        "images": GRAY / 255,
        "labels": LABELS,
        "factors": np.stack([LABELS, LABELS], 1),
        "cond": GRAY[:, 0] / 1.0,
    }
    np.savez(root / "mine.npz", **arrays)
    return Path(data.prepare("npz", str(root / "mine.npz"), str(root / "tfds")).folder)


@pytest.fixture
def folder(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "prepared"))


def load(folder, split="train", **options):
    return data.load(DataConfig("npz", source=str(folder), batch_size=1, **options), split)


def edit(path, change):
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))


def refused(call, *words):
    """Returns the one line that a call is refused with, having taken less than 64 MiB of Python's memory."""
    tracemalloc.start()
    try:
        with on_command_line(), pytest.raises(InputError) as error:
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    line = str(error.value)
    assert "\n" not in line
    assert peak < 64 << 20
    for word in words:
        assert word in line, line
    return line


# Code to run.


def test_a_prepared_folder_names_no_class_that_is_imported(folder, tmp_path):
    """TFDS imports the module that features.json names: here one that leaves a file behind."""
    (tmp_path / "foreign.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Tensor: pass\n")
    text = (folder / "features.json").read_text()
    for name in ("tensor_feature.Tensor", "scalar.Scalar", "features_dict.FeaturesDict"):
        text = text.replace(f"tensorflow_datasets.core.features.{name}", "foreign.Tensor")
    (folder / "features.json").write_text(text)
    edit(folder / "dataset_info.json", lambda info: info.update(moduleName="foreign"))
    script = f"""
import numpy as np
from vae_jax import data
for pipeline in ("device", "grain"):
    for split in ("train", "test"):
        source = data.load(data.DataConfig("npz", source={str(folder)!r}, batch_size=2, pipeline=pipeline), split)
        source.records.rows(np.arange(2))
data.prepare("npz", {str(tmp_path / "mine.npz")!r}, {str(tmp_path / "tfds")!r})
"""
    # The folder also where `prepare` would write.
    np.savez(
        tmp_path / "mine.npz", images=GRAY / 255, labels=LABELS, factors=np.stack([LABELS, LABELS], 1),
        cond=GRAY[:, 0] / 1.0,
    )  # fmt: skip
    shutil.copytree(folder, tmp_path / "tfds" / "vae_jax_npz" / "mine" / prepared.VERSION)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_names_in_a_prepared_folder_open_no_file_outside_it(folder, tmp_path):
    info = folder / "dataset_info.json"
    before = info.read_text()
    for name in ("../../etc/passwd", "vae_jax_../../etc/passwd", "vae_jax_", "mnist", 7, None, ["vae_jax_npz"]):
        edit(info, lambda stored, name=name: stored.update(name=name))
        refused(lambda: load(folder), "which vae-jax did not prepare", "--data FILE.npz")
    info.write_text(before)

    # Templates of file names and shards are not read: the files are found by the data set's name.
    def elsewhere(stored):
        for split in stored["splits"]:
            split.update(filepathTemplate="../../../../etc/passwd", shardLengths=["999999999"])

    edit(info, elsewhere)
    assert load(folder).size + load(folder, "test").size == 60
    edit(folder / "metadata.json", lambda facts: facts["sizes"].update({"../../etc/passwd": 1}))
    refused(lambda: load(folder), "metadata.json is missing or damaged (its sizes)")


def test_pickles_are_refused_everywhere(tmp_path):
    objects = np.array([{"a": 1}, None], object)
    np.savez(tmp_path / "x.npz", images=objects, real=objects, generated=objects, mean=objects)
    np.save(tmp_path / "x.npy", objects)
    for name in ("x.npz", "x.npy"):
        path = tmp_path / name
        refused(lambda path=path: load(path), "holds Python objects", "numpy.stack(images)")
        refused(lambda path=path: codes.open_arrays(path), f"--input {path}", "Python objects")
    refused(lambda: features.read(tmp_path / "x.npz"), "--features", "Python objects")


# Memory to fill.


def header(shape, dtype="|u1"):
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                for part in content:
                    member.write(part)


CLAIM = (40_000_000, 32, 32, 1)  # 40 GB


def test_an_npz_that_claims_40_gigabytes_in_2_kilobytes(tmp_path):
    zipped(tmp_path / "x.npz", {"images": [header(CLAIM), bytes(1500)]})
    np.save(tmp_path / "x.npy", GRAY)
    (tmp_path / "x.npy").write_bytes(header(CLAIM) + bytes(1500))
    for name in ("x.npz", "x.npy"):
        assert (tmp_path / name).stat().st_size < 2048
        refused(lambda name=name: load(tmp_path / name), "means 40,960,000,000 bytes, but 1,500 follow; save it again")
        # Whatever the limit: the claim is false.
        refused(lambda name=name: load(tmp_path / name, max_bytes=1 << 40), "but 1,500 follow")
    # The table of contents claims it too.
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    size = len(header(CLAIM)) + 1500
    wrong = struct.pack("<I", 0xFFFFFFF0)
    raw = raw.replace(struct.pack("<I", size), wrong).replace(struct.pack("<Q", size), struct.pack("<Q", 40 << 30))
    (tmp_path / "x.npz").write_bytes(raw)
    refused(lambda: load(tmp_path / "x.npz"), "claims 4,294,967,280 bytes in", "more than can be; save it again")


def test_an_npz_bomb_is_refused_by_its_size_and_the_option_lets_it_in(tmp_path):
    shape = (6_000, 32, 32, 1)  # the 6 GB in 5.6 MB of the report, a thousandth of it

    def content():
        yield header(shape)
        for i in range(6):
            yield bytes(1_024_000) if i else bytes([255]) + bytes(1_023_999)

    zipped(tmp_path / "x.npz", {"images": content()})
    assert (tmp_path / "x.npz").stat().st_size < 10_000
    line = refused(
        lambda: load(tmp_path / "x.npz", max_bytes=6_000_000, protocol="full"),
        "array 'images': takes 6,144,000 bytes, more than the limit of 6,000,000",
        "if it is yours, use --data.max-bytes 6144000",
    )
    limit = int(line.rsplit(" ", 1)[1])
    assert load(tmp_path / "x.npz", max_bytes=limit, protocol="full").size == 6000
    # The limit is of all arrays together, and 6 GB are more than the default one.
    zipped(
        tmp_path / "x.npz", {"images": [header(GRAY.shape), GRAY.tobytes()], "cond": [header((100, 60)), bytes(6000)]}
    )
    refused(
        lambda: load(tmp_path / "x.npz", max_bytes=9839), "array 'cond': takes 9,840 bytes", "--data.max-bytes 9840"
    )
    assert DataConfig().max_bytes < 6_000_000_000
    refused(lambda: data.prepare("npz", str(tmp_path / "x.npz"), str(tmp_path), max_bytes=99), "use --max-bytes 3840")
    refused(lambda: load(tmp_path / "x.npz", max_bytes=0), "data.max_bytes: 0 is not positive; use a number of bytes")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packing_that_unpacks_without_bound_is_not_read(tmp_path, method):
    zipped(tmp_path / "x.npz", {"images": [header((1 << 26, 1, 1, 1)), bytes(1 << 26)]}, method)
    refused(
        lambda: load(tmp_path / "x.npz"), "compressed by a method that numpy does not use; save it with numpy.savez"
    )
    np.savez(tmp_path / "x.npz", images=GRAY)
    assert load(tmp_path / "x.npz").info.shape == (8, 8, 1)


def test_headers_that_lie_in_other_ways(tmp_path):
    for shape, said in (((-1, 8, 8), "means -64 bytes"), ((60, 8, 7), "means 3,360 bytes, but 3,840 follow")):
        (tmp_path / "x.npy").write_bytes(header(shape) + GRAY.tobytes())
        refused(lambda: load(tmp_path / "x.npy"), said)
    for damage in (
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY\x09\x00" + bytes(64),
        b"PK\x03\x04",
        b"x",
    ):
        for name in ("x.npy", "x.npz"):
            (tmp_path / name).write_bytes(damage)
            refused(lambda name=name: load(tmp_path / name), str(tmp_path / name), "save")
    np.savez_compressed(tmp_path / "x.npz", images=GRAY)
    whole = (tmp_path / "x.npz").read_bytes()
    for at in range(60, len(whole), 97):
        (tmp_path / "x.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with contextlib.suppress(InputError):  # anything else is a traceback for the user
            assert np.array_equal(load(tmp_path / "x.npz", protocol="full").arrays["image"][..., 0], GRAY)


def test_a_header_is_bounded_before_it_is_read(tmp_path):
    """64 MiB of blanks in a few KB: numpy reads the whole of a header before it looks at it."""
    blank = b"\x93NUMPY\x02\x00" + struct.pack("<I", 64 << 20)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("images.npy", blank + b" " * (64 << 20))
    refused(lambda: load(tmp_path / "x.npz"), "its header takes 67,108,864 bytes", "numpy.savez")


def test_items_without_bytes_are_refused(tmp_path):
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": (10, 2**31 - 1), "fortran_order": False, "descr": "|V0"})
    (tmp_path / "x.npy").write_bytes(head.getvalue())
    refused(lambda: load(tmp_path / "x.npy"), "save plain numbers")


def test_json_is_read_from_files_only(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match="not a regular file"):
        bounded.read_json(tmp_path / "config.json")


def test_files_that_grow_are_not_written_through_links(tmp_path):
    victim, config = tmp_path / "victim", experiment("vae_digits", steps=1).shrink()
    run = training.train_run(config, "mine", tmp_path / "run")
    victim.write_text("mine")
    for name in (".lock", "log.txt", "history.jsonl"):
        (run.path / name).unlink()
        (run.path / name).symlink_to(victim)
        with pytest.raises(InputError, match=r"is a link, .*; remove it"):
            training.train_run(config, "mine", run.path, resume=True)
        assert victim.read_text() == "mine"
        (run.path / name).unlink()
    assert training.train_run(config, "mine", run.path, resume=True).path == run.path


def test_gzipped_idx_is_unpacked_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    small, large = struct.pack(">4B3I", 0, 0, 8, 3, 60, 8, 8), struct.pack(">4B3I", 0, 0, 8, 3, 60_000, 280, 280)
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as file:
        file.write(small)
        for _ in range(256):
            file.write(bytes(1 << 20))
    path.write_bytes(bomb.getvalue())
    refused(lambda: idx.read_verified(path, ""), "3857 bytes, but its IDX header (60, 8, 8) means 3856; copy the file")
    path.write_bytes(gzip.compress(large + bytes(100)))
    refused(
        lambda: idx.read_verified(path, ""), "means 4,704,000,016 bytes, but the files of this data set have at most"
    )
    with path.open("wb") as file:
        file.truncate(1 << 34)
    refused(lambda: idx.read_verified(path, ""), "17,179,869,184 bytes, but the files of this data set have at most")
    good = idx.to_bytes(GRAY)
    for content in (good, gzip.compress(good)):
        path.write_bytes(content)
        assert np.array_equal(idx.read_verified(path, hashlib.sha256(good).hexdigest()), GRAY)


def test_a_record_that_unpacks_to_gigabytes_is_refused_before_it_is_read(folder):
    from array_record.python.array_record_module import ArrayRecordWriter

    path = record_files.find(folder, "vae_jax_npz", "train")[0]
    path.unlink()
    writer = ArrayRecordWriter(str(path), "group_size:1,zstd")
    writer.write(bytes(200 << 20))
    writer.close()
    assert path.stat().st_size < 200_000
    edit(folder / "metadata.json", lambda facts: (facts["sizes"].update(train=1), facts.pop("files")))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for pipeline in ("device", "grain"):
        refused(lambda pipeline=pipeline: load(folder, pipeline=pipeline),
                "holds a record of 209,715,200 bytes where 2,", "prepare the data set again")  # fmt: skip
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def test_prepared_data_of_many_sizes_pass_the_check_of_sizes(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    for count, size in ((1, 10), (300, 4096), (3, 200_000), (100, 65_472), (90, 65_416), (3, 1 << 20)):
        path = tmp_path / f"{count}.array_record"
        writer = ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(count):
            writer.write(RNG.bytes(size))
        writer.close()
        record_files.check_sizes(path, size + 64)
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match="cut off"):
            record_files.check_sizes(path, size + 64)


def test_prepared_sizes_are_limited_and_the_advice_works(folder):
    claimed = load(folder).arrays["image"].nbytes
    line = refused(
        lambda: load(folder, max_bytes=claimed - 1), f"train takes {claimed:,} bytes", "--data.pipeline grain"
    )
    assert f"--data.max-bytes {claimed} if it is yours" in line
    assert load(folder, max_bytes=claimed).pipeline == "device"
    assert load(folder, max_bytes=1, pipeline="grain").pipeline == "grain"
    edit(folder / "metadata.json", lambda facts: facts["sizes"].update(train=10**9))
    refused(lambda: load(folder, pipeline="device"), "train takes 256,000,000,000 bytes")
    refused(lambda: load(folder), "records where metadata.json says 1000000000")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_shape", [8, 8]), ("image_shape", [8, 8, "1"]), ("image_shape", [8, 8, 0]),
        ("sizes", {}), ("sizes", {"train": -1}), ("sizes", 3), ("num_classes", "3"), ("num_classes", 0),
        ("label_names", "abc"), ("factor_names", [1]), ("factor_sizes", [2.5]), ("cond_size", None),
        ("values", "object"), ("where", None), ("checksums", ["a"]), ("checksums", {"a": "b"}), ("files", {"a": 1}),
        ("protocol_text", 5),
    ],
)  # fmt: skip
def test_facts_of_a_prepared_folder_have_their_types(folder, key, value):
    edit(folder / "metadata.json", lambda facts: facts.update({key: value}))
    refused(lambda: load(folder), f"metadata.json is missing or damaged (its {key}); prepare the data set again")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, "\udcff"])
def test_json_of_a_prepared_folder_that_is_no_object(folder, content):
    for name in ("metadata.json", "dataset_info.json"):
        before = (folder / name).read_bytes()
        (folder / name).write_text(content, errors="surrogateescape")
        refused(lambda: load(folder), f"{name} is missing or damaged")
        (folder / name).write_bytes(before)
    with (folder / "metadata.json").open("wb") as file:
        file.truncate(1 << 34)
    refused(lambda: load(folder), "metadata.json is missing or damaged (17,179,869,184 bytes)")


# Content that is not what was prepared.


def swap(folder):
    """Puts other, well-formed records in the place of the training records."""
    np.savez(folder.parent / "other.npz", images=GRAY / 255, labels=LABELS[::-1], factors=np.stack([LABELS, LABELS], 1),
             cond=GRAY[:, 0] / 1.0)  # fmt: skip
    other = Path(data.prepare("npz", str(folder.parent / "other.npz"), str(folder.parent / "tfds")).folder)
    for path in record_files.find(other, "vae_jax_npz", "train"):
        shutil.copy(path, folder / path.name)


@pytest.mark.parametrize("files", [True, False])
@pytest.mark.parametrize("pipeline", ["device", "grain"])
def test_checksums_of_prepared_data_are_verified_by_both_pipelines(folder, pipeline, files):
    if not files:  # prepared by an earlier version
        edit(folder / "metadata.json", lambda facts: [facts.pop(key) for key in ("files", "protocol", "protocol_text")])
    load(folder, pipeline=pipeline)
    load(folder, "test", pipeline=pipeline)
    swap(folder)
    wanted = "train/label" if pipeline == "device" or not files else "vae_jax_npz-train.array_record-00000"
    refused(lambda: load(folder, pipeline=pipeline), f"wrong checksum of {wanted}, expected", "prepare it again")
    load(folder, "test", pipeline=pipeline)  # whose records are as they were


@pytest.mark.parametrize("name", ["image", "label", "factors", "cond"])
def test_each_array_of_prepared_data_has_its_checksum(folder, name):
    def flip(facts):
        facts["checksums"][f"train/{name}"] = facts["checksums"][f"train/{name}"][::-1]
        facts.pop("files")

    edit(folder / "metadata.json", flip)
    for pipeline in ("device", "grain"):
        refused(lambda pipeline=pipeline: load(folder, pipeline=pipeline), f"wrong checksum of train/{name}, expected")


def test_folders_of_earlier_versions_keep_their_split_under_both_names(folder):
    edit(folder / "metadata.json", lambda facts: [facts.pop(key) for key in ("files", "protocol", "protocol_text")])
    for protocol in ("standard", "random-tenth"):
        assert "RandomState(0)" in load(folder, protocol=protocol).info.protocol_text


FORGED = {
    "a class too many": ("num_classes", 2, "label in [0, 2], not in [0, 1]"),
    "a factor too many": ("factor_sizes", [3, 2], "factor 1 in [0, 2], not in [0, 1]"),
    "other pixels": ("image_shape", [8, 4, 1], "prepare the data set again"),
    "bytes for floats": ("values", "grey", "prepare the data set again"),
}


@pytest.mark.parametrize("name", FORGED)
def test_values_that_the_facts_exclude_are_refused_though_the_checksums_fit(folder, name):
    key, value, said = FORGED[name]
    edit(folder / "metadata.json", lambda facts: facts.update({key: value}))
    for pipeline in ("device", "grain"):
        refused(lambda pipeline=pipeline: load(folder, pipeline=pipeline), "cannot be read", said)


@pytest.mark.parametrize(
    ("name", "array", "value", "said"),
    [
        ("image", "images", np.nan, "NaN or infinite values in image"),
        ("image", "images", 1.5, "image values in [0, 1.5], not in [0, 1]"),
        ("cond", "cond", np.inf, "NaN or infinite values in cond"),
        ("cond", "cond", 1e30, "cond has values up to 1e+30"),
    ],
)
def test_prepared_floats_are_checked_as_raw_ones_are(tmp_path, monkeypatch, name, array, value, said):
    """Forged with our own writer, so that checksums and sizes fit."""
    from vae_jax.data import npz

    held = {"images": GRAY / 255, "cond": GRAY[:, 0] / 255}
    np.savez(tmp_path / "mine.npz", **held)
    honest = npz.read

    def forge(*args, **kwargs):
        parts = honest(*args, **kwargs)
        parts.splits["train"][name][3] = value
        return parts

    monkeypatch.setattr(npz, "read", forge)
    folder = data.prepare("npz", str(tmp_path / "mine.npz"), str(tmp_path / "tfds")).folder
    for pipeline in ("device", "grain"):
        refused(lambda pipeline=pipeline: load(folder, pipeline=pipeline), f"cannot be read ({said}")


def test_dark_prepared_data_are_refused_as_raw_ones_are(tmp_path, monkeypatch):
    from vae_jax.data import values

    np.savez(tmp_path / "mine.npz", images=GRAY // 16)
    monkeypatch.setattr(values, "DARK", 0)
    folder = data.prepare("npz", str(tmp_path / "mine.npz"), str(tmp_path / "tfds")).folder
    monkeypatch.undo()
    for pipeline in ("device", "grain"):
        refused(lambda pipeline=pipeline: load(folder, pipeline=pipeline), "images has integers in [0, 15]",
                "save images.astype('uint8') * 17, or", "and prepare them again")  # fmt: skip


def test_a_dark_test_set_beside_bright_training_images_is_prepared_and_read(tmp_path):
    bright, dark = GRAY, np.full((20, 8, 8), 100, np.uint8)
    for name, (train, test) in {"test": (bright, dark), "train": (dark, bright)}.items():
        np.savez(tmp_path / f"{name}.npz", train_images=train, test_images=test)
        folder = data.prepare("npz", str(tmp_path / f"{name}.npz"), str(tmp_path / "tfds")).folder
        for pipeline in ("device", "grain"):
            for split, images in (("train", train), ("test", test)):
                rows = load(folder, split, pipeline=pipeline).records.rows(np.arange(20))
                assert np.array_equal(rows["image"][..., 0], images[:20])


# Other files of arrays.


def test_codes_and_features_are_read_within_bounds(tmp_path, monkeypatch):
    for name in ("x.npz", "f.npz"):
        zipped(tmp_path / name, {"mean" if name == "x.npz" else "real": [header(CLAIM), bytes(1500)]})
    refused(lambda: codes.open_arrays(tmp_path / "x.npz"), "--input", "means 40,960,000,000 bytes, but 1,500 follow")
    refused(lambda: features.read(tmp_path / "f.npz"), "--features", "means 40,960,000,000 bytes, but 1,500 follow")
    np.savez(tmp_path / "x.npz", real=GRAY[:, 0] / 1.0, generated=GRAY[:, 1] / 1.0)
    real, generated = features.read(tmp_path / "x.npz")
    assert np.array_equal(real, GRAY[:, 0])
    assert np.array_equal(generated, GRAY[:, 1])
    line = refused(lambda: bounded.arrays(tmp_path / "x.npz", 4000), "takes 7,680 bytes, more than the limit of 4,000")
    assert line.endswith("; give it in parts")


def test_weights_that_claim_more_than_their_file_holds(tmp_path):
    from vae_jax.evaluation import inception_weights as inception

    claim = {"Conv2d_1a_3x3.conv.weight": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}
    text = json.dumps(claim).encode()
    for length in (len(text), 10**12):
        (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + text + bytes(100))
        with pytest.raises(InputError, match=r"cannot be read .*give the \.safetensors of Inception"):
            inception.read(tmp_path / "x.safetensors")
