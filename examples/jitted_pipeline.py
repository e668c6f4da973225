"""A pipeline that Numba compiles, LayerNorm and all: scanned digits are read whatever the light was.

Shows `cpunorm.functional.layer_norm` inside an ``@njit`` function. Every scan gets another brightness and contrast, and
is read by its nearest neighbour among scans taken in other light. On the pixels three in ten go wrong; a LayerNorm of
each scan takes brightness and contrast out, and the distance that is left is one of shapes. The loop over the scans
runs on all cores, each norm on the core that needs it.

Install::

    pip install "cpunorm[examples,numba]"

Run; the first run compiles for some seconds::

    python examples/jitted_pipeline.py
"""

import time

import numpy as np

import cpunorm

try:
    from numba import njit, prange
    from sklearn.datasets import load_digits
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples,numba]"') from None

KNOWN = 1000  # scans whose digit is known; the other 797 are to be read


@njit(parallel=True)
def nearest(scans, known, normalise):
    """The index of the nearest of `known`, (M, pixels), for each of `scans`, (N, pixels), normalised or as they are."""
    index = np.empty(len(scans), np.int64)
    library = cpunorm.functional.layer_norm(known, known.shape[1]) if normalise else known
    for i in prange(len(scans)):
        scan = cpunorm.functional.layer_norm(scans[i], scans.shape[1]) if normalise else scans[i]
        least = np.inf
        for j in range(len(library)):
            distance = 0.0
            for pixel in range(scan.size):
                distance += (scan[pixel] - library[j, pixel]) ** 2
            if distance < least:
                least = distance
                index[i] = j
    return index


def in_other_light(scans, rng):
    """Each of `scans`, (N, pixels), brighter or darker, with more or less contrast."""
    contrast, brightness = rng.uniform(0.2, 5, (len(scans), 1)), rng.uniform(-50, 50, (len(scans), 1))
    return (scans * contrast + brightness).astype(np.float32)


def main():
    """Print how many digits are read right, with and without LayerNorm, and that it is the LayerNorm of a call."""
    digits = load_digits()
    rng = np.random.default_rng(0)
    scans = in_other_light(digits.data, rng)
    known, unknown = scans[:KNOWN], scans[KNOWN:]
    print(f"{len(unknown)} scans of 8x8 pixels to be read, {len(known)} known ones, each in its own light")

    start = time.perf_counter()
    nearest(unknown[:1], known, True)
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    for normalise, what in ((False, "pixels as scanned"), (True, "after LayerNorm")):
        start = time.perf_counter()
        index = nearest(unknown, known, normalise)
        seconds = time.perf_counter() - start
        right = np.mean(digits.target[index] == digits.target[KNOWN:])
        print(f"{what:18} {right:6.1%} right, {1e3 * seconds:5.1f} ms")

    with cpunorm.engine("numba"):
        normalised = cpunorm.functional.layer_norm(scans, 64)
    same = nearest(normalised[KNOWN:], normalised[:KNOWN], False)
    if not np.array_equal(same, nearest(unknown, known, True)):
        raise SystemExit("the jitted pipeline and the calls from Python disagree")
    print("the same neighbours when layer_norm is called from Python")


if __name__ == "__main__":
    main()
