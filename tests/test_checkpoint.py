"""Checkpoints: which are kept and read, what their checksums notice, and what is said when one is passed over."""

import dataclasses
import json
import shutil
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import support
from jax.sharding import NamedSharding, PartitionSpec

from vae_jax import spec, train
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.models import VAE
from vae_jax.networks import MLP
from vae_jax.runs.config import Config, Logging
from vae_jax.runs.run import Run
from vae_jax.train import MeshConfig, checksums
from vae_jax.train.checkpoint import Checkpoints

CONFIG = Config(
    steps=12,
    data=DataConfig("digits", batch_size=8),
    model=VAE(latent_dim=2, network=MLP((8,))),
    mesh=MeshConfig(data=1),
    logging=Logging(tensorboard=False),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a run folder with different states at steps 4, 8 and 12."""
    run = Run.create(tmp_path_factory.mktemp("saved") / "run", "tiny", CONFIG, spec.images(8, 8, 1))
    state = run.init()
    checkpoints = run.checkpoints(create=True)
    for step in (4, 8, 12):
        checkpoints.save(moved(state, step), {"step": step})
    checkpoints.close()
    return run.path


def moved(state, step):
    params = jax.tree.map(lambda x: x + step, state.params)
    return dataclasses.replace(state, step=jnp.asarray(step, jnp.int32), params=params)


@pytest.fixture
def run(saved, tmp_path):
    """Returns a copy of the run, to damage."""
    shutil.copytree(saved, tmp_path / "run")
    return Run.load(tmp_path / "run")


def record_of(run, step):
    return run.path / "checkpoints" / str(step) / "data" / "metadata"


def steps_of(run):
    return sorted(int(p.name) for p in (run.path / "checkpoints").iterdir())


def restored(run, step=None):
    """Returns (step of the state that is read, sentences that were said)."""
    said = []
    return int(run.restore(step, said.append).step), said


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_as_many_as_keep_says_are_left_and_they_are_the_newest(tmp_path, keep):
    run = Run.create(tmp_path / "run", "tiny", CONFIG, spec.images(8, 8, 1))
    checkpoints = Checkpoints(run.path / "checkpoints", keep=keep)
    state = run.init()
    for step in (2, 5, 9, 10, 100):
        checkpoints.save(moved(state, step), {})
    assert checkpoints.steps() == [2, 5, 9, 10, 100][-keep:]
    assert steps_of(run) == checkpoints.steps()
    # By number, not by name: 9 is the last name of all.
    assert int(checkpoints.restore(state)[0].step) == 100
    checkpoints.close()


def test_the_record_of_a_checkpoint_lists_every_leaf(run):
    record = json.loads(record_of(run, 12).read_text())
    assert record["position"] == {"step": 12}
    assert len(record["leaves"]) == len(jax.tree.leaves(run.init()))
    for text in record["leaves"].values():
        kind, _, digest = text.rpartition(" ")
        assert np.dtype(kind.partition("[")[0]).name == kind.partition("[")[0]
        assert len(digest) == 64


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize(
    ("leaves", "position"),
    [
        ({"a": np.where(X == 5, np.nextafter(np.float32(5), np.float32(6)), X), "b": X}, {"step": 1}),
        ({"a": X.T.copy().reshape(2, 3), "b": X}, {"step": 1}),
        ({"a": X.reshape(3, 2), "b": X}, {"step": 1}),
        ({"a": X.view(np.int32), "b": X}, {"step": 1}),
        ({"a": X, "c": X}, {"step": 1}),
        ({"a": X}, {"step": 1}),
        ({"a": X, "b": X}, {"step": 2}),
        ({"a": X, "b": X}, {"step": 1, "more": None}),
    ],
    ids=["last bit", "order", "shape", "type", "path", "missing", "position", "position's keys"],
)
def test_whatever_differs_the_checksum_differs(leaves, position):
    one = checksums.record({"a": X, "b": X}, {"step": 1})
    assert checksums.record({"a": X.copy(), "b": X.copy()}, {"step": 1}) == one
    assert checksums.record(leaves, position)["sha256"] != one["sha256"]


def test_types_without_a_buffer_and_without_elements_have_checksums():
    leaves = {
        "bfloat16": np.ones(3, ml_dtypes.bfloat16),
        "bool": np.array(True),
        "empty": np.zeros((0, 4), np.float32),
        "transposed": X.T,
    }
    lines = checksums.record(leaves, {})["leaves"]
    assert [line.rpartition(" ")[0] for line in lines.values()] == [
        "bfloat16[3]",
        "bool[]",
        "float32[0, 4]",
        "float32[3, 2]",
    ]
    assert lines["transposed"] == checksums.record({"transposed": X.T.copy()}, {})["leaves"]["transposed"]


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["position"].update(step=3),
        lambda r: r.pop("sha256"),
        lambda r: r.pop("leaves"),
        lambda r: r.update(leavez=r.pop("leaves")),
        lambda r: r.update({name: r["leaves"][name] for name in list(r["leaves"])[:1]}),
        lambda r: r["leaves"].update({name: r["leaves"][name][:-1] + "x" for name in list(r["leaves"])[:1]}),
        lambda r: r["leaves"].pop(next(iter(r["leaves"]))),
    ],
    ids=["position", "no checksum", "no leaves", "a name", "more", "a digest", "a leaf"],
)
def test_a_changed_record_is_noticed(run, change):
    edit(record_of(run, 12), change)
    step, said = restored(run)
    assert step == 8
    assert said == [
        f"{run.path}/checkpoints: the checkpoint of step 12 cannot be read (its record does not match its checksum); "
        "falling back to that of step 8"
    ]


def test_numbers_of_another_checkpoint_are_noticed(run):
    """Whole files with right checksums of their own, in the wrong place: only ours can tell."""
    folder = run.path / "checkpoints"
    shutil.rmtree(folder / "12" / "state")
    shutil.copytree(folder / "8" / "state", folder / "12" / "state")
    step, said = restored(run)
    assert step == 8
    assert len(said) == 1
    assert "(['params']['vae']['decoder']['hidden_0']['bias'] does not match its checksum" in said[0]


def test_a_checkpoint_of_version_0_1_opens_without_a_word(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", "tiny", CONFIG, spec.images(8, 8, 1))
    monkeypatch.setattr(checksums, "record", lambda leaves, position: position)
    checkpoints = run.checkpoints(create=True)
    checkpoints.save(moved(run.init(), 12), {"step": 5})
    assert json.loads(record_of(run, 12).read_text()) == {"step": 5}
    said = []
    state, position = checkpoints.restore(run.init(), say=said.append)
    checkpoints.close()
    assert (int(state.step), position, said) == (12, {"step": 5}, [])
    support.assert_trees_equal(state, moved(run.init(), 12))


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=4)])
def test_a_sharded_state_has_the_checksums_of_a_single_one(tmp_path, mesh):
    """Hidden layers of 512 are large enough to be split."""
    config = dataclasses.replace(CONFIG, model=VAE(latent_dim=2, network=MLP((512,))), mesh=mesh)
    run = Run.create(tmp_path / "run", "tiny", config, spec.images(8, 8, 1))
    state = run.init()
    split = [x for x in jax.tree.leaves(state.params) if not x.is_fully_replicated]
    assert bool(split) == (mesh.fsdp > 1)
    single = run.init(train.make_mesh(MeshConfig(data=1, fsdp=1)))
    checkpoints = run.checkpoints(create=True)
    checkpoints.save(state, {}, 12)
    checkpoints.close()
    wanted = checksums.record(
        {jax.tree_util.keystr(p): x for p, x in jax.tree_util.tree_leaves_with_path(single.params)}, {}
    )
    held = json.loads(record_of(run, 12).read_text())["leaves"]
    assert {f"['params']{path}": line for path, line in wanted["leaves"].items()}.items() <= held.items()
    said = []
    support.assert_trees_equal(run.restore(say=said.append), single)
    assert said == []


def test_a_population_is_checked_whatever_devices_hold_its_members(tmp_path):
    run = Run.create(tmp_path / "run", "tiny", CONFIG, spec.images(8, 8, 1))
    mesh = jax.make_mesh((8,), ("member",))
    states = jax.vmap(lambda i: jax.tree.map(lambda x: x, moved(run.init(), i)), axis_size=8)(jnp.arange(8))
    placed = jax.device_put(states, NamedSharding(mesh, PartitionSpec("member")))
    checkpoints = run.checkpoints(create=True)
    for step in (4, 8):
        checkpoints.save(placed, {"step": step, "diverged": {}}, step)
    said = []
    back, position = checkpoints.restore(states, say=said.append)
    support.assert_trees_equal(back, states)
    assert (position["step"], said) == (8, [])
    shutil.rmtree(run.path / "checkpoints" / "8" / "state")
    shutil.copytree(run.path / "checkpoints" / "4" / "state", run.path / "checkpoints" / "8" / "state")
    support.assert_trees_equal(checkpoints.restore(placed, say=said.append)[0], states)
    assert said == []  # all members as before: the same numbers are the same checkpoint
    edit(record_of(run, 8), lambda r: r["position"].update(diverged={"3": [7, ["loss"]]}))
    back, position = checkpoints.restore(placed, say=said.append)
    checkpoints.close()
    assert position == {"step": 4, "diverged": {}}
    assert len(said) == 1


def cut(run, step):
    for file in (run.path / "checkpoints" / str(step) / "state" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:7])


def test_a_damaged_checkpoint_asked_for_by_name_is_refused_with_the_others(run):
    cut(run, 12)
    with pytest.raises(InputError) as caught:
        run.restore(12)
    assert str(caught.value) == (
        f"{run.path}/checkpoints: the checkpoint of step 12 cannot be read (a file is damaged); use step=8 "
        "(there are also [4])"
    )
    assert restored(run, 8) == (8, [])
    assert restored(run, 4) == (4, [])


def test_several_damaged_checkpoints_are_one_sentence(run):
    cut(run, 12)
    shutil.rmtree(run.path / "checkpoints" / "8" / "state")
    step, said = restored(run)
    assert step == 4
    assert said == [
        f"{run.path}/checkpoints: the checkpoints of steps 8, 12 cannot be read (a file is damaged; a file is "
        "missing); falling back to that of step 4"
    ]


def test_after_a_fallback_a_checkpoint_is_saved_whatever_its_step(run):
    """A newer checkpoint, damaged or not, keeps orbax from saving, and it says nothing."""
    cut(run, 12)
    checkpoints = run.checkpoints()
    state, _ = checkpoints.restore(run.init(), say=lambda text: None)
    checkpoints.save(moved(state, 10), {"step": 10})
    assert checkpoints.steps() == [4, 8, 10]
    assert checkpoints.restore(state)[1] == {"step": 10}
    checkpoints.close()
    assert steps_of(run) == [4, 8, 10]


def test_a_checkpoint_behind_a_good_one_is_refused_not_dropped(run):
    checkpoints = run.checkpoints()
    with pytest.raises(InputError, match=r"of step 10 is not saved because there is one of step 12; remove the later"):
        checkpoints.save(moved(run.init(), 10), {})
    checkpoints.close()
    shutil.rmtree(run.path / "checkpoints" / "12")
    checkpoints = run.checkpoints()
    checkpoints.save(moved(run.init(), 10), {})
    checkpoints.close()
    assert steps_of(run) == [4, 8, 10]


def test_a_checkpoint_of_another_model_is_no_damage(run):
    """A config that was edited must not cost the checkpoints, which are whole."""
    text = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(text.replace('"latent_dim": 2', '"latent_dim": 3'))
    other = Run.load(run.path)
    checkpoints = other.checkpoints()
    with pytest.raises(InputError) as caught:
        checkpoints.restore(other.init())
    assert "the checkpoint of step 12 is of another model than config.json describes" in str(caught.value)
    assert "holds float32[2, 8], the model needs float32[3, 8]" in str(caught.value)
    assert str(caught.value).endswith("put config.json back as it was")
    assert checkpoints._broken == set()
    checkpoints.close()
    (run.path / "config.json").write_text(text)
    assert restored(Run.load(run.path)) == (12, [])


def test_no_permission_is_no_damage(run, monkeypatch):
    checkpoints = run.checkpoints()

    def denied(*args, **options):
        raise PermissionError(13, "Permission denied", "metadata")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, "restore", denied)
        with pytest.raises(InputError, match=r"checkpoints/12: cannot be read \(permission denied\).*chmod -R u\+rX"):
            checkpoints.restore(run.init())
    assert int(checkpoints.restore(run.init())[0].step) == 12
    checkpoints.close()


def copy(name):
    return lambda folder: shutil.copytree(folder / "8", folder / name)


@pytest.mark.parametrize(
    "litter",
    [
        lambda folder: (folder / "notes.txt").write_text("x"),
        lambda folder: (folder / "16").write_text("x"),
        lambda folder: (folder / "mine").mkdir(),
        copy("copy_16"),
        copy("016"),
        copy("-16"),
        copy("16.orbax-checkpoint-tmp"),
        copy("16.orbax-checkpoint-tmp-1700000000"),
    ],
    ids=["file", "numbered file", "folder", "copy", "leading zero", "minus", "unfinished", "unfinished, dated"],
)
def test_what_is_no_checkpoint_is_passed_over_and_kept(run, litter):
    folder = run.path / "checkpoints"
    litter(folder)
    before = sorted(p.name for p in folder.iterdir())
    assert restored(run) == (12, [])
    checkpoints = run.checkpoints(create=True)
    assert checkpoints.steps() == [4, 8, 12]
    checkpoints.save(moved(run.init(), 20), {})
    checkpoints.close()
    assert restored(run) == (20, [])
    assert sorted(p.name for p in folder.iterdir()) == sorted({*before, "20"} - {"4"})


@pytest.mark.parametrize("empty", ["16", "12"])
def test_an_empty_checkpoint_is_passed_over(run, empty):
    shutil.rmtree(run.path / "checkpoints" / empty, ignore_errors=True)
    (run.path / "checkpoints" / empty).mkdir()
    step, said = restored(run)
    assert step == (12 if empty == "16" else 8)
    assert len(said) == 1
    assert f"the checkpoint of step {empty} cannot be read (a file is missing)" in said[0]


def test_no_checkpoints_at_all_are_one_line(run):
    folder = run.path / "checkpoints"
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="no checkpoints here; train the run first"):
        run.restore()
    folder.mkdir()
    with pytest.raises(InputError, match=r"no checkpoint found; name another run, or train this one with `vj.resume\("):
        run.restore()
    folder.rmdir()
    folder.write_text("x")
    with pytest.raises(InputError, match="no checkpoints here; train the run first"):
        run.restore()
    with pytest.raises(InputError, match="is a file, not a folder of checkpoints; move it away"):
        run.checkpoints(create=True)


def test_a_save_that_fails_removes_only_what_it_left(run, monkeypatch):
    folder = run.path / "checkpoints"
    for name in ("20.orbax-checkpoint-tmp", "mine.orbax-checkpoint-tmp", "16.orbax-checkpoint-tmp"):
        (folder / name).mkdir()
    checkpoints = run.checkpoints()

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(
        InputError, match=r"cannot save the checkpoint of step 20 .*; the checkpoint of step 12 is kept"
    ):
        checkpoints.save(moved(run.init(), 20), {})
    checkpoints.close()
    assert not (folder / "20.orbax-checkpoint-tmp").exists()
    assert (folder / "mine.orbax-checkpoint-tmp").is_dir()
    assert (folder / "16.orbax-checkpoint-tmp").is_dir()


TWO = """
import os, sys
os.environ["XLA_FLAGS"], os.environ["JAX_PLATFORMS"] = "--xla_force_host_platform_device_count=2", "cpu"
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize("localhost:{port}", 2, int(sys.argv[1]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from vae_jax.train import checksums
mesh = jax.make_mesh((4,), ("all",))
host = {{str(k): np.arange(32 * (k + 1), dtype=np.float32).reshape(8, -1) for k in range(6)}}
def placed(x, spec):
    return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])
for spec in (PartitionSpec("all"), PartitionSpec()):
    leaves = {{name: placed(x, spec) for name, x in host.items()}}
    assert not leaves["0"].is_fully_addressable
    assert checksums.record(leaves, {{}}) == checksums.record(host, {{}})
print("same")
"""


@pytest.mark.slow
def test_parts_on_several_hosts_have_the_checksums_of_the_whole():
    """Each process holds two of four devices; none holds a whole leaf."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        code = TWO.format(port=free.getsockname()[1])
    command = [sys.executable, "-c", code]
    both = [
        subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in (0, 1)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert out.strip().endswith("same"), err
