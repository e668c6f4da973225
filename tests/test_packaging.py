"""What an installation is: small, quick to import, typed, with one dependency."""

import ast
import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path

import fresh
import pytest

import cpunorm

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
COMPILED = [
    "_call",
    "_cpu",
    "_embedding",
    "_image",
    "functional",
    "_image",
    "_kernels",
    "_kernels_v3",
    "_kernels_v4",
    "_memory",
    "_reduction",
    "_running",
    "_statistics",
]
PUBLIC = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "FrozenBatchNorm2d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LocalResponseNorm",
    "Moments",
    "RMSNorm",
    "__version__",
    "empty_cache",
    "engine",
    "explain",
    "functional",
    "fuse_conv_bn_weights",
    "fuse_linear_bn_weights",
    "get_cache_limit",
    "get_engine",
    "get_include",
    "get_num_threads",
    "moments",
    "normalize_image",
    "num_threads",
    "set_cache_limit",
    "set_engine",
    "set_num_threads",
    "show_config",
    "standardize",
    "standardize_sliding",
    "warmup",
]


def test_public_names():
    assert cpunorm.__all__ == PUBLIC
    assert cpunorm.functional.__all__ == [
        "add_layer_norm",
        "add_rms_norm",
        "batch_norm",
        "group_norm",
        "instance_norm",
        "layer_norm",
        "local_response_norm",
        "normalize",
        "rms_norm",
    ]
    for module in (cpunorm, cpunorm.functional, cpunorm.modules):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)


def test_metadata():
    assert PROJECT["version"] == cpunorm.__version__
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["dependencies"] == ["numpy>=2.0"]  # one runtime dependency
    assert {"numba", "bench", "test", "dev"} <= PROJECT["optional-dependencies"].keys()
    assert PROJECT["scripts"].keys() == {"cpunorm"}


def test_import_brings_nothing_heavy():
    """What `import cpunorm` loads after NumPy: itself, Cython's runtime modules and a little of Python's library."""
    code = """
import sys, numpy
before = set(sys.modules)
import cpunorm
print(*sorted(set(sys.modules) - before))
"""
    loaded = fresh.output(code).split()
    outside = {name for name in loaded if not name.startswith(("cpunorm", "_cython_", "importlib"))}
    python = {"copy", "threading", "contextlib"}
    assert outside <= python | {"cython_runtime", "numpy.typing", "numpy._typing._add_docstring"}
    assert not [name for name in loaded if name.startswith("cpunorm.bench")]
    for module in (
        "torch",
        "numba",
        "matplotlib",
        "rich",
        "numpy.testing",
        "unittest",
        "subprocess",
        "multiprocessing",
    ):
        assert module not in loaded
    # one ISA level is loaded, the one in use
    assert len([name for name in loaded if name.startswith("cpunorm._kernels")]) == 1


def test_import_needs_numpy_alone():
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "cpunorm"}:
            raise ImportError(f"{name} is not a dependency")
sys.meta_path.insert(0, Refuse())
import cpunorm
import numpy as np
print(cpunorm.LayerNorm(4)(np.ones((2, 4), np.float32)).sum())
"""
    assert fresh.output(code) == "0.0"


def test_installed_size():
    """Below 6 MB, without what a build or a run left there: sources for the compiler, byte code, Numba's cache."""
    left = (".c", ".pyc", ".nbi", ".nbc")
    files = [path for path in fresh.PACKAGE.rglob("*") if path.is_file() and path.suffix not in left]
    assert sum(path.stat().st_size for path in files) < 6_000_000


def test_typed():
    assert (fresh.PACKAGE / "py.typed").is_file()
    for name in COMPILED:
        ast.parse((fresh.PACKAGE / f"{name}.pyi").read_text())


def test_every_compiled_module_has_a_stub():
    built = {path.name.split(".")[0] for path in fresh.PACKAGE.iterdir() if path.suffix in (".so", ".pyd")}
    assert built <= set(COMPILED)
    assert "_kernels" in built


# Docstrings


def public_objects():
    """(name, object) of every public function, class and method, and of every module in Python."""
    # what needs an extra, or is no Python
    left_out = {"bench", "_numba", "dask", "sklearn", "torch"} | {name for name in COMPILED if name.startswith("_")}
    for information in pkgutil.walk_packages(cpunorm.__path__, "cpunorm."):
        if information.name.split(".")[1] not in left_out:
            yield information.name, importlib.import_module(information.name)
    for module in (cpunorm, cpunorm.functional):
        for name in module.__all__:
            item = getattr(module, name)
            if callable(item):
                yield f"{module.__name__}.{name}", item
            if inspect.isclass(item):
                methods = inspect.getmembers(item, inspect.isfunction)
                yield from ((f"{name}.{method}", f) for method, f in methods if not method.startswith("_"))


OBJECTS = dict(public_objects())


@pytest.mark.parametrize("name", OBJECTS)
def test_docstring(name):
    doc = inspect.getdoc(OBJECTS[name])
    assert doc
    assert doc.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", [*(f"functional.{name}" for name in cpunorm.functional.__all__), *PUBLIC[:11]])
def test_docstring_names_every_parameter(name):
    item = getattr(cpunorm.functional, name.removeprefix("functional.")) if "." in name else getattr(cpunorm, name)
    sections = inspect.getdoc(item).split("Parameters\n----------\n")[1]
    described = {word for line in sections.splitlines() if " : " in line or line.isidentifier() for word in words(line)}
    assert set(inspect.signature(item).parameters) <= described
    assert "Raises\n------\n" in sections
    assert ">>> " in sections


def words(line):
    """The names before the colon of a NumPy-style entry."""
    return [name.strip() for name in line.partition(" : ")[0].split(",")]
