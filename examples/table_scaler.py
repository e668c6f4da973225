"""A table through `cpunorm.sklearn.StandardScaler` and through scikit-learn's: the same numbers, the same predictions.

The table is scikit-learn's breast cancer data: 569 tumours, 30 measurements of each, whose units differ by five powers
of ten. A pipeline of scaler and logistic regression is fitted on one half and tells benign from malignant in the other;
only the scaler is exchanged. Then both are timed on the table as a large one, 200 copies of it in float32; there
mean and deviation of both are compared with those in exact arithmetic.

Install::

    pip install "cpunorm[sklearn]"

Run::

    python examples/table_scaler.py
"""

import math
import time
from fractions import Fraction

import numpy as np

try:
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
except ModuleNotFoundError as missing:
    raise SystemExit(f'{missing.name} is not installed; please run: pip install "cpunorm[sklearn]"') from None

import cpunorm.sklearn

SCALERS = {"scikit-learn": StandardScaler, "cpunorm": cpunorm.sklearn.StandardScaler}
COPIES = 200
TURNS = 9  # of each scaler, one after the other


def exact_statistics(table):
    """Mean and deviation of each column in rational arithmetic, rounded once at the end."""
    means, deviations = [], []
    for column in table.T.tolist():
        values = [Fraction(value) for value in column]
        mean = sum(values) / len(values)
        means.append(float(mean))
        deviations.append(math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)))
    return np.array(means), np.array(deviations)


def largest_error(found, exact):
    """The largest relative one."""
    return float(np.max(np.abs(found - exact) / exact))


def median_times(ways):
    """Milliseconds of each way, by name, taken turn by turn."""
    times = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in times.items()}


def main():
    """Classify with both, compare, time."""
    table, benign = load_breast_cancer(return_X_y=True)
    least, most = table.std(0).min(), table.std(0).max()
    print(f"{len(table)} tumours, {table.shape[1]} measurements, whose deviations are {least:.1g} to {most:.3g}\n")
    parts = train_test_split(table, benign, test_size=0.5, random_state=0)
    predicted = {}
    for name, scaler in SCALERS.items():
        model = make_pipeline(scaler(), LogisticRegression()).fit(parts[0], parts[2])
        predicted[name] = model.predict(parts[1])
        print(f"{name:13} {np.mean(predicted[name] == parts[3]):6.1%} right of {len(parts[3])} others")
    same = np.array_equal(*predicted.values())
    print("the same predictions" if same else "other predictions: one of the scalers is wrong")

    large = np.tile(table.astype(np.float32), (COPIES, 1))
    mean, deviation = exact_statistics(table.astype(np.float32))  # those of the copies, too
    fits = median_times({name: lambda scaler=scaler: scaler().fit(large) for name, scaler in SCALERS.items()})
    fitted = {name: scaler().fit(large) for name, scaler in SCALERS.items()}
    uses = median_times({name: lambda scaler=scaler: scaler.transform(large) for name, scaler in fitted.items()})
    print(f"\n{large.dtype} {large.shape}     fit  transform  error of mean  of deviation")
    for name, scaler in fitted.items():
        errors = largest_error(scaler.mean_, mean), largest_error(np.sqrt(scaler.var_), deviation)
        print(f"{name:20} {fits[name]:6.2f} ms  {uses[name]:6.2f} ms  {errors[0]:13.1e}  {errors[1]:12.1e}")
    first, second = (scaler.transform(large) for scaler in fitted.values())
    print(f"largest difference of what comes out: {np.abs(first - second).max():.1e}")


if __name__ == "__main__":
    main()
