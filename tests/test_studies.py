"""Studies: what is finished is kept, another protocol is refused, and pages hold the sections of their results."""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from options import make, tiny

import vae_jax as vj
from benchmarks import compression, jobs, quantizers, studies, two_stage
from vae_jax.errors import InputError
from vae_jax.likelihoods import Logistic256
from vae_jax.models import VAE, VQVAE, Classifier, SecondStage
from vae_jax.models.stage2 import Transformer
from vae_jax.models.stage2.config import PriorCondition
from vae_jax.networks import MLP, ResidualConv
from vae_jax.quantizers import FSQ, QUANTIZERS

ROOT = Path(__file__).resolve().parent.parent
STUDIES = {"quantizers": quantizers, "compression": compression, "two_stage": two_stage}
FIRST = VQVAE(4, ResidualConv(8, 1, 1, 4), Logistic256(), FSQ((4, 3)))
MODELS = {
    "run": SecondStage(FIRST, Transformer(8, 1, 2), PriorCondition("label")),
    "plain": VAE(2, MLP((8,))),
    "features": Classifier(2, MLP((8,))),
}


def page(folder: Path, name: str) -> Path:
    """Returns a page with the markers of a study, and a line before and after them."""
    path = folder / "page.md"
    path.write_text("\n".join(["before", *studies.markers(name), "after"]) + "\n")
    return path


@pytest.mark.parametrize("name", STUDIES)
def test_pages_hold_the_section_of_the_results(name):
    """Heading, words and tables where there are results; without them nothing, neither here nor around it."""
    module, out = STUDIES[name], ROOT / "results" / "studies" / f"{name}.json"
    wanted = module.tables(json.loads(out.read_text())) if out.is_file() else []
    assert studies.between(ROOT / module.PAGE, name) == "\n".join(wanted)
    lines = (ROOT / module.PAGE).read_text().splitlines()
    assert lines.count(module.HEADING) == (1 if out.is_file() else 0)
    # The paragraph before the markers is not one that introduces them.
    assert not re.search(r"^#|:$", [line for line in lines[: lines.index(studies.markers(name)[0])] if line][-1])


SEVERAL = ("usage", "perplexity")  # metrics with one number per codebook


def canned(data, codes, method, seed, args):
    """Stands for a process that trains."""
    if method == "vq":
        raise jobs.Failed("no memory")
    books = ("/0", "/1") if method == "residual-vq" else ("",)
    values = {name: 0.5 for name in quantizers.METRICS if name not in SEVERAL}
    values |= {f"{name}{book}": 0.25 + seed for name in SEVERAL for book in books} | {"ssim": 0.9}
    metrics = {name: {"value": value, "stderr": None, "n": 9} for name, value in values.items()}
    return {"data": data, "codes": codes, "quantizer": method, "seed": seed, "metrics": metrics}


def test_a_study_continues_where_it_stopped(tmp_path, monkeypatch, capsys):
    """A run that failed is made by the next call, and no other; the page has the table alone replaced."""
    made, out, where = [], tmp_path / "q.json", page(tmp_path, "quantizers")
    here = studies.environment()

    def run(*run):
        made.append(run[:4])
        return canned(*run)

    monkeypatch.setattr(quantizers, "in_process", run)
    words = ["--data", "digits", "--only", "vq", "residual-vq", "--out", str(out), "--page", str(where)]
    assert quantizers.main(words) == 1
    assert "not measured: digits/512/vq/0: no memory" in capsys.readouterr().err
    # The next call is made elsewhere; each run keeps its own machine.
    there = here | {"machine": here["machine"] | {"cpu": "another"}}
    monkeypatch.setattr(studies, "environment", lambda: there)
    assert quantizers.main([*words, "--seeds", "0", "1"]) == 1
    assert made.count(("digits", 4096, "residual-vq", 0)) == 1
    assert made.count(("digits", 512, "vq", 0)) == 2
    result = json.loads(out.read_text())
    assert list(result["runs"]) == ["digits/4096/residual-vq/0", "digits/4096/residual-vq/1"]
    first, second = ({key: run[key] for key in here} for run in result["runs"].values())
    assert (first, second) == (here, there)
    text = where.read_text()
    assert f" cores, jax {here['versions']['jax']}; another, " in text
    assert text.startswith(f"before\n{studies.markers('quantizers')[0]}\n{quantizers.HEADING}\n")
    assert text.endswith("\nafter\n")
    # Usage 0.25 and 1.25 over two seeds, of each codebook.
    assert "| residual VQ, two levels of 512 | 75.0 ± 50.0, 75.0 ± 50.0 | 1 ± 0, 1 ± 0 |" in text


def test_results_of_another_protocol_are_not_replaced(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantizers, "in_process", canned)
    words = ["--data", "digits", "--only", "fsq", "--out", str(tmp_path / "q.json")]
    assert quantizers.main(words) == 0
    before = (tmp_path / "q.json").read_text()
    assert quantizers.main([*words, "--steps", "3"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'q.json'} holds runs of steps 2000, not 3" in said
    assert (tmp_path / "q.json").read_text() == before
    assert quantizers.main([*words, "--steps", "3", *said.split("as in ")[1].split()]) == 0
    bare = tmp_path / "bare.md"
    bare.write_text("no markers\n")
    assert quantizers.main([*words, "--page", str(bare)]) == 2
    assert "must hold the lines" in capsys.readouterr().err


def test_every_quantizer_of_the_study_has_the_codes_that_its_row_says():
    args = quantizers.options().parse_args([])
    made = {
        (name, codes): quantizers.configure("digits", codes, name, 0, args).model.quantizer
        for name, method in quantizers.METHODS.items()
        for codes in method.sizes
    }
    for (name, codes), quantizer in made.items():
        assert quantizer.sizes == ((512, 512) if name == "residual-vq" else (codes,))
    assert {type(q) for q in made.values()} == set(QUANTIZERS.values()) - {
        QUANTIZERS[name] for name in ("grouped-vq", "residual-fsq", "latent")
    }


def test_a_run_of_the_study_is_trained_and_measured(monkeypatch):
    monkeypatch.setattr(quantizers, "WIDTH", 8)
    args = quantizers.options().parse_args(["--steps", "2", "--split", "validation"])
    found = quantizers.measure("digits", 512, "fsq", 0, args)
    assert set(quantizers.METRICS) | {"ssim"} <= found["metrics"].keys()
    assert found["metrics"]["usage"]["n"] == 1437 - 1200  # what training leaves
    assert quantizers.metric([found], "bits_per_image", digits=0) == "36"
    json.dumps(found)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Returns the folders of runs, none of them trained."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: make(folder / name, tiny(model)).path for name, model in MODELS.items()}


def test_compression_is_that_of_the_command(runs, tmp_path, capsys):
    """Bytes of codes, PNG and WebP as `compress` has them, of the first images of the split; the table divides them."""
    out, where = tmp_path / "c.json", page(tmp_path, "compression")
    words = ["--run", str(runs["run"]), "--images", "12", "--out", str(out), "--page", str(where)]
    assert compression.main(words) == 0
    result = json.loads(out.read_text())
    images = compression.images_of(vj.load(runs["run"]), "test", 12)
    packed, found = vj.compress(runs["run"], images), result["runs"]
    assert all({"machine", "versions", "commit"} <= run.keys() for run in found.values())
    assert found["codes"]["bytes"] == len(packed.data)
    assert found["codes"]["bits_of_the_prior"]["value"] == pytest.approx(packed.bits.mean())
    assert found["codes"]["bits_of_equal_codes"] == pytest.approx(16 * np.log2(12))
    assert {name: found[name]["bytes"] for name in packed.others} == packed.others
    assert all(found[name]["bytes_tiled"] < found[name]["bytes"] for name in packed.others)
    png = packed.others["PNG"]
    assert f"| PNG, one file per image | {png:,} | {8 * png / 12:,.1f} | {8 * png / 12 / 64:.3f} |" in where.read_text()
    capsys.readouterr()
    assert compression.main(words) == 0
    assert capsys.readouterr().out == ""  # nothing is measured again
    assert compression.main([*words[:2], "--images", "13", *words[4:]]) == 2


def test_tiles_hold_every_image_once():
    images = np.arange(6 * 2 * 3).reshape(6, 2, 3, 1)
    whole = compression.tiled(images)
    assert whole.shape == (4, 9, 1)
    np.testing.assert_array_equal(whole[2:, 3:6], images[4])


def test_a_first_stage_without_bits_is_refused_with_one_that_has_them(monkeypatch):
    monkeypatch.setattr(vj, "evaluate_run", lambda *args, **options: {"metrics": {"elbo": {}}})
    args = argparse.Namespace(run="runs/x", split="test", images=0)
    with pytest.raises(InputError, match="--run: runs/x does not have bits") as refused:
        two_stage.likelihood(None, args)  # type: ignore[arg-type]
    advised = str(refused.value).split("`vae-jax train ")[1].split("`")[0]
    model: Any = vj.experiment(advised).model
    assert model.likelihood.levels == 256


def test_two_stages_are_measured_by_the_suite(runs, tmp_path):
    """Frechet distances are those of `eval`, one per seed and model; bits of both stages those of its `elbo`."""
    out, figure, where = tmp_path / "t.json", tmp_path / "t.png", page(tmp_path, "two_stage")
    words = [word for name, path in runs.items() for word in (f"--{name}", str(path))]
    words += ["--images", "24", "--seeds", "0", "1", "--out", str(out), "--page", str(where), "--figure", str(figure)]
    assert two_stage.main(words) == 0
    found = json.loads(out.read_text())["runs"]
    assert set(found) == {f"samples/{name}/{seed}" for name in two_stage.MODELS for seed in (0, 1)} | {"likelihood"}
    asked = {"metrics": ("frechet_distance",), "limit": 24, "seed": 1, "write": False}
    wanted = vj.evaluate_run(runs["plain"], **asked, settings={"features": str(runs["features"])})
    assert found["samples/plain VAE/1"]["value"] == pytest.approx(wanted["metrics"]["frechet_distance"]["value"])
    both, first = (found["likelihood"][name] for name in ("both", "first"))
    assert first["rate"]["value"] == pytest.approx(16 * np.log(12))
    assert first["elbo"]["value"] - both["elbo"]["value"] == pytest.approx(both["rate"]["value"] - 16 * np.log(12))
    for part in (both, first):
        assert part["bits_per_dim"]["value"] == pytest.approx(-part["elbo"]["value"] / (64 * np.log(2)))
    assert figure.is_file()
    assert all({"machine", "versions", "commit"} <= run.keys() for run in found.values())
    text, held = where.read_text(), json.loads(out.read_text())
    assert "| plain VAE (`tiny`, step 4) |" in text
    # The likelihood of one latent vector is of Fashion-MNIST, test split, and is shown for no other.
    assert "| one latent vector" not in text
    for data, split in (("fashion_mnist", "validation"), ("fashion_mnist", "test")):
        held["protocol"] |= {"data": data, "split": split}
        assert ("| one latent vector" in "\n".join(two_stage.tables(held))) == (split == "test")
