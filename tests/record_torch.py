"""Record what torch returns and raises: `python tests/record_torch.py` writes recorded_torch.json for test_recorded.py.

A case is a function of a library, `torch.nn` or `cpunorm`, and of `wrap`, which makes its arrays: both run the very
same calls. The inputs are small multiples of 1/8 made by integer arithmetic, so that they are the same everywhere.
"""

import json
from pathlib import Path

import numpy as np

RECORD = Path(__file__).with_name("recorded_torch.json")


def values(*shape, offset=0.0, dtype=np.float32):
    """Multiples of 1/8 between -6.25 and 6.25, around `offset`."""
    index = np.arange(np.prod(shape, dtype=int))
    return ((index * 7919 % 101 - 50) / 8 + offset).astype(dtype).reshape(shape)


def batch_norm(shape, training, momentum=0.1, eps=1e-5, offset=0.0, dtype=np.float32, affine=True, channels_last=False):
    def run(library, wrap):
        x = values(*shape, offset=offset, dtype=dtype)
        if channels_last:
            x = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
        count = shape[1]
        vectors = [values(count, offset=1 + k, dtype=dtype) for k in range(4)]
        mean, var, weight, bias = vectors[0], np.abs(vectors[1]) + 1, vectors[2], vectors[3]
        mean, var, weight, bias = map(wrap, (mean, var, weight, bias))
        weight, bias = (weight, bias) if affine else (None, None)
        y = library.functional.batch_norm(wrap(x), mean, var, weight, bias, training, momentum, eps)
        return {"y": y, "running_mean": mean, "running_var": var}

    return run


def layer_norm(shape, ndim, eps=1e-5, offset=0.0, dtype=np.float32, weight=True, bias=True):
    def run(library, wrap):
        x, row = values(*shape, offset=offset, dtype=dtype), shape[len(shape) - ndim :]
        given_weight = wrap(values(*row, offset=1, dtype=dtype)) if weight else None
        given_bias = wrap(values(*row, offset=-2, dtype=dtype)) if bias else None
        return {"y": library.functional.layer_norm(wrap(x), row, given_weight, given_bias, eps)}

    return run


def group_norm(shape, groups, eps=1e-5, offset=0.0, dtype=np.float32, affine=True):
    def run(library, wrap):
        x = wrap(values(*shape, offset=offset, dtype=dtype))
        weight, bias = (wrap(values(shape[1], offset=k, dtype=dtype)) for k in (1, -2))
        weight, bias = (weight, bias) if affine else (None, None)
        return {"y": library.functional.group_norm(x, groups, weight, bias, eps)}

    return run


def module_life(name, count, shapes, modes="tte", **flags):
    """A BatchNorm module called once per letter: (t)raining or (e)valuation; then all of its state."""

    def run(library, wrap):
        norm = getattr(library, name)(count, **flags)
        for shape, mode in zip(shapes, modes, strict=True):
            norm.train(mode == "t")
            y = norm(wrap(values(*shape, offset=2)))
        return {"y": y, **norm.state_dict()}

    return run


CASES = {
    "batch_norm training (5, 3)": batch_norm((5, 3), True),
    "batch_norm training (2, 3, 4)": batch_norm((2, 3, 4), True, momentum=0.3, offset=3),
    "batch_norm training (2, 2, 3, 2)": batch_norm((2, 2, 3, 2), True, eps=0.1, affine=False),
    "batch_norm training (2, 2, 3, 2) channels_last": batch_norm((2, 2, 3, 2), True, momentum=1.0, channels_last=True),
    "batch_norm training (1, 2, 2, 2, 3)": batch_norm((1, 2, 2, 2, 3), True, momentum=0.0),
    "batch_norm training (4, 3) float64": batch_norm((4, 3), True, dtype=np.float64, offset=50),
    "batch_norm training (0, 3)": batch_norm((0, 3), True),
    "batch_norm training (3, 2, 0)": batch_norm((3, 2, 0), True),
    "batch_norm inference (1, 4)": batch_norm((1, 4), False),
    "batch_norm inference (2, 3, 2)": batch_norm((2, 3, 2), False, eps=0.0, affine=False),
    "batch_norm inference (1, 2, 2, 3) channels_last": batch_norm((1, 2, 2, 3), False, offset=9, channels_last=True),
    "batch_norm inference (2, 3, 2) float64": batch_norm((2, 3, 2), False, dtype=np.float64),
    "layer_norm (3, 5)": layer_norm((3, 5), 1),
    "layer_norm (2, 2, 3) over two axes": layer_norm((2, 2, 3), 2, offset=4),
    "layer_norm (4,)": layer_norm((4,), 1, eps=0.1, weight=False, bias=False),
    "layer_norm (2, 6) weight alone": layer_norm((2, 6), 1, bias=False),
    "layer_norm (2, 6) bias alone": layer_norm((2, 6), 1, weight=False),
    "layer_norm (3, 1)": layer_norm((3, 1), 1),
    "layer_norm (0, 4)": layer_norm((0, 4), 1),
    "layer_norm (2, 5) float64": layer_norm((2, 5), 1, dtype=np.float64, offset=50),
    "group_norm (2, 4, 3) in 2": group_norm((2, 4, 3), 2),
    "group_norm (2, 4, 2, 2) in 1": group_norm((2, 4, 2, 2), 1, eps=0.1, offset=4),
    "group_norm (1, 3, 4) in 3": group_norm((1, 3, 4), 3, affine=False),
    "group_norm (2, 4) in 4": group_norm((2, 4), 4, eps=1.0),  # torch: the mean of one value is not that value
    "group_norm (3, 6) in 2": group_norm((3, 6), 2),
    "group_norm (0, 4, 2) in 2": group_norm((0, 4, 2), 2),
    "group_norm (1, 2, 5) in 1 float64": group_norm((1, 2, 5), 1, dtype=np.float64, offset=50),
    "BatchNorm1d": module_life("BatchNorm1d", 3, [(4, 3), (2, 3, 2), (1, 3)]),
    "BatchNorm2d momentum None": module_life(
        "BatchNorm2d", 2, [(2, 2, 1, 3), (1, 2, 2, 2), (1, 2, 1, 2)], momentum=None
    ),
    "BatchNorm2d empty batch": module_life("BatchNorm2d", 2, [(2, 2, 1, 3), (0, 2, 2, 2), (1, 2, 1, 2)]),
    "BatchNorm2d not tracking": module_life("BatchNorm2d", 2, [(1, 2, 1, 4)], "e", track_running_stats=False),
    "BatchNorm3d plain": module_life("BatchNorm3d", 2, [(1, 2, 1, 2, 2)] * 3, affine=False),
    "BatchNorm1d without bias": module_life("BatchNorm1d", 2, [(3, 2), (2, 2), (2, 2)], bias=False),
}

ERRORS = {
    "BatchNorm1d of 4-D": lambda nn, wrap: nn.BatchNorm1d(2)(wrap(values(2, 2, 2, 2))),
    "BatchNorm2d of 3-D": lambda nn, wrap: nn.BatchNorm2d(2)(wrap(values(2, 2, 2))),
    "BatchNorm3d of 4-D": lambda nn, wrap: nn.BatchNorm3d(2)(wrap(values(2, 2, 2, 2))),
    "BatchNorm1d of other channels": lambda nn, wrap: nn.BatchNorm1d(3)(wrap(values(4, 2))),
    "batch_norm training of one value": lambda nn, wrap: batch_norm((1, 3), True)(nn, wrap),
    "batch_norm training of one value and wrong channels": lambda nn, wrap: nn.BatchNorm1d(2)(wrap(values(1, 3))),
    "batch_norm training eps 0": lambda nn, wrap: batch_norm((4, 3), True, eps=0.0)(nn, wrap),
    "batch_norm inference eps -1": lambda nn, wrap: batch_norm((4, 3), False, eps=-1.0)(nn, wrap),
    "batch_norm inference without statistics": lambda nn, wrap: nn.functional.batch_norm(
        wrap(values(4, 3)), None, None
    ),
    "batch_norm with float64 weight": lambda nn, wrap: nn.functional.batch_norm(
        wrap(values(4, 3)), None, None, wrap(values(3, dtype=np.float64)), training=True
    ),
    "layer_norm of another shape": lambda nn, wrap: nn.functional.layer_norm(wrap(values(2, 3)), (4,)),
    "layer_norm of no shape": lambda nn, wrap: nn.functional.layer_norm(wrap(values(2, 3)), ()),
    "layer_norm with a long weight": lambda nn, wrap: nn.functional.layer_norm(
        wrap(values(2, 3)), (3,), wrap(values(4))
    ),
    "layer_norm with float64 weight": lambda nn, wrap: nn.functional.layer_norm(
        wrap(values(2, 3)), (3,), wrap(values(3, dtype=np.float64))
    ),
    "GroupNorm of 5 in 2": lambda nn, wrap: nn.GroupNorm(2, 5),
    "group_norm of 5 in 2": lambda nn, wrap: nn.functional.group_norm(wrap(values(2, 5, 2)), 2),
    "group_norm of one value": lambda nn, wrap: nn.functional.group_norm(wrap(values(1, 4)), 4),
    "group_norm of 1-D": lambda nn, wrap: nn.functional.group_norm(wrap(values(4)), 2),
    "group_norm with a long weight": lambda nn, wrap: nn.functional.group_norm(wrap(values(2, 4)), 2, wrap(values(5))),
}


def record():
    """What torch makes of all cases, ready for JSON."""
    import torch

    def listed(tensor):
        return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "values": flat(tensor)}

    def flat(tensor):
        digits = 9 if tensor.dtype == torch.float32 else 17
        return [float(f"{value:.{digits}g}") for value in tensor.flatten().tolist()]

    def error_of(case):
        try:
            case(torch.nn, torch.from_numpy)
        except Exception as error:
            return type(error).__name__
        raise RuntimeError("no error")

    with torch.inference_mode():
        results = {name: case(torch.nn, torch.from_numpy) for name, case in CASES.items()}
        return {
            "torch": torch.__version__,
            "results": {name: {key: listed(t) for key, t in found.items()} for name, found in results.items()},
            "errors": {name: error_of(case) for name, case in ERRORS.items()},
        }


if __name__ == "__main__":
    recorded = record()
    lines = [f'"torch": {json.dumps(recorded["torch"])}']
    for part in ("results", "errors"):
        entries = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in recorded[part].items())
        lines.append(f'"{part}": {{\n{entries}\n}}')
    RECORD.write_text("{\n" + ",\n".join(lines) + "\n}\n")
