"""What is measured: the norms of well-known networks, as data. A new layer is one line in `LAYERS`."""

import fnmatch
from dataclasses import dataclass, replace

import numpy as np

EPS = 1e-5
MOMENTUM = 0.1
LETTERS = {2: "", 3: "L", 4: "HW", 5: "DHW"}  # of the axes beside N and C, by rank


@dataclass(frozen=True)
class Layer:
    """One norm at one place of a network: a case in each layout and mode that it is run in.

    Attributes
    ----------
    source : str
        The network that it comes from.
    norm : str
        Its name in `cpunorm.functional`.
    shape : tuple of int
        (N, C, ...) for BatchNorm and GroupNorm, (rows, width) for LayerNorm.
    groups : int, optional
        GroupNorm's.
    quick : bool
        Whether ``--quick`` runs it.
    """

    source: str
    norm: str
    shape: tuple
    groups: int | None = None
    quick: bool = False


LAYERS = (
    Layer("ResNet-50", "batch_norm", (1, 8, 4, 4), quick=True),
    Layer("ResNet-50", "batch_norm", (1, 64, 56, 56), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 512, 7, 7)),
    Layer("ResNet-50", "batch_norm", (8, 256, 28, 28), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 64, 56, 56), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 64, 112, 112)),
    Layer("PointNet", "batch_norm", (32, 64, 1024)),
    Layer("PointNet", "batch_norm", (256, 1024), quick=True),
    Layer("video-ResNet", "batch_norm", (2, 32, 16, 56, 56), quick=True),
    Layer("BERT-base", "layer_norm", (1, 768), quick=True),
    Layer("BERT-base", "layer_norm", (128, 768), quick=True),
    Layer("BERT-base", "layer_norm", (4096, 768), quick=True),
    Layer("diffusion-UNet", "group_norm", (2, 320, 64, 64), groups=32, quick=True),
)


@dataclass(frozen=True)
class Arrays:
    """What a case computes from; `x` is contiguous in the case's layout: (N, C, ...) or (N, ..., C)."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray

    def with_own_statistics(self):
        """The same, but for running statistics of its own: training writes to them."""
        return replace(self, running_mean=self.running_mean.copy(), running_var=self.running_var.copy())


@dataclass(frozen=True)
class Case:
    """One measurement: `layer` in one layout, mode ("eval", "train"; None where there is no difference) and dtype."""

    layer: Layer
    channels_last: bool
    mode: str | None
    dtype: str

    @property
    def norm(self):
        """The norm's name in `cpunorm.functional`."""
        return self.layer.norm

    @property
    def module(self):
        """The norm's name as torch's users know it."""
        if self.norm == "batch_norm":
            return f"BatchNorm{max(1, len(self.layer.shape) - 2)}d"
        return "LayerNorm" if self.norm == "layer_norm" else f"GroupNorm-{self.layer.groups}"

    @property
    def shape(self):
        """The layer's shape, (N, C, ...) in either layout, as text."""
        return "x".join(map(str, self.layer.shape))

    @property
    def layout(self):
        """The order of the axes in memory, such as NHWC; None for LayerNorm."""
        if self.norm == "layer_norm":
            return None
        spatial = LETTERS[len(self.layer.shape)]
        return f"N{spatial}C" if self.channels_last else f"NC{spatial}"

    @property
    def name(self):
        """What `--cases` matches and errors tell."""
        return "/".join(filter(None, (self.layer.source, self.module, self.shape, self.layout, self.mode, self.dtype)))

    def arrays(self):
        """The input and parameters: the same numbers at every call."""
        random = np.random.default_rng(0)
        x = random.standard_normal(self.layer.shape, self.dtype)
        x *= 2
        x += 0.5
        if self.channels_last:
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        weight, bias, mean, var = random.uniform(0.5, 1.5, (4, self.layer.shape[1])).astype(self.dtype)
        return Arrays(x, weight, bias, mean, var)

    def expected(self, arrays):
        """The output, running mean and running variance for `arrays`, in float64, by the formula."""
        x = np.moveaxis(arrays.x, -1, 1) if self.channels_last else arrays.x
        samples, channels = self.layer.shape[:2]
        together = {"batch_norm": channels, "layer_norm": 1, "group_norm": self.layer.groups}[self.norm]
        z = x.astype(np.float64, order="C").reshape(samples, together, -1)
        axes = (0, 2) if self.norm == "batch_norm" else (2,)
        mean, var = (v.astype(np.float64).reshape(1, -1, 1) for v in (arrays.running_mean, arrays.running_var))
        running = mean.ravel(), var.ravel()
        if self.mode != "eval":
            mean = z.mean(axis=axes, keepdims=True, dtype=np.longdouble).astype(np.float64)
            var = np.square(z - mean).mean(axis=axes, keepdims=True)
        if self.mode == "train":
            count = z.size // channels
            batch = mean.ravel(), var.ravel() * count / (count - 1)
            running = tuple((1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running, batch, strict=True))
        z -= mean
        z /= np.sqrt(var + EPS)
        y = z.reshape(samples, channels, -1)
        y *= arrays.weight[:, None]
        y += arrays.bias[:, None]
        y = y.reshape(self.layer.shape)
        return np.moveaxis(y, 1, -1) if self.channels_last else y, *running


def expand(layers, dtype):
    """Every case of `layers`: both layouts of images and volumes, BatchNorm in evaluation and in training."""
    return [
        Case(layer, channels_last, mode, dtype)
        for layer in layers
        for channels_last in ((False, True) if len(layer.shape) >= 4 else (False,))
        for mode in (("eval", "train") if layer.norm == "batch_norm" else (None,))
    ]


def matching(cases, pattern):
    """The cases with `pattern`, in which ``*`` and ``?`` are wildcards, anywhere in their name, in any case."""
    return [case for case in cases if fnmatch.fnmatchcase(case.name.lower(), f"*{pattern.lower()}*")]
