"""Codebooks: what of them occurs over a split, what each code alone is decoded to, and the figures of both."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax import spec as specs
from vae_jax.evaluation import codebooks
from vae_jax.evaluation.code_usage import CodeCounts, Used, books, by_level
from vae_jax.evaluation.codes import encode_all
from vae_jax.figures.codebooks import constant_grid, index_grid, rank_colors, usage_chart
from vae_jax.likelihoods import Bernoulli
from vae_jax.model import About, Encoding, Model
from vae_jax.spaces import Codes, Real, shaped

# Vectors of 8 + 2 + 3 entries: two codebooks on one grid, numbers, and a codebook whose indices are in a row.
LATENTS = {"bottom": Codes((2, 2, 2), 7, (7, 4)), "middle": Real((2,)), "top": Codes((3,), 5)}
WIDTH = 13


class Weights(NamedTuple):
    eval_params: Any
    model_state: Any


STATE: Any = Weights({}, {})


def toy(latents=LATENTS):
    """Returns a model of images [1, 13, 1] that are their own latents."""

    def encode(params, state, keys, batch):
        return Encoding(shaped(latents, batch["x"].reshape(-1, WIDTH)))

    def decode(params, state, z, *, cond=None):
        leaves = [jnp.reshape(z[name], (z[name].shape[0], -1)) for name in latents]
        return Bernoulli().build(jnp.concatenate(leaves, -1).reshape(-1, 1, WIDTH, 1), {}, {})

    nothing: Any = None
    return Model(nothing, nothing, nothing, encode, decode, About(specs.images(1, WIDTH, 1), latents, Bernoulli()))


def vectors(n: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    limits = [7, 4] * 4 + [1, 1] + [5] * 3
    return np.stack([rng.integers(0, limit, n) for limit in limits], -1).astype(np.float32)


def test_codebooks_are_found_in_the_vector_of_all_levels():
    found = {book.name: book for book in books(LATENTS)}
    assert {name: (book.level, book.size) for name, book in found.items()} == {
        "bottom/0": ("bottom", 7),
        "bottom/1": ("bottom", 4),
        "top": ("top", 5),
    }
    row = np.arange(WIDTH)[None]
    assert found["bottom/1"].of(row).tolist() == [[[1, 3], [5, 7]]]
    assert found["top"].of(row).tolist() == [[10, 11, 12]]
    # The codebooks that counts tell apart, in batches of any size.
    z, whole, parts = vectors(6), CodeCounts(LATENTS), CodeCounts(LATENTS)
    whole.add(by_level(shaped(LATENTS, z)))
    for part in (z[:1], z[1:]):
        parts.add(by_level(shaped(LATENTS, part)))
    for name, book in found.items():
        used = whole.used()[name]
        counts = np.bincount(book.of(z).ravel().astype(int), minlength=book.size)
        assert (used.size, used.counts.sum()) == (book.size, 6 * book.places.size)
        assert np.array_equal(used.counts, counts[used.codes])
        assert (np.diff(used.counts) <= 0).all()
        assert [x.tolist() for x in parts.used()[name][1:]] == [x.tolist() for x in used[1:]]
        assert (codebooks.ranks(used, used.codes) == np.arange(len(used.codes))).all()
    assert codebooks.ranks(Used(9, np.array([4, 2]), np.array([3, 1])), np.array([[2, 3], [4, 8]])).tolist() == [
        [1, -1],
        [0, -1],
    ]


def test_each_code_is_decoded_alone(monkeypatch):
    model, z = toy(), vectors(6)
    z[:, 8:10] = np.arange(12).reshape(6, 2)
    batches = [{"x": jnp.asarray(part).reshape(-1, 1, WIDTH, 1)} for part in (z[:4], z[4:])]
    counted = codebooks.count(model, [encode_all(model, STATE, [batch]) for batch in batches])
    assert counted.n == 6
    first = {book.name: used.codes[0] for book, used in zip(counted.books, counted.used, strict=True)}
    middle = [first["bottom/0"], first["bottom/1"]] * 4 + [5, 6] + [first["top"]] * 3
    np.testing.assert_allclose(counted.middle, middle)
    monkeypatch.setattr(codebooks, "MOST_IMAGES", 8)  # 2 of each codebook
    found = codebooks.constant(model, STATE, counted)
    assert [one.book.name for one in found] == ["bottom/0", "bottom/1", "top"]
    second, last = found[1].used.codes[1], found[2].used.codes[1]
    for images, expected in (
        (found[1].images, [first["bottom/0"], second] * 4 + middle[8:]),
        (found[2].images, middle[:10] + [last] * 3),
    ):
        np.testing.assert_allclose(images[1].ravel(), 1 / (1 + np.exp(-np.array(expected, float))), rtol=1e-5)
    # The title counts codebooks; each has rows of its own, which say what share its codes have.
    share = found[2].used.share
    labels = [t.get_text() for t in constant_grid(found).axes[0].get_yticklabels()]
    assert labels[-1] == f"top 1-2: {share[:2].sum():.1%}"


def test_no_more_is_decoded_than_a_grid_shows(monkeypatch):
    """64 images of all codebooks together, of the first 8 of 12; of large images a row."""
    model = toy({"z": Codes((1, 1, 12), 20, (20,) * 12), "rest": Real((1,))})
    batch = {"x": jnp.arange(20.0 * WIDTH).reshape(20, 1, WIDTH, 1) % 20}
    counted = codebooks.count(model, [encode_all(model, STATE, [batch])])
    decoded, real = [], codebooks.decode_all
    monkeypatch.setattr(
        codebooks, "decode_all", lambda model, state, z, **more: decoded.append(len(z)) or real(model, state, z, **more)
    )
    found = codebooks.constant(model, STATE, counted)
    assert decoded == [8] * 8
    figure = constant_grid(found, books=len(counted.books))
    assert len(figure.axes[0].get_yticklabels()) == 8
    assert "the first 8 of 12 codebooks" in " ".join(t.get_text() for t in figure.texts).replace("\n", " ")
    # Whole rows where there is more than one; each codebook has 20 codes.
    for n, most in ((1, 20), (3, 16)):
        decoded.clear()
        few = counted._replace(books=counted.books[:n], used=counted.used[:n])
        codebooks.constant(model, STATE, few)
        assert decoded == [most] * n
    monkeypatch.setattr(codebooks, "VALUES", 9 * WIDTH)
    decoded.clear()
    codebooks.constant(model, STATE, counted)
    assert decoded == [1] * 8


def used(size: int, *counts: int) -> Used:
    return Used(size, np.arange(len(counts))[::-1], np.array(counts))


def test_a_chart_of_use_shows_the_uniform_line_and_dead_codes():
    figure = usage_chart({"": used(8, 5, 2, 1)}, 4, title="run: ")
    axes: Any = figure.axes[0]
    assert figure.get_suptitle() == "run: usage 37.5% (3 of 8 codes), perplexity 2.5; codes of 4 images"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("code, the most used first", "share of all codes")
    assert axes.patches[0].get_data().values.tolist() == [5 / 8, 2 / 8, 1 / 8]
    assert axes.lines[0].get_ydata() == [1 / 8] * 2
    (dead,) = axes.collections[0].get_segments()
    assert dead[:, 0].tolist() == [3.5, 8.5]
    low, high = axes.get_ylim()
    assert low < dead[0, 1] < 1 / 8 < 5 / 8 < high
    assert [t.get_text() for t in figure.legends[0].get_texts()][-1] == "codes that do not occur"
    assert "codes that do not occur" not in str(usage_chart({"": used(1, 3)}, 4).legends[0].get_texts())


@pytest.mark.parametrize(("size", "count", "scale"), [(5, 1, "linear"), (16_384, 9_000, "linear"), (1 << 30, 9, "log")])
def test_charts_of_codebooks_of_any_size(size, count, scale):
    found = {str(i): used(size, *range(count, 0, -1)) for i in range(14 if count == 1 else 2)}
    figure = usage_chart(found, 4)
    assert figure.axes[0].get_xscale() == scale
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert texts[0].startswith("0: usage ")
    assert ("and 2 more" in texts) == (count == 1)


def test_grids_have_the_color_of_each_code():
    latents = {"z": Codes((2, 2), 5), "unused": Real((9,))}
    (book,) = books(latents)
    z = np.zeros((3, WIDTH), np.int32)
    z[1, 9:] = [1, 0, 4, 2]
    of = Used(5, np.array([4, 0, 1]), np.array([9, 2, 1]))
    images = np.zeros((3, 4, 4, 1), np.float32)
    axes: Any = index_grid(images, images, z, [(book, of)]).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["original", "reconstruction", "z 2x2"]
    shown = axes.images[0].get_array()[2 * 66 : 2 * 66 + 64, 66 : 66 + 64]
    gray = [153] * 3  # code 2 has no rank
    colors = np.rint(255 * rank_colors(np.array([2, 1, 0]))).astype(int).tolist()
    assert [shown[y, x].tolist() for y in (5, 60) for x in (5, 60)] == [*colors, gray]
    # The same colors frame what the codes draw.
    frames: Any = constant_grid([codebooks.Constant(book, of, images)]).axes[0].images[0]
    framed = frames.get_array()
    assert framed[0, 0].tolist() == colors[2]
    assert framed[30, 30].tolist() == [0, 0, 0]
    # The first dozens of codes can be told apart.
    few = np.rint(255 * rank_colors(np.arange(36))).astype(int)
    apart = np.abs(few[:, None] - few[None]).sum(-1) + 999 * np.eye(36, dtype=int)
    assert apart.min() > 20
