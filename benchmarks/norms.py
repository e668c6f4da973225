"""What the benchmarks of every norm share: parameters from the registry's cases, absolute times, ratios.

The classes here are abstract, so that asv lists their subclasses alone.
"""

import abc
import itertools

from . import ALL, COMPETITORS, ENGINES, THREADS, Against, AsCalled, available, cases

AXES = ("shape", "layout", "mode", "dtype")


def _axes(case):
    """What tells a case from its norm's others."""
    layer = case.layer
    beside = filter(None, (layer.groups and str(layer.groups), layer.residual and "residual", layer.activation))
    layout = case.layout and ("channels_last" if case.channels_last else "channels_first")
    return "/".join((case.shape, *beside)), layout, case.mode, case.dtype


class Norm(abc.ABC):
    """A norm's cases as parameters, after a first one.

    Attributes
    ----------
    norm : str
        Its name in `cpunorm.functional`.
    shapes, float64_shapes : tuple of str
        Which of the registry's shapes are followed, in each dtype; ``CPUNORM_BENCHMARKS=all`` follows all.
    first : tuple of str and tuple of str
        Name and values of the first parameter.
    """

    @property
    @abc.abstractmethod
    def norm(self):
        """Of the subclass."""

    def __init_subclass__(cls):
        if not isinstance(cls.norm, str):
            return
        layers = [layer for layer in cases.LAYERS if layer.norm == cls.norm and layer.source != cases.SWEEP]
        followed = {"float32": cls.shapes, "float64": cls.float64_shapes}
        found = {_axes(case): case for dtype in followed for case in cases.expand(layers, dtype)}
        found = {axes: case for axes, case in found.items() if ALL or axes[0] in followed[case.dtype]}
        values = [tuple(dict.fromkeys(column)) for column in zip(*found, strict=True)]
        kept = [i for i, column in enumerate(values) if column != (None,)]
        cls.cases = {tuple(axes[i] for i in kept): case for axes, case in found.items()}
        name, firsts = cls.first
        cls.param_names = (name, *(AXES[i] for i in kept))
        cls.params = (firsts, *(values[i] for i in kept))
        cls.skip_params = [p for p in itertools.product(*cls.params) if not cls.exists(p[0], p[1:])]

    @classmethod
    def exists(cls, first, axes):
        """Whether there is such a combination; asv shows n/a where there is none."""
        return axes in cls.cases


class Time(Norm, AsCalled):
    first = "implementation", (*ENGINES, *COMPETITORS)

    @classmethod
    def exists(cls, implementation, axes):
        too_slow_to_compile = implementation == "numba" and axes[-1] == "float64" and not ALL
        return super().exists(implementation, axes) and available(implementation) and not too_slow_to_compile


class Ratio(Norm, Against):
    first = "threads", ("1", "all")

    @classmethod
    def exists(cls, threads, axes):
        if not super().exists(threads, axes) or (threads == "all" and THREADS == 1):
            return False
        large = cls.cases[axes].bytes / 2 >= cases.NEW_PAGES  # takes seconds: once is enough
        return ALL or not large or (threads == ("all" if THREADS > 1 else "1") and "channels_last" not in axes)
