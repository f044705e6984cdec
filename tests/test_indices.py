"""Latents that are indices into a codebook: what works through their vectors, and what is refused."""

import json
import logging
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import toys

import vae_jax as vj
from vae_jax import figures, spaces
from vae_jax.cli.main import run as cli
from vae_jax.errors import InputError
from vae_jax.evaluation.measures import MEASURES
from vae_jax.spaces import Bits, Codes, Mixed, OneHot, Positive, Real, Sphere, UnitInterval

# The runs of this file draw their figures (conftest.py).
FIGURES = True
NOMINAL = [name for name, measure in MEASURES.items() if "no indices" in measure.needs]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A trained run, with the figures that training writes."""
    folder = tmp_path_factory.mktemp("indices")
    file = folder / "toys.py"
    file.write_text(Path(toys.__file__).read_text())
    words = ["--model", "experiment:Quantized", "--steps", "4", "--workdir", str(folder / "run"), "--quiet"]
    assert cli(["train", str(file), *words]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def run(path):
    return vj.load(path)


def test_only_indices_are_nominal():
    known = [Real((2,)), Positive((2,)), UnitInterval((2,)), Sphere((2,)), Bits((2,)), OneHot((4,), (2, 2))]
    assert not any(spaces.is_nominal(space) for space in [*known, Mixed((3,), (1, 2)), tuple(known)])
    assert spaces.is_nominal(Codes((2,), 5))
    assert spaces.is_nominal({"bottom": Codes((2,), 5), "top": Real((3,))})


def test_codes_and_back(path, run, tmp_path, capsys):
    x = run.examples("test", np.arange(6))["x"]
    np.save(tmp_path / "x.npy", x)
    assert cli(["encode", str(path), "--input", str(tmp_path / "x.npy"), "--out", str(tmp_path / "z.npz")]) == 0
    held = np.load(tmp_path / "z.npz")["mean"]
    assert set(np.unique(held)) <= {0, 1, 2, 3, 4}
    assert len(np.unique(held)) > 1
    assert cli(["decode", str(path), "--input", str(tmp_path / "z.npz"), "--out", str(tmp_path / "x.npz")]) == 0
    state = run.restore()
    z = run.model.encode(state.params, {}, None, {"x": x}).z
    expected = run.model.decode(state.params, {}, z).mean()
    np.testing.assert_allclose(np.load(tmp_path / "x.npz")["images"], expected, rtol=1e-5)
    np.testing.assert_allclose(run.decode(np.asarray(z)), expected, rtol=1e-5)
    assert cli(["sample", str(path), "--n", "3", "--out", str(tmp_path / "s.npz")]) == 0


@pytest.mark.parametrize(("bad", "shown"), [(1.5, "1.5"), (-1, "-1"), (5, "5")])
def test_what_is_no_index_is_not_decoded(bad, shown, path, run, tmp_path, capsys):
    z = np.array([[0, 4, 2, 1], [3, 0, 0, 0], [0, 0, bad, bad]])
    np.save(tmp_path / "z.npy", z)
    words = ["decode", str(path), "--input", str(tmp_path / "z.npy"), "--out", str(tmp_path / "x.npz")]
    assert cli(words) == 2
    assert capsys.readouterr().err == (
        f"vae-jax: --input {tmp_path / 'z.npy'}: codes: {shown} in row 2 is not an index into the codebook; use whole "
        "numbers from 0 to 4, as `vae-jax encode` writes them\n"
    )
    assert not (tmp_path / "x.npz").exists()
    with pytest.raises(InputError, match=rf"^z: {shown} in row 2 is not an index"):
        run.decode(z.reshape(3, 2, 2))
    np.save(tmp_path / "z.npy", np.clip(z, 0, 4).round())  # the advice is good
    assert cli(words) == 0


def test_indices_of_one_level_among_others(run):
    levels = {"bottom": Codes((2,), 5), "top": Real((3,))}
    several = vj.load(run.path)
    several.__dict__["model"] = run.model._replace(about=run.model.about._replace(latents=levels))
    z = np.array([[0, 4, 0.5, -7, 9], [0, 5, 0.5, -7, 9]])
    for form in (z, {"bottom": z[:, :2], "top": z[:, 2:]}, (z[:, :2], z[:, 2:])):
        with pytest.raises(InputError, match=r"5 in row 1 is not an index into the codebook; use whole numbers from 0"):
            several.decode(form)


@pytest.mark.parametrize("command", ["traverse", "interpolate", "arithmetic"])
def test_there_are_no_walks(command, path, run, tmp_path, capsys):
    out = tmp_path / "x.npz"
    more = ["--from", "0", "--to", "1"] if command == "arithmetic" else []
    assert cli([command, str(path), *more, "--out", str(out)]) == 2
    fix = f"vae-jax reconstruct {path}"
    assert capsys.readouterr().err == (
        f"vae-jax: {path}: its latents are indices into a codebook, which cannot be moved along a line because indices "
        f"have no order; compare examples with `{fix}` instead\n"
    )
    assert not out.exists()
    with pytest.raises(InputError, match="its latents are indices into a codebook"):
        getattr(vj, command)(run, *(int(word) for word in more[1::2]))
    assert cli([*fix.split()[1:], "--n", "2", "--out", str(out)]) == 0  # the advice is good


def test_codes_are_not_probed(path, tmp_path, capsys):
    """Probes, clusters and scores would take the numbers of entries for quantities."""
    out = tmp_path / "x.json"
    assert {"clustering", "probe_svm", "probe_logistic", "knn", "udr", "mig", "dci", "info_mec"} <= set(NOMINAL)
    for name in NOMINAL:
        assert cli(["eval", str(path), "--metrics", name, "--limit", "20", "--out", str(out)]) == 2
        assert capsys.readouterr().err == (
            f"vae-jax: --metrics: {name}: needs latents whose numbers can be compared (no indices into a codebook), "
            "which this model does not provide; request elbo instead\n"
        )
        assert not out.exists()
    assert cli(["eval", str(path), "--metrics", "elbo", "--limit", "20", "--out", str(out)]) == 0  # the advice is good
    assert json.loads(out.read_text())["metrics"]["elbo"]["n"] == 20


def test_agreement_with_a_run_of_indices(path, tmp_path, capsys):
    grid = tmp_path / "grid"
    (tmp_path / "toys.py").write_text(Path(toys.__file__).read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_all", lambda *args, **options: [])
        assert cli(["train", str(tmp_path / "toys.py"), "--steps", "1", "--workdir", str(grid), "--quiet"]) == 0
    capsys.readouterr()
    assert cli(["eval", str(grid), "--metrics", "udr", "--limit", "20", "--others", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"vae-jax: --metrics: udr: {path}: needs latents whose numbers can be compared (no indices into a codebook), "
        "which this model does not provide; leave it out of --others\n"
    )


def test_figures_leave_walks_out(path, run, tmp_path, caplog):
    found = {"samples", "reconstructions", "loss_curves", "code_usage", "code_pictures", "code_grids"}
    assert {file.stem for file in (path / "figures").glob("*.png")} == found
    shutil.copy(path / "metrics.jsonl", tmp_path)
    with caplog.at_level(logging.INFO, "vae_jax.figures.write"):
        figures.write_all(tmp_path, run.model, run.restore(), run.examples("test", np.arange(4)))
    assert caplog.messages == [
        "figures: no traversals and no manifold, because the latents are indices into a codebook, which have no order"
    ]


def test_a_report_leaves_walks_and_the_map_out(path, tmp_path):
    assert cli(["report", str(path), "--out", str(tmp_path / "x.html")]) == 0
    page = (tmp_path / "x.html").read_text()
    assert page.count("Left out: the latents are indices into a codebook, which have no order.") == 2
    assert page.count("data:image/png;base64,") == 4  # samples, pairs, and of codes their grids and what each draws
    assert re.search(r"codes of 180 held-out images; the codebook: usage \d+% \(\d of 5 codes\), perplexity", page)
    assert "one color per code: codes 2x2." in page


def test_the_toy_learns(run):
    start = run.model.init(jax.random.key(0), run.example_batch())[0]
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), run.restore().params, start)
    assert all(jax.tree.leaves(moved))
