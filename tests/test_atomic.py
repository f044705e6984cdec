"""Files appear whole or not at all, under names that nobody can plant a link at; only what we made is removed."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vae_jax.files import atomic
from vae_jax.files.atomic import replacing, temporary_folder, write_json


def test_a_planted_link_is_not_followed(tmp_path, monkeypatch):
    """Whoever may write in the folder can guess no name; with the name known, the link still stops us."""
    target = tmp_path / "thesis.tex"
    target.write_text("years of work")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / ".eval.0000000000000000.json").symlink_to(target)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "eval.json", {"elbo": -1.0})
    assert target.read_text() == "years of work"
    assert not (tmp_path / "eval.json").exists()


def test_temporary_names_differ_from_write_to_write(tmp_path):
    names = set()
    for _ in range(3):
        with replacing(tmp_path / "a.npz") as temporary:
            names.add(temporary.name)
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".npz"
            assert stat.S_ISREG(temporary.lstat().st_mode)
    assert len(names) == 3
    assert not any(str(os.getpid()) in name for name in names)


def test_a_target_that_is_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "eval.json").symlink_to("other.json")
    write_json(tmp_path / "eval.json", {"n": 1})
    assert not (tmp_path / "eval.json").is_symlink()
    assert json.loads((tmp_path / "eval.json").read_text()) == {"n": 1}
    assert (tmp_path / "other.json").read_text() == "{}"


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_gives_the_mode(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == mode


def test_a_long_name_is_written(tmp_path):
    path = tmp_path / ("n" * 250 + ".json")
    write_json(path, {"n": 1})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failure_inside_leaves_the_old_file_and_nothing_else(tmp_path):
    write_json(tmp_path / "a.json", {"n": 1})

    def half() -> None:
        with replacing(tmp_path / "a.json") as temporary:
            temporary.write_text("half of")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("function", ["write_text", "fsync", "replace"])
def test_a_kill_inside_a_json_write_leaves_the_old_file(tmp_path, function):
    """At each stage: half of the text written, all of it written but not on disk, not renamed yet."""
    write_json(tmp_path / "a.json", {"n": 1})
    code = f"""
import os, pathlib
from vae_jax.files import atomic
if {function!r} == "write_text":
    pathlib.Path.write_text = lambda path, text: (path.write_bytes(text[:5].encode()), os.kill(os.getpid(), 9))
else:
    setattr(os, {function!r}, lambda *a: os.kill(os.getpid(), 9))
atomic.write_json(pathlib.Path({str(tmp_path / "a.json")!r}), {{"n": 2, "text": "x" * 100}})
"""
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -9
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}


def test_the_file_is_on_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), sync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("replace"), replace(a, b))[1])
    write_json(tmp_path / "a.json", {"n": 1})
    assert order == ["fsync", "replace"]


def test_discard_removes_what_is_unfinished_and_nothing_else(tmp_path):
    (tmp_path / "mine.txt").write_text("kept")
    with replacing(tmp_path / "a.json") as temporary, temporary_folder(tmp_path, ".incomplete-") as folder:
        (folder / "part").write_text("x")
        assert temporary.exists()
        atomic.discard()
        assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
        temporary.write_text("{}")  # the block may still end well
        folder.mkdir()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.json", "mine.txt"]
    assert not atomic._unfinished


def test_no_module_makes_temporary_files_of_its_own():
    """Predictable names came from modules that each had their own way; `atomic` is the only one now."""
    root = Path(atomic.__file__).parent
    words = (
        "getpid()}{",  # as part of a name
        "mkstemp",
        "mktemp",
        "NamedTemporaryFile",
        "TemporaryDirectory",
        '.part"',
        "os.replace",
        "mkdtemp",
    )
    found = {
        f"{path.relative_to(root)}: {word}"
        for path in root.rglob("*.py")
        for word in words
        if word in path.read_text() and path.name != "atomic.py"
    }
    assert found == set()


def test_a_download_is_written_whole_under_the_name_it_has(tmp_path, monkeypatch):
    import hashlib
    import io

    from vae_jax.data import idx

    raw = b"\x00\x00\x08\x01\x00\x00\x00\x02\x05\x06"
    monkeypatch.setattr(idx.urllib.request, "urlopen", lambda url, timeout: io.BytesIO(raw))
    target = tmp_path / "mnist" / "labels.gz"
    idx.download("https://example.org/x", target, hashlib.sha256(raw).hexdigest())
    assert target.read_bytes() == raw
    assert [p.name for p in target.parent.iterdir()] == ["labels.gz"]


def test_the_end_of_a_sweep_group_removes_only_its_own_population(tmp_path):
    from vae_jax.tasks.sweeps.run import remove_population

    own, other = tmp_path / "population" / "0", tmp_path / "population" / "1"
    for folder in (own, other):
        (folder / "4").mkdir(parents=True)
    remove_population(own)
    assert not own.exists()
    assert (other / "4").is_dir()
    remove_population(other)
    assert not (tmp_path / "population").exists()
    # A link in place of the folder: what it points to is not ours.
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    (tmp_path / "population").mkdir()
    own.symlink_to(tmp_path / "mine")
    remove_population(own)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


def test_a_density_whose_files_do_not_belong_together_is_refused(tmp_path):
    """A kill between its two writes leaves the numbers of one fit beside the description of another."""
    from vae_jax.errors import InputError
    from vae_jax.evaluation import density_files, expost

    codes = np.random.default_rng(0).normal(size=(50, 2))
    path = density_files.save(expost.fit("gmm", codes, components=2), tmp_path)
    loaded = density_files.load(path)
    np.testing.assert_array_equal(loaded.shift, codes.mean(0))
    numbers, about = path.with_suffix(".npz").read_bytes(), path.read_text()
    density_files.save(expost.fit("gmm", codes + 1, components=2), tmp_path)
    path.write_text(about)
    with pytest.raises(
        InputError, match=r"gmm.json: cannot be read .*checksum.*; write it again with `vae-jax fit-prior`"
    ):
        density_files.load(path)
    path.with_suffix(".npz").write_bytes(numbers)
    density_files.load(path)
    path.write_text(about.replace('"components": 2', '"components": 3'))
    with pytest.raises(InputError, match="do not match their checksum"):
        density_files.load(path)
    # Densities of version 0.1 have no checksum.
    held = {name: value for name, value in json.loads(about).items() if name != "sha256"}
    path.write_text(json.dumps(held))
    np.testing.assert_array_equal(density_files.load(path).shift, codes.mean(0))
