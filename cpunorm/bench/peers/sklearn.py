"""scikit-learn."""

from .base import Call, Peer


class Scaler:
    """What a `StandardScaler` does, scikit-learn's or ours, which `scaler` returns."""

    def sklearn_fit(self, case, a):
        """A new one."""
        scaler = self.scaler()

        def fit():
            fitted = scaler().fit(a.x)
            return fitted.mean_, fitted.var_

        return Call(fit)

    def sklearn_transform(self, case, a):
        """A fitted one."""
        fitted = self.scaler()().fit(a.x)
        return Call(lambda: fitted.transform(a.x))


class ScikitLearn(Scaler, Peer):
    """`sklearn.preprocessing.StandardScaler`."""

    name = "sklearn"
    packages = ("sklearn",)

    def __init__(self, threads):
        super().__init__(threads)
        import sklearn.preprocessing

        self.version = sklearn.__version__
        self.scaler = lambda: sklearn.preprocessing.StandardScaler

    def has(self, case):
        """Tables of what it doesn't convert, by column."""
        return super().has(case) and case.axis == (0,) and len(case.layer.shape) == 2 and case.dtype.startswith("float")

    moments = Scaler.sklearn_fit

    def standardize(self, case, a):
        """Fitted and transformed."""
        return Call(lambda: self.scaler()().fit_transform(a.x))
