"""Quantizers against exact answers: bijections, Lloyd's algorithm, enumeration, gradients of each term to each side."""

import functools
import itertools
import operator
import re
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.errors import InputError
from vae_jax.model import Context
from vae_jax.quantizers import (
    BSQ,
    FSQ,
    LFQ,
    QUANTIZERS,
    VQ,
    GroupedVQ,
    Gumbel,
    Latent,
    ResidualFSQ,
    ResidualVQ,
    SimVQ,
    nearest,
)
from vae_jax.quantizers.entropy import gap
from vae_jax.quantizers.estimators import rotated
from vae_jax.quantizers.kmeans import lloyd

FEATURES = 6
# One of each, small, with whatever it has switched on.
EACH = {
    "vq": VQ(codes=7, kmeans=2, revive=0.1, entropy=0.1),
    "gradient-vq": VQ(codes=7, update="gradient", estimator="rotation", kmeans=1, revive=0.1),
    "normalized-vq": VQ(codes=7, normalized=True, inner=3),
    "simvq": SimVQ(codes=7),
    "residual-vq": ResidualVQ(codes=7, depth=3, dropout=0.5),
    "grouped-vq": GroupedVQ(codes=7, groups=2),
    "grouped-residual-vq": GroupedVQ(codes=5, update="gradient", depth=2, groups=3),
    "fsq": FSQ((3, 4, 2)),
    "residual-fsq": ResidualFSQ((3, 4, 2), depth=3),
    "lfq": LFQ(bits=4, joint=3),
    "bsq": BSQ(bits=4),
    "latent": Latent((3, 4)),
    "gumbel": Gumbel(codes=7),
}


def context(n, train=True, axis_name=None):
    return Context(jnp.asarray(3), jnp.arange(n), {}, train, axis_name)


def made(quantizer, features=FEATURES, seed=0):
    quantizer.check(features)
    key = jax.random.key(seed)
    return quantizer.init(key, features), quantizer.init_state(key, features)


def vectors(*shape, seed=1):
    return jax.random.normal(jax.random.key(seed), shape)


def test_the_page_of_docs_runs(capsys):
    text = (Path(__file__).parents[1] / "docs" / "quantizers.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(compile(block, "quantizers.md", "exec"), {})
    assert capsys.readouterr().out.startswith("(8, 4, 4, 16) (8, 4, 4, 1)\n")
    assert all(f"`{cls.__name__}`" in text for cls in QUANTIZERS.values())


def test_each_registered_quantizer_is_among_those_tested():
    assert {type(q) for q in EACH.values()} == set(QUANTIZERS.values())


@pytest.mark.parametrize("name", EACH)
def test_gradients_are_finite_where_a_vector_is_zero(name):
    """An encoder whose biases are still 0 gives 0 for a blank patch; a direction of it has no gradient."""
    quantizer = EACH[name]
    params, state = made(quantizer)
    z = jnp.zeros((2, 2, FEATURES)).at[1].set(1.0)

    @jax.jit
    @jax.grad
    def gradient(given):
        out = quantizer.quantize(given["params"], state, given["z"], key=jax.random.key(0), ctx=context(2))
        return jnp.sum(out.z * out.z) + jnp.sum(out.cost)

    found = gradient({"params": params, "z": z})
    assert all(np.abs(leaf).max(initial=0.0) < 1e4 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("name", EACH)
def test_indices_name_what_stands_for_the_vectors(name):
    quantizer, (params, state), z = EACH[name], made(EACH[name]), vectors(4, 3, FEATURES)
    out = jax.jit(quantizer.quantize)(params, state, z)
    levels = len(quantizer.sizes)
    chex.assert_shape([out.z, out.indices, out.cost, out.error], [z.shape, (4, 3, levels), (4, 3), (4, 3, levels)])
    chex.assert_type([out.z, out.indices, out.cost], [jnp.float32, jnp.int32, jnp.float32])
    assert np.all((out.indices >= 0) & (np.asarray(out.indices) < quantizer.sizes))
    np.testing.assert_allclose(quantizer.embed(params, out.state, out.indices), out.z, atol=1e-6)
    # Without training nothing moves.
    chex.assert_trees_all_equal(out.state, state)


@pytest.mark.parametrize("name", EACH)
def test_training_steps_keep_the_structure_and_reach_the_encoder(name):
    quantizer, (params, state), z = EACH[name], made(EACH[name]), vectors(4, 3, FEATURES)

    @jax.jit
    def loss(params, z, state):
        out = quantizer.quantize(params, state, z, key=jax.random.key(5), ctx=context(4))
        return jnp.sum(out.z * vectors(*z.shape, seed=2)) + jnp.sum(out.cost), out.state

    grads, new = jax.grad(loss, (0, 1), has_aux=True)(params, z, state)
    chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    chex.assert_tree_all_finite((grads, new))
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("name", EACH)
def test_eight_devices_do_what_one_does(name):
    quantizer, (params, state), z = EACH[name], made(EACH[name]), vectors(16, 3, FEATURES)
    key = jax.random.key(5)

    def step(z, index, axis_name=None):
        ctx = context(16)._replace(index=index, axis_name=axis_name)
        return quantizer.quantize(params, state, z, key=key, ctx=ctx)

    one = jax.jit(step)(z, jnp.arange(16))
    split = jax.pmap(functools.partial(step, axis_name="i"), "i")(
        z.reshape(8, 2, 3, FEATURES), jnp.arange(16).reshape(8, 2)
    )
    same = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), split._replace(state={}))
    chex.assert_trees_all_close(same, one._replace(state={}), atol=1e-5)
    first, last = (jax.tree.map(operator.itemgetter(device), split.state) for device in (0, 7))
    chex.assert_trees_all_close(first, one.state, atol=1e-5)
    chex.assert_trees_all_equal(first, last)


# Nearest entries.


@pytest.mark.parametrize("most", [1, 300, 2**20])
def test_nearest_in_blocks_is_the_nearest_of_all(most):
    z, book = vectors(37, 5), vectors(23, 5, seed=2)
    book = book.at[20].set(book[3])  # of equal entries the first
    expected = np.argmin(np.sum((np.asarray(z, np.float64)[:, None] - np.asarray(book, np.float64)) ** 2, -1), -1)
    np.testing.assert_array_equal(nearest(z, book, most=most), expected)
    assert nearest(jnp.full((1, 5), jnp.nan), book, most=most).tolist() == [0]


def test_memory_of_nearest_does_not_grow_with_the_number_of_distances():
    z, book = jax.ShapeDtypeStruct((2**14, 8), jnp.float32), jax.ShapeDtypeStruct((2**13, 8), jnp.float32)
    used = jax.jit(nearest).lower(z, book).compile().memory_analysis().temp_size_in_bytes
    assert used < 2**14 * 2**13 * 4 / 10


# Codebooks.


def test_moving_averages_without_memory_are_a_step_of_lloyd():
    quantizer, z = VQ(codes=8, decay=0.0), vectors(200, FEATURES)
    params, state = made(quantizer)
    for _ in range(3):
        new = quantizer.quantize(params, state, z, ctx=context(200)).state
        np.testing.assert_allclose(new["codebook"], lloyd(z, state["codebook"]), atol=1e-5)
        state = new


def test_fixed_assignments_converge_to_the_centroids_of_k_means():
    from sklearn.cluster import KMeans

    centers = 10 * vectors(4, FEATURES, seed=3)
    z = (centers[:, None] + 0.1 * vectors(4, 50, FEATURES)).reshape(-1, FEATURES)
    quantizer = VQ(codes=4, decay=0.5, kmeans=3)
    params, state = made(quantizer)
    for _ in range(30):
        state = quantizer.quantize(params, state, z, key=jax.random.key(1), ctx=context(200)).state
    fitted = KMeans(4, init=np.asarray(state["codebook"]), n_init=1).fit(z).cluster_centers_
    np.testing.assert_allclose(state["codebook"], fitted, atol=1e-4)


def test_an_entry_that_is_never_chosen_stays_or_is_revived():
    z = vectors(64, 2)
    for revive, moves in ((0.0, False), (0.5, True)):
        quantizer = VQ(codes=3, revive=revive)
        params, state = made(quantizer, 2)
        state["codebook"] = state["codebook"].at[1].set(100.0)
        for _ in range(2):
            state = quantizer.quantize(params, state, z, key=jax.random.key(1), ctx=context(64)).state
        assert bool(jnp.all(state["codebook"][1] == 100.0)) is not moves
    # What it is revived to is a vector of the batch, and then it is chosen.
    out = quantizer.quantize(params, state, z)
    assert len(np.unique(out.indices)) == 3


def test_revival_moves_a_codebook_that_the_gradient_owns():
    quantizer, z = VQ(codes=3, update="gradient", revive=0.5), vectors(64, 2)
    params, state = made(quantizer, 2)
    params["codebook"] = params["codebook"].at[1].set(100.0)
    state = quantizer.quantize(params, state, z, key=jax.random.key(1), ctx=context(64)).state
    entry = quantizer.entries(params, state)[1]
    assert jnp.min(jnp.sum(jnp.square(z - entry[None]), -1)) < 1e-9


def test_simvq_with_the_identity_is_vq():
    simvq, vq, z = SimVQ(codes=9), VQ(codes=9, update="gradient"), vectors(50, FEATURES)
    _, state = made(simvq)
    params = {"map": jnp.eye(FEATURES)}

    def both(z):
        ours = simvq.quantize(params, state, z)
        return ours, vq.quantize({"codebook": state["frozen"]}, {}, z)

    ours, theirs = both(z)
    chex.assert_trees_all_close(ours._replace(state={}), theirs._replace(state={}), atol=1e-6)
    grads = [jax.grad(lambda z, i=i: jnp.sum(both(z)[i].z ** 2) + jnp.sum(both(z)[i].cost))(z) for i in (0, 1)]
    chex.assert_trees_all_close(*grads, atol=1e-5)


@pytest.mark.parametrize(
    "quantizer", [VQ(codes=5, update="gradient"), VQ(codes=5), SimVQ(codes=5), Latent((3, 4, 2, 2, 2, 2))]
)
def test_each_term_moves_its_own_side(quantizer):
    (params, state), z = made(quantizer), vectors(20, FEATURES)

    def term(params, z, name):
        return jnp.sum(quantizer.quantize(params, state, z).terms[name])

    def moved(name):
        grads = jax.grad(term, (0, 1))(params, z, name)
        return [any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(side)) for side in grads]

    assert moved("commitment") == [False, True]
    if "codebook" in quantizer.quantize(params, state, z).terms:
        assert moved("codebook") == [True, False]
    # The loss of the decoder reaches the encoder alone, unchanged.
    weights = vectors(20, FEATURES, seed=4)
    grads = jax.grad(lambda p, z: jnp.sum(weights * quantizer.quantize(p, state, z).z), (0, 1))(params, z)
    np.testing.assert_allclose(grads[1], weights, atol=1e-6)
    assert not any(bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads[0]))


# Rotation.


def test_the_rotation_is_orthogonal_and_keeps_angles():
    z, q, g = vectors(9, FEATURES), 3 * vectors(9, FEATURES, seed=2), vectors(9, FEATURES, seed=3)
    np.testing.assert_array_equal(rotated(z, q), q)
    jacobian = jax.vmap(jax.jacobian(rotated))(z, q)
    scale = jnp.linalg.norm(q, axis=-1) / jnp.linalg.norm(z, axis=-1)
    turn = jacobian / scale[:, None, None]
    np.testing.assert_allclose(
        turn @ jnp.swapaxes(turn, -1, -2), np.broadcast_to(np.eye(FEATURES), turn.shape), atol=1e-5
    )
    np.testing.assert_allclose(jnp.linalg.det(turn), 1.0, atol=1e-4)
    np.testing.assert_allclose(jnp.einsum("bij,bj->bi", jacobian, z), q, rtol=1e-4, atol=1e-5)

    def cosine(a, b):
        return jnp.sum(a * b, -1) / (jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1))

    pulled = jnp.einsum("bij,bi->bj", jacobian, g)
    np.testing.assert_allclose(cosine(pulled, z), cosine(g, q), atol=1e-5)


@pytest.mark.parametrize(("z", "q"), [([0.0, 0.0], [1.0, 0.0]), ([1.0, 0.0], [0.0, 0.0]), ([1.0, 0.0], [-1.0, 0.0])])
def test_where_there_is_no_rotation_the_gradient_is_straight_through(z, q):
    z, q = jnp.asarray(z), jnp.asarray(q)
    np.testing.assert_array_equal(rotated(z, q), q)
    np.testing.assert_array_equal(jax.jacobian(rotated)(z, q), np.eye(2))


# Levels.


@pytest.mark.parametrize(
    "quantizer", [ResidualVQ(codes=16, kmeans=3, depth=4), ResidualFSQ((4, 5, 3, 2, 2, 3), depth=4)]
)
def test_the_error_falls_with_every_level(quantizer):
    (params, state), z = made(quantizer), vectors(300, FEATURES)
    state = quantizer.quantize(params, state, z, key=jax.random.key(0), ctx=context(300)).state
    error = jnp.mean(quantizer.quantize(params, state, z).error, 0)
    assert jnp.all(error[1:] < error[:-1])


def test_the_commitment_of_every_level_reaches_the_encoder():
    quantizer, z = ResidualVQ(codes=8, depth=4), vectors(20, FEATURES)
    params, state = made(quantizer)

    def cost(z, level):
        out = quantizer.quantize(params, state, z)
        # |z - sg(q_1 + .. + q_l)|^2 is the commitment of level l, with q the entries that were chosen.
        upto = quantizer.embed(params, state, out.indices[:, : level + 1])
        return 0.25 * jnp.sum(jnp.square(z - jax.lax.stop_gradient(upto)))

    each = [jax.grad(cost)(z, level) for level in range(4)]
    assert all(jnp.all(jnp.any(one != 0, -1)) for one in each)
    whole = jax.grad(lambda z: jnp.sum(quantizer.quantize(params, state, z).cost))(z)
    np.testing.assert_allclose(whole, sum(each), rtol=1e-4, atol=1e-5)


def test_fewer_indices_decode_to_fewer_levels():
    quantizer, z = ResidualVQ(codes=16, depth=3), vectors(20, FEATURES)
    params, state = made(quantizer)
    out = quantizer.quantize(params, state, z)
    for level in range(3):
        part = quantizer.embed(params, state, out.indices[:, : level + 1])
        np.testing.assert_allclose(jnp.sum(jnp.square(z - part), -1), out.error[:, level], rtol=1e-4)


def test_quantizer_dropout_leaves_the_levels_it_drops_as_they_were():
    quantizer, z = ResidualVQ(codes=8, depth=4, dropout=1.0), vectors(20, FEATURES)
    params, state = made(quantizer)
    used = set()
    for seed in range(12):
        out = quantizer.quantize(params, state, z, key=jax.random.key(seed), ctx=context(20))
        moved = [int(out.state[str(i)]["average"]["steps"]) for i in range(4)]
        assert moved == sorted(moved, reverse=True)
        used.add(sum(moved))
        np.testing.assert_allclose(out.z, quantizer.embed(params, state, out.indices[:, : sum(moved)]), atol=1e-5)
    assert used == {1, 2, 3, 4}


# Implicit codebooks.


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("level", range(2, 17))
def test_fsq_is_a_bijection_of_codes_and_indices(level, dtype):
    quantizer = FSQ((level, 3))
    index = jnp.arange(level * 3)
    codes = quantizer.code(index)
    assert len(np.unique(codes, axis=0)) == level * 3
    # A vector in the cell of each code: what is bounded to it. The range holds all levels and no other.
    wide = jnp.linspace(-12, 12, 4_001).astype(dtype)
    every = quantizer.quantize({}, {}, jnp.stack(jnp.meshgrid(wide[::40], wide[::40]), -1))
    inside = quantizer.quantize({}, {}, jnp.stack([wide, jnp.zeros_like(wide)], -1))
    assert set(np.unique(every.indices)) <= set(range(level * 3))
    assert set(np.unique(inside.indices % level)) == set(range(level))
    np.testing.assert_array_equal(quantizer.code(inside.indices[:, 0]), inside.z)
    bound = quantizer.bound(jnp.stack([wide, wide], -1))
    assert jnp.all(bound[:, 0] > -(level // 2) - 0.5)
    assert jnp.all(bound[:, 0] < (level - 1) // 2 + 0.5)
    # 0 is the middle of a level, or between the two of them.
    assert abs(float(quantizer.bound(jnp.zeros(2))[0]) - (-0.5 if level == 2 else 0.0)) < 1e-6


@pytest.mark.parametrize("kind", [LFQ, BSQ])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_signs_are_a_bijection_of_codes_and_indices(kind, dtype):
    for bits in (1, 2, 7, 12):
        quantizer = kind(bits=bits, entropy=0.0)
        codes = quantizer.code(jnp.arange(2**bits))
        assert len(np.unique(codes, axis=0)) == 2**bits
        out = quantizer.quantize({}, {}, codes.astype(dtype))
        np.testing.assert_array_equal(out.indices[:, 0], jnp.arange(2**bits))
        np.testing.assert_allclose(jnp.sum(jnp.square(codes), -1), bits if kind is LFQ else 1.0, rtol=1e-5)


@pytest.mark.parametrize("kind", [LFQ, BSQ])
def test_entropies_of_two_bits_by_enumeration(kind):
    quantizer, z = kind(bits=2, temperature=0.7, diversity=0.4), vectors(11, 2)
    got = quantizer.quantize({}, {}, z).terms["entropy"]
    unit = np.asarray(z, np.float64)
    if kind is BSQ:
        unit = unit / np.linalg.norm(unit, axis=-1, keepdims=True)
    codes = quantizer.scale * np.array(list(itertools.product((-1, 1), repeat=2)), np.float64)
    distance = np.sum((unit[:, None] - codes) ** 2, -1)
    p = np.exp(-distance / 0.7)
    p /= p.sum(-1, keepdims=True)

    def entropy(p):
        return -np.sum(p * np.log(p), -1)

    np.testing.assert_allclose(got, entropy(p) - 0.4 * entropy(p.mean(0)), rtol=1e-5, atol=1e-6)


def test_entropies_are_finite_where_choices_are_sure():
    p = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(gap(p, None), -np.log(2), rtol=1e-6)
    assert jnp.all(jnp.isfinite(jax.grad(lambda p: jnp.sum(gap(p, None)))(p)))
    big = LFQ(bits=12).quantize({}, {}, 1e4 * vectors(5, 12))
    assert jnp.all(jnp.isfinite(big.cost))


def test_gumbel_kl_is_that_of_the_categorical():
    quantizer, z = Gumbel(codes=5, kl=2.0), vectors(6, FEATURES)
    params, state = made(quantizer)
    out = quantizer.quantize(params, state, z)
    p = np.asarray(jax.nn.softmax(quantizer.logits(params, z), -1), np.float64)
    np.testing.assert_allclose(out.terms["kl"], np.sum(p * np.log(5 * p), -1), rtol=1e-4)
    np.testing.assert_allclose(out.cost, 2 * out.terms["kl"])


@pytest.mark.parametrize(
    ("quantizer", "features", "words"),
    [
        (LFQ(bits=31), 31, "2,147,483,648 codes are more than"),
        (FSQ((16,) * 8), 8, "4,294,967,296 codes are more than"),
        (VQ(codes=1), 4, "cannot tell vectors apart"),
        (GroupedVQ(groups=4), 6, "use groups=3"),
        (ResidualVQ(inner=2), 6, "use inner=0"),
        (GroupedVQ(inner=2), 6, "use inner=0"),
    ],
)
def test_what_cannot_be_quantized_is_refused(quantizer, features, words):
    with pytest.raises(InputError, match=words):
        quantizer.check(features)
