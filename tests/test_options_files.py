"""Every option of baseline, list and data, against scikit-learn and the files themselves."""

import json

import numpy as np
import pytest
from options import cli, close, covers, done
from PIL import Image
from sklearn.mixture import GaussianMixture

from vae_jax import data
from vae_jax.data import prepared
from vae_jax.data.pipeline import eval_batches


def baseline(tmp_path, *words):
    """Runs `baseline` into a folder of its own; returns (its folder, its eval.json)."""
    folder = tmp_path / f"b{len(list(tmp_path.iterdir()))}"
    done("baseline", *words, "--workdir", folder)
    return folder, json.loads((folder / "eval.json").read_text())


def pixels(split, protocol="standard"):
    images = data.load(data.DataConfig("digits", batch_size=1, protocol=protocol), split).arrays["image"]
    return images.reshape(len(images), -1) / 255.0


@covers(
    "baseline",
    "components",
    "covariance",
    "floor",
    "iterations",
    "dequantize",
    "protocol",
    "split",
    "limit",
    "seed",
    "workdir",
)
def test_a_mixture_has_these_components_and_learns_from_these_images(tmp_path):
    common = ["digits", "--dequantize", "False", "--components", 3, "--covariance", "diag", "--floor", 0.02]
    found = {}
    for number, (protocol, split) in enumerate((("standard", "validation"), ("full", "test"))):
        words = ["--iterations", 4, "--limit", 150, "--seed", 5, "--protocol", protocol, "--split", split]
        _, result = baseline(tmp_path, *common, *words)
        mixture = GaussianMixture(3, covariance_type="diag", reg_covar=0.02, max_iter=4, random_state=5)
        with np.testing.suppress_warnings() as quiet:
            quiet.filter(UserWarning)
            mixture.fit(pixels("train", protocol)[:150])
        close(result["metrics"]["log_prob"]["value"], mixture.score(pixels(split, protocol)), atol=1e-3)
        assert result["split"] == split
        assert result["protocol"]["n"] == (180, 1797)[number]
        assert "bits_per_dim" not in result["metrics"]
        found[protocol] = result["metrics"]["log_prob"]["value"]
    assert found["standard"] != found["full"]
    _, again = baseline(tmp_path, *common, *words[:-4], "--seed", 6)
    assert again["metrics"]["log_prob"]["value"] != found["standard"]


@covers("baseline", "kind", "dequantize", "components")
def test_a_pca_of_dequantized_pixels(tmp_path):
    from sklearn.decomposition import PCA

    folder, result = baseline(tmp_path, "digits", "--kind", "ppca", "--components", 4, "--dequantize", "True")
    import jax

    from vae_jax import prng

    config = data.DataConfig("digits", batch_size=1, dequantize=True)

    def rows(split, key):
        parts = [np.asarray(b["x"]) for b in eval_batches(data.load(config, split), config, 500, key=key)]
        return np.concatenate(parts).reshape(-1, 64).astype(np.float64)

    train = rows("train", prng.site_key(jax.random.key(0), "baseline"))
    # scikit-learn divides by N - 1, maximum likelihood by N: no more than a thousandth here.
    want = PCA(4, svd_solver="full").fit(train).score(rows("test", None))
    assert abs(result["metrics"]["log_prob"]["value"] - want) < 0.05
    bits = (-result["metrics"]["log_prob"]["value"] / 64 + np.log(256)) / np.log(2)
    close(result["metrics"]["bits_per_dim"]["value"], bits)
    assert json.loads((folder / "baseline.json").read_text())["model"]["kind"] == "ppca"


@covers("baseline", "source")
def test_a_baseline_of_ones_own_data(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        images = rng.integers(level, level + 50, (60, 4, 4, 1), dtype=np.uint8)
        images[:, 0, 0] = rng.integers(200, 256, (60, 1))  # so that they are no darker than pictures are
        np.savez(tmp_path / f"{name}.npz", images=images)
    means = {}
    for name in ("dark", "light"):
        words = ["npz", "--source", tmp_path / f"{name}.npz", "--protocol", "full", "--components", 1]
        folder, _ = baseline(tmp_path, *words)
        picture = np.asarray(Image.open(folder / "figures" / "samples.png").convert("L"), float)
        means[name] = picture[picture < 250].mean()
    assert means["dark"] < means["light"] - 40
    monkeypatch.chdir(tmp_path)
    done("baseline", *words)
    assert (tmp_path / "runs" / "baseline-mog-npz" / "eval.json").is_file()


KINDS = ("experiments", "models", "networks", "likelihoods", "posteriors", "priors", "generators")
KINDS += ("quantizers", "objectives", "schedules", "gradients", "data", "metrics")
ONE = {"experiments": "vae_digits", "models": "multimodal", "networks": "local-ar", "objectives": "beta-tc"}
ONE |= {"posteriors": "von-mises", "priors": "vamp", "gradients": "rloo", "likelihoods": "log-cosh"}
ONE |= {"quantizers": "simvq", "generators": "pixelcnn"}
ONE |= {"schedules": "cyclical", "data": "sprites", "metrics": "info_mec"}


@pytest.mark.parametrize("kind", KINDS)
def test_list_shows_one_kind(kind, capsys):
    assert cli("list", kind) == 0
    names = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert ONE[kind] in names
    assert set(names).isdisjoint(value for other, value in ONE.items() if other != kind)


def test_list_shows_all_kinds_by_default(capsys):
    assert cli("list") == 0
    out = capsys.readouterr().out
    assert [line[:-1] for line in out.splitlines() if line.endswith(":") and " " not in line] == list(KINDS)
    assert all(f"  {name}" in out for name in ONE.values())


def test_data_list_says_where_each_set_is(capsys):
    assert cli("data", "list") == 0
    out = capsys.readouterr().out
    for name, entry in data.DATASETS.items():
        assert f"{name}: {entry.summary}" in out
        assert f"protocols: {', '.join(entry.protocols)}" in out
    assert out.count("where: embedded") == 5


@covers("data prepare", "range")
def test_arrays_on_another_range_are_prepared_as_the_message_says(tmp_path, capsys):
    pytest.importorskip("tensorflow_datasets")
    np.savez(tmp_path / "z.npz", images=np.random.default_rng(0).normal(size=(30, 8, 8, 1)))
    words = ["data", "prepare", "npz", "--from", tmp_path / "z.npz", "--data-dir", tmp_path / "out"]
    assert cli(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    low, high = line.split("use --range ")[1].split(",")[0].split()
    assert not (tmp_path / "out").exists()
    done(*words, "--range", low, high)
    folder = next((tmp_path / "out").rglob("dataset_info.json")).parent
    found = data.load(data.DataConfig("npz", str(folder), batch_size=4))
    assert found.info.units.range == (float(low), float(high))
    assert cli("data", "prepare", "digits", "--data-dir", tmp_path / "more", "--range", 0, 1) == 2


@covers("data prepare", "from", "data-dir", "image-size", "max-bytes", "channels", "fit", "background", "skip-broken")
def test_prepared_images_come_from_there_and_have_this_size(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine").mkdir()
    for i in range(12):
        Image.fromarray(np.full((10, 14), 20 * i, np.uint8)).save(tmp_path / "mine" / f"{i:02}.png")
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    words = ["data", "prepare", "image_folder", "--from", tmp_path / "mine", "--image-size", 6]
    assert cli(*words) == 2
    assert "set TFDS_DATA_DIR or pass --data-dir" in capsys.readouterr().err
    done(*words, "--data-dir", tmp_path / "out")
    said = capsys.readouterr().out
    folder = next((tmp_path / "out").rglob("dataset_info.json")).parent
    assert str(folder) in said
    assert f"found: {tmp_path / 'mine'}" in said
    held = [prepared.read(folder, split)["image"] for split in ("train", "test")]
    assert {x.shape[1:] for x in held} == {(6, 6, 1)}
    assert sorted(int(v) for x in held for v in x[:, 3, 3, 0]) == [20 * i for i in range(12)]
    (tmp_path / "mine" / "x.png").write_bytes(b"no picture")
    words += ["--channels", "rgb", "--fit", "pad", "--background", "black", "--skip-broken", "True"]
    done(*words, "--data-dir", tmp_path / "padded")
    folder = next((tmp_path / "padded").rglob("dataset_info.json")).parent
    held = np.concatenate([prepared.read(folder, split)["image"] for split in ("train", "test")])
    assert held.shape == (12, 6, 6, 3)
    assert not held[:, [0, 5]].any()  # 4 rows of 10, in the middle of 6
    assert sorted(int(v) for v in held[:, 3, 3, 0]) == [20 * i for i in range(12)]
    # Without --data-dir: where TFDS_DATA_DIR says.
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "usual"))
    np.savez(tmp_path / "few.npz", images=np.arange(192, dtype=np.uint8).reshape(12, 4, 4, 1))
    words = ["data", "prepare", "npz", "--from", tmp_path / "few.npz"]
    assert cli(*words, "--max-bytes", 191) == 2
    assert "max_bytes" in capsys.readouterr().err.replace("-", "_")
    assert not (tmp_path / "usual").exists()
    done(*words)
    assert list((tmp_path / "usual").rglob("dataset_info.json"))
