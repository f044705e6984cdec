"""Inception features: the graph against pytorch-fid and plain numpy; weights that are refused; a run measured."""

import json
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_cli_look import config, make

from vae_jax.cli.main import run as cli
from vae_jax.errors import InputError
from vae_jax.evaluation import inception_weights as reader
from vae_jax.metrics import frechet
from vae_jax.models import VAE
from vae_jax.models import inception_features as inception
from vae_jax.networks import MLP
from vae_jax.networks import inception as net

pytestmark = pytest.mark.usefixtures("command_line")  # messages of `--features`


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a tensor that its name alone decides, of a size that keeps features of order one."""
    u = np.random.default_rng(zlib.crc32(name.encode())).random(shape, np.float32)
    if len(shape) == 4:
        return (2 * u - 1) * np.float32(math.sqrt(6 / math.prod(shape[1:])))
    return u + np.float32(0.5) if name.endswith(("bn.weight", "running_var")) else (u - np.float32(0.5)) / 2


def tensors() -> dict[str, np.ndarray]:
    """Returns weights of the whole network under torch's names."""
    made = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(inception.shapes()):
        *layers, last = [key.key for key in keys[1:]]
        shape = (leaf.shape[3], leaf.shape[2], *leaf.shape[:2]) if last == "kernel" else leaf.shape
        name = ".".join([*layers, reader.TENSOR[last]])
        made[name] = drawn(name, shape)
    return made


def pictures(n: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).random((n, height, width, channels), np.float32)


@pytest.fixture(scope="module")
def weights():
    return tensors()


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    """The weights with what else stands in such a file."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    extra = {
        "fc.weight": np.zeros((1008, 2048), np.float32),
        "AuxLogits.fc.bias": np.zeros(1000, np.float32),
        "Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64),
    }
    save_file(weights | extra, path)
    return path


def test_the_graph_is_that_of_pytorch_fid(file):
    """Features of pytorch-fid 0.3.0 (torch 2.13.0, torchvision 0.28.0) with these weights; see the slow test below."""
    got = np.asarray(jax.jit(inception.features)(reader.read(file), pictures(2, 16, 16, 3)))
    assert got.shape == (2, 2048)
    assert got.dtype == np.float32
    want = [
        [2.272443, 0.6177862, 0.03316332, 0.7478061, 0.0, 0.0666669, 6.27151, 10.23246],
        [2.017644, 0.5091154, 0.0327911, 0.7318214, 0.0, 0.09137641, 5.965638, 10.07721],
    ]
    np.testing.assert_allclose(got[:, ::256], want, rtol=1e-4, atol=2e-5)
    np.testing.assert_allclose(got.sum(1, dtype=np.float64), [5404.87699869, 5220.06247813], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), [204.22276307, 197.2331455], rtol=1e-5)


def features_by_hand(weights: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    """Returns the features of pytorch-fid's network in numpy: a convolution is a sum over its taps.

    Written from torchvision's `inception.py` and pytorch-fid's patches of it, with their names and paddings; widths and
    kernels are those of the weights.
    """

    def unit(name: str, x: np.ndarray, stride: int = 1, pad: bool = True) -> np.ndarray:
        kernel = weights[f"{name}.conv.weight"]  # [out, in, h, w]
        high, wide = kernel.shape[2:]
        if pad:
            x = np.pad(x, ((0, 0), (high // 2,) * 2, (wide // 2,) * 2, (0, 0)))
        rows, columns = (x.shape[1] - high) // stride + 1, (x.shape[2] - wide) // stride + 1
        y = np.zeros((len(x), rows, columns, len(kernel)), np.float32)
        for i in range(high):
            for j in range(wide):
                part = x[:, i : i + stride * (rows - 1) + 1 : stride, j : j + stride * (columns - 1) + 1 : stride]
                y += part @ kernel[:, :, i, j].T
        bn = {last: weights[f"{name}.bn.{last}"] for last in ("weight", "bias", "running_mean", "running_var")}
        y = (y - bn["running_mean"]) / np.sqrt(bn["running_var"] + np.float32(1e-3))
        return np.maximum(y * bn["weight"] + bn["bias"], 0)

    def windows(x: np.ndarray, step: int = 1) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::step, ::step]

    def bordered(x: np.ndarray) -> np.ndarray:
        return np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)

    def mean(x: np.ndarray) -> np.ndarray:  # patch 1: `count_include_pad=False`
        return np.nanmean(windows(bordered(x)), (-2, -1))

    def row(block: str, x: np.ndarray, *names: str, stride: int = 1) -> np.ndarray:
        for name in names:
            last = name == names[-1] and stride > 1
            x = unit(f"{block}.{name}", x, stride if last else 1, pad=not last)
        return x

    def side_by_side(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts, -1)

    x = np.asarray(net.prepare(jnp.asarray(images)))  # checked by test_resize
    x = unit("Conv2d_1a_3x3", x, 2, pad=False)
    x = unit("Conv2d_2b_3x3", unit("Conv2d_2a_3x3", x, pad=False))
    x = windows(x, 2).max((-2, -1))
    x = windows(unit("Conv2d_4a_3x3", unit("Conv2d_3b_1x1", x), pad=False), 2).max((-2, -1))
    triple = tuple(f"branch3x3dbl_{i}" for i in (1, 2, 3))
    for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        five = row(b, x, "branch5x5_1", "branch5x5_2")
        x = side_by_side(row(b, x, "branch1x1"), five, row(b, x, *triple), row(b, mean(x), "branch_pool"))
    halved = windows(x, 2).max((-2, -1))
    x = side_by_side(row("Mixed_6a", x, "branch3x3", stride=2), row("Mixed_6a", x, *triple, stride=2), halved)
    for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        once = row(b, x, *(f"branch7x7_{i}" for i in (1, 2, 3)))
        twice = row(b, x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        x = side_by_side(row(b, x, "branch1x1"), once, twice, row(b, mean(x), "branch_pool"))
    halved = windows(x, 2).max((-2, -1))
    seven = row("Mixed_7a", x, *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)), stride=2)
    x = side_by_side(row("Mixed_7a", x, "branch3x3_1", "branch3x3_2", stride=2), seven, halved)
    for b in ("Mixed_7b", "Mixed_7c"):
        # Patch 2: the last block pools by the maximum.
        pooled = mean(x) if b == "Mixed_7b" else np.nanmax(windows(bordered(x)), (-2, -1))
        three, double = row(b, x, "branch3x3_1"), row(b, x, *triple[:2])
        forks = [row(b, three, f"branch3x3_2{c}") for c in "ab"] + [row(b, double, f"branch3x3dbl_3{c}") for c in "ab"]
        x = side_by_side(row(b, x, "branch1x1"), *forks, row(b, pooled, "branch_pool"))
    return x.mean((1, 2))


def test_the_graph_is_that_of_numpy(weights, file):
    """Every feature, of a second writing of the network that shares only the resize with ours."""
    x = pictures(1, 16, 16, 3)
    got = jax.jit(inception.features)(reader.read(file), x)
    np.testing.assert_allclose(got, features_by_hand(weights, x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (2, 28, 28, 1), (1, 299, 299, 3), (1, 400, 350, 3)])
def test_features_are_those_of_pytorch_fid(shape, weights, file, monkeypatch):
    """Their program itself, with our weights in place of its download: `pip install pytorch-fid` beside `[bench]`.

    It is in no extra: it needs torch, which is too large for the suite, and a torchvision built for that very torch
    (the wheel of PyPI does not load beside a CPU build). What it says of two images is in
    `test_the_graph_is_that_of_pytorch_fid`; `test_the_graph_is_that_of_numpy` repeats its graph in the suite.
    """
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("pytorch_fid.inception", exc_type=(ImportError, RuntimeError))
    state = {name: torch.from_numpy(value) for name, value in weights.items()}
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda url, progress: state)
    x = pictures(*shape)
    with torch.no_grad():
        rgb = torch.from_numpy(np.repeat(x, 3 // shape[-1], -1).transpose(0, 3, 1, 2))
        want = theirs.InceptionV3().eval()(rgb)[0][:, :, 0, 0].numpy()
    got = jax.jit(inception.features)(reader.read(file), x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-4)


def test_number_of_weights(weights):
    """As many as pytorch-fid's network has without its classifier."""
    trained = sum(value.size for name, value in weights.items() if ".running_" not in name)
    assert trained == 21_785_568
    assert sum(name.endswith(".conv.weight") for name in weights) == 94
    assert len(weights) == 5 * 94


def test_pooling():
    x = np.random.default_rng(1).normal(size=(2, 6, 5, 3)).astype(np.float32) - 3.0  # a padded zero would win
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
    np.testing.assert_allclose(net.mean_pool(jnp.asarray(x)), np.nanmean(windows, (-2, -1)), rtol=1e-5)
    np.testing.assert_array_equal(net.max_pool(jnp.asarray(x)), np.nanmax(windows, (-2, -1)))
    np.testing.assert_array_equal(net.halve(jnp.asarray(x)), windows[:, 1:-1:2, 1:-1:2].max((-2, -1)))


@pytest.mark.parametrize(("height", "width", "channels"), [(4, 7, 3), (5, 299, 1), (299, 299, 3), (600, 310, 1)])
def test_resize(height, width, channels):
    """Pixel i of 299 lies at (i + 1/2) n / 299 - 1/2 of n, between two pixels; no further one counts."""
    x = pictures(1, height, width, channels)

    def line(n: int) -> np.ndarray:
        at = np.clip((np.arange(299) + 0.5) * n / 299 - 0.5, 0, n - 1)
        return np.maximum(1 - np.abs(at[:, None] - np.arange(n)), 0)

    want = 2 * np.einsum("ih,jw,bhwc->bijc", line(height), line(width), x, optimize=True) - 1
    got = net.prepare(jnp.asarray(x))
    assert got.shape == (1, 299, 299, 3)
    np.testing.assert_allclose(got, np.repeat(want, 3 // channels, -1), atol=5e-4)  # positions are float32


def test_unit_by_hand():
    x = np.random.default_rng(2).normal(size=(1, 5, 5, 2)).astype(np.float32)
    unit = net.Unit(3, (1, 3))
    variables = unit.init(jax.random.key(0), x)
    moments = {"mean": np.float32([0.1, -0.2, 0.3]), "var": np.float32([1e-4, 1.0, 4.0])}
    affine = {"scale": np.float32([1.0, 2.0, 0.5]), "bias": np.float32([0.2, 0.1, -0.1])}
    kernel = np.asarray(variables["params"]["conv"]["kernel"])
    got = unit.apply({"params": {"conv": {"kernel": kernel}, "bn": affine}, "batch_stats": {"bn": moments}}, x)
    wide = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    y = sum(wide[:, :, i : i + 5] @ kernel[0, i] for i in range(3))
    y = (y - moments["mean"]) / np.sqrt(moments["var"] + 0.001) * affine["scale"] + affine["bias"]
    np.testing.assert_allclose(got, np.maximum(y, 0), rtol=1e-4, atol=1e-4)


def test_batches_gray_and_values_outside(file, monkeypatch):
    """The last batch is padded and its padding dropped; gray is three channels; a value outside [0, 1] is clipped."""
    monkeypatch.setattr(reader, "BATCH", 2)
    x = pictures(3, 8, 8, 1)
    x[0, 0, 0] = 1.5
    extract, _ = reader.extractor(file, (8, 8, 1), 40)
    got = extract(x)
    color, _ = reader.extractor(file, (8, 8, 3), 40)
    assert got.shape == (3, 2048)
    assert np.ptp(got, 0).max() > 0.01
    np.testing.assert_allclose(got, color(np.repeat(np.minimum(x, 1), 3, -1)), rtol=1e-4, atol=1e-4)


def refused(path, shape=(8, 8, 1)) -> str:
    with pytest.raises(InputError) as caught:
        reader.extractor(path, shape, 10)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"--features {path}: ")
    return message


def test_refusals(weights, file, tmp_path):
    name = "Mixed_5b.branch1x1.conv.weight"
    changes = {
        "gone": ({}, f"no tensor {name!r} in it"),
        "flat": ({name: weights[name][:, :, 0, 0]}, f"{name!r} has shape (64, 192), Inception-v3 needs (64, 192, 1, 1"),
        "whole": ({name: weights[name].astype(np.int32)}, f"tensor {name!r} is I32; save it as float32"),
        "nan": ({name: weights[name] * np.float32(np.nan)}, f"tensor {name!r} has values that no weights have"),
    }  # fmt: skip
    rest = {key: value for key, value in weights.items() if key != name}
    for case, (change, message) in changes.items():
        path = tmp_path / f"{case}.safetensors"
        save_file({**rest, **change}, path)
        assert message in refused(path)
    save_file({**weights, "Conv2d_1a_3x3.bn.running_var": -weights["Conv2d_1a_3x3.bn.running_var"]}, path)
    assert "'Conv2d_1a_3x3.bn.running_var' has values that no weights have" in refused(path)
    save_file({"fc.weight": np.zeros((10, 2048), np.float32)}, path)
    assert "no tensor 'Conv2d_1a_3x3.bn.running_mean' in it" in refused(path)
    path.write_bytes(b"not weights at all")
    assert "cannot be read" in refused(path)
    assert "cannot be read" in refused(tmp_path / "nowhere.safetensors")
    assert "1 or 3 channels, these images have 2" in refused(file, (8, 8, 2))


@pytest.mark.parametrize("suffix", ["pth", "pt", "PTH"])
def test_a_pickle_is_refused_with_its_conversion(suffix, tmp_path):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(b"PK")
    assert (
        f"safetensors.torch.save_file(torch.load('net.{suffix}', weights_only=True), 'net.safetensors')"
        in refused(path)
    )  # fmt: skip


def test_a_run_is_measured(file, tmp_path, capsys, monkeypatch):
    # Roots of covariances of 2,048 features take half a minute; test_generation.py tests them on fewer.
    monkeypatch.setattr(frechet, "gaussian_distance", lambda a, cov_a, b, cov_b: float(np.square(a - b).sum()))
    run, out = make(tmp_path / "run", config(VAE(3, MLP((8,))))), tmp_path / "a.json"
    words = ["eval", str(run), "--limit", "4", "--out", str(out), "--metrics", "frechet_distance"]
    assert cli([*words, "--features", str(file)]) == 0
    found = json.loads(out.read_text())
    assert found["metrics"]["frechet_distance"]["value"] > 0
    text = found["protocol"]["frechet_distance"]
    assert "features: inception:random.safetensors, 2048 of them" in text
    assert "known as FID" in text
    assert "8x8 to 299x299" in text
    assert "grey as three channels" in text
    capsys.readouterr()
    bad = tmp_path / "net.pth"
    bad.write_bytes(b"PK")
    assert cli([*words, "--features", str(bad)]) == 2
    err = capsys.readouterr().err
    assert "safetensors.torch.save_file" in err
    assert err.count("\n") == 1
