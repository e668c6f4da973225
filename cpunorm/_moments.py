"""`Moments`: count, mean and sum of squared deviations as a value that merges, moves and is kept."""

import functools
import math
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cpunorm import _reduction

if TYPE_CHECKING:
    from cpunorm.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = ["Moments"]

ENTRIES = ("record", "same_count", "axis", "dtype")
DTYPES: tuple[Any, ...] = (np.float64, np.float32, np.float16)
VARIES = -1  # the count, if it may differ from slice to slice


def _entry(archive, name):
    """An array of a .npz file, read only where it holds what its header promises.

    Raises
    ------
    ValueError
        It doesn't.
    """
    info = archive.getinfo(f"{name}.npy")
    if info.compress_type:
        raise ValueError(f"{name} is compressed")
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        try:
            shape, _, dtype = read_header[version](file)
        except Exception as error:  # of Python's tokenizer and parser, whose MemoryError is of their stack
            raise ValueError(f"{name} has no header of an array: {error!r}") from None
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{name} claims shape {shape} of {dtype} in {info.file_size} bytes")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


def _read(path):
    """What `Moments` are made of, from a .npz file.

    Raises
    ------
    Exception
        Whatever the readers say to bytes that are none; a ValueError to arrays that aren't what `save` wrote.
    """
    import zipfile  # here, for `import cpunorm` stays within milliseconds

    with zipfile.ZipFile(path) as archive:
        record, same_count, axis, dtype = (_entry(archive, name) for name in ENTRIES)
    if (
        record.dtype != np.float64
        or record.shape[:1] != (_reduction.FIELDS,)
        or same_count.dtype != np.int64
        or same_count.shape != ()
        or dtype.dtype.kind != "U"
        or str(dtype) not in ("float16", "float32", "float64")
        or (str(axis) != "all" if axis.dtype.kind == "U" else axis.dtype != np.int64 or axis.ndim != 1)
    ):
        raise ValueError("arrays of other kinds")
    axes, same, counts = None if axis.dtype.kind == "U" else tuple(axis.tolist()), int(same_count), record[0]
    if axes is not None and (min(axes, default=0) < 0 or list(axes) != sorted(set(axes))):
        raise ValueError(f"axis {axes}")
    if not (counts == (counts.round() if same == VARIES else same)).all() or not (counts >= 0).all():
        raise ValueError(f"counts {counts} where {same} was promised")
    return record, same, axes, np.dtype(str(dtype))


class Moments:
    """How many values there were, their mean and their sum of squared deviations, per slice of an array.

    `cpunorm.moments` makes them. They add up: ``a + b`` are the moments of both data together (Chan, Golub and LeVeque,
    1983), to the last digits, for what a float64 can't hold of mean and `m2` is kept beside it.

    Parameters
    ----------
    record : ndarray of float64, (7, ...)
        For each slice count, mean and the rest of it, m2 and the rest of it, min, max; 0, 0, 0, 0, 0, inf, -inf of
        nothing.
    same_count : int
        The count of every slice, or -1 if it may differ.
    axis : tuple of int or None
        The axes that were taken together; None for all.
    dtype : dtype-like
        Of what is shown.

    Raises
    ------
    ValueError
        A `record` of another shape.

    Examples
    --------
    >>> import numpy as np, cpunorm
    >>> a = cpunorm.moments(np.array([[1.0, 5.0], [3.0, 5.0]]), axis=0)
    >>> b = cpunorm.moments(np.array([[5.0, 8.0]]), axis=0)
    >>> a + b
    Moments(count=3, mean=[3. 6.], std=[1.63299316 1.41421356], min=[1. 5.], max=[5. 8.], axis=(0,))
    >>> (a + b).var(ddof=1)
    array([4., 3.])

    References
    ----------
    Chan, Golub and LeVeque, Algorithms for computing the sample variance, The American Statistician 37, 1983.
    """

    __slots__ = ("_dtype", "_record", "_same_count", "axis")

    _dtype: Any
    _record: NDArray[np.float64]
    _same_count: int
    axis: tuple[int, ...] | None

    def __init__(
        self, record: NDArray[np.float64], same_count: int, axis: tuple[int, ...] | None, dtype: DTypeLike = np.float64
    ) -> None:
        self._record, self._same_count = _reduction.as_record(record), same_count
        self.axis, self._dtype = axis, dtype

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of `mean`, `var`, `std`, `m2`, `min` and `max`; inside, all is float64 in two parts."""
        return np.dtype(self._dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes that were kept."""
        return self._record.shape[1:]

    @property
    def count(self) -> Any:
        """How many values there were: an int, or an int64 array where it may differ from slice to slice."""
        return self._record[0].astype(np.int64)[()] if self._same_count == VARIES else self._same_count

    @property
    def mean(self) -> Any:
        """The mean of each slice; NaN of nothing."""
        return _reduction.shown(self._record, 1, self._dtype)

    @property
    def m2(self) -> Any:
        """The sum of squared deviations from the mean."""
        return _reduction.shown(self._record, 3, self._dtype)

    @property
    def min(self) -> Any:
        """The smallest value; NaN if there is one among them."""
        return _reduction.shown(self._record, 5, self._dtype)

    @property
    def max(self) -> Any:
        """The largest value; NaN if there is one among them."""
        return _reduction.shown(self._record, 6, self._dtype)

    def var(self, ddof: float = 0) -> Any:
        """The variance, m2 / (count - ddof); NaN unless count > ddof."""
        return _reduction.variance(self._record, ddof, False, self._dtype)

    def std(self, ddof: float = 0) -> Any:
        """The standard deviation, the root of `var`."""
        return _reduction.variance(self._record, ddof, True, self._dtype)

    def _check_like(self, other):
        if not isinstance(other, Moments):
            raise TypeError(f"Moments merge with Moments, got {type(other).__module__}.{type(other).__qualname__}")
        if self.shape != other.shape:
            raise ValueError(f"moments of shape {self.shape} and {other.shape} don't merge")

    def __add__(self, other: Self) -> "Moments":
        if not isinstance(other, Moments):
            return NotImplemented
        self._check_like(other)
        same = VARIES if VARIES in (self._same_count, other._same_count) else self._same_count + other._same_count
        record = _reduction.merge(self._record, other._record)
        dtype = self._dtype if self._dtype is other._dtype else np.promote_types(self.dtype, other.dtype)
        return Moments(record, same, self.axis, dtype)

    @classmethod
    def merge(cls, parts: Iterable["Moments"]) -> "Moments":
        """The moments of all parts together: neighbours are merged, then neighbours of these, and so on.

        Parameters
        ----------
        parts : iterable of Moments
            At least one; of one shape.

        Raises
        ------
        ValueError
            None, or of different shapes.
        TypeError
            Something else among them.

        Notes
        -----
        The tree depends on how many parts there are alone, so the bits do not depend on who computed them, and when.
        Of a long iterator only as many are kept as the tree is high.
        """
        merged: list[Moments] = []  # of 2^i parts each, fewer and fewer: the number of parts in binary
        for number, part in enumerate(parts, 1):
            Moments._check_like(merged[0] if merged else part, part)
            while number % 2 == 0:
                part, number = merged.pop() + part, number // 2
            merged.append(part)
        if not merged:
            raise ValueError("Moments.merge: there are no parts")
        return functools.reduce(lambda later, earlier: earlier + later, reversed(merged))

    def update(self, x: NDArray[Any], **options: Any) -> None:
        """Add the values of another array to these, in place; `options` are those of `cpunorm.moments`.

        Updates by several threads at once all count, where there is a GIL; without it they need a lock of the caller's.

        Parameters
        ----------
        x : ndarray
            With the rank and the kept axes of what these moments are of.

        Raises
        ------
        ValueError
            Other kept axes. Nothing is changed then.
        """
        from cpunorm._statistics import moments  # it makes Moments

        found = moments(x, self.axis, dtype=self.dtype, **options)
        while True:  # until no other thread has updated them meanwhile
            before = self._record
            both = self + found
            if self._record is before:
                self._record, self._same_count = both._record, both._same_count
                return

    def __repr__(self) -> str:
        shown = {"count": self.count, "mean": self.mean, "std": self.std(), "min": self.min, "max": self.max}
        with np.printoptions(threshold=6, edgeitems=2, linewidth=1000):
            return f"Moments({', '.join(f'{name}={value}' for name, value in shown.items())}, axis={self.axis})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        return (
            self.axis == other.axis
            and self.dtype == other.dtype
            and np.array_equal(self._record, other._record, equal_nan=True)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Moments, (self._record, self._same_count, self.axis, self.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them to `path` as a .npz file of plain arrays, which is replaced at once, or not at all.

        Parameters
        ----------
        path : str or path-like
        """
        axis = np.array("all") if self.axis is None else np.array(self.axis, np.int64)
        arrays = self._record, np.array(self._same_count, np.int64), axis, np.array(str(self.dtype))
        partial = f"{os.fspath(path)}.{os.urandom(4).hex()}.partial"  # of this call alone
        try:
            with open(partial, "wb") as file:
                np.savez(file, allow_pickle=False, **dict(zip(ENTRIES, arrays, strict=True)))
            os.replace(partial, path)
        except BaseException:
            if os.path.exists(partial):
                os.remove(partial)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote. Nothing in the file is run, and nothing is read that it doesn't hold.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        ValueError
            No such file of moments: truncated, damaged, or made of something else.
        OSError
            It can't be read.
        """
        import errno  # as `_read` imports zipfile

        try:
            return cls(*_read(path))
        except OSError as error:
            if error.errno != errno.EINVAL:  # which is a seek to nowhere
                raise
            raise ValueError(f"{os.fspath(path)} holds no moments: {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # whatever readers of zip archives, .npy headers and strings say to broken bytes
            raise ValueError(f"{os.fspath(path)} holds no moments: {error}") from None

    def to_batch_norm(self, eps: float = 1e-5) -> "BatchNorm1d | BatchNorm2d | BatchNorm3d":
        """A BatchNorm in evaluation that normalises with these moments.

        Parameters
        ----------
        eps : float

        Returns
        -------
        BatchNorm1d, BatchNorm2d or BatchNorm3d
            For as many axes as were taken together; without weight and bias. `running_var` is unbiased, as torch's is.

        Raises
        ------
        ValueError
            Not the moments of channels: of axes (0, 2, ...), or all but the last.
        """
        from cpunorm.modules import BatchNorm1d, BatchNorm2d, BatchNorm3d

        ndim = len(self.axis or ()) + 1
        first, last = (0, *range(2, ndim)), tuple(range(ndim - 1))
        if not 2 <= ndim <= 5 or self.axis not in (first, last) or len(self.shape) != 1:
            raise ValueError(f"to_batch_norm needs moments of channels, got axis {self.axis} with shape {self.shape}")
        module: Any = {2: BatchNorm1d, 3: BatchNorm1d, 4: BatchNorm2d, 5: BatchNorm3d}[ndim]
        layout = "channels_first" if self.axis == first else "channels_last"
        norm = module(self.shape[0], eps=eps, affine=False, dtype=np.float64, data_format=layout)
        norm.set_statistics(self)
        return norm.eval()
