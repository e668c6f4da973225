"""dask."""

from ..cases import DASK_CHUNKS
from .base import Call, Peer


def chunked(x):
    """x as a dask array, cut along axis 0."""
    import dask.array

    return dask.array.from_array(x, chunks=(-(-len(x) // DASK_CHUNKS), *x.shape[1:]))


class Dask(Peer):
    """What people write with its arrays, on its threads."""

    name = "dask"
    packages = ("dask",)

    def __init__(self, threads):
        super().__init__(threads)
        import dask

        self.dask = dask
        self.version = dask.__version__

    def context(self):
        """Its threads."""
        return self.dask.config.set(scheduler="threads", num_workers=self.threads)

    def dask_moments(self, case, a):
        """Both at once."""
        x = chunked(a.x)
        return Call(lambda: self.dask.compute(x.mean(case.axis), x.var(case.axis)))

    def dask_standardize(self, case, a):
        """The line of NumPy."""
        x = chunked(a.x)
        return Call(lambda: ((x - x.mean(case.axis)) / x.std(case.axis)).compute())
