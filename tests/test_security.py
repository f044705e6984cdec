"""SECURITY.md: its tests exist and it names no address; and attacks by the names of files."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_jax import data
from vae_jax.data.config import DataConfig
from vae_jax.errors import InputError
from vae_jax.runs import config_file as runfile
from vae_jax.runs.config import Config
from vae_jax.runs.config_json import to_dict

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text()


def test_every_claim_names_tests_that_exist():
    named = set(re.findall(r"`(tests/[^`]+)`", TEXT))
    assert len(named) >= 5
    assert {name for name in named if not (ROOT / name).is_file()} == set()
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| input")]
    limits = TEXT.partition("## Limits")[2].partition("## How")[0]
    assert [row for row in rows if "`tests/" not in row] == []
    assert len(re.findall(r"`tests/", limits)) >= 2


def test_options_and_commands_that_it_names_exist():
    from vae_jax.cli.main import run

    assert run(["--version"]) == 0
    for option in set(re.findall(r"`--([\w.-]+)`", TEXT)) - {"features", "data.max-bytes"}:
        pytest.fail(f"--{option}: name it here, with a test that it exists")


def test_it_holds_no_link_and_no_address():
    assert not re.search(r"https?:|www\.|\]\(|@\w+|\b[\w-]+\.(com|org|io|net|dev)\b", TEXT)


def test_what_is_trusted_is_said_both_ways():
    rows = re.findall(r"^\| ([^|]+) \| (yes|never) \|", TEXT, re.M)
    assert [trusted for _, trusted in rows] == ["yes", "never", "never", "yes", "never"]
    assert [name.split(":")[0].split(" (")[0] for name, _ in rows] == [
        "experiment files", "data", "run folders", "run folders with parts of their own", "weights and feature files",
    ]  # fmt: skip


# One attack for each row that says "never"; an .npz or .npy with a pickle, and weights: tests/test_data_security.py
# and tests/test_inception.py.


@pytest.mark.parametrize("kind", ["GIF", "TGA", "PPM", "PDF", "EPS"])
def test_a_picture_is_opened_by_the_named_decoders_only(tmp_path, kind):
    """PIL would read each of these under this name, EPS through another program."""
    picture = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    picture.save(tmp_path / "0.png", format=kind)
    config = DataConfig("image_folder", source=str(tmp_path), batch_size=1, protocol="full")
    with pytest.raises(InputError, match=r"0\.png: not a readable image \(no PNG, JPEG, BMP, WEBP or TIFF file\)"):
        data.load(config)
    picture.save(tmp_path / "0.png")
    assert data.load(config).info.shape == (8, 8, 1)


def test_what_a_config_makes_a_process_import(tmp_path, monkeypatch):
    """A name of a registry is never imported; `module:Class` can be forbidden, and is then not imported either."""
    monkeypatch.setenv("VAE_JAX_RUN_CODE", "0")
    (tmp_path / "evil.py").write_text("import pathlib; pathlib.Path('ran').touch()\nclass Model: pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    good = to_dict(Config()) | {"experiment": "x", "image_shape": [8, 8, 1]}
    file = tmp_path / "config.json"
    parts = [part for part, value in good["model"].items() if isinstance(value, dict) and "kind" in value]
    assert {"network", "likelihood", "prior", "posterior"} <= {*parts}
    for part in (None, *parts):
        for name in ("evil", "evil:Model", "evil.Model"):
            bad = json.loads(json.dumps(good))
            (bad["model"] if part is None else bad["model"][part])["kind"] = name
            file.write_text(json.dumps(bad))
            said = "evil:Model: is not executed because VAE_JAX_RUN_CODE is 0" if ":" in name else f"{name!r}"
            with pytest.raises(InputError, match=re.escape(said)):
                runfile.read(file)
    data = json.loads(json.dumps(good))
    data["data"]["name"] = "evil:Model"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"data\.name: evil:Model: is not executed because VAE_JAX_RUN_CODE is 0"):
        runfile.read(file)
    assert not (tmp_path / "ran").exists()
    file.write_text(json.dumps(good))
    assert runfile.read(file).config == Config()
