"""Data made to make roundings add up, by a greedy search that follows the kernels' sums value by value.

Each next value of a lane is the one, of some candidates, whose rounding moves the running sum of d up and that of d^2
down: both errors then push the result the same way.  The search knows how a lane is summed (see the numerics in
`_kernels.pyx`), not the kernels: what it finds is data like any other.
"""

import numpy as np

CANDIDATES = 24


def rounded(exact):
    """In float32, and by how much rounding moved it; of float64 values."""
    near = exact.astype(np.float32)
    return near, near.astype(np.float64) - exact


class Lanes:
    """Sums of d and of d^2 (2, ...) in `vectors` lanes of each column, which are joined pairwise to one."""

    def __init__(self, columns, vectors):
        self.chains = np.zeros((2, vectors, columns), np.float32)
        self.halves = np.zeros((2, columns), np.float32)
        self.totals = np.zeros((2, columns), np.float32)

    def added(self, vector, d):
        """What a chain comes to with each candidate d (candidates, columns), and its roundings."""
        d = d.astype(np.float64)
        return rounded(self.chains[:, None, vector] + np.stack([d, d * d]))

    def joined(self, vector, sums, half_ends):
        """What the lanes up to `vector`, which comes to `sums`, are when they are joined, and the roundings of that."""
        errors = 0.0
        chains, halves, totals = (a.astype(np.float64)[:, None] for a in (self.chains, self.halves, self.totals))
        if vector % 2:
            sums, errors = rounded(chains[:, :, vector - 1] + sums)
        if vector == 3:
            sums, more = rounded(rounded(chains[:, :, 0] + chains[:, :, 1])[0].astype(np.float64) + sums)
            errors = errors + more
        if vector + 1 == chains.shape[2]:
            sums, more = rounded(halves + sums)
            errors = errors + more
            if half_ends:
                sums, more = rounded(totals + sums)
                errors = errors + more
        return sums, errors


def greedy(rng, base, pull, jitter, chain, half):
    """Values like `base` (lines, vectors, columns), which is about 0, each moved by up to `jitter` of itself.

    A lane adds up `chain` values before its sum is added to others, and `half` such before these are.

    An error of s counts 1 + `pull` times, the way it goes into y = -1 where `pull` is mean / std, one of q half of it.
    """
    lines, vectors, columns = base.shape
    lanes, found = Lanes(columns, vectors), np.empty(base.shape, np.float32)
    spread = np.sqrt(np.maximum(base.var((0, 1)), 1e-30))
    every = np.arange(columns)
    for line in range(lines):
        ends = (line + 1) % chain == 0 or line + 1 == lines
        half_ends = (line + 1) % (half * chain) == 0 or line + 1 == lines
        for vector in range(vectors):
            d = base[line, vector] * (1 + rng.uniform(-1, 1, (CANDIDATES, columns)) * jitter)
            d = d.astype(np.float32)
            sums, errors = lanes.added(vector, d)
            joined, more = lanes.joined(vector, sums, half_ends) if ends else (sums, 0)
            errors = errors + more
            best = np.argmax((1 + pull) * errors[0] / spread - errors[1] / 2 / spread**2, axis=0)
            found[line, vector] = d[best, every]
            lanes.chains[:, vector] = sums[:, best, every]
            if ends and vector + 1 == vectors:
                lanes.chains[:] = 0
                if half_ends:
                    lanes.totals, lanes.halves = joined[:, best, every], np.zeros_like(lanes.halves)
                else:
                    lanes.halves = joined[:, best, every]
    return found


def levels(rng, lines, vectors, columns, quiet, most):
    """Columns of two levels, in any order or one after the other, after up to `quiet` zeros; their mean / std, up to
    `most`; how far to search around them."""
    pull = most * rng.uniform(0, 1, columns) ** 0.5
    up = rng.uniform(0.2, 1.5, columns)
    chosen = rng.uniform(size=(lines * vectors, columns))
    order = rng.integers(0, 3, columns)
    chosen = np.where(order == 0, chosen, np.sort(chosen, axis=0))
    chosen = np.where(order == 1, chosen[::-1], chosen).reshape(lines, vectors, columns)
    base = np.where(chosen < 1 / (1 + up**2), pull + up, pull - 1 / up)  # mean pull, variance 1
    base[: min(quiet, lines // 2)] *= rng.integers(0, 2, columns)
    return base * np.exp2(rng.uniform(0, 1, columns)), pull, 10.0 ** rng.uniform(-4, -0.5, columns)


def search(rng, error_of, lines, vectors, columns, generations, quiet, most, chain, half):
    """The worst columns found (lines, vectors, columns), worst first, and the error that `error_of(values)` gives each.

    From generation to generation the worst are kept, and searched around with some lines exchanged.
    """
    worst, errors = np.zeros((lines, vectors, 0), np.float32), np.zeros(0)
    for generation in range(generations):
        base, pull, jitter = levels(rng, lines, vectors, columns, quiet, most)
        if generation:
            every = np.arange(columns // 4 * 3)
            base[..., every] = worst[..., rng.integers(0, worst.shape[2], len(every))]
            base[..., every] *= np.exp2(rng.uniform(-0.1, 0.1, len(every)) * rng.integers(0, 2, len(every)))
            a, b = rng.integers(0, lines, (2, len(every)))
            base[a, :, every], base[b, :, every] = base[b, :, every], base[a, :, every]
        found = greedy(rng, base, pull, jitter, chain, half)
        worst, errors = np.concatenate([worst, found], axis=2), np.concatenate([errors, error_of(found)])
        order = np.argsort(-errors)[: columns // 16]
        worst, errors = worst[..., order], errors[order]
    return worst, errors
