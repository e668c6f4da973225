"""scikit-learn's StandardScaler on cpunorm's kernels (extra ``sklearn``)."""

from typing import Any, Self

import numpy as np

try:
    from sklearn import preprocessing
    from sklearn.base import _fit_context
    from sklearn.utils import assert_all_finite
    from sklearn.utils.validation import FLOAT_DTYPES, check_is_fitted, validate_data
except ModuleNotFoundError:
    message = 'cpunorm.sklearn needs scikit-learn; please run: pip install "cpunorm[sklearn]"'
    raise ModuleNotFoundError(message, name="sklearn") from None

from cpunorm import _reduction
from cpunorm._memory import empty_like
from cpunorm._moments import VARIES, Moments
from cpunorm._statistics import moments, standardize

__all__ = ["StandardScaler"]

EPS = np.finfo(np.float64).eps


def _check_finite(scaler, x):
    """Nothing infinite, as scikit-learn says it; NaN may be."""
    assert_all_finite(x, allow_nan=True, estimator_name=type(scaler).__name__, input_name="X")


class StandardScaler(preprocessing.StandardScaler):
    """`sklearn.preprocessing.StandardScaler`: one read of X to fit, one to transform, its moments to the last digits.

    Parameters, attributes, methods and rules are scikit-learn's: NaN don't count and stay, constant features are only
    centred. Sparse X and `sample_weight` go through scikit-learn's own code.

    Parameters
    ----------
    copy : bool
        Whether `transform` makes a new array.
    with_mean : bool
        Whether to subtract the mean.
    with_std : bool
        Whether to divide by the deviation.

    Raises
    ------
    ValueError
        From its methods, as scikit-learn's: infinite values, another number of features, an empty X.

    Examples
    --------
    >>> import numpy as np
    >>> from cpunorm.sklearn import StandardScaler
    >>> StandardScaler().fit_transform(np.array([[1.0, 5.0], [3.0, 5.0]]))
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Add the samples of X to mean and variance; see `sklearn.preprocessing.StandardScaler.partial_fit`."""
        if sample_weight is not None or hasattr(X, "tocsr") or not (self.with_mean or self.with_std):
            return super().partial_fit(X, y, sample_weight)
        first = not hasattr(self, "n_samples_seen_")
        X = validate_data(self, X, dtype=FLOAT_DTYPES, ensure_all_finite=False, reset=first)  # noqa: N806
        found = moments(X, 0)
        if not np.isfinite(found._record[1]).all():
            _check_finite(self, X)
            record = _reduction.moments(X, (0,), None, True)
            found = Moments(record, VARIES, (0,))
        if not first:
            found = self._seen() + found
        count, mean, _, m2, *_ = found._record
        self.n_samples_seen_ = found.count if (count != count[0]).any() else np.int64(count[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            self.mean_ = np.where(count > 0, mean, np.nan)
            self.var_: Any = m2 / count if self.with_std else None
        if self.with_std:
            # What scikit-learn takes for constant: a variance below the error of its own sums.
            constant: Any = self.var_ <= count * EPS * self.var_ + (count * self.mean_ * EPS) ** 2
            self.scale_: Any = np.where(constant, 1.0, np.sqrt(m2 / count))
        else:
            self.scale_ = None
        return self

    def _seen(self):
        """What was fitted before as Moments."""
        record = np.zeros((_reduction.FIELDS, self.n_features_in_))
        record[0] = self.n_samples_seen_
        record[1] = np.where(record[0] > 0, self.mean_, 0)
        if self.with_std:
            record[3] = np.where(record[0] > 0, self.var_ * record[0], 0)
        record[5], record[6] = np.inf, -np.inf
        return Moments(record, VARIES, (0,))

    def transform(self, X: Any, copy: bool | None = None) -> Any:  # noqa: N803
        """X about the mean, by the deviation; see `sklearn.preprocessing.StandardScaler.transform`."""
        check_is_fitted(self)
        if hasattr(X, "tocsr"):
            return super().transform(X, copy)
        copy = self.copy if copy is None else copy
        X = validate_data(  # noqa: N806
            self, X, reset=False, dtype=FLOAT_DTYPES, ensure_all_finite=False, force_writeable=not copy
        )
        record = np.zeros((_reduction.FIELDS, self.n_features_in_))
        record[0] = record[3] = 1
        if self.with_mean:
            record[1] = self.mean_
        if self.with_std:
            record[3] = self.scale_**2
        if not copy:
            _check_finite(self, X)  # before it is lost
            return standardize(X, 0, moments=Moments(record, 1, (0,)), out=X)
        X = _reduction.as_tallied("StandardScaler", X)  # noqa: N806
        y = empty_like(X)
        if _reduction.standardize(X, (0,), record, 0, 0, 0, -np.inf, np.inf, y):
            _check_finite(self, X)
        return y
