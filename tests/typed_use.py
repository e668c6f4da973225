"""Calls as people write them, with the types that a checker should see: read by `test_types.py`, and run by it.

Where a checker must object, the line says so; an objection that is missing is an error too.
"""

import array
from pathlib import Path
from typing import Any, assert_type

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import cpunorm
from cpunorm import functional as F  # noqa: N812

Image = np.ndarray[tuple[int, int, int, int], np.dtype[np.float32]]
Rows = np.ndarray[tuple[int, int], np.dtype[np.float64]]


def image() -> Image:
    return np.zeros((2, 4, 3, 3), np.float32)


def functions() -> None:
    x = image()
    mean, var = np.zeros(4, np.float32), np.ones(4, np.float32)
    assert_type(F.batch_norm(x, mean, var), Image)
    assert_type(F.batch_norm(x, None, None, mean, var, True, 0.1, 1e-5, data_format="channels_first"), Image)
    assert_type(F.instance_norm(x), Image)
    assert_type(F.group_norm(x, 2), Image)
    assert_type(F.layer_norm(x, x.shape[1:]), Image)
    assert_type(F.layer_norm(x, [3, 3], eps=0), Image)
    assert_type(F.rms_norm(x, 3, unit_offset=True, weight=np.ones(3, np.float32)), Image)
    assert_type(F.normalize(x, dim=(1, 2)), Image)
    assert_type(F.local_response_norm(x, 3), Image)
    assert_type(F.layer_norm(x, 3, out=x), Image)


def fused() -> None:
    x = image()
    assert_type(F.batch_norm(x, None, None, training=True, activation="relu", residual=x), Image)
    assert_type(F.group_norm(x, 2, scale=np.zeros((2, 4), np.float32), activation="silu"), Image)
    y, mean, rstd = F.layer_norm(x, 3, return_stats=True)
    assert_type(y, Image)
    assert_type(mean * rstd, NDArray[np.float64])
    y, total = F.add_rms_norm(x, x, 3, sum_out=x)
    assert_type(total, Image)
    norm = cpunorm.GroupNorm(2, 4, activation="gelu")
    assert_type(norm(x, residual=x), Image)
    assert_type(norm(x, return_stats=True)[1], NDArray[np.float64])


def statistics() -> None:
    x = image()
    m = cpunorm.moments(x, axis=(0, 2, 3), nan="omit")
    assert_type(m, cpunorm.Moments)
    assert_type(cpunorm.moments(iter([x, x]), axis=0, progress=True), cpunorm.Moments)
    assert_type(m + m, cpunorm.Moments)
    assert_type(cpunorm.Moments.merge([m, m]).shape, tuple[int, ...])
    assert_type(cpunorm.standardize(x, axis=0, moments=None), NDArray[Any])
    z, m = cpunorm.standardize(x, return_moments=True)
    assert_type(z, NDArray[Any])


def dtypes_and_subclasses(folder: Path) -> None:
    rows: Rows = np.zeros((2, 3))
    assert_type(F.layer_norm(rows, 3), Rows)
    assert_type(F.layer_norm(image().astype(np.float16), 3).dtype, np.dtype[np.float16])
    F.layer_norm(rows.astype(ml_dtypes.bfloat16), 3)
    anything: NDArray[Any] = rows
    assert_type(F.layer_norm(anything, 3), NDArray[Any])
    mapped = np.memmap(folder / "rows", np.float32, "w+", shape=(2, 3))
    result: NDArray[np.float32] = F.layer_norm(mapped, 3)
    assert type(result) is np.ndarray
    subclass: np.memmap[Any, Any] = F.layer_norm(mapped, 3)  # type: ignore[assignment]
    assert subclass is not result


def modules(folder: Path) -> None:
    x = image()
    norm = cpunorm.BatchNorm2d(4, momentum=None, device="cpu", dtype=np.float32, data_format="channels_first")
    assert_type(norm(x), Image)
    assert_type(norm.eval()(x, out=x), Image)
    assert_type(norm.train(False), cpunorm.BatchNorm2d)
    assert_type(norm.weight, NDArray[Any] | None)
    assert_type(norm.eps, float)
    np.savez(folder / "norm.npz", **norm.state_dict())  # type: ignore[arg-type,unused-ignore]
    assert_type(norm.load_state_dict(np.load(folder / "norm.npz")).missing_keys, list[str])
    frozen = cpunorm.FrozenBatchNorm2d(4)
    frozen.running_mean += 1
    chain: list[cpunorm.LayerNorm | cpunorm.RMSNorm] = [cpunorm.LayerNorm(3), cpunorm.RMSNorm((3,), dtype="float32")]
    for layer in chain:
        x = layer(x)


def other_libraries() -> None:
    import torch

    x, numbers = torch.zeros(2, 4), array.array("f", range(8))
    assert_type(F.layer_norm(x, 4, weight=torch.ones(4)), NDArray[Any])
    assert_type(F.layer_norm(x, 4, out=x), torch.Tensor)
    assert_type(F.batch_norm(x, torch.zeros(4), torch.ones(4), activation="relu", residual=x), NDArray[Any])
    assert_type(F.layer_norm(numbers, 8, out=numbers), "array.array[float]")
    assert_type(F.rms_norm(memoryview(numbers), 8), NDArray[Any])
    assert_type(F.group_norm(np.zeros((2, 4), np.float32), 2, out=x), torch.Tensor)
    y, mean, _ = F.instance_norm(torch.zeros(2, 4, 3), return_stats=True)
    assert_type(y, NDArray[Any])
    assert_type(mean, NDArray[np.float64])
    assert_type(F.layer_norm(x, 4, out=x, return_stats=True)[0], torch.Tensor)
    assert_type(F.add_rms_norm(x, x, 4)[1], NDArray[Any])
    F.add_layer_norm(x, x, 4, out=x)
    assert_type(F.normalize(x, dim=1), NDArray[Any])
    assert_type(F.normalize(x, out=x), torch.Tensor)
    assert_type(F.local_response_norm(x[None], 2, out=x[None]), torch.Tensor)
    norm = cpunorm.LayerNorm(4)
    assert_type(norm(x, residual=x), NDArray[Any])
    assert_type(norm(x, out=x), torch.Tensor)


def settings() -> None:
    with cpunorm.engine("reference"), cpunorm.num_threads(1):
        assert_type(cpunorm.get_num_threads(), int)
    cpunorm.set_cache_limit(cpunorm.get_cache_limit())
    cpunorm.warmup(["layer_norm"], [np.float32, "float64"])
    assert_type(cpunorm.show_config("dicts"), dict[str, Any])
    cpunorm.set_engine(cpunorm.get_engine())


def fusing() -> None:
    w, vector = np.zeros((4, 3, 1, 1), np.float32), np.ones(4, np.float32)
    weight, bias = cpunorm.fuse_conv_bn_weights(w, None, vector, vector, 1e-5, None, vector)
    assert_type(weight, Image)
    assert_type(bias, NDArray[Any])


def mistakes() -> None:
    """Not run: a checker says so before."""
    x = image()
    F.layer_norm([1.0, 2.0], 2)  # type: ignore[call-overload]
    F.group_norm(x, "2")  # type: ignore[call-overload]
    F.group_norm(x, 2, data_format="NHWC")  # type: ignore[call-overload]
    F.group_norm(x, 2, activation="swish")  # type: ignore[call-overload]
    F.layer_norm(x, 3, residual=[x])  # type: ignore[call-overload]
    F.batch_norm(x)  # type: ignore[call-overload]
    F.layer_norm(x, 3, out=x.shape)  # type: ignore[call-overload]
    cpunorm.set_engine("fortran")  # type: ignore[arg-type]
    cpunorm.LayerNorm(3, device="cuda")  # type: ignore[arg-type]
    cpunorm.LayerNorm(3).weight[0] = 2  # type: ignore[index]
    cpunorm.LayerNorm(3)(x, x)  # type: ignore[call-overload]
