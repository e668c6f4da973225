"""The slow half of each check of `normalize_image`, as `_arguments` is of the norms'."""

import math

import numpy as np

from cpunorm._arguments import HALVES, check_array, hits_itself, native, overlap, plain, same_elements
from cpunorm._scalars import boolean, real

__all__ = [
    "as_image_out",
    "as_images",
    "channel_values",
    "check_channels",
    "image_dtype",
    "image_layout",
    "image_scale",
    "is_swapped",
]

VALUES = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.float16, np.float32))
LAYOUTS = ("HWC->CHW", "HWC->HWC", "CHW->CHW")


def as_images(image):
    """The images of `normalize_image` as a tuple of arrays that a kernel can walk: a batch, or those of a list.

    Raises
    ------
    TypeError
        Not ndarrays, masked arrays, or ones of objects, strings, times.
    NotImplementedError
        A numeric dtype that is not uint8, uint16, float16 or float32.
    ValueError
        An empty list; a wrong number of axes; images of several shapes or dtypes.
    """
    listed = isinstance(image, list | tuple)
    images = tuple(image) if listed else (image,)
    if not images:
        raise ValueError("normalize_image: expected at least one image, got an empty list")
    for one in images:
        check_array("normalize_image: image", one)
        if one.ndim != 3 and (listed or one.ndim != 4):
            axes = "3 dimensions" if listed else "3 or 4 dimensions"
            raise ValueError(f"normalize_image: expected {axes}, a gray image having one channel, got {one.shape}")
        if native(one.dtype) not in VALUES:
            error = NotImplementedError if one.dtype.kind in "biufcV" else TypeError
            raise error(f"normalize_image: image must be uint8, uint16, float16 or float32, got {one.dtype}")
        if one.shape != images[0].shape or native(one.dtype) != native(images[0].dtype):
            first = f"{images[0].dtype} {images[0].shape}"
            raise ValueError(
                f"normalize_image: images of a list must be alike, got {first} and {one.dtype} {one.shape}"
            )
    return tuple(plain(one, native(one.dtype)) for one in images)


def image_layout(layout):
    """The layout itself.

    Raises
    ------
    ValueError
        There is no such layout.
    """
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ValueError(f"normalize_image: layout must be one of {LAYOUTS}, got {layout!r}")
    return layout


def check_channels(shape, axis, most):
    """Raise a ValueError: an image has as many channels as the layout says of its shape."""
    raise ValueError(f"normalize_image: expected 1 to {most} channels on axis {axis}, got shape {shape}")


def channel_values(name, values, channels, above):
    """`values`, one or as many as there are channels, as a tuple of floats for each of them.

    Raises
    ------
    TypeError
        Not numbers.
    RuntimeError
        Neither one nor as many as there are channels.
    ValueError
        NaN, infinite, or not more than `above`.
    """
    what = f"normalize_image: {name}"
    if hasattr(values, "mask"):
        raise TypeError(f"{what} must be plain numbers, got a masked array (masks are not supported)")
    given = np.asarray(values, dtype=object)
    if given.shape not in ((), (channels,)):
        raise RuntimeError(f"{what} must be a number or {channels}, one per channel, got shape {given.shape}")
    numbers = tuple(real(what, value) for value in np.broadcast_to(given, channels))
    for number in numbers:
        if not (math.isfinite(number) and number > above):
            raise ValueError(f"{what} must be finite{' and positive' if above == 0 else ''}, got {values!r}")
    return numbers


def image_scale(scale):
    """`scale` as a float.

    Raises
    ------
    TypeError
        Not a number.
    ValueError
        NaN, infinite, or not positive.
    """
    number = real("normalize_image: scale", scale)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"normalize_image: scale must be finite and positive, got {scale!r}")
    return number


def is_swapped(swap_channels, channels):
    """Whether the first and the third of `channels` are swapped.

    Raises
    ------
    TypeError
        Not a bool.
    ValueError
        There aren't three or four.
    """
    swapped = boolean("normalize_image: swap_channels", swap_channels)
    if swapped and channels not in (3, 4):
        raise ValueError(f"normalize_image: swap_channels needs 3 or 4 channels, got {channels}")
    return swapped


def image_dtype(dtype):
    """The dtype of a normalised image.

    Raises
    ------
    TypeError
        Not a dtype.
    ValueError
        Not float32, float16 or bfloat16.
    """
    wrong = f"normalize_image: dtype must be float32, float16 or bfloat16, got {dtype!r}"
    try:
        given = np.dtype(dtype)
    except TypeError:
        raise TypeError(wrong) from None
    if given.name not in ("float32", *HALVES) or not given.isnative:
        raise ValueError(wrong)
    return given


def as_image_out(out, shape, dtype, images, alike):
    """Check that `out` can take the result; whether a kernel can write it as it is.

    With `alike` values in alike places, it may be the image itself.

    Raises
    ------
    TypeError
        Not an ndarray.
    ValueError
        Read-only.
    RuntimeError
        Another shape or dtype than the result's, or memory shared with itself or with an image.
    """
    check_array("normalize_image: out", out)
    if not out.flags.writeable:
        raise ValueError("normalize_image: out is read-only")
    if out.shape != shape:
        raise RuntimeError(f"normalize_image: out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise RuntimeError(f"normalize_image: out must have dtype {dtype}, got {out.dtype}")
    if hits_itself(out):
        raise RuntimeError(f"normalize_image: out overlaps itself: shape {out.shape}, strides {out.strides}")
    for image in images:
        if overlap(image, out) and not (alike and image.shape == shape and same_elements(image, out)):
            raise RuntimeError("normalize_image: out overlaps the image; give separate memory")
    return out.flags.c_contiguous and out.flags.aligned
