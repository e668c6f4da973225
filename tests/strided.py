"""Arrays in every memory layout, with sentinels around them, to see what a call reads and writes."""

import numpy as np

SENTINEL = 0x5A


def embed(values, order=None, steps=1, margin=0):
    """A view equal to `values` inside a larger array: its axes in memory `order`, `steps` apart, `margin` around."""
    order = tuple(range(values.ndim)) if order is None else tuple(order)
    steps = (steps,) * values.ndim if isinstance(steps, int) else tuple(steps)
    lengths = [abs(step) * length + 2 * margin for step, length in zip(steps, values.shape, strict=True)]
    whole = np.empty([lengths[axis] for axis in order], values.dtype)
    whole.view(np.uint8).fill(SENTINEL)
    window = tuple(
        slice(margin, margin + step * length, step)
        if step > 0
        else slice(length_with - margin - 1, margin - 1 if margin else None, step)
        for step, length, length_with in zip(steps, values.shape, lengths, strict=True)
    )
    view = whole.transpose(np.argsort(order))[window]
    view[...] = values
    return view


def unaligned(values):
    """One byte past where its elements belong."""
    memory = np.full(values.nbytes + 9, SENTINEL, np.uint8)
    view = memory[1 : 1 + values.nbytes].view(values.dtype).reshape(values.shape)
    view[...] = values
    return view


def packed(values):
    """One field of packed records: strides that are no multiple of the element."""
    records = np.full(values.shape, SENTINEL, [("tag", np.uint8), ("value", values.dtype)])
    records["value"] = values
    return records["value"]


def channels_last(values):
    """Channels-first, with the strides of channels-last."""
    return embed(values, (0, *range(2, values.ndim), 1))


LAYOUTS = {
    "contiguous": embed,
    "channels_last strides": channels_last,
    "fortran": lambda values: embed(values, reversed(range(values.ndim))),
    "samples inside": lambda values: embed(values, (*range(1, values.ndim), 0)),
    "every second": lambda values: embed(values, steps=2),
    "every second of the last axis": lambda values: embed(values, steps=(1,) * (values.ndim - 1) + (2,)),
    "every third channel": lambda values: embed(values, steps=(1, 3) + (1,) * (values.ndim - 2)),
    "backwards": lambda values: embed(values, steps=-1),
    "backwards channels_last": lambda values: embed(values, (0, *range(2, values.ndim), 1), steps=-1),
    "one axis backwards": lambda values: embed(values, steps=(1,) * (values.ndim - 1) + (-1,)),
    "cropped": lambda values: embed(values, margin=1),
    "cropped channels_last": lambda values: embed(values, (0, *range(2, values.ndim), 1), margin=2),
    "cropped fortran every second": lambda values: embed(values, reversed(range(values.ndim)), 2, 1),
    "unaligned": unaligned,
    "packed": packed,
}


def surroundings(view):
    """The bytes of the memory that `view` lies in, its own elements (which it may keep) left out."""
    kept = view.copy()
    view[...] = 0
    whole = view
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    seen = whole.tobytes()
    view[...] = kept
    return seen
