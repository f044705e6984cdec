"""A run folder without its data: what needs none works, and what needs them says so in one line."""

import numpy as np
import pytest

from vae_jax import data
from vae_jax.cli import main
from vae_jax.runs.run import Run
from vae_jax.tasks import training
from vae_jax.tasks.measuring import evaluate_run
from vae_jax.tasks.traversal import traverse


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Returns a run on data of one's own, and where its data are now."""
    from options import tiny

    folder = tmp_path_factory.mktemp("moved")
    images = data.load(data.DataConfig("digits"), "train").arrays["image"][:60]
    np.savez(folder / "own.npz", images=images)
    options = {"data.name": "npz", "data.source": str(folder / "own.npz"), "logging.figures_minutes": 0.0}
    run = training.train_run(tiny(**options), "x", folder / "run")
    evaluate_run(run)
    (folder / "own.npz").rename(folder / "elsewhere.npz")
    return Run.load(run.path), folder / "elsewhere.npz"


@pytest.mark.parametrize("command", ["sample", "encode", "decode", "traverse", "report"])
def test_what_needs_no_data_works_without(moved, tmp_path, command):
    run, source = moved
    np.savez(tmp_path / "z.npz", codes=np.zeros((2, 3), np.float32))
    words = {
        "sample": ["--n", "2", "--out", tmp_path / "s.png"],
        "encode": ["--input", source, "--out", tmp_path / "c.npz"],
        "decode": ["--input", tmp_path / "z.npz", "--out", tmp_path / "d.npz"],
        "traverse": ["--out", tmp_path / "t.png"],
        "report": ["--out", tmp_path / "r.html"],
    }[command]
    assert main.run([command, str(run.path), *map(str, words)]) == 0
    assert words[-1].stat().st_size > 0
    if command == "report":
        page = words[-1].read_text()
        assert page.count("the data of this run are not there") == 2  # pairs and map
        assert "held-out images" not in page


def test_a_traversal_says_where_it_starts(moved, caplog):
    run, _ = moved
    found = traverse(run)
    assert found.title.endswith("latent traversals, around its own samples")
    assert caplog.messages == [f"{run.path}: its data are not there; the traversals start from its own samples"]
    # From the prior, whose mean and deviation are .5 and 2.
    np.testing.assert_allclose(found.walk.values[0, [0, -1]], [0.5 - 5.0, 0.5 + 5.0], rtol=1e-5)


@pytest.mark.parametrize(
    "words",
    [
        ["eval"],
        ["reconstruct"],
        ["interpolate"],
        ["fit-prior"],
        ["traverse", "--index", "0"],
        ["traverse", "--split", "test"],
    ],
)
def test_what_needs_them_says_so(moved, capsys, words):
    run, source = moved
    before = sorted(run.path.rglob("*"))
    assert main.run([words[0], str(run.path), *words[1:]]) == 2
    gone = source.with_name("own.npz")
    assert capsys.readouterr().err == (
        f"vae-jax: {run.path}: its data cannot be loaded as they were in training; restore them (data.source: no file "
        f"'{gone}'; name an .npz or .npy file)\n"
    )
    assert sorted(run.path.rglob("*")) == before
