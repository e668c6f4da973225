"""Images for networks: pixels to mean 0 and deviation 1, in one pass."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from cpunorm import _image

__all__ = ["normalize_image"]


def normalize_image(
    image: NDArray[Any] | Sequence[NDArray[Any]],
    mean: ArrayLike,
    std: ArrayLike,
    *,
    scale: float | None = None,
    layout: Literal["HWC->CHW", "HWC->HWC", "CHW->CHW"] = "HWC->CHW",
    swap_channels: bool = False,
    dtype: DTypeLike = np.float32,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    r"""Normalise the pixels of images per channel, and bring them into the layout of a network, in one pass.

    .. math:: y = \frac{x \cdot \mathit{scale} - \mathit{mean}_c}{\mathit{std}_c}

    What torchvision's ``ToTensor`` and ``Normalize`` do, albumentations' ``Normalize`` and ``ToTensorV2``, and OpenCV's
    ``blobFromImage``, which has one deviation for all channels.

    Parameters
    ----------
    image : ndarray, (H, W, C) or (N, H, W, C); or a sequence of N images (H, W, C) of one shape and dtype
        uint8, uint16, float16 or float32, of 1 to 16 channels, with any strides: crops, flips and every other pixel
        cost no copy. With ``"CHW->CHW"`` (C, H, W) or (N, C, H, W).
    mean, std : float, or C of them
        In the units after `scale`, in the order of the result's channels; `std` positive.
    scale : float, optional
        What pixels are multiplied by first: 1/255 for uint8, 1/65535 for uint16 and 1 for floats if None.
    layout : {"HWC->CHW", "HWC->HWC", "CHW->CHW"}
        Where the channels are, in the image and in the result.
    swap_channels : bool
        Whether the first and the third of 3 or 4 channels change places: BGR to RGB.
    dtype : dtype
        float32, float16 or ml_dtypes' bfloat16.
    out : ndarray, optional
        Where to write the result: its shape and `dtype`, writeable, apart from the image; or the image itself where
        neither dtype nor order of values change.

    Returns
    -------
    ndarray
        (C, H, W) or (H, W, C) of `dtype`, with N before it for a batch or a sequence; or `out`.

    Raises
    ------
    ValueError
        A `std` or `scale` that is not positive and finite, a `mean` that is not finite; another `layout` or `dtype`; a
        wrong number of axes or channels; images that are not alike, or none; a read-only `out`.
    RuntimeError
        A `mean` or `std` of another length; an `out` of another shape or dtype or that overlaps. Its subclass
        NotImplementedError for images of another numeric dtype.
    TypeError
        Arguments that are not arrays, or not numbers.

    Notes
    -----
    The result is what the formula gives in float64, rounded once to float32: off by half an ulp and less than 1/2048 of
    one more. Half precision is rounded from that.

    The kernel is compiled, with threads for large images; `set_engine` has no part in it.

    Examples
    --------
    >>> import numpy as np
    >>> import cpunorm
    >>> image = np.full((2, 2, 3), 255, np.uint8)
    >>> cpunorm.normalize_image(image, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))[:, 0, 0]
    array([2.2489083, 2.4285715, 2.64     ], dtype=float32)
    >>> cpunorm.normalize_image([image, image], 0.5, 0.5, layout="HWC->HWC").shape
    (2, 2, 2, 3)
    """
    return _image.normalize_image(image, mean, std, scale, layout, swap_channels, dtype, out)
