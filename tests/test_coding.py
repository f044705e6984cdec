"""Entropy coding of codes: every code comes back, sizes against -log2 p, and what damaged or foreign files say."""

import zlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import InputError
from vae_jax.files import vjc
from vae_jax.models.stage2 import Around, Generator, PixelCNN, Sequential, coding_header, fixed_program
from vae_jax.models.stage2.coding import Coder
from vae_jax.spaces import Codes

AROUND = Around(Codes((8, 8, 1), 256), cond=3)
PRIOR = PixelCNN(hidden=16, layers=1, kernel=3)


@dataclass(frozen=True)
class Table(Sequential):
    """Logits by place, shifted by the code before."""

    def logits(self, params, keys, z, cond, around):
        before = jnp.pad(z[:, :-1], ((0, 0), (1, 0)))
        return params["table"][None] + jax.nn.one_hot(before, around.codes)

    def start(self, params, n, cond, around):
        return jnp.zeros(())

    def step(self, params, carry, code, place, cond, around):
        before = jnp.where(place == 0, 0, code)
        return carry, params["table"][place][None] + jax.nn.one_hot(before, around.codes)


# Places of 3, 3, 5, 1 and 1 codes.
UNEQUAL = Around((Codes((2,), 3), Codes((1,), 5), Codes((2,), 1)))
TABLE = {"table": jnp.asarray(np.random.default_rng(0).normal(0, 2, (5, 5)), jnp.float32)}


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: PRIOR.init(jax.random.key(0), AROUND))
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.35, x.shape), x.dtype), shapes)


@pytest.fixture(scope="module")
def coder(params):
    return Coder(PRIOR, params, AROUND)


@pytest.fixture(scope="module")
def table():
    return Coder(Table(), TABLE, UNEQUAL)


@pytest.fixture(scope="module")
def few(table):
    codes = np.random.default_rng(1).integers(0, UNEQUAL.sizes, (7, 5))
    return codes, table.compress(codes, chunk=3)


def test_drawn_codes_come_back_at_the_size_of_the_model(coder):
    n, rng = 320, np.random.default_rng(0)
    cond = np.eye(3, dtype=np.float32)[np.arange(n) % 3]

    def draw(place, weights):
        return np.argmax(np.cumsum(weights, -1) > rng.random((len(weights), 1)) * fixed_program.TOTAL, -1)

    # By the program that the coder compiles anyway.
    codes = np.concatenate([coder._program(64, True).walk(64, cond[i : i + 64], draw) for i in range(0, n, 64)])
    data = coder.compress(codes, cond)
    found = coder.decompress(data)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, codes)
    size = coder.bits(codes, cond).sum() / 8
    # A thousandth, and of the one chunk 12 bytes of its end and its checksum, and 60 that hold its features.
    assert size < sum(map(len, vjc.unpack(data, "data")[1])) < size * 1.001 + 72
    # Other codes than the model expects cost more, and come back as well.
    other = np.random.default_rng(2).integers(0, 256, (n, 64))
    data = coder.compress(other, cond)
    np.testing.assert_array_equal(coder.decompress(data), other)
    wanted = coder.bits(other, cond).sum() / 8
    assert size < wanted < len(data) < 1.02 * wanted


def test_bits_are_those_of_the_probabilities(few):
    codes, _ = few
    before = np.pad(codes[:, :-1], ((0, 0), (1, 0)))
    wanted = np.zeros(len(codes))
    for place, size in enumerate(UNEQUAL.sizes):
        logits = np.asarray(TABLE["table"][place], np.float64) + np.eye(5)[before[:, place]]
        p = np.exp(logits[:, :size])
        wanted -= np.log2(p[np.arange(len(codes)), codes[:, place]] / p.sum(-1))
    np.testing.assert_allclose(Coder(Table(), TABLE, UNEQUAL).bits(codes), wanted, rtol=1e-5)


def test_places_of_unequal_sizes(few, table):
    codes, data = few
    np.testing.assert_array_equal(table.decompress(data), codes)
    # 7 of 7 in one chunk, one image alone, and through coders of their own.
    np.testing.assert_array_equal(table.decompress(table.compress(codes)), codes)
    one = Coder(Table(), TABLE, UNEQUAL).compress(codes[:1])
    np.testing.assert_array_equal(Coder(Table(), TABLE, UNEQUAL).decompress(one), codes[:1])
    many = np.random.default_rng(4).integers(0, UNEQUAL.sizes, (4000, 5))
    stream = sum(map(len, vjc.unpack(table.compress(many, chunk=4000), "data")[1]))
    assert table.bits(many).sum() / 8 <= stream < table.bits(many).sum() / 8 * 1.0001 + 12


def test_what_a_small_file_has_beside_its_codes(table):
    """Of 256 images with 49 codes of 3 bits each, 80 bytes are 1.7 %."""
    codes = np.random.default_rng(5).integers(0, UNEQUAL.sizes, (256, 5))
    assert 0 < len(table.compress(codes)) - table.bits(codes).sum() / 8 < 80


def test_weights_are_integers_near_the_probabilities():
    p = np.random.default_rng(0).dirichlet(np.full(1000, 0.05), 20).astype(np.float32)
    p[0] = np.eye(1000, dtype=np.float32)[7]  # a code that is certain
    w = fixed_program.weights(p)
    np.testing.assert_array_equal(w, np.floor(w))
    assert np.all(w >= 0)
    np.testing.assert_array_equal(w.sum(-1), fixed_program.TOTAL)
    np.testing.assert_allclose(w / fixed_program.TOTAL, p, atol=1e-4)
    assert np.sum(np.abs(w / fixed_program.TOTAL - p), -1).max() < 2e-4
    with pytest.raises(InputError, match="NaN"):
        fixed_program.weights(np.full((1, 3), np.nan, np.float32))


def test_a_code_of_no_probability_comes_back():
    sure = {"table": jnp.asarray([[0.0, -1e9, -1e9, 0, 0]] * 5)}
    codes = np.asarray([[2, 1, 4, 0, 0], [0, 0, 0, 0, 0]])
    coder = Coder(Table(), sure, UNEQUAL)
    np.testing.assert_array_equal(coder.decompress(coder.compress(codes)), codes)


def test_every_changed_byte_is_seen(few):
    _, data = few
    for i in range(len(data)):
        for flip in (1, 128, 255):
            bad = bytearray(data)
            bad[i] ^= flip
            with pytest.raises(InputError, match=r"^f.vjc: .*; [^\n]*$"):
                vjc.unpack(bytes(bad), "f.vjc")


def test_a_file_that_is_cut_off_or_goes_on(few):
    _, data = few
    for n in range(len(data)):
        with pytest.raises(InputError, match="is cut off after" if n >= len(vjc.MAGIC) else "is not a file of"):
            vjc.unpack(data[:n], "f.vjc")
    with pytest.raises(InputError, match="has 1 bytes after its end; restore"):
        vjc.unpack(data + b"\0", "f.vjc")
    for version, fix in ((1, "decompress it with the vae_jax that wrote it"), (3, "update vae_jax")):
        with pytest.raises(InputError, match=rf"is of version {version}, and .* reads version 2; {fix}$"):
            vjc.unpack(data[:8] + bytes([version]) + data[9:], "f.vjc")


def test_a_damaged_chunk_is_named(few, table):
    _, data = few
    last = vjc.unpack(data, "")[1]
    bad = bytearray(data)
    bad[-len(last[2]) - 1] ^= 16
    with pytest.raises(InputError, match=r"^f\.vjc: chunk 2 of 3 is damaged, so that nothing was read; restore"):
        table.decompress(bytes(bad), "f.vjc")


@pytest.mark.parametrize(
    "change",
    [
        {"images": 0},
        {"images": 2**31},
        {"images": 99},
        {"chunk": 4097, "images": 3 * 4097},
        {"chunk": 0},
        {"batch": 0},
        {"batch": 4},
        {"conditional": 2},
        {"conditional": True},
        {"made": ("1.0",)},
        {"made": ("1.0", "2.0", "3.0")},
    ],
)
def test_a_header_that_somebody_wrote(change, few, table):
    head, chunks = vjc.unpack(few[1], "")
    held = coding_header.header(head, len(chunks), "")
    assert vjc.pack(held.packed(), chunks) == few[1]
    with pytest.raises(InputError, match="its header is damaged"):
        table.decompress(vjc.pack(held._replace(**change).packed(), chunks))


@pytest.mark.parametrize("head", [b"", b"\0" * 28, b"\xff" * 60])
def test_a_header_that_is_none(head, few, table):
    with pytest.raises(InputError, match="its header is damaged"):
        table.decompress(vjc.pack(head, vjc.unpack(few[1], "")[1]))


@pytest.mark.parametrize("content", [b"", b"\xff" * 3, b"\xff" * 12, b"\1\0\0\0x" + b"\0" * 8])
def test_a_chunk_that_holds_other_codes(content, few, table):
    header, chunks = vjc.unpack(few[1], "")
    with pytest.raises(
        InputError, match=r"chunk 2 of 3 decodes to other codes, .* where it was compressed \(with jaxlib"
    ):
        table.decompress(vjc.pack(header, [chunks[0], content, chunks[2]]))


def test_a_machine_that_computes_other_probabilities(few, table, monkeypatch):
    honest = fixed_program.weights
    monkeypatch.setattr(fixed_program, "weights", lambda p: honest(p * np.linspace(1, 1.01, p.shape[1], dtype=p.dtype)))
    codes = np.random.default_rng(1).integers(0, UNEQUAL.sizes, (2000, 5))
    data = table.compress(codes, chunk=2000)
    np.testing.assert_array_equal(table.decompress(data), codes)
    monkeypatch.undo()
    with pytest.raises(InputError, match="because this machine computes other probabilities"):
        table.decompress(data)


def test_files_of_another_prior_are_refused(few, table):
    _, data = few
    other = jax.tree.map(lambda x: x.at[0, 0].add(1e-6), TABLE)
    with pytest.raises(InputError, match=r"^f\.vjc: was compressed with another prior .*; give the run"):
        Coder(Table(), other, UNEQUAL).decompress(data, "f.vjc")
    longer = Around((Codes((3,), 3), Codes((1,), 5), Codes((2,), 1)))
    with pytest.raises(InputError, match="another prior"):
        Coder(Table(), TABLE, longer).decompress(data, "f.vjc")
    sizes = Around((Codes((2,), 4), Codes((1,), 5), Codes((2,), 1)))
    with pytest.raises(
        InputError, match=r"another version of the program \(with jaxlib .*; here jaxlib .*; decompress"
    ):
        Coder(Table(), TABLE, sizes).decompress(data, "f.vjc")


@pytest.mark.parametrize(
    ("codes", "cond", "message"),
    [
        (np.full((2, 5), 3), None, "codes: image 0 has 3 at place 0, which is out of range; .* 0 to 2$"),
        (np.asarray([[0, 0, 4, 0, 0], [0, 0, 0, 0, -1]]), None, "image 1 has -1 at place 4, .* 0 to 0$"),
        (np.zeros((2, 4), int), None, r"codes: are int64 \(2, 4\); give integers \[N, 5\]$"),
        (np.zeros((2, 5)), None, "codes: are float64"),
        (np.zeros((0, 5), int), None, "codes: 0 images do not fit into a file; give 1 to 2,147,483,647 at a time$"),
        (np.broadcast_to(np.zeros((1, 5), np.int8), (2**31, 5)), None, "codes: 2,147,483,648 images do not fit"),
        (np.zeros((2, 5), int), np.zeros((2, 1)), "cond: this generator has no condition; leave it out$"),
    ],
)
def test_codes_that_do_not_fit(codes, cond, message, table):
    with pytest.raises(InputError, match=message):
        table.compress(codes, cond)


def test_features_and_chunks_that_do_not_fit(coder, table):
    with pytest.raises(InputError, match=r"cond: is \(2, 2\); give finite features \[2, 3\]"):
        coder.compress(np.zeros((2, 64), int), np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"chunk: 0 is out of range; it must be in \[1, 4096\]$"):
        table.compress(np.zeros((2, 5), int), chunk=0)


def test_generators_that_cannot(monkeypatch):
    with pytest.raises(InputError, match=r"Generator does not draw one code after another, .*pixelcnn"):
        Coder(Generator(), {}, UNEQUAL)
    with pytest.raises(InputError, match="2,097,152 codes at a place are more than the 1,048,576"):
        Coder(Table(), TABLE, Around(Codes((1,), 1 << 21)))
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(InputError, match=r"^compression needs .* run pip install 'vae_jax\[compress\]'$"):
        Coder(Table(), TABLE, UNEQUAL)


def test_the_layout_of_a_file():
    """Files that were written once must be read as long as their version is."""
    data = vjc.pack(b"abc", [b"xy", b""])
    table = b"\2\0\0\0" + zlib.crc32(b"xy").to_bytes(4, "little") + b"\0" * 8
    assert data[:16].hex() == "89564a430d0a1a0a" + "0200" + "0300" + "02000000"
    assert int.from_bytes(data[16:20], "little") == zlib.crc32(data[8:16] + b"abc" + table)
    assert data[20:] == b"abc" + table + b"xy"
    assert vjc.unpack(data, "f.vjc") == (b"abc", [b"xy", b""])
    head = coding_header.Header(7, 5, 4, 3, True, "01" * 8, "fe" * 8, ("1.2", "3.4"))
    wanted = "07000000" + "05000000" + "0400" + "0300" + "01" + "01" * 8 + "fe" * 8
    assert head.packed() == bytes.fromhex(wanted) + b"1.2 3.4"
