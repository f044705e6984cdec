"""Masked transformers over codes against enumeration: masks, the bound over all orders, draws in few passes."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from enumeration import check_shares, chosen, conds, far, init, rows

from vae_jax.models.stage2 import Absorbing, Around, Choices, Masked
from vae_jax.models.stage2.masked import mask_ratio
from vae_jax.spaces import Codes

# Three places of two levels, of 2 and of 3 codes: 18 rows, 8 masks.
AROUND = Around({"a": Codes((1,), 2), "b": Codes((2, 1), 3)}, cond=2)
SMALL = {"width": 8, "depth": 1, "heads": 2}
MASKED, ABSORBING = Masked(**SMALL, noise=1.5), Absorbing(**SMALL, masks=3)
ALL = rows(AROUND)
MASKS = np.array(list(itertools.product([False, True], repeat=3)))
ORDERS = list(itertools.permutations(range(3)))
CHOICES, MANY = Choices(), 6000


@pytest.fixture(scope="module")
def params():
    """Returns parameters of both: the nets are the same."""
    return far(init(MASKED, AROUND))


@pytest.fixture(scope="module")
def tables(params):
    """Returns the logits under every mask of every row, with the condition and without: [8, 18, 3, 3] each."""
    z, masked = jnp.tile(jnp.asarray(ALL), (8, 1)), jnp.repeat(jnp.asarray(MASKS), 18, 0)
    run = jax.jit(lambda cond: MASKED.logits(params, None, z, masked, cond, AROUND))
    return [np.asarray(run(cond)).reshape(8, 18, 3, 3) for cond in (conds(144), 0 * conds(144))]


def number(masked):
    """Returns the number of a mask, given as the set of its places, in MASKS."""
    return sum(4 >> place for place in masked)


def p(tables, masked, row, place, choices=CHOICES):
    """Returns the probabilities of the codes at a place, where the places `masked` are not known."""
    given, free = (table[number(masked), row, place, : AROUND.sizes[place]] for table in tables)
    return chosen(given, free, choices)


def in_order(tables, row, order, choices=CHOICES):
    """Returns the probabilities of the codes of a row, each seen from those before it in an order: [3]."""
    seen = [p(tables, order[i:], row, place, choices)[ALL[row, place]] for i, place in enumerate(order)]
    return np.array(seen)


def mixture(tables, choices=CHOICES):
    """Returns the probability of each row where the codes are uncovered one by one in a random order."""
    return np.array([np.mean([in_order(tables, row, o, choices).prod() for o in ORDERS]) for row in range(18)])


@functools.cache
def sampler(generator, n, choices=CHOICES):
    return jax.jit(lambda params, key, cond: generator.sample(params, key, n, cond, AROUND, choices))


def test_logits_depend_on_no_code_that_is_masked(tables):
    """Bit for bit, at all places; and they do depend on every code that is not, before and after."""
    for mask, table in zip(MASKS, tables[0]):
        seen = {}
        for code, logits in zip(ALL, table):
            seen.setdefault(tuple(code[~mask]), set()).add(logits[mask].tobytes())
        assert all(len(same) == 1 for same in seen.values())
        if mask.any():
            assert len(set.union(*seen.values())) == len(seen)


def test_masks_follow_the_cosine():
    assert mask_ratio(jnp.linspace(0, 1, 10_001)).mean() == pytest.approx(2 / math.pi, abs=1e-4)
    around, keys = Around(Codes((64,), 2)), jax.random.split(jax.random.key(0), 400)
    net = Masked(width=2, depth=1, heads=1)
    _, logged = jax.jit(
        lambda params: net.loss(params, keys, jnp.zeros((400, 64), jnp.int32), None, around, False)
    )(init(net, around))  # fmt: skip
    # The share is rounded up to a whole code; its standard deviation is .31.
    assert logged["masked_share"] == pytest.approx(2 / math.pi + 0.5 / 64, abs=4 * 0.31 / 400**0.5)


def test_masked_codes_alone_are_scored(params, tables):
    """Each loss is -log p of the codes under one of the seven masks, and masks come as often as they should."""
    row, n = 11, 4000
    nats = [-sum(math.log(p(tables, np.flatnonzero(m), row, i)[ALL[row, i]]) for i in np.flatnonzero(m)) for m in MASKS]
    loss, logged = jax.jit(lambda keys: MASKED.loss(params, keys, jnp.tile(ALL[row], (n, 1)), conds(n), AROUND, False))(
        jax.random.split(jax.random.key(2), n)
    )
    far_off = np.abs(np.asarray(loss)[:, None] - np.array(nats)[1:])
    assert far_off.min(1).max() < 1e-4
    found = np.bincount(far_off.argmin(1), minlength=7) / n
    # ceil(3 cos(pi r / 2)) is at most m for cos(pi r / 2) <= m / 3.
    up_to = [1 - math.acos(m / 3) * 2 / math.pi for m in range(4)]
    sizes = MASKS[1:].sum(1)
    exact = np.diff(up_to)[sizes - 1] / np.array([math.comb(3, m) for m in sizes])
    assert np.abs(found - exact).max() < 4.5 * np.sqrt(0.25 / n)
    assert logged["masked_share"] == pytest.approx(found @ sizes / 3, abs=1e-5)
    assert logged["nats_per_code"] == pytest.approx(found @ (np.array(nats)[1:] / sizes), rel=1e-4)


def test_the_bound_is_the_mean_over_all_orders(params, tables):
    exact = np.array([np.mean([-np.log(in_order(tables, row, o)).sum() for o in ORDERS]) for row in range(18)])
    log_p = np.log(mixture(tables))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-9)
    assert (exact >= -log_p).all()
    assert (exact + log_p).max() > 0.05
    # The integral over time of the paper: a polynomial in t, which six nodes integrate exactly.
    nodes, weights = np.polynomial.legendre.leggauss(6)
    of_time = np.zeros(18)
    for t, weight in zip((nodes + 1) / 2, weights / 2):
        for mask in MASKS[1:]:
            places = np.flatnonzero(mask)
            chance = t ** len(places) * (1 - t) ** (3 - len(places))
            nats = [-sum(math.log(p(tables, places, r, i)[ALL[r, i]]) for i in places) for r in range(18)]
            of_time += weight * chance / t * np.array(nats)
    np.testing.assert_allclose(of_time, exact, rtol=1e-9)

    n = 600
    z, cond = jnp.tile(ALL, (n, 1)), conds(18 * n)
    one, three = jax.jit(
        lambda keys: (
            ABSORBING.loss(params, keys, z, cond, AROUND, False)[0],
            ABSORBING.rate(params, keys, z, cond, AROUND),
        )
    )(jax.random.split(jax.random.key(5), 18 * n))
    one, three = (np.asarray(x).reshape(n, 18) for x in (one, three))
    for draws in (one, three):
        assert (np.abs(draws.mean(0) - exact) < 4.5 * draws.std(0) / n**0.5).all()


def test_evaluation_has_a_mask_of_every_size():
    """-log p that depends on the number of masked codes alone: strata of this number leave no noise at all."""

    class OfCount(Absorbing):
        def logits(self, params, keys, z, masked, cond, around):
            count = jnp.sum(masked, -1).astype(jnp.float32)[:, None, None]
            return jnp.where(jnp.arange(2)[None, None] == 1, count, jnp.zeros((*z.shape, 1)))

    keys, around = jax.random.split(jax.random.key(0), 50), Around(Codes((5,), 2))
    nats = jax.jit(lambda keys: OfCount(masks=5).rate({}, keys, jnp.zeros((50, 5), jnp.int32), None, around))(keys)
    np.testing.assert_allclose(nats, 5 * np.log1p(np.exp(np.arange(1, 6))).mean(), rtol=1e-6)


@pytest.mark.parametrize("choices", [CHOICES, Choices(temperature=1.5, top_k=2, top_p=0.95, guidance=2.0)])
def test_one_code_per_pass_draws_from_the_mixture_over_orders(params, tables, choices):
    samples = sampler(ABSORBING, MANY, choices)(params, jax.random.key(0), conds(MANY))
    check_shares(samples, mixture(tables, choices), ALL)


def test_two_passes_draw_two_codes_at_once(params, tables):
    """Two codes as if independent at two random places, then the third from them."""
    exact = np.zeros(18)
    for row, last in itertools.product(range(18), range(3)):
        first = [p(tables, (0, 1, 2), row, i)[ALL[row, i]] for i in range(3) if i != last]
        exact[row] += np.prod(first) * p(tables, (last,), row, last)[ALL[row, last]] / 3
    choices = Choices(passes=2)
    check_shares(sampler(ABSORBING, MANY, choices)(params, jax.random.key(1), conds(MANY)), exact, ALL)


@pytest.mark.parametrize("choices", [Choices(passes=2), Choices(passes=2, temperature=0.5, guidance=2.0)])
def test_the_most_confident_code_is_kept_first(params, tables, choices):
    """Three codes are drawn and one is kept, in proportion to p^(1/noise); then the others are drawn from it."""
    assert MASKED.left(3, 2) == [2, 0]
    plain = choices._replace(temperature=1.0)  # confidence is the model's own, whatever the draw
    noise = 1.5 * choices.temperature / 2  # half of the passes is left
    exact = np.zeros(18)
    for drawn, kept in itertools.product(range(18), range(3)):
        first = [p(tables, (0, 1, 2), drawn, i, choices)[ALL[drawn, i]] for i in range(3)]
        confidence = np.array([p(tables, (0, 1, 2), drawn, i, plain)[ALL[drawn, i]] for i in range(3)]) ** (1 / noise)
        chance = np.prod(first) * confidence[kept] / confidence.sum()
        rest = [i for i in range(3) if i != kept]
        for row in np.flatnonzero(ALL[:, kept] == ALL[drawn, kept]):
            exact[row] += chance * np.prod([p(tables, rest, row, i, choices)[ALL[row, i]] for i in rest])
    check_shares(sampler(MASKED, MANY, choices)(params, jax.random.key(2), conds(MANY)), exact, ALL)


def test_passes_uncover_by_the_schedule():
    left = Masked(passes=8).left(49, 0)
    assert left == [math.floor(49 * math.cos(math.pi * i / 16)) for i in range(1, 8)] + [0]
    assert Masked().left(3, 12) == [2, 1, 0]
    assert Masked().left(5, 1) == Absorbing().left(5, 1) == [0]
    assert Absorbing(passes=4).left(10, 0) == [7, 5, 2, 0]
    assert Absorbing().left(4, 0) == [3, 2, 1, 0]


@pytest.mark.parametrize("generator", [MASKED, ABSORBING])
def test_prompts_are_kept_and_a_sample_depends_on_its_own_number_alone(params, tables, generator):
    few, many = (sampler(generator, n)(params, jax.random.key(4), conds(n)) for n in (3, MANY))
    np.testing.assert_array_equal(few, many[:3])
    after = jax.jit(
        lambda prompt: generator.sample(params, jax.random.key(6), MANY, conds(MANY), AROUND, Choices(prompt=prompt))
    )
    samples = np.asarray(after(np.full((MANY, 1), 1)))
    assert (samples[:, 0] == 1).all()
    if generator is ABSORBING:
        # One code is given, the other two follow in both orders.
        orders = [in_order(tables, row, (0, *rest))[1:].prod() for rest in ((1, 2), (2, 1)) for row in range(18)]
        check_shares(samples, np.reshape(orders, (2, 18)).mean(0) * (ALL[:, 0] == 1), ALL)
    whole = np.tile(ALL, (MANY // 18 + 1, 1))[:MANY]
    np.testing.assert_array_equal(after(whole), whole)


def test_temperature_zero_is_the_same_for_all(params):
    greedy = np.asarray(sampler(MASKED, 5, Choices(temperature=0.0))(params, jax.random.key(0), conds(5)))
    assert (greedy == greedy[:1]).all()


@pytest.mark.parametrize("generator", [Masked(**SMALL, dropout=0.5), Absorbing(**SMALL, dropout=0.5)])
def test_noise_of_training_is_keyed_by_the_example(params, generator):
    keys, back = jax.random.split(jax.random.key(0), 6), np.arange(6)[::-1]
    loss = jax.jit(lambda keys, z, train: generator.loss(params, keys, z, None, AROUND, train)[0], static_argnums=2)
    np.testing.assert_allclose(loss(keys, ALL[:6], True)[back], loss(keys[back], ALL[:6][back], True), rtol=1e-5)
    assert (np.abs(loss(keys, ALL[:6], True) - loss(keys, ALL[:6], False)) > 1e-3).all()
