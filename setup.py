"""Builds the compiled modules: one source for the kernels, one extension per ISA level of `cpunorm/_levels.py`.

With gcc 12, clang 14 or newer: the kernels are written in their vectors, which MSVC has not.
"""

import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Distribution, Extension, setup
from setuptools.command.build import build

if sys.platform == "win32":
    raise SystemExit("cpunorm: not on Windows: the kernels need the vectors of gcc or clang; use it in WSL")
if sys.maxsize < 2**32:
    raise SystemExit("cpunorm: not on a 32-bit Python: the kernels need 64-bit registers and addresses")

LEVELS = runpy.run_path("cpunorm/_levels.py")["LEVELS"].values()

# No -ffast-math: NaN, Inf and the two-part mean depend on IEEE order (see _kernels.pyx). FMA may be contracted.
# gcc's unroll-and-jam turns the channels_last accumulators back into scalars (measured: a third of the speed). Where
# a loop that copies short runs happens to lie among lines of code costs a quarter of its speed or nothing.
GNU = "-O3 -falign-loops=32 -fno-loop-unroll-and-jam -fno-math-errno -fno-trapping-math -ffp-contract=fast -g0"


def compiles(flags, source):
    """Whether the C compiler turns `source` into a program with `flags`."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        command = [*compiler, str(path), *flags, "-o", str(path.with_suffix(".out"))]
        return subprocess.run(command, capture_output=True).returncode == 0


def openmp_flags():
    """Flags that switch OpenMP on, or none (said loudly) where the compiler has none."""
    probe = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
    if os.environ.get("CPUNORM_NO_OPENMP") != "1":
        if compiles(["-fopenmp"], probe):
            return ["-fopenmp"], ["-fopenmp"]
        if sys.platform == "darwin" and compiles(["-Xpreprocessor", "-fopenmp", "-lomp"], probe):
            return ["-Xpreprocessor", "-fopenmp"], ["-lomp"]
    line = "*" * 78
    print(f"{line}\ncpunorm: built WITHOUT OpenMP: every kernel will run on one thread.\n{line}", file=sys.stderr)
    return [], []


def environment():
    """A file that tells what else the compiled modules depend on, written when that has changed."""
    names = ("CC", "CFLAGS", "CPPFLAGS", "LDFLAGS", "CPUNORM_NO_OPENMP")
    text = "".join(f"{name}={os.environ.get(name)}\n" for name in names) + f"NumPy {np.__version__}\n"
    path = Path("build", "environment.txt")
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return str(path)


def extensions():
    compile_openmp, link_openmp = openmp_flags()
    optimize = [flag for flag in GNU.split() if compiles([flag], "int main(void) { return 0; }\n")]  # clang: not all
    strip = ["-Wl,-s"] if sys.platform == "linux" else []
    asked = " ".join(f'FEATURE("{name}")' for name in sorted({name for level in LEVELS for name in level.features}))
    read = ("_kernels.pyx", "_levels.py", "*.pxd", "*.h", "call/*", "include/*", "kernels/*")
    common = {
        "define_macros": [("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"), ("CPUNORM_FEATURES", asked)],
        "extra_link_args": [*link_openmp, *strip],
        "depends": ["setup.py", environment(), *(str(path) for files in read for path in Path("cpunorm").glob(files))],
    }
    cython = (
        "_cpu",
        "_memory",
        "_running",
        "_call",
        "_image",
        "_reduction",
        "_statistics",
        "_embedding",
        "functional",
        "bench._copy",
    )
    modules = {level.module: level.flags for level in LEVELS}  # first: each takes a minute
    # Where every CPU has multiply-adds, two loops of one formula, one of them through objects, have the same bits so.
    modules |= dict.fromkeys(cython, ("-ffp-contract=off",))
    for name, flags in modules.items():
        arguments = [*optimize, *compile_openmp, *flags]
        source = f"cpunorm/{name.replace('.', '/')}.pyx"
        yield Extension(f"cpunorm.{name}", [source], extra_compile_args=arguments, **common)


def translated():
    """The extensions in C.  A source that comes out as it was keeps its date, lest it be compiled again: Cython writes
    it anew when its own files are newer, as they are wherever a build is isolated."""
    if {"egg_info", "dist_info"} & {*sys.argv}:  # pip asks for those before, and needs the names alone
        return list(extensions())
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in Path("cpunorm").rglob("*.c")}
    directives = {"language_level": 3, "freethreading_compatible": True}
    in_c = cythonize(list(extensions()), nthreads=0, compiler_directives=directives)
    for path, (text, date) in before.items():
        if path.read_bytes() == text:
            os.utime(path, ns=(date, date))
    return in_c


usual = build(Distribution())
usual.ensure_finalized()
setup(
    ext_modules=translated(),
    options={
        "build_ext": {
            "parallel": os.cpu_count(),
            # Here, not with each extension, for Cython notes what is told there in its C: isolated builds differ in it.
            "include_dirs": [np.get_include(), "cpunorm", "cpunorm/include"],
            # An editable installation would compile into a folder of its own, and all again for a wheel.
            "build_lib": usual.build_platlib,
        }
    },
)
