"""cpunorm itself."""

import contextlib
from functools import partial

import cpunorm

from ..cases import NORMS
from .base import Call, Peer


class CPUNorm(Peer):
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

    def prepare(self, case, a):
        """`cpunorm.functional`'s function, or `normalize_image`; None where that build has none."""
        if case.norm == "normalize_image":
            if not hasattr(self.package, case.norm):
                return None
            call = partial(self.package.normalize_image, a.x, a.running_mean, a.running_var, layout=case.layout)
            return Call(call, partial(call, out=a.out))
        options = {"data_format": "channels_last"} if case.channels_last else {}
        function = getattr(self.package.functional, case.norm, None)
        if function is None:
            return None
        inputs = [a.x, a.residual] if NORMS[case.norm].sums else [a.x]
        if case.layer.residual:
            options["residual"] = a.residual
        if case.layer.activation is not None:
            options["activation"] = case.layer.activation
        call = partial(function, *inputs, *NORMS[case.norm].arguments(case, a), **options)
        if NORMS[case.norm].sums:
            return Call(lambda: call()[0], lambda: call(out=a.out)[0])
        return Call(call, partial(call, out=a.out))
