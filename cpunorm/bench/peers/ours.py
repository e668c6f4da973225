"""cpunorm itself."""

import contextlib
import importlib.util
from functools import partial

import cpunorm

from ..cases import NORMS, WINDOW
from .base import Call, Peer
from .dask import chunked
from .sklearn import Scaler


class CPUNorm(Scaler, Peer):
    """This library, on one of its engines.

    Parameters
    ----------
    threads : int
    engine : str
    package : module
        Another build of cpunorm, instead of this one.
    """

    name = "cpunorm"
    packages = ("cpunorm",)
    takes_out = True

    def __init__(self, threads, engine, package=cpunorm):
        super().__init__(threads)
        self.engine = engine
        self.package = package
        self.version = package.__version__

    @contextlib.contextmanager
    def context(self):
        """Its engine and number of threads."""
        with self.package.engine(self.engine), self.package.num_threads(self.threads):
            yield

    def has(self, case):
        """All that this build has."""
        functions = self.package.functional if case.norm in NORMS else self.package
        if case.norm.startswith(("sklearn_", "dask_")):
            return importlib.util.find_spec(f"cpunorm.{case.norm.partition('_')[0]}") is not None
        return hasattr(functions, case.norm)

    def prepare(self, case, a):
        """`cpunorm.functional`'s function, or what has a method here; where nothing can be given, the same call."""
        if case.norm not in NORMS:
            call = super().prepare(case, a)
            return call._replace(into=call.into or call.fresh)
        options = {"data_format": "channels_last"} if case.channels_last else {}
        function = getattr(self.package.functional, case.norm)
        inputs = [a.x, a.residual] if NORMS[case.norm].sums else [a.x]
        if case.layer.residual:
            options["residual"] = a.residual
        if case.layer.activation is not None:
            options["activation"] = case.layer.activation
        call = partial(function, *inputs, *NORMS[case.norm].arguments(case, a), **options)
        if NORMS[case.norm].sums:
            return Call(lambda: call()[0], lambda: call(out=a.out)[0])
        return Call(call, partial(call, out=a.out))

    def normalize_image(self, case, a):
        """Into the case's layout."""
        call = partial(self.package.normalize_image, a.x, a.running_mean, a.running_var, layout=case.layout)
        return Call(call, partial(call, out=a.out))

    def moments(self, case, a):
        """Both at once."""

        def moments():
            found = self.package.moments(a.x, case.axis)
            return found.mean, found.var()

        return Call(moments)

    def standardize(self, case, a):
        """In the input's dtype."""
        call = partial(self.package.standardize, a.x, case.axis)
        return Call(call, partial(call, out=a.out))

    def standardize_sliding(self, case, a):
        """Kaldi's windows."""
        call = partial(self.package.standardize_sliding, a.x, WINDOW)
        return Call(call, partial(call, out=a.out))

    def scaler(self):
        """Ours."""
        return importlib.import_module("cpunorm.sklearn").StandardScaler

    def _computed(self, function, case, a):
        """What a function of `cpunorm.dask` gives, on as many of dask's threads; its graph is part of the call."""
        x = chunked(a.x)
        return lambda: function(x, case.axis).compute(scheduler="threads", num_workers=self.threads)

    def dask_moments(self, case, a):
        """Both at once."""
        compute = self._computed(importlib.import_module("cpunorm.dask").moments, case, a)

        def moments():
            found = compute()
            return found.mean, found.var()

        return Call(moments)

    def dask_standardize(self, case, a):
        """Chunk by chunk."""
        return Call(self._computed(importlib.import_module("cpunorm.dask").standardize, case, a))
