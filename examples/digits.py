"""A small convolutional network in NumPy that reads scanned digits, with its BatchNorms and with them folded away.

Shows the life of a BatchNorm. Three ``cpunorm.BatchNorm2d`` learn their statistics while this script trains the network
on scikit-learn's digits: forward by cpunorm, backward written out below. Then they evaluate, each with a ReLU after it.
Then ``cpunorm.fuse_conv_bn_weights`` folds them into the convolutions, which read the same digits alone.

Install::

    pip install "cpunorm[examples]"

Run; training takes some seconds::

    python examples/digits.py
"""

import functools
import itertools
import time
from typing import NamedTuple

import numpy as np

import cpunorm

try:
    from sklearn.datasets import load_digits
    from threadpoolctl import threadpool_limits
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[examples]"') from None

TRAINED = 1297  # scans to learn from; the other 500 are to be read
EPOCHS, BATCH, RATE, MOMENTUM = 12, 64, 0.1, 0.9
CHANNELS, STRIDES = (1, 16, 32, 32), (1, 2, 1)  # of the convolutions, 3x3 each
CORNERS = list(itertools.product(range(3), repeat=2))
ROUNDS = 30
# Products as small as these gain nothing from a second thread, and lose much by it on a busy machine.
on_one_thread = threadpool_limits.wrap(limits=1, user_api="blas")


class Network(NamedTuple):
    """Convolutions (C, C_in, 3, 3), their BatchNorms, and the last layer: weight (10, features) and bias."""

    convs: list
    norms: list
    weight: np.ndarray
    bias: np.ndarray


def patches(x, stride):
    """The 3x3 neighbourhoods of x, (N, H, W, C), whose border is 0, and a 1: (N, H / stride, W / stride, 9 * C + 1)."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height : stride, j : j + width : stride] for i, j in CORNERS]
    return np.concatenate([*shifted, np.ones_like(shifted[0][..., :1])], axis=-1)


def matrix(conv, bias=0.0):
    """A convolution (C, C_in, 3, 3) as the matrix (C, 9 * C_in + 1) that patches are multiplied by."""
    columns = conv.transpose(0, 2, 3, 1).reshape(len(conv), -1)
    return np.column_stack([columns, np.full(len(conv), bias, conv.dtype)])


def gradient_of_patches(gradient, shape, stride):
    """The gradient of x, of that shape, from that of its patches."""
    height, width = shape[1:3]
    padded = np.zeros((shape[0], height + 2, width + 2, shape[3]), np.float32)
    for (i, j), part in zip(CORNERS, np.split(gradient[..., :-1], 9, axis=-1), strict=True):
        padded[:, i : i + height : stride, j : j + width : stride] += part
    return padded[:, 1:-1, 1:-1]


def predict(network, scans):
    """Scores (N, 10) of scans (N, 8, 8, 1): convolution, BatchNorm, ReLU, three times, and a linear layer."""
    x = scans
    for conv, norm, stride in zip(network.convs, network.norms, STRIDES, strict=True):
        x = patches(x, stride) @ matrix(conv).T
        x = norm(x, out=x)
        x = np.maximum(x, 0, out=x)
    return x.reshape(len(x), -1) @ network.weight.T + network.bias


def fold(network):
    """Weight and bias of convolutions that do what `network`'s do with the BatchNorms after them."""
    return [
        cpunorm.fuse_conv_bn_weights(conv, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
        for conv, norm in zip(network.convs, network.norms, strict=True)
    ]


def predict_folded(network, folded, scans):
    """`predict` by the convolutions that `fold` made."""
    x = scans
    for (conv, bias), stride in zip(folded, STRIDES, strict=True):
        x = patches(x, stride) @ matrix(conv, bias).T
        x = np.maximum(x, 0, out=x)
    return x.reshape(len(x), -1) @ network.weight.T + network.bias


def gradients(network, scans, target):
    """Pairs (parameter, gradient of the mean cross-entropy); the BatchNorms, in training, move their statistics."""
    x, kept = scans, []
    for conv, norm, stride in zip(network.convs, network.norms, STRIDES, strict=True):
        seen = patches(x, stride)
        before = seen @ matrix(conv).T
        after = norm(before)
        kept.append((x.shape, seen, before, after))
        x = np.maximum(after, 0)
    flat = x.reshape(len(x), -1)
    scores = flat @ network.weight.T + network.bias
    gradient = np.exp(scores - scores.max(axis=1, keepdims=True))
    gradient /= gradient.sum(axis=1, keepdims=True)
    gradient[np.arange(len(target)), target] -= 1
    gradient /= len(target)
    yield network.weight, gradient.T @ flat
    yield network.bias, gradient.sum(axis=0)
    gradient = (gradient @ network.weight).reshape(x.shape)
    for layer in reversed(range(len(kept))):
        conv, norm, (shape, seen, before, after) = network.convs[layer], network.norms[layer], kept[layer]
        gradient = (gradient * (after > 0)).reshape(-1, len(conv))
        # BatchNorm: what is left of the gradient without the parts along a constant and along the normalised values
        before = before.reshape(gradient.shape)
        scale = 1 / np.sqrt(before.var(axis=0) + norm.eps)
        normalised = (before - before.mean(axis=0)) * scale
        yield norm.bias, gradient.sum(axis=0)
        yield norm.weight, (gradient * normalised).sum(axis=0)
        along = normalised * (gradient * normalised).mean(axis=0)
        gradient = norm.weight * scale * (gradient - gradient.mean(axis=0) - along)
        by_patch = (gradient.T @ seen.reshape(len(gradient), -1))[:, :-1]
        yield conv, by_patch.reshape(len(conv), 3, 3, -1).transpose(0, 3, 1, 2)
        if layer:
            gradient = (gradient @ matrix(conv)).reshape(seen.shape)
            gradient = gradient_of_patches(gradient, shape, STRIDES[layer])


@functools.cache
def digits():
    """Scans (1797, 8, 8, 1), white on black from 0 to 1, and the digits that they show."""
    data = load_digits()
    return (data.images[..., np.newaxis] / 16).astype(np.float32), data.target


def untrained(rng):
    """A network of random weights."""
    convs = [
        (rng.standard_normal((outs, ins, 3, 3)) * np.sqrt(2 / (9 * ins))).astype(np.float32)
        for ins, outs in itertools.pairwise(CHANNELS)
    ]
    norms = [cpunorm.BatchNorm2d(outs, data_format="channels_last") for outs in CHANNELS[1:]]
    features = 4 * 4 * CHANNELS[-1]
    weight = (rng.standard_normal((10, features)) / np.sqrt(features)).astype(np.float32)
    return Network(convs, norms, weight, np.zeros(10, np.float32))


@functools.cache
@on_one_thread
def train():
    """A network that has learned from the first TRAINED scans, in evaluation: gradient descent with momentum."""
    rng = np.random.default_rng(0)
    network = untrained(rng)
    velocities = {}
    scans, target = digits()
    batches = EPOCHS * TRAINED // BATCH
    for step in range(batches):
        if step % (TRAINED // BATCH) == 0:
            order = rng.permutation(TRAINED)
        batch, order = order[:BATCH], order[BATCH:]
        rate = RATE * (1 - step / batches)
        for parameter, gradient in list(gradients(network, scans[batch], target[batch])):
            velocity = velocities.setdefault(id(parameter), np.zeros_like(parameter))
            velocity *= MOMENTUM
            velocity -= rate * gradient
            parameter += velocity
    for norm in network.norms:
        norm.eval()
    return network


def milliseconds(*functions):
    """The median time of each of `functions`, called in turns."""
    times = []
    for _ in range(ROUNDS):
        for function in functions:
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
    return 1e3 * np.median(np.reshape(times, (ROUNDS, -1)), axis=0)


@on_one_thread
def main():
    """Train; read the rest with BatchNorms and without; print accuracy, error and time of both.

    Raises
    ------
    SystemExit
        The folded network reads a digit differently.
    """
    scans, target = digits()
    unknown, shown = scans[TRAINED:], target[TRAINED:]
    start = time.perf_counter()
    network = train()
    print(f"{TRAINED} scans of 8x8 pixels learned in {time.perf_counter() - start:.1f} s, {EPOCHS} epochs")
    for norm in network.norms:
        print(f"  3x3 convolution, {norm}, ReLU")

    folded = fold(network)
    ways = {
        "BatchNorm, ReLU": lambda: predict(network, unknown),
        "folded, ReLU": lambda: predict_folded(network, folded, unknown),
    }
    scores = [way() for way in ways.values()]
    print(f"\n{len(unknown)} other scans    right        time")
    for way, score, took in zip(ways, scores, milliseconds(*ways.values()), strict=True):
        print(f"{way:18} {np.mean(score.argmax(axis=1) == shown):6.1%}  {took:7.2f} ms")
    if not np.array_equal(*(score.argmax(axis=1) for score in scores)):
        raise SystemExit("the folded network reads other digits")
    pairs = zip(folded, network.convs, strict=True)
    change = max(np.abs(weight / conv - 1).max() for (weight, _), conv in pairs)
    print(f"the same digits; largest difference of a score {np.abs(scores[0] - scores[1]).max():.1e}", end=" ")
    print(f"of {np.abs(scores[0]).max():.1f}")
    print(f"largest relative change of a weight by folding {change:.2f}")


if __name__ == "__main__":
    main()
