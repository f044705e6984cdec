"""Latents of other shapes than a vector: a grid [4, 4, 2] and two levels, through every command and Python call.

The two toy models of toys.py are a user's: the file is copied to a folder of its own, and deleted after training.
"""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
import toys
from PIL import Image

import vae_jax as vj
from vae_jax import figures, prng, spaces
from vae_jax import spec as specs
from vae_jax.cli.main import run as cli
from vae_jax.evaluation.codes import decode_all
from vae_jax.evaluation.likelihood import evaluate
from vae_jax.evaluation.measures import MEASURES
from vae_jax.files import code
from vae_jax.spaces import Bits, Codes, Mixed, OneHot, Real

# The runs of this file draw their figures (conftest.py).
FIGURES = True
GRID, LEVELS = toys.GRID, toys.LEVELS
FACTORS = [name for name, measure in MEASURES.items() if "factors" in measure.needs]
INFORMATION = ["mutual_information", "aggregate_kl", "total_correlation", "dimension_kl"]
GAPS = ["inference_gap", "approximation_gap", "amortisation_gap"]
# Both toys have p(z), p(x|z), images and labels; the grid alone has a bound, and one q(z|x) of all latents.
BOTH = [n for n in MEASURES if n not in (*FACTORS, *INFORMATION, *GAPS, "ais", "bdmc", "anomaly", "udr")]
CHEAP = ["--chains", "1", "--temperatures", "3", "--leapfrog", "1", "--samples", "20"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("toys")


@pytest.fixture(scope="module", params=["Grid", "Levels"])
def path(request, home):
    """A run of one toy, trained and resumed, whose experiment file is gone."""
    file, folder = home / f"{request.param}.py", home / request.param.lower()
    file.write_text(Path(toys.__file__).read_text())
    words = ["--model", f"experiment:{request.param}", "--steps", "10", "--workdir", str(folder), "--quiet"]
    assert cli(["train", str(file), *words]) == 0
    file.unlink()
    code._loaded.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_all", lambda *args, **options: [])
        assert cli(["train", "--resume", str(folder), "--steps", "12", "--quiet"]) == 0
    return folder


@pytest.fixture
def run(path):
    return vj.load(path)


def tell(capsys, *words):
    """Runs a command that must end well and returns what it printed."""
    capsys.readouterr()
    assert cli([str(word) for word in words]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def arrays(file):
    with np.load(file) as held:
        return {name: held[name] for name in held.files}


def latents(run):
    return run.model.about.latents


def test_training(path, run):
    assert {file.stem for file in (path / "figures").glob("*.png")} >= {"samples", "reconstructions", "traversals"}
    assert run.history()["step"].tolist()[-1] == 12.0
    found = json.loads((path / "eval.json").read_text())
    metrics = {name: m["value"] for name, m in found["metrics"].items()}
    assert found["step"] == 12
    assert metrics["elbo"] == pytest.approx(-(metrics["distortion"] + metrics["rate"]), rel=1e-6)
    if latents(run) == GRID:
        assert sum(found["latents"]["kl_per_dim"]) == pytest.approx(metrics["rate"], rel=1e-5)
    else:
        assert metrics["kl/bottom"] + metrics["kl/top"] == pytest.approx(metrics["rate"], rel=1e-5)
    start = run.model.init(jax.random.key(0), run.example_batch())[0]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), run.restore().params, start)
    assert all(jax.tree.leaves(moved))


def test_codes_and_back(path, run, tmp_path, capsys):
    x = run.examples("test", np.arange(7))["x"]
    np.save(tmp_path / "x.npy", x)
    tell(capsys, "encode", path, "--input", tmp_path / "x.npy", "--out", tmp_path / "codes.npz", "--draw", "True")
    held = arrays(tmp_path / "codes.npz")
    # Directly: the model's own functions.
    state = run.restore()
    code = run.model.encode(state.params, {}, None, {"x": x})
    by_path = {"mean": code.z} if latents(run) == GRID else {f"mean/{name}": z for name, z in code.z.items()}
    for name, z in by_path.items():
        np.testing.assert_allclose(held[name].reshape(z.shape), z, rtol=1e-5, atol=1e-6)
        assert np.abs(held[name] - held[name.replace("mean", "z")]).max() > 0.1
    tell(capsys, "decode", path, "--input", tmp_path / "codes.npz", "--out", tmp_path / "made.npz")
    made = arrays(tmp_path / "made.npz")["images"]
    np.testing.assert_allclose(made, run.model.decode(state.params, {}, code.z).mean(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run.reconstruct(x), made, rtol=1e-5, atol=1e-6)
    tell(capsys, "reconstruct", path, "--n", "7", "--out", tmp_path / "pairs.npz")
    np.testing.assert_allclose(arrays(tmp_path / "pairs.npz")["reconstructions"], made, rtol=1e-5, atol=1e-6)
    codes = run.encode(x)
    for z in (codes, codes.mean, jax.tree.map(np.asarray, code.z)):
        np.testing.assert_allclose(run.decode(z), made, rtol=1e-5, atol=1e-6)


def test_samples_are_decoded_draws_of_the_prior(path, run, tmp_path, capsys):
    tell(capsys, "sample", path, "--n", "5", "--seed", "3", "--out", tmp_path / "x.npz")
    state, key = run.restore(), prng.site_key(jax.random.key(3), "prior")
    z = run.model.prior.sample(state.params, {}, key, 5)
    assert {leaf.shape[1:] for leaf in jax.tree.leaves(z)} == {space.shape for space in spaces.leaves(latents(run))}
    images = arrays(tmp_path / "x.npz")["images"]
    np.testing.assert_allclose(images, run.model.decode(state.params, {}, z).mean(), rtol=1e-5)
    np.testing.assert_array_equal(run.sample(5, seed=3), images)


def test_walks(path, run, tmp_path, capsys):
    """Interpolations, traversals and attributes move along the vector view of all levels."""
    n = spaces.size(latents(run))
    tell(capsys, "interpolate", path, "--indices", "0", "1", "--steps", "3", "--out", tmp_path / "i.npz")
    walk = arrays(tmp_path / "i.npz")
    np.testing.assert_allclose(walk["codes"][0, 1], walk["codes"][0, [0, 2]].mean(0), atol=1e-6)
    np.testing.assert_allclose(walk["images"], decode_all(run.model, run.restore(), walk["codes"]), rtol=1e-5)
    tell(capsys, "traverse", path, "--dims", n - 1, "--index", "0", "--steps", "3", "--out", tmp_path / "t.npz")
    walk = arrays(tmp_path / "t.npz")
    np.testing.assert_array_equal(walk["codes"][0, 0, :-1], walk["codes"][0, 2, :-1])
    np.testing.assert_allclose(walk["codes"][0, :, -1], walk["values"][0])
    if latents(run) == GRID:  # in units of N(0, 1); of levels without a common unit in those of the codes
        np.testing.assert_allclose(walk["values"], [[-2.5, 0.0, 2.5]])
    else:
        spread = run.encode("digits").mean[:, -1].std()
        assert np.ptp(walk["values"]) > 5 * spread
    tell(
        capsys, "arithmetic", path, "--from", "0", "--to", "1", "--n", "2", "--steps", "2", "--out", tmp_path / "a.npz"
    )
    moved = arrays(tmp_path / "a.npz")
    assert moved["codes"].shape == (2, 2, n)
    for figure in (run.plot_samples(4), run.plot_reconstructions(4), run.plot_interpolations([0, 1], steps=3)):
        assert np.ptp(figure.axes[0].get_images()[0].get_array()) > 0
    assert run.plot_curves().axes
    tell(capsys, "traverse", path, "--dims", 0, "--steps", "3", "--quantiles", "True", "--out", tmp_path / "t.png")
    assert len(np.unique(np.asarray(Image.open(tmp_path / "t.png").convert("L")))) > 20
    assert cli(["traverse", str(path), "--dims", str(n)]) == 2
    assert f"has {n} latent dimensions, choose 0 to {n - 1}" in capsys.readouterr().err


def test_metrics(path, run, tmp_path, capsys):
    """What the model and the data provide is measured; anything else is refused in one line and nothing is written."""
    out, single = tmp_path / "x.json", latents(run) == GRID
    named = [*BOTH, *(["ais", "iw_3", *INFORMATION, *GAPS] if single else ["bdmc"])]  # bdmc is ais, and more
    options = ["--local-steps", "1", "--local-samples", "2", "--k", "3"] if single else []
    tell(capsys, "eval", path, "--metrics", ",".join(named), "--limit", "20", *CHEAP, *options, "--out", out)
    found = json.loads(out.read_text())
    assert "refused" not in found
    assert len(found["metrics"]) >= len(named)
    assert not any(name.startswith("kl/") for name in found["metrics"])
    assert all(np.isfinite(m["value"]) for m in found["metrics"].values())
    out.unlink()
    absent = dict.fromkeys(FACTORS, "needs generative factors, which the data set 'digits' does not provide; leave it")
    if not single:
        level = "needs latents of one level, which this model does not provide; request elbo instead"
        absent |= dict.fromkeys([*INFORMATION, *GAPS], level)
        absent |= {"anomaly": "needs a bound on log p(x)", "iwae": "does not provide a bound on log p(x)"}
    capsys.readouterr()
    for name, said in absent.items():
        more = ["--outliers", "digits"] if name == "anomaly" else []
        assert cli(["eval", str(path), "--metrics", name, "--limit", "20", "--out", str(out), *more]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert name in line
        assert said in line
        assert not out.exists()


def test_the_rate_of_one_level(path, run, tmp_path, capsys):
    """What `eval` prints and stores can be requested: a level, or all of them by the name that `list metrics` shows."""
    out = tmp_path / "x.json"
    words = ["eval", path, "--limit", "20", "--out", out, "--metrics"]
    if latents(run) == GRID:
        for name in ("kl/bottom", "kl/<level>"):
            assert cli([str(word) for word in (*words, name)]) == 2
            assert f"has no {name} (the model has none); it has elbo, " in capsys.readouterr().err
        assert not out.exists()
        return
    tell(capsys, *words, "kl/bottom")
    assert list(json.loads(out.read_text())["metrics"]) == ["kl/bottom"]
    tell(capsys, *words, "rate,kl/<level>")
    metrics = {name: m["value"] for name, m in json.loads(out.read_text())["metrics"].items()}
    assert metrics["kl/bottom"] + metrics["kl/top"] == pytest.approx(metrics["rate"], rel=1e-5)
    capsys.readouterr()
    assert cli([str(word) for word in (*words, "kl/botom")]) == 2
    line = capsys.readouterr().err
    assert re.search(r"has no kl/botom \(the model has none\); it has elbo, .*, kl/bottom, kl/top", line)
    assert "kl/<level>" in tell(capsys, "list", "metrics")


@pytest.mark.parametrize("path", ["Levels"], indirect=True)
def test_annealing_needs_one_posterior(path, tmp_path, capsys):
    words = ["eval", str(path), "--metrics", "ais", "--anneal-from", "posterior", "--out", str(tmp_path / "x.json")]
    assert cli(words) == 2
    assert capsys.readouterr().err == (
        "vae-jax: --metrics: ais: q(z|x) of this model does not provide the density of a given z to anneal from; use "
        "--anneal-from prior\n"
    )
    assert not (tmp_path / "x.json").exists()


def test_a_density_of_codes(path, run, tmp_path, capsys):
    copy = shutil.copytree(path, tmp_path / "run")
    for kind, option in (("gmm", "--components"), ("flow", "--steps"))[: 1 if latents(run) == GRID else 2]:
        tell(capsys, "fit-prior", copy, "--kind", kind, option, "2", "--limit", "60")
        tell(capsys, "sample", copy, "--prior", kind, "--n", "4", "--out", tmp_path / f"{kind}.npz")
        images = arrays(tmp_path / f"{kind}.npz")["images"]
        assert images.std(0).max() > 0
        np.testing.assert_array_equal(vj.sample(copy, 4, prior=kind), images)


def pictures(page):
    """Returns the PNGs of a page as arrays."""
    found = re.findall(r"data:image/png;base64,([\w+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")) for text in found]


def test_a_report(path, run, tmp_path, capsys):
    tell(capsys, "report", path, "--out", tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    found = pictures(page)
    rows = min(12, spaces.size(latents(run)))
    assert len(found) == 2 + rows  # samples, pairs, a strip for each dimension
    assert all(len(np.unique(picture)) > 20 for picture in found)
    assert len({picture.shape for picture in found[2:]}) == 1
    assert f"experiment:{'Grid' if rows == 12 else 'Levels'}" in page
    assert f"{rows} of {spaces.size(latents(run))} dimensions" in page
    assert ("kl/bottom" in page) == (latents(run) == LEVELS)
    assert page.count("rate of one level of a model of several") == (2 if latents(run) == LEVELS else 0)


@pytest.mark.parametrize("path", ["Levels"], indirect=True)  # the population does not depend on the toy
def test_side_by_side(path, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(figures, "write_all", lambda *args, **options: [])
    file = tmp_path / "toys.py"
    file.write_text(Path(toys.__file__).read_text())
    words = ["--model", f"experiment:{path.name.title()}", "--steps", "2", "--workdir", str(tmp_path / "sweep")]
    tell(capsys, "sweep", file, "--seeds", "0:2", "--model.scale", "2", *words, "--quiet")
    file.unlink()
    code._loaded.clear()
    members = sorted(file.parent for file in (tmp_path / "sweep").glob("*/config.json"))
    assert len(members) == 2
    assert "model.scale" in tell(capsys, "compare", path, members[0], "--out", tmp_path / "x.png")
    tell(capsys, "report", *members, "--out", tmp_path / "x.html")
    assert all(f">{member.name}<" in (tmp_path / "x.html").read_text() for member in members)


def test_terms_of_levels_by_number_and_by_name():
    """A term of several levels is reported for each, whether its latents are a dict, a tuple or both."""
    spec = specs.images(8, 8, 1)
    model = toys.Grid().build(spec)
    params, state = model.init(jax.random.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    terms = model.terms

    def nested(*args):
        found = terms(*args)
        rate = found["rate"]
        return found | {"kl": (0.25 * rate, {"a": 0.75 * rate})}

    tx = support.optimizer(params, vj.Optimizer())
    start = vj.init_state(model, tx, jax.random.key(0), {"x": jnp.zeros((1, 8, 8, 1))})
    del state
    found = evaluate(model._replace(terms=nested), start, [support.images(3, (8, 8, 1))], key=jax.random.key(0)).metrics
    assert [name for name in found if name.startswith("kl")] == ["kl/0", "kl/1.a"]
    assert found["kl/1.a"].value == pytest.approx(0.75 * found["rate"].value)


@pytest.mark.parametrize(
    ("space", "variables"),
    [
        (GRID, (1,) * 32),
        (Bits((5,)), (1,) * 5),
        (OneHot((6,), (3, 3)), (3, 3)),
        (Mixed((5,), (1, 1, 3)), (1, 1, 3)),
        (Codes((2, 2), 512), (1,) * 4),
    ],
)
def test_a_space_reshapes_there_and_back(space, variables):
    v = np.arange(3 * space.size, dtype=np.float32).reshape(3, -1)
    z = space.shaped(v)
    assert z.shape == (3, *space.shape)
    np.testing.assert_array_equal(space.vector(z), v)
    assert space.variables() == variables
    assert z.dtype == (jnp.int32 if isinstance(space, Codes) else np.float32)


def test_levels_side_by_side():
    levels = {"bottom": Real((3,)), "top": Real((2,))}
    z = {"bottom": np.ones((2, 3), np.float32), "top": np.zeros((2, 2), np.float32)}
    v = spaces.vector(levels, z)
    assert np.asarray(v).tolist() == [[1, 1, 1, 0, 0]] * 2
    support.assert_trees_equal(spaces.shaped(levels, v), z)
    assert spaces.words({"a": Real((1,)), "b": Bits((1,))}) == "real vectors and binary vectors"
    assert spaces.is_euclidean(levels)
    assert not spaces.is_euclidean({"a": Real((1,)), "b": Bits((1,))})
