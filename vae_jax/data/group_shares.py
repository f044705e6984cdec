"""Whole groups held out so that each class keeps its share: what `data.stratify` does of data with groups.

The groups are dealt to ten parts, the greatest first, each to the part that has least of its classes (as
scikit-learn's StratifiedGroupKFold does: the rule is our own because a later version of theirs would move examples of a
trained run to its test split). Of the ten, those nearest to a tenth of every class are held out, and single groups are
exchanged with training as long as that brings them nearer.
"""

from __future__ import annotations

import numpy as np

PARTS = 10
_FEW = 2_000  # groups up to which exchanges are tried, all pairs at once; of more, every part is near a tenth
_MOST = 200  # exchanges for one side
_LEAST = 1e-9  # gain of an exchange, beyond what rounding makes of it


def sides(group: np.ndarray, labels: np.ndarray, hashes: np.ndarray, count: int) -> list[np.ndarray]:
    """Chooses the groups of each side that is held out.

    Nothing depends on the order of the rows.

    Args:
      group: number of the group of each example, int [N] from 0 to G - 1.
      labels: int [N]; an unknown one, -1, counts as a class.
      hashes: of the groups, uint64 [G]: which of equal groups comes first.
      count: sides that are held out, fewer than there are groups.

    Returns:
      the rows of each side, ascending.
    """
    number = np.unique(labels, return_inverse=True)[1].reshape(-1)
    held = np.zeros((len(hashes), number.max() + 1))
    np.add.at(held, (group, number), 1)
    # 1. By size, then by hash: from here on group i is the i-th in this order.
    shares = held / held.sum(0)
    order = np.lexsort((hashes, -shares.sum(1).round(9)))
    shares, sizes = shares[order], held[order].sum(1)
    # 2. Deal, and choose the parts nearest to a tenth; with fewer groups than parts some are empty.
    part = _dealt(shares, sizes)
    far = np.array([np.square(shares[part == i].sum(0) - 1 / PARTS).sum() for i in range(PARTS)])
    far[np.bincount(part, minlength=PARTS) == 0] = np.inf
    nearest = np.argsort(far.round(9), kind="stable")[:count]
    side = np.full(len(shares), count)
    for i, chosen in enumerate(nearest):
        side[part == chosen] = i
    # 3. Exchange with training, which is side `count`.
    for i in range(count if len(shares) <= _FEW else 0):
        _exchange(shares, side, i, count)
    of = np.empty_like(side)
    of[order] = side
    return [np.flatnonzero(of[group] == i) for i in range(count)]


def _dealt(shares: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Returns the part of each group, int [G], by its share of each class [G, C] and its examples [G]."""
    sums, counts, part = np.zeros((PARTS, shares.shape[1])), np.zeros(PARTS), np.zeros(len(shares), int)
    for g, share in enumerate(shares):
        # The sum of squared shares grows least there; rounded, for equal parts must tie on every machine.
        part[g] = np.lexsort((counts, (sums * share).sum(1).round(9)))[0]
        sums[part[g]] += share
        counts[part[g]] += sizes[g]
    return part


def _exchange(shares: np.ndarray, side: np.ndarray, mine: int, train: int) -> None:
    """Moves groups between side `mine` and training, in place, while the shares of `mine` come nearer to a tenth."""
    nothing = np.zeros((1, shares.shape[1]))
    for _ in range(_MOST):
        here, there = np.flatnonzero(side == mine), np.flatnonzero(side == train)
        off = shares[here].sum(0) - 1 / PARTS
        given, taken = np.r_[nothing, shares[here]], np.r_[nothing, shares[there]]
        # |off + taken - given|^2 of all pairs [T + 1, H + 1], the first of each being no group at all.
        near = np.square(off + taken).sum(1)[:, None] + np.square(given).sum(1) - 2 * (off + taken) @ given.T
        if len(here) == 1:  # neither side gives its last group away
            near[0, 1] = np.inf
        if len(there) == 1:
            near[1, 0] = np.inf
        t, h = np.unravel_index(np.argmin(near.round(9)), near.shape)
        if near[t, h] > np.square(off).sum() - _LEAST:
            return
        if t:
            side[there[t - 1]] = mine
        if h:
            side[here[h - 1]] = train


def words(rows: dict[str, np.ndarray], labels: np.ndarray) -> str:
    """Returns the shares of the classes in what is held out: "of each class 9.1 % to 10.4 % in test"."""
    classes, total = np.unique(labels, return_counts=True)
    said = []
    for name in (name for name in ("validation", "test") if name in rows):
        share = np.array([(labels[rows[name]] == c).sum() for c in classes]) / total * 100
        low, high = f"{share.min():.1f} %", f"{share.max():.1f} %"
        said.append(f"{low if low == high else f'{low} to {high}'} in {name}")
    return f"of each class {', '.join(said)}"
