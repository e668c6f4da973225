"""What is measured: the norms of well-known networks, as data.

A new layer is one line in `LAYERS`, a new norm one entry in `NORMS`.
"""

import fnmatch
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import ml_dtypes  # noqa: F401 (so that NumPy knows bfloat16 by its name)
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .environment import cache_bytes

CALL_BOUND = 64 * 2**10  # bytes of input, up to which the call itself is most of the time
NEW_PAGES = 32 * 2**20  # bytes from which the C library (glibc's M_MMAP_THRESHOLD) takes new pages for every output
EPS = 1e-5
MOMENTUM = 0.1
SWEEP = "sweep"
LETTERS = {2: "", 3: "L", 4: "HW", 5: "DHW"}  # of the axes beside N and C, by rank


class Norm(NamedTuple):
    """What tells a norm from the others.

    Attributes
    ----------
    module : str
        Its name in torch.nn, without dimensions or groups.
    modes : tuple
        "eval" and "train"; None for one that does the same in both.
    axis : int
        Of a channels-first array, the one that weight and bias go along.
    domains : callable
        What has a mean and variance: a layer's shape -> how many samples, and domains in each.
    arguments : callable
        Case and arrays -> what follows the input, in `cpunorm.functional` and in `torch.nn.functional` alike.
    over_samples : bool
        Whether a domain goes over all samples.
    grouped : bool
        Whether a layer says its number of groups.
    centred : bool
        Whether there is a mean and a bias.
    variances : bool
        Whether a single value in a domain is an error, there being no variance.
    sums : bool
        Whether it is the norm of input + residual, that comes with its sum.
    ranks : tuple of int
    """

    module: str
    modes: tuple
    axis: int
    domains: Callable
    arguments: Callable
    over_samples: bool = False
    grouped: bool = False
    centred: bool = True
    variances: bool = False
    sums: bool = False
    ranks: tuple = (2, 3, 4, 5)


NORMS = {
    "batch_norm": Norm(
        "BatchNorm",
        ("eval", "train"),
        1,
        lambda layer: layer.shape[:2],
        lambda case, a: (a.running_mean, a.running_var, a.weight, a.bias, case.mode == "train", MOMENTUM, EPS),
        over_samples=True,
    ),
    "layer_norm": Norm(
        "LayerNorm",
        (None,),
        -1,
        lambda layer: (math.prod(layer.shape[:-1]), 1),
        lambda case, a: (a.weight.shape, a.weight, a.bias, EPS),
    ),
    "group_norm": Norm(
        "GroupNorm",
        (None,),
        1,
        lambda layer: (layer.shape[0], layer.groups),
        lambda case, a: (case.layer.groups, a.weight, a.bias, EPS),
        grouped=True,
    ),
    "instance_norm": Norm(
        "InstanceNorm",
        (None,),
        1,
        lambda layer: layer.shape[:2],
        lambda case, a: (None, None, a.weight, a.bias, True, MOMENTUM, EPS),
        variances=True,
        ranks=(3, 4, 5),
    ),
    "rms_norm": Norm(
        "RMSNorm",
        (None,),
        -1,
        lambda layer: (math.prod(layer.shape[:-1]), 1),
        lambda case, a: (a.weight.shape, a.weight, EPS),
        centred=False,
    ),
}

for _name in ("layer_norm", "rms_norm"):
    NORMS[f"add_{_name}"] = NORMS[_name]._replace(module=f"add + {NORMS[_name].module}", sums=True)

# How an input may lie in memory, if not in one piece: its values, and where its channels are (1 or -1) -> the view.
VIEWS = {
    "every second sample": lambda x, axis: np.repeat(x, 2, axis=0)[::2],
    "cropped": lambda x, axis: np.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, 1),) * 2)[..., :-1, :-1],
    "Fortran order": lambda x, axis: np.asfortranarray(x),
    "channels moved": lambda x, axis: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, axis, -axis)), -axis, axis),
}


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
        (N, C, ...), or for LayerNorm (..., width).
    groups : int, optional
        GroupNorm's.
    residual : bool
        Whether one is added to the result.
    activation : str, optional
        What is done to the result then.
    quick : bool
        Whether ``--quick`` runs it.
    both_layouts : bool
        Whether it is run in channels_last too, where it has an image or a volume.
    """

    source: str
    norm: str
    shape: tuple
    groups: int | None = None
    residual: bool = False
    activation: str | None = None
    quick: bool = False
    both_layouts: bool = True


LAYERS = (
    Layer("ResNet-50", "batch_norm", (1, 8, 4, 4), quick=True),
    Layer("ResNet-50", "batch_norm", (1, 512, 7, 7)),
    Layer("ResNet-50", "batch_norm", (1, 64, 56, 56), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 512, 7, 7)),
    Layer("ResNet-50", "batch_norm", (8, 256, 28, 28), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 64, 56, 56), quick=True),
    Layer("ResNet-50", "batch_norm", (32, 64, 112, 112)),
    Layer("image-input", "batch_norm", (1, 3, 2048, 2048)),
    Layer("PointNet", "batch_norm", (32, 64, 1024)),
    Layer("PointNet", "batch_norm", (256, 1024), quick=True),
    Layer("Conformer", "batch_norm", (64, 256, 128)),
    Layer("video-ResNet", "batch_norm", (2, 32, 16, 56, 56), quick=True),
    Layer("BERT-base", "layer_norm", (1, 768), quick=True),
    Layer("BERT-base", "layer_norm", (128, 768), quick=True),
    Layer("BERT-base", "layer_norm", (4096, 768), quick=True),
    Layer("GPT-J", "layer_norm", (1, 4096)),
    Layer("GPT-J", "layer_norm", (4096, 4096)),
    Layer("ViT-L/16", "layer_norm", (12608, 1024)),
    Layer("ConvNeXt-T", "layer_norm", (3136, 96)),
    Layer("Swin-T", "layer_norm", (25088, 192)),
    Layer("diffusion-UNet", "group_norm", (2, 320, 64, 64), groups=32, quick=True),
    Layer("diffusion-UNet", "group_norm", (2, 1280, 8, 8), groups=32),
    Layer("diffusion-VAE", "group_norm", (1, 512, 64, 64), groups=32),
    Layer("diffusion-VAE", "group_norm", (1, 128, 256, 256), groups=32),
    Layer("BiT-ResNet", "group_norm", (8, 256, 64, 64), groups=32),
    Layer("DDPM", "group_norm", (1, 64, 8, 8), groups=8),
    Layer("Qwen3-0.6B", "rms_norm", (1, 1024)),
    Layer("Qwen3-0.6B", "rms_norm", (512, 1024), quick=True),
    Layer("style-transfer", "instance_norm", (1, 64, 128, 128)),
    Layer("BERT-base", "add_layer_norm", (128, 768)),
    Layer("Qwen3-0.6B", "add_rms_norm", (1, 1024)),
    Layer("Qwen3-0.6B", "add_rms_norm", (512, 1024)),
    Layer("Llama-3-8B", "add_rms_norm", (2048, 4096)),
    Layer("ResNet-50", "batch_norm", (8, 256, 28, 28), activation="relu"),
    Layer("ResNet-50", "batch_norm", (8, 256, 28, 28), residual=True, activation="relu"),
    Layer("diffusion-UNet", "group_norm", (2, 320, 64, 64), groups=32, activation="silu"),
    Layer("wav2vec2-large", "layer_norm", (1999, 512), activation="gelu"),
    # One layer from 4 KiB to 256 MiB: where the caches end.
    *(Layer(SWEEP, "batch_norm", (1, 64, 4 << i, 4 << i), both_layouts=False) for i in range(9)),
    *(Layer(SWEEP, "layer_norm", (4**i, 1024)) for i in range(9)),
)

# Photographs as networks take them: (H, W, C), and whether ``--quick`` runs them.
IMAGES = (
    Layer("icon", "normalize_image", (32, 32, 3)),
    Layer("ImageNet", "normalize_image", (224, 224, 3), quick=True),
    Layer("HD", "normalize_image", (720, 1280, 3)),
    Layer("HD", "normalize_image", (720, 1280, 1)),
    Layer("HD", "normalize_image", (720, 1280, 4)),
    Layer("Sentinel-2", "normalize_image", (256, 256, 13)),
)
IMAGE_SCALES = {"uint8": 1 / 255, "float32": 1.0}  # by the dtype of their pixels

# What has a mean and a deviation: the axes that are taken together (None: all), and what it is of if not of the dtype.
STATISTICS = (
    (Layer("table", "moments", (100_000, 64)), (0,), None),
    (Layer("ResNet-50", "moments", (8, 256, 28, 28), quick=True), (0, 2, 3), None),
    (Layer("signal", "moments", (1_000_000,)), None, None),
    (Layer("volume", "moments", (128, 256, 256)), None, None),
    (Layer("photographs", "moments", (64, 224, 224, 3)), (0, 1, 2), "uint8"),
    (Layer("HD", "moments", (720, 1280, 3)), (0, 1), "uint8"),
    (Layer("table", "standardize", (20_000, 64), quick=True), (0,), None),
    (Layer("table", "standardize", (100_000, 64)), (0,), None),
    (Layer("HD", "standardize", (720, 1280, 3)), (0, 1), None),
    (Layer("speech", "standardize_sliding", (1000, 80)), (0,), None),
    (Layer("table", "sklearn_fit", (100_000, 64)), (0,), None),
    (Layer("table", "sklearn_transform", (100_000, 64)), (0,), None),
    (Layer("table", "dask_moments", (400_000, 64)), (0,), None),
    (Layer("table", "dask_standardize", (400_000, 64)), (0,), None),
)
WINDOW = 300  # frames of `standardize_sliding`, centred
DASK_CHUNKS = 8

# 64 rows of 4096 values each, in the arrays' float32 `offset + N(0, 1)`: what an offset costs in accuracy.
OFFSETS = (0.0, 1e2, 1e4, 1e6)
ACCURACY_LAYERS = (
    Layer("accuracy", "batch_norm", (4, 64, 32, 32)),
    Layer("accuracy", "layer_norm", (64, 4096)),
    Layer("accuracy", "group_norm", (2, 128, 32, 32), groups=32),
)
# Where sums lose themselves, along axis 0: shape, dtype, the values that are repeated.
TRAPS = (
    ((2**25, 2), "float32", (1,)),
    ((3000, 2), "float64", (10**8, 10**8 + 1, 10**8 + 2)),
    ((100, 2), "float16", (1000,)),
)


@dataclass(frozen=True)
class Arrays:
    """What a case computes from; `x` is in the case's layout: (N, C, ...) or (N, ..., C).

    `out` is for ours and for another build of it alike: the same work in other memory differs by up to 14 percent.
    """

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    running_mean: np.ndarray
    running_var: np.ndarray
    out: np.ndarray
    residual: np.ndarray | None = None

    def with_own_statistics(self):
        """The same, but for running statistics of its own: training writes to them."""
        return replace(self, running_mean=self.running_mean.copy(), running_var=self.running_var.copy())


@dataclass(frozen=True)
class Case:
    """One measurement: `layer` in one layout, mode ("eval", "train"; None where there is no difference) and dtype.

    With an `offset` its input is `offset + N(0, 1)` and weight and bias are 1 and 0: a measurement of accuracy. With a
    `view`, one of `VIEWS`, its input is no contiguous array.
    """

    layer: Layer
    channels_last: bool
    mode: str | None
    dtype: str
    offset: float | None = None
    view: str | None = None

    @property
    def norm(self):
        """The norm's name in `cpunorm.functional`."""
        return self.layer.norm

    @property
    def module(self):
        """The norm's name as torch's users know it."""
        name = NORMS[self.norm].module
        if self.layer.groups is not None:
            name += f"-{self.layer.groups}"
        if name in ("BatchNorm", "InstanceNorm"):
            name += f"{max(1, len(self.layer.shape) - 2)}d"
        return " + ".join(filter(None, (name, self.layer.residual and "residual", self.layer.activation)))

    @property
    def shape(self):
        """The layer's shape, (N, C, ...) in either layout, as text."""
        return "x".join(map(str, self.layer.shape))

    @property
    def layout(self):
        """The order of the axes, such as NHWC; None for a norm that knows no channels."""
        if NORMS[self.norm].axis != 1:
            return None
        spatial = LETTERS[len(self.layer.shape)]
        return f"N{spatial}C" if self.channels_last else f"NC{spatial}"

    @property
    def name(self):
        """What `--cases` matches and errors tell."""
        offset = None if self.offset is None else f"{self.offset:g}"
        parts = self.layer.source, self.module, self.shape, self.layout, self.mode, self.dtype, offset, self.view
        return "/".join(filter(None, parts))

    def matches(self, pattern):
        """Whether `pattern`, in which ``*`` and ``?`` are wildcards, is anywhere in the name, in any case."""
        return fnmatch.fnmatchcase(self.name.lower(), f"*{pattern.lower()}*")

    @property
    def bytes(self):
        """Bytes of inputs and outputs, each counted once."""
        arrays = 4 if NORMS[self.norm].sums else 2 + self.layer.residual
        return arrays * math.prod(self.layer.shape) * np.dtype(self.dtype).itemsize

    @property
    def region(self):
        """What bounds its time on this machine: "call-bound", "cache-bound" or "memory-bound"."""
        if self.bytes / 2 <= CALL_BOUND:
            return "call-bound"
        return (
            "memory-bound"
            if self.bytes / 2 >= NEW_PAGES or self.bytes > (cache_bytes()[1] or math.inf)
            else "cache-bound"
        )

    def _values(self, random):
        """Those of the input, channels first."""
        x = random.standard_normal(self.layer.shape, "float64" if self.dtype == "float64" else "float32")
        scale, shift = (2, 0.5) if self.offset is None else (1, self.offset)
        x *= scale
        x += shift
        return x.astype(self.dtype, copy=False)

    def arrays(self):
        """The input and parameters: the same numbers at every call."""
        random = np.random.default_rng(0)
        x = self._values(random)
        if self.channels_last:
            x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        if self.view is not None:
            x = VIEWS[self.view](x, -1 if self.channels_last else NORMS[self.norm].axis)
        count = self.layer.shape[NORMS[self.norm].axis]
        weight, bias, mean, var = random.uniform(0.5, 1.5, (4, count)).astype(self.dtype)
        if self.offset is not None:
            weight[:], bias[:] = 1, 0
        residual = x * x.dtype.type(0.5) if self.layer.residual or NORMS[self.norm].sums else None
        return Arrays(x, weight, bias, mean, var, np.empty_like(x), residual)

    def expected(self, arrays):
        """The output, running mean and running variance for `arrays`, in float64, by the formula."""
        norm = NORMS[self.norm]
        x = arrays.x
        if norm.sums:  # rounded to what is computed in, as everybody's is
            wide = np.float64 if x.dtype == np.float64 else np.float32
            x = x.astype(wide) + arrays.residual.astype(wide)
        x = np.moveaxis(x, -1, 1) if self.channels_last else x
        z = x.astype(np.float64, order="C").reshape(*norm.domains(self.layer), -1)
        axes = (0, 2) if norm.over_samples else (2,)
        mean, var = (v.astype(np.float64).reshape(1, -1, 1) for v in (arrays.running_mean, arrays.running_var))
        running = mean.ravel(), var.ravel()
        if self.mode != "eval":
            mean = z.mean(axis=axes, keepdims=True, dtype=np.longdouble).astype(np.float64) * norm.centred
            var = np.square(z - mean).mean(axis=axes, keepdims=True, dtype=np.longdouble).astype(np.float64)
        if self.mode == "train":
            count = z.size // mean.size
            batch = mean.ravel(), var.ravel() * count / (count - 1)
            running = tuple((1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running, batch, strict=True))
        z -= mean
        z /= np.sqrt(var + EPS)
        y = np.moveaxis(z.reshape(self.layer.shape), norm.axis, -1)  # a view
        y *= arrays.weight.astype(np.float64)
        if norm.centred:
            y += arrays.bias.astype(np.float64)
        y = np.moveaxis(y, -1, norm.axis)
        y = np.moveaxis(y, 1, -1) if self.channels_last else y
        if self.layer.residual:
            y += arrays.residual.astype(np.float64)
        if self.layer.activation is not None:
            from cpunorm._kernels_reference import ACTIVATIONS  # here: asv measures commits that have none

            y = ACTIVATIONS[self.layer.activation](y)
        return y, *running


@dataclass(frozen=True)
class ImageCase(Case):
    """An image of uint8 or float32 (its `mode`) to float32, in the layout `result`.

    Its arrays' `running_mean` and `running_var` are the mean and the deviation, one for all channels, for OpenCV has no
    other; `weight` says how large an error is.
    """

    result: str = "CHW"

    @property
    def module(self):
        """As its users know it."""
        return self.norm

    @property
    def layout(self):
        """From and to."""
        return f"HWC->{self.result}"

    @property
    def scale(self):
        """What pixels are multiplied by."""
        return IMAGE_SCALES[self.mode]

    @property
    def bytes(self):
        """Bytes of input and output, each counted once."""
        return math.prod(self.layer.shape) * (np.dtype(self.mode).itemsize + 4)

    def arrays(self):
        """Any pixels."""
        x = np.random.default_rng(0).integers(0, 256, self.layer.shape, np.uint8)
        x = x if self.mode == "uint8" else (x / np.float32(255))
        channels = self.layer.shape[-1]
        mean, std = np.linspace(0.4, 0.5, channels, dtype=np.float32), np.full(channels, 0.225, np.float32)
        out = np.empty(self.layer.shape if self.result == "HWC" else np.moveaxis(x, -1, 0).shape, np.float32)
        return Arrays(x, 1 / std, np.zeros_like(std), mean, std, out)

    def expected(self, arrays):
        """The output for `arrays`, in float64, by the formula."""
        y = (arrays.x * np.float64(self.scale) - arrays.running_mean) / arrays.running_var
        return (y if self.result == "HWC" else np.moveaxis(y, -1, 0),)


@dataclass(frozen=True)
class StatisticsCase(Case):
    """Mean and variance along `axis`, or values brought to 0 and 1 of them; of uint8 or float16 if that is its `mode`.

    What `moments` and their like give is seen as one array: the mean before the variance. With a `cycle` the input is
    that, repeated along axis 0: a measurement of accuracy. `weight` says how large an error is.
    """

    axis: tuple | None = None
    cycle: tuple | None = None

    @property
    def module(self):
        """As its users know it."""
        return self.norm

    @property
    def layout(self):
        """The axes that are taken together."""
        if self.axis is None:
            return "all"
        return f"{'axis' if len(self.axis) == 1 else 'axes'} {','.join(map(str, self.axis))}"

    @property
    def gives_moments(self):
        """Whether it is mean and variance that come out."""
        return self.norm in ("moments", "sklearn_fit", "dask_moments")

    @property
    def bytes(self):
        """Bytes of the input, and of the output where it is as large."""
        moved = [self.mode or self.dtype] + [self.dtype] * (not self.gives_moments)
        return math.prod(self.layer.shape) * sum(np.dtype(dtype).itemsize for dtype in moved)

    def _period(self, dtype):
        """The cycle in each column."""
        return np.repeat(np.array(self.cycle, dtype)[:, np.newaxis], self.layer.shape[1], axis=1)

    def _values(self, random):
        if self.cycle is not None:
            return np.tile(self._period(self.mode or self.dtype), (self.layer.shape[0] // len(self.cycle), 1))
        return random.integers(0, 256, self.layer.shape, np.uint8) if self.mode == "uint8" else super()._values(random)

    def arrays(self):
        """The input, and what it is written to."""
        x = self._values(np.random.default_rng(0))
        unit = x.var(dtype=np.float64) if self.gives_moments and self.offset is None else 1.0
        x = x if self.view is None else VIEWS[self.view](x, -1)
        none = np.empty(0)
        return Arrays(x, np.array([unit]), none, none, none, np.empty_like(x, self.dtype))

    def expected(self, arrays):
        """Mean and variance, or the output, in float64; of a cycle from the cycle alone, which is exact."""
        x = arrays.x.astype(np.float64) if self.cycle is None else self._period(np.float64)
        if self.norm == "standardize_sliding":
            windows = sliding_window_view(x, WINDOW, axis=0)[window_of(np.arange(len(x)), len(x))]
            return ((x - windows.mean(-1)) / windows.std(-1),)
        mean = x.mean(self.axis, keepdims=True, dtype=np.longdouble).astype(np.float64)
        x -= mean
        var = np.square(x).mean(self.axis, keepdims=True, dtype=np.longdouble).astype(np.float64)
        return (
            np.stack([mean.squeeze(self.axis), var.squeeze(self.axis)]) if self.gives_moments else x / np.sqrt(var),
        )


def window_of(frame, frames):
    """The first frame of the window around a frame, which is moved inwards at both ends."""
    return np.clip(frame - WINDOW // 2, 0, frames - WINDOW)


def statistics_cases(dtype, quick=False):
    """Every case of `STATISTICS`, without those of libraries that are not installed."""
    return [
        StatisticsCase(layer, False, mode, dtype, axis=axis)
        for layer, axis, mode in STATISTICS
        if (layer.quick or not quick)
        and (mode is None or dtype == "float32")
        and not (
            layer.norm.startswith(("sklearn_", "dask_")) and not importlib.util.find_spec(layer.norm.split("_")[0])
        )
    ]


def image_cases(quick=False):
    """Every case of `IMAGES`."""
    return [
        ImageCase(layer, False, mode, "float32", result=result)
        for layer in IMAGES
        if layer.quick or not quick
        for result in ("CHW", "HWC")
        for mode in IMAGE_SCALES
    ]


def expand(layers, dtype):
    """Every case of `layers`: both layouts of images and volumes, BatchNorm in evaluation and in training."""
    return [
        Case(layer, channels_last, mode, dtype)
        for layer in layers
        for channels_last in ((False, True) if len(layer.shape) >= 4 and layer.both_layouts else (False,))
        for mode in NORMS[layer.norm].modes
    ]


def accuracy_cases():
    """The cases in which an offset's cost in accuracy is measured."""
    every = [case for case in expand(ACCURACY_LAYERS, "float32") if case.mode != "eval"]
    every.append(StatisticsCase(Layer("accuracy", "standardize", (4096, 64)), False, None, "float32", axis=(0,)))
    far = [replace(case, offset=offset) for case in every for offset in OFFSETS]
    return far + [_trap(*trap) for trap in TRAPS]


def _trap(shape, dtype, cycle):
    """Moments of one of `TRAPS`; those of float16 in float32."""
    mode, dtype = (dtype, "float32") if dtype == "float16" else (None, dtype)
    return StatisticsCase(Layer("accuracy", "moments", shape), False, mode, dtype, cycle[0], axis=(0,), cycle=cycle)


def matching(cases, pattern):
    """The cases that match `pattern`."""
    return [case for case in cases if case.matches(pattern)]
