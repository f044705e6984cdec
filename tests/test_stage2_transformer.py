"""The causal transformer over codes against enumeration: causality, likelihood, cached steps, draws of every kind."""

import ast
import dataclasses
import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import COND, check_shares, chosen, conds, far, init, rows

from vae_jax.errors import InputError
from vae_jax.models.stage2 import Around, Choices, Transformer, draw
from vae_jax.models.stage2.tokens import Tokens
from vae_jax.spaces import Codes, OneHot

# Two places with two codebooks each, of 2 and 3 codes: 36 rows of codes.
AROUND = Around(Codes((2, 2), 3, (2, 3)), cond=2)
NET = Transformer(width=8, depth=2, heads=2, dropout=0.5)
ALL = rows(AROUND)
CHOICES, MANY = Choices(), 6000


@functools.cache
def sampler(n, choices=CHOICES):
    """Returns the compiled draw of n samples: many tests need the same."""
    return jax.jit(lambda params, key, cond: NET.sample(params, key, n, cond, AROUND, choices))


@pytest.fixture(scope="module")
def params():
    return far(init(NET, AROUND))


@pytest.fixture(scope="module")
def logits(params):
    """Returns (with the condition, without) the logits of all rows, [36, 4, 3]."""
    run = jax.jit(lambda cond: NET.logits(params, None, ALL, cond, AROUND))
    return np.asarray(run(conds(36))), np.asarray(run(conds(36, 0 * COND)))


def test_places_know_their_codebooks():
    assert (AROUND.sizes, AROUND.books, AROUND.codes) == ((2, 3, 2, 3), (0, 1, 0, 1), 3)
    levels = Around({"bottom": Codes((2, 1), 5), "top": Codes((1, 2), 7, (7, 4))})
    assert (levels.sizes, levels.books) == ((5, 5, 7, 4), (0, 0, 1, 2))


def test_probabilities_of_all_rows_sum_to_one(params):
    nats = jax.jit(lambda z: NET.rate(params, None, z, conds(36), AROUND))(ALL)
    assert np.exp(-np.asarray(nats, np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.5


def test_no_logit_depends_on_its_own_or_a_later_code(logits):
    """Bit for bit: rows that agree in the codes before a place have the same logits there, and no others have."""
    given, _ = logits
    for place in range(4):
        seen = {}
        for row, code in zip(given[:, place], ALL):
            seen.setdefault(tuple(code[:place]), set()).add(row.tobytes())
        assert all(len(same) == 1 for same in seen.values())
        assert len(set.union(*seen.values())) == len(seen)


def test_gradients_reach_the_codes_before_alone():
    """The logits of place i have no gradient to the embedding of code i or of a later one."""
    # Three places of two codebooks, and codes whose six embeddings are six rows of the table.
    around, small = Around(Codes((3, 2), 3, (3, 3))), dataclasses.replace(NET, depth=1)
    net, z = init(small, around), jnp.array([[0, 0, 1, 1, 2, 2]])
    of_table = lambda table: small.logits({**net, "table": table}, None, z, None, around)[0]  # noqa: E731
    jacobian = jax.jit(jax.jacrev(of_table))(net["table"])
    reach = np.abs(jacobian).sum((1, 3))[:, [0, 3, 1, 4, 2, 5]]  # [place, place of the code]
    assert (reach[np.triu_indices(6)] == 0).all()
    assert (reach[np.tril_indices(6, -1)] > 0).all()


def test_cached_steps_equal_one_pass(params, logits):
    def one(held, place):
        carry, code = held
        carry, out = NET.step(params, carry, code, place, conds(36), AROUND)
        return (carry, jnp.asarray(ALL)[:, place]), out

    first = (NET.start(params, 36, conds(36), AROUND), jnp.full(36, 2))  # at place 0 the code has no meaning
    _, out = jax.jit(lambda first: jax.lax.scan(one, first, jnp.arange(4)))(first)
    np.testing.assert_allclose(np.swapaxes(out, 0, 1), logits[0], atol=1e-5)


def probabilities(with_cond, without, choices):
    """Returns the probability of each row, one place after another."""
    total = np.ones(36)
    for row, place in itertools.product(range(36), range(4)):
        size = AROUND.sizes[place]
        p = chosen(with_cond[row, place, :size], without[row, place, :size], choices)
        total[row] *= p[ALL[row, place]]
    return total


@pytest.mark.parametrize(
    "choices",
    [
        CHOICES,
        Choices(temperature=0.6, top_k=2),
        Choices(top_p=0.7),
        Choices(temperature=1.5, top_k=2, top_p=0.95, guidance=2.5),
    ],
)
def test_samples_have_their_exact_frequencies(params, logits, choices):
    samples = sampler(MANY, choices)(params, jax.random.key(3), conds(MANY))
    check_shares(samples, probabilities(*logits, choices), ALL)


def test_temperature_zero_takes_the_most_probable(params, logits):
    greedy = np.asarray(sampler(3, Choices(temperature=0.0))(params, jax.random.key(0), conds(3)))
    row = np.flatnonzero((greedy[0] == ALL).all(1))[0]
    assert (greedy == greedy[:1]).all()
    for place, size in enumerate(AROUND.sizes):
        assert ALL[row, place] == logits[0][row, place, :size].argmax()


def test_codes_that_a_place_does_not_have_are_never_drawn(params):
    likely = {**params, "bias": jnp.where(jnp.arange(3)[None] == 2, 50.0, params["bias"])}
    found = np.asarray(sampler(MANY)(likely, jax.random.key(0), conds(MANY)))
    assert found[:, ::2].max() == 1
    assert (found[:, 1::2] == 2).all()


def test_a_sample_depends_on_its_own_number_alone(params):
    few, many = (sampler(n)(params, jax.random.key(4), conds(n)) for n in (3, MANY))
    np.testing.assert_array_equal(few, many[:3])


def test_prompts_are_kept_and_the_rest_is_drawn_after_them(params, logits):
    prompt = [1, 2]
    draw_after = jax.jit(
        lambda prompt: NET.sample(params, jax.random.key(6), MANY, conds(MANY), AROUND, Choices(prompt=prompt))
    )
    exact = probabilities(*logits, CHOICES) * (ALL[:, :2] == prompt).all(1)
    check_shares(draw_after(np.tile(prompt, (MANY, 1))), exact / exact.sum(), ALL)
    whole = np.tile(ALL, (MANY // 36 + 1, 1))[:MANY]
    np.testing.assert_array_equal(draw_after(whole), whole)


def test_features_of_zero_are_no_condition(params, logits):
    zero = sampler(MANY)(params, jax.random.key(5), conds(MANY, 0 * COND))
    np.testing.assert_array_equal(zero, sampler(MANY)(params, jax.random.key(5), None))
    check_shares(zero, probabilities(logits[1], logits[1], CHOICES), ALL)
    # Guidance of 0 leaves the condition out.
    none = sampler(MANY, Choices(guidance=0.0))(params, jax.random.key(5), conds(MANY))
    np.testing.assert_array_equal(none, zero)


def test_dropout_is_keyed_by_the_example(params):
    keys, z = jax.random.split(jax.random.key(0), 6), jnp.asarray(ALL[6:12])
    loss = jax.jit(lambda keys, z, train: NET.loss(params, keys, z, conds(6), AROUND, train)[0], static_argnums=2)
    back = np.arange(6)[::-1]
    np.testing.assert_allclose(loss(keys, z, True)[back], loss(keys[back], z[back], True), rtol=1e-5)
    assert (np.abs(loss(keys, z, True) - loss(keys, z, False)) > 1e-3).all()
    np.testing.assert_array_equal(loss(keys, z, False), loss(keys[back], z, False))


def test_blocks_compute_in_the_type_of_the_networks(params, logits):
    half = AROUND._replace(dtype=jnp.bfloat16)
    assert {x.dtype for x in jax.tree.leaves(init(NET, half))} == {jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(NET.start(params, 2, None, half))} == {jnp.dtype("bfloat16")}
    near = jax.jit(lambda: NET.logits(params, None, ALL, conds(36), half))()
    assert near.dtype == jnp.float32
    assert 1e-4 < np.abs(near - logits[0]).mean() < 0.1


def test_what_blocks_add_starts_small():
    start = init(Transformer(width=64, depth=3, heads=4), AROUND)
    for name, inputs in (("mix", 64), ("down", 256)):
        sizes = [start[f"blocks_{i}"][name]["kernel"].std() * np.sqrt(inputs) for i in range(3)]
        np.testing.assert_allclose(sizes, 1 / np.sqrt(6), rtol=0.1)


def test_heads_that_do_not_divide_the_width_are_refused_with_a_number_that_does():
    with pytest.raises(InputError, match="do not divide") as refused:
        Transformer(width=32, heads=6).check(AROUND)
    advice = ast.literal_eval(re.search(r"use \*\*({.*})", str(refused.value))[1])
    Transformer(width=32, heads=advice["model.generator.heads"]).check(AROUND)
    with pytest.raises(InputError, match="generates codes"):
        Transformer().check(Around(OneHot((4,), (4,))))
    assert issubclass(Transformer, Tokens)


@pytest.mark.slow
def test_rare_codes_are_drawn_as_often_as_they_should_be():
    """10^7 draws, 20 codes of probability 5e-8 each: 10 are due; noise of one float32 uniform each gives 2.4."""
    p, rare, chunk = 5e-8, 20, 10**5
    logits = jnp.log(jnp.concatenate([jnp.array([1 - rare * p]), jnp.full(rare, p)]))

    def drawn(key):
        codes = draw.codes(jax.random.split(key, chunk), jnp.broadcast_to(logits, (chunk, rare + 1)), Choices())
        return jnp.sum(codes > 0)

    keys = jax.random.split(jax.random.key(0), 10**7 // chunk)
    # With this key 10, and 4 with that noise.
    assert 6 <= jax.jit(lambda keys: jax.lax.map(drawn, keys).sum())(keys) <= 16
