"""The report: one valid page with everything in it, right numbers, and no word to the outside."""

import dataclasses
import html.parser
import json
import re
import shutil

import browser
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import support
from PIL import Image
from test_cli_look import arrays, config, make, snapshot

from vae_jax import spec
from vae_jax.cli.main import run as cli
from vae_jax.models import VAE, Autoencoder
from vae_jax.models.condition import Condition
from vae_jax.networks import MLP
from vae_jax.pages import charts, panels
from vae_jax.pages.page import SECTIONS, headlines, show
from vae_jax.pages.pictures import tiles
from vae_jax.pages.plane import flatten
from vae_jax.pages.views import Plane
from vae_jax.posteriors import POSTERIORS
from vae_jax.priors import PRIORS
from vae_jax.runs.run import Run

VOID = {"meta", "link", "img", "br"}


class Page(html.parser.HTMLParser):
    """What a page consists of; raises for tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words, self.text = [], [], [], text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def section(self, name):
        return self.text.partition(f'id="{name}"')[2].partition("</section>")[0]


def check(page):
    """Asserts what every report must be."""
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(SECTIONS) - {"codes"} <= set(ids)  # which only models with codes have
    pointed = [a["href"] for a in page.all("a")]
    assert {h.removeprefix("#") for h in pointed} <= set(ids)
    addresses = [a[name] for _, a in page.tags for name in ("src", "href", "srcset", "action", "data") if a.get(name)]
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert "url(" not in page.text
    assert "@import" not in page.text
    assert not page.all("script")
    assert all(a["alt"] and a["src"].startswith("data:image/png;base64,") for a in page.all("img"))
    assert all(a["aria-label"] for a in page.all("svg"))
    assert all(a.get("scope") in ("row", "col") for a in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert "nan" not in " ".join(a.get("d", "") for a in page.all("path"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns run folders by name; their checkpoints are untrained."""
    folder = tmp_path_factory.mktemp("runs")
    models = {
        "vae": VAE(3, MLP((8,))),
        "ae": Autoencoder(2, MLP((8,))),
        "bits": VAE(4, MLP((8,)), posterior=POSTERIORS["bernoulli"](), prior=PRIORS["bernoulli"]()),
    }
    made = {name: make(folder / name, config(model)) for name, model in models.items()}
    told = config(VAE(3, MLP((8,)), condition=Condition("label")))
    made["cvae"] = folder / "cvae"
    from vae_jax import data
    from vae_jax.runs.training_data import spec_of

    run = Run.create(made["cvae"], "tiny", told, spec_of(data.load(told.data, "train")))
    support.checkpoint(run)
    return made


def report(*words):
    """Runs the command, which must end well, and returns the page."""
    out = next(w for w in words if str(w).endswith(".html"))
    assert cli(["report", *map(str, words)]) == 0
    page = Page(out.read_text(encoding="utf-8"))
    check(page)
    return page


def test_one_run(runs, tmp_path):
    before = snapshot(runs["vae"])
    page = report(runs["vae"], "--out", tmp_path / "r.html")
    assert snapshot(runs["vae"]) == before, "nothing but the report is written"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    for words in ("measured for this report", "3 of 3 dimensions", "64 samples", "16 held-out images", "PCA"):
        assert words in page.text
    assert "100" in page.section("metrics"), "the run's evaluation settings: the first 100 images"
    for metric in ("elbo", "rate", "distortion", "mse"):
        assert f">{metric}<" in page.section("metrics")
    assert "model.network.hidden" in page.section("config")
    assert "jax" in page.section("environment")


def held(run, out):
    assert cli(["eval", str(run), "--out", str(out)]) == 0
    return json.loads(out.read_text())


def test_numbers_are_those_of_eval_json(runs, tmp_path):
    run = shutil.copytree(runs["vae"], tmp_path / "<b>run")
    values = held(run, run / "eval.json")
    values["metrics"]["elbo"] = {"value": -1234.5678, "stderr": 0.0321, "n": 4321}
    values["metrics"]["rate"]["value"] = None
    values["expected"] = {
        "elbo": {"value": -1300, "tolerance": 2, "direction": "at least", "source": "arXiv:1", "pass": True},
        "rate": {"value": 3, "tolerance": 0.5, "source": "<i>here", "pass": False},
        "mig": {"value": 0.2, "tolerance": 0.1, "source": "there", "pass": None},
    }
    values["pass"] = False
    (run / "eval.json").write_text(json.dumps(values))
    page = report(run, "--out", tmp_path / "r.html")
    section = page.section("metrics")
    for words in ("-1,234.568", "± 0.032", "4,321", "not finite"):
        assert words in section
    section = page.section("targets")
    for words in ("at least -1300 ± 2", "3 ± 0.5", "arXiv:1", "&lt;i&gt;here", "met", "missed", "not measured"):
        assert words in section
    assert "targets missed" in page.section("summary")
    assert "&lt;b&gt;run" in page.text
    assert "<b>run" not in page.text
    assert "no run has both" in page.section("rate-distortion")
    values["step"] = values["evaluations"][0]["step"] = 2
    (run / "eval.json").write_text(json.dumps(values))
    page = report(run, "--out", tmp_path / "r.html")
    assert "eval.json is of step 2" in page.text
    assert "-1,234.568" not in page.text


def test_runs_side_by_side(runs, tmp_path):
    page = report(runs["vae"], runs["bits"], runs["ae"], "--out", tmp_path / "r.html")
    differing = page.section("config").partition("<details>")[0]
    assert "model.posterior" in differing
    assert "data.name" not in differing
    assert "data.name" in page.section("config")
    assert "the model does not provide a prior" in page.section("samples")
    assert "no sum over dimensions" in page.section("kl")
    assert page.section("map").count("<svg") == 3
    assert "two latent dimensions as they are" in page.section("map")


def test_a_model_with_a_condition_shows_its_classes(runs, tmp_path):
    page = report(runs["cvae"], "--out", tmp_path / "r.html")
    assert "one class per row, 0 to 9" in page.section("samples")


def test_the_default_file_is_in_the_first_run(runs, tmp_path):
    run = shutil.copytree(runs["ae"], tmp_path / "ae")
    assert cli(["report", str(run)]) == 0
    check(Page((run / "report.html").read_text(encoding="utf-8")))


def test_a_diverged_run_is_shown(runs, tmp_path):
    run = Run.create(tmp_path / "broken", "tiny", config(VAE(3, MLP((8,)))), spec.images(8, 8, 1))
    state = jax.tree.map(lambda x: x * jnp.nan if x.dtype == jnp.float32 else x, run.init())
    support.checkpoint(run, state=state)
    page = report(run.path, "--out", tmp_path / "r.html")
    assert "not finite: this run has diverged" in page.section("map")
    assert "not finite" in page.section("metrics")
    assert "no metrics.jsonl" in page.section("curves")


def test_traversals_are_ordered_by_kl(runs, tmp_path):
    run = shutil.copytree(runs["vae"], tmp_path / "vae")
    values = held(run, run / "eval.json")
    values["latents"]["kl_per_dim"] = [0.5, 3.0, 1.0]
    (run / "eval.json").write_text(json.dumps(values))
    page = report(run, "--out", tmp_path / "r.html")
    assert re.findall(r'class="dim">(z\d)<small>([^<]*)', page.section("traversals")) == [
        ("z1", "KL 3.00"), ("z2", "KL 1.00"), ("z0", "KL 0.50")
    ]  # fmt: skip
    assert "4.5 nats together" in page.section("kl")


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [(-96.65611, 0.2539, "-96.66"), (0.0081777, 5.2e-05, "0.008178"), (15.0, None, "15"), (None, None, "not finite"),
     (0.123456, None, "0.1235"), (498.01, 24.0, "498"), (float("inf"), None, "not finite")],
)  # fmt: skip
def test_digits(value, stderr, text):
    assert show(value, stderr) == text


def test_headlines():
    every = {"mse": 1, "iw_50": 1, "rate": 1, "iw_500": 1, "iw_500_bits_per_dim": 1, "elbo": 1, "mig": 1}
    assert headlines(every) == ["iw_500", "elbo", "rate", "mse"]
    assert headlines({"mig": 1}) == []


def test_pca_is_an_isometry_of_codes_in_a_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(40, 2)) * [3.0, 1.0]
    basis = np.linalg.qr(rng.normal(size=(6, 2)))[0]
    places, how = flatten(flat @ basis.T + rng.normal(size=6), "pca")
    assert "100%" in how

    def distances(p):
        return np.linalg.norm(p[:, None] - p[None], axis=-1)

    np.testing.assert_allclose(distances(places), distances(flat), atol=1e-10)
    assert places[:, 0].var() > places[:, 1].var()


def test_tsne_keeps_clusters_apart():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.normal(size=(30, 5)), rng.normal(size=(30, 5)) + 20])
    places, how = flatten(codes, "tsne")
    assert "perplexity 19.7" in how
    near = np.linalg.norm(places[:, None] - places[None], axis=-1) + 1e9 * np.eye(60)
    assert np.array_equal(near.argmin(1) < 30, np.arange(60) < 30)


@pytest.mark.parametrize("codes", [np.zeros((7, 5)), np.zeros((1, 5)), np.zeros((3, 1)), np.zeros((4, 2))])
@pytest.mark.parametrize("kind", ["pca", "tsne"])
def test_maps_of_degenerate_codes(codes, kind):
    places, _ = flatten(codes, kind)
    assert places.shape == (len(codes), 2)
    assert np.isfinite(places).all()


def test_colors_of_factors_and_labels():
    places = np.random.default_rng(0).normal(size=(400, 2))
    many, few = np.arange(400) % 32, np.arange(400) % 3
    plane = Plane(places, "", {"x": (many, ()), "shape": (few, ("square", "ellipse", "heart"))})
    ramp, classes = panels._colored(plane, "x", "run"), panels._colored(plane, "shape", "run")
    assert ramp["ramp"]
    assert [c for _, c in ramp["legend"]] == list(range(10))
    assert [text for text, _ in classes["legend"]] == ["square", "ellipse", "heart"]
    for shown in (ramp, classes):
        assert len(re.findall("h0", shown["chart"])) == 400, "every image is one point"


def test_charts_put_values_where_they_belong():
    frame = charts.Frame((0.0, 10.0), (-1.0, 1.0))
    left, bottom = frame.at(0.0, -1.0)
    right, top = frame.at(10.0, 1.0)
    assert (float(left), float(bottom)) == (charts.LEFT, charts.HEIGHT - charts.BOTTOM)
    assert (float(right), float(top)) == (charts.WIDTH - charts.RIGHT, charts.TOP)
    assert charts.ticks(0.0, 10.0, 5) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert [charts.number(v) for v in (0.0, 1500.0, 12_000.0, 0.25, 1e-5)] == ["0", "1500", "12k", "0.25", "1e-05"]
    series = charts.Series("<b>", np.arange(2000.0), np.arange(2000.0))
    text = charts.lines([series], "step", "a & b", "<what>")
    assert len(re.search(r'class="curve c0" d="([^"]*)', text)[1].split("L")) <= charts.POINTS + 1
    assert "a &amp; b" in text
    assert "&lt;what&gt;" in text


@pytest.mark.parametrize("count", [1, 2, 40])
def test_curves_of_few_or_strange_numbers(count):
    lines = [{"step": i + 1, "split": "train", "elbo": -1.0, "rate": None, "beta": 0.0} for i in range(count)]
    lines.append({"step": count, "split": "validation", "elbo": float("nan"), "rate": 2.0})
    found = panels.curves({"run": lines})
    assert [c["title"] for c in found] == ["ELBO", "rate", "KL weight"]
    assert all("nan" not in c["chart"] for c in found)
    assert panels.curves({"run": []}) == []


def test_lines_of_equal_elbo():
    """On each dotted line distortion + rate is the number that stands on it."""
    spot = (charts.Series("run", np.array([20.0]), np.array([80.0])), 0.1, 0.2)
    text = charts.rate_distortion([spot], [], "")
    frame = re.findall(r'class="iso" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"/><text[^>]*>ELBO ([-\d.]+)', text)
    assert len(frame) >= 3
    x, y = (18.0, 22.0), (72.0, 88.0)  # a tenth of the value either way
    for x0, y0, x1, y1, elbo in frame:
        for a, b in ((x0, y0), (x1, y1)):
            rate = x[0] + (float(a) - charts.LEFT) / (charts.WIDTH - charts.LEFT - charts.RIGHT) * (x[1] - x[0])
            distortion = y[0] + (320 - charts.BOTTOM - float(b)) / (320 - charts.BOTTOM - charts.TOP) * (y[1] - y[0])
            assert rate + distortion == pytest.approx(-float(elbo), abs=0.05)


def test_tiles_are_whole_pixels_with_nothing_between(tmp_path):
    import base64

    images = np.random.default_rng(0).uniform(size=(2, 3, 8, 8, 1)).astype(np.float32)
    picture = tiles(images, shown=5)
    (tmp_path / "p.png").write_bytes(base64.b64decode(picture.uri.partition(",")[2]))
    with Image.open(tmp_path / "p.png") as image:
        seen = np.asarray(image)
    assert seen.shape == (picture.height, picture.width, 4)
    np.testing.assert_array_equal(seen[66:130:8, 66:130:8, 0], np.round(255 * images[1, 1, ..., 0]).astype(np.uint8))
    assert (seen[64:66, :, 3] == 0).all()
    assert (seen[66:, 132:, 3] == 0).all(), "the sixth is not there"


BAD = {
    "no run given": ([], "name one or more"),
    "no run": (["{tmp}/none"], "not a run folder"),
    "unfinished": (["{tmp}/unfinished"], "unfinished, at step 2 of 4"),
    "no checkpoint": (["{tmp}/empty"], "checkpoint"),
    "no such step": (["{vae}", "--step", "3"], "step 3"),
    "twice": (["{vae}", "{vae}"], "report: the same run twice"),
    "extension": (["{vae}", "--out", "{tmp}/a.pdf"], "'.pdf'"),
    "folder": (["{vae}", "--out", "{tmp}/dir.html"], "is a folder"),
    "no folder": (["{vae}", "--out", "{tmp}/none/a.html"], "no folder"),
    "seed": (["{vae}", "--seed", "-1"], "--seed"),
    "map": (["{vae}", "--map", "mds"], "mds"),
    "umap": (["{vae}", "--map", "umap"], "pip install umap-learn"),
    "eval.json": (["{tmp}/cut"], "write it again with `vae-jax eval "),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory, runs):
    folder = tmp_path_factory.mktemp("given")
    (folder / "dir.html").mkdir()
    for name in ("unfinished", "empty"):
        run = Run.create(folder / name, "tiny", config(VAE(3, MLP((8,)))), spec.images(8, 8, 1))
        if name == "unfinished":
            support.checkpoint(run, 2)
    shutil.copytree(runs["vae"], folder / "cut")
    (folder / "cut" / "eval.json").write_text('{"step": 4')
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name, runs, given, capsys, monkeypatch):
    # Whether umap-learn is installed here or not, the sentence is that of a machine without it.
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda n, *a: None if n == "umap" else find(n, *a))
    words, said = BAD[name]
    before = snapshot(runs["vae"], given)
    code = cli(["report", *(w.format(vae=runs["vae"], tmp=given) for w in words)])
    captured = capsys.readouterr()
    assert code == 2
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert snapshot(runs["vae"], given) == before


def test_an_unfinished_run_is_shown_when_its_step_is_named(given, tmp_path):
    page = report(given / "unfinished", "--step", "2", "--out", tmp_path / "r.html")
    assert "step 2 of 4" in page.section("summary")


def test_a_report_of_sorted_data_shows_every_class(tmp_path, monkeypatch):
    from vae_jax.pages import views as look

    monkeypatch.setattr(look, "POINTS", 40)
    data = support.sorted_data(tmp_path / "sorted.npz")
    run = Run.load(make(tmp_path / "run", dataclasses.replace(config(VAE(3, MLP((8,)))), data=data)))
    found = look.look(run, run.restore(), "test", None)
    assert set(np.unique(found.plane.colors["factor_0"][0])) == {0, 1, 2, 3}
    assert len(found.originals) == 16
    assert {int(image.mean() * 255) // 50 for image in found.originals} == {0, 1, 2, 3}


def test_codes_of_the_map_are_the_models(runs, tmp_path):
    """The points of a two-dimensional code are its mean codes, image by image."""
    out = tmp_path / "codes.npz"
    assert cli(["encode", str(runs["ae"]), "--input", "digits", "--out", str(out)]) == 0
    from vae_jax.pages.views import look

    run = Run.load(runs["ae"])
    plane = look(run, run.restore(), "test", None).plane
    np.testing.assert_allclose(plane.places, arrays(out)["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plane.colors["label"][0], arrays(out)["labels"])


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_a_browser_shows_it_without_complaint_or_request(runs, tmp_path, width, dark):
    out = tmp_path / "r.html"
    report(runs["vae"], runs["bits"], "--out", out)
    seen = browser.visit(out, width=width, dark=dark)
    assert [r for r in seen.requests if not r.startswith("data:")] == [out.resolve().as_uri()]
    assert seen.complaints == []
    assert seen.content_width <= width, "nothing sticks out sideways"
    (tmp_path / "p.png").write_bytes(seen.picture)
    with Image.open(tmp_path / "p.png") as image:
        pixels = np.asarray(image.convert("L"), float)
    assert pixels.std() > 10, "something is drawn"
    assert (np.median(pixels) < 128) == dark
