"""Other people's extensions: the examples are built against the header, run, and give the bits of our own calls."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import fresh
import numpy as np
import pytest
from norms import affine, running, values

import cpunorm
from cpunorm import functional

EXAMPLES = Path(__file__).parent.parent / "examples"
HEADER = Path(cpunorm.get_include(), "cpunorm.h")
COMPILER = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()
EPS = 1e-5

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER[0]) is None, reason="there is no C compiler")


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(fresh.PACKAGE.parent)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def build(example, name, folder):
    """The module `name` of an example, built in `folder`, as a function that imports it."""
    pytest.importorskip("setuptools")
    if not folder.exists():
        shutil.copytree(EXAMPLES / example, folder)
    run([sys.executable, "-P", "setup.py", "build_ext", "--inplace"], folder)
    (path,) = (path for path in folder.glob(f"{name}.*") if path.suffix in (".so", ".pyd"))

    def load():
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    pytest.importorskip("Cython")
    return build("embed_cython", "tokens", tmp_path_factory.mktemp("embed") / "tokens")()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return build("embed_c", "images", tmp_path_factory.mktemp("embed") / "images")()


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 7), (16, 384), (300, 768)])
def test_from_cython(tokens, rows, width, threads):
    table = values((50, width))
    ids = np.arange(rows, dtype=np.int32) * 7 % 50
    weight, bias = affine((width,))
    out = np.empty((rows, width), np.float32)
    tokens.embed(ids, table, weight, bias, out, EPS, threads)
    with cpunorm.engine("cython"):
        assert out.tobytes() == functional.layer_norm(table[ids], width, weight, bias, EPS).tobytes()


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 49), (4, 64, 3136)])
def test_from_c(images, shape, threads):
    x = values(shape)
    mean, var = running(shape[1], np.float64)
    single = mean.astype(np.float32), var.astype(np.float32)
    with cpunorm.engine("cython"):
        expected = functional.batch_norm(x, *single, eps=EPS)
    images.batch_norm(x, *(moment.astype(np.float64) for moment in single), *shape, EPS, threads)
    assert x.tobytes() == expected.tobytes()


@needs_compiler
@pytest.mark.slow
def test_they_check_what_nobody_else_does(tokens, images):
    x = values((2, 3, 4))
    with pytest.raises(ValueError, match="24 values 'f', got 48 bytes of 'e'"):
        images.batch_norm(x.astype(np.float16), np.zeros(3), np.ones(3), 2, 3, 4)
    with pytest.raises(ValueError, match="positive"):
        images.batch_norm(x, np.zeros(3), np.ones(3), 2, 0, 4)
    row = np.ones(4, np.float32)
    with pytest.raises(IndexError, match="9"):
        tokens.embed(np.array([9], np.int32), x[0], row, row, np.empty((1, 4), np.float32))


VERSION = int(re.search(r"#define CPUNORM_ABI_VERSION (\d+)", HEADER.read_text(encoding="utf-8"))[1])


def build_edited(folder, header, source):
    """The C example with its own header and source, by functions that edit them, as a function that imports it."""
    shutil.copytree(EXAMPLES / "embed_c", folder)
    for path, edit in ((HEADER, header), (folder / "images.c", source)):
        text = path.read_text(encoding="utf-8")
        assert edit(text) != text
        (folder / path.name).write_text(edit(text), encoding="utf-8")
    return build("embed_c", "images", folder)


def own_header(source):
    return source.replace("<cpunorm.h>", '"cpunorm.h"')  # the one beside it


@needs_compiler
@pytest.mark.parametrize(
    ("version", "says"),
    [
        (VERSION + 1, "install a newer cpunorm"),
        pytest.param(0, "compile this extension again", marks=pytest.mark.slow),
    ],
)
def test_another_abi_is_an_error_at_import(tmp_path, version, says):
    def other(header):
        return re.sub(r"(#define CPUNORM_ABI_VERSION) \d+", rf"\1 {version}", header)

    load = build_edited(tmp_path / "images", other, own_header)
    with pytest.raises(ImportError, match=rf"version {version} of cpunorm's ABI.* has {VERSION}.*{says}"):
        load()


@needs_compiler
def test_fields_that_an_older_extension_lacks_are_zero(tmp_path):
    """As if eps, the last field of version 1, had been added after the example was compiled."""

    def older(header):
        start, end = header.index("    double eps;"), header.index("\n};", header.index("    double eps;"))
        return header[:start] + header[end:]

    def without_eps(source):
        return own_header(source).replace("        norm.eps = eps;\n", "")

    images = build_edited(tmp_path / "images", older, without_eps)()
    x, mean, var = values((2, 3, 5)), np.zeros(3, np.float32), np.full(3, 1e-5, np.float32)
    with cpunorm.engine("cython"):
        expected = functional.batch_norm(x, mean, var, eps=0.0)
    images.batch_norm(x, mean.astype(np.float64), var.astype(np.float64), 2, 3, 5, 1e-5)
    assert x.tobytes() == expected.tobytes()


@needs_compiler
@pytest.mark.parametrize("shape", [(2, 3, 5), (4, 64, 49), (300, 20, 1)])
def test_mean_squares_of_channels_with_weights(tmp_path, shape):
    """What no function of Python's asks for: about zero, weights not along the positions."""
    edits = {
        "CPUNORM_GIVEN": "CPUNORM_ABOUT_ZERO",
        "norm.mean =": "norm.weight =",
        "norm.var =": "norm.bias =",
        '"d"': '"f"',
    }

    def edited(source):
        for old, new in edits.items():
            assert old in source
            source = source.replace(old, new)
        return own_header(source)

    images = build_edited(tmp_path / "images", lambda header: header + "\n", edited)()
    x, (weight, bias) = values(shape), affine((shape[1],))
    exact = x.astype(np.float64)
    root = np.sqrt(np.mean(exact**2, axis=(0, 2)) + EPS)
    exact = exact / root[:, None] * weight[:, None] + bias[:, None]
    images.batch_norm(x, weight, bias, *shape, EPS)
    assert (np.abs(x - exact) <= 2e-6 * np.maximum(1, np.abs(exact))).all()


@needs_compiler
@pytest.mark.parametrize("language", [["-xc", "-std=c99"], ["-xc++", "-std=c++11"]], ids=["C99", "C++11"])
def test_the_header_alone(language):
    """Without a warning, also of a pedantic compiler."""
    flags = ["-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", *language]
    done = subprocess.run([*COMPILER, *flags, "-isystem", sysconfig.get_path("include"), "-I", str(HEADER.parent), "-"],
                          input="#include <cpunorm.h>\n", capture_output=True, text=True)  # fmt: skip
    if "not found" in done.stderr or "cc1plus" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def fields(text, start, end):
    """Names of the fields of the struct between `start` and `end`, in order."""
    body = text.partition(start)[2].partition(end)[0]
    body = re.sub(r"/\*.*?\*/|\((?:void|Py).*?\)| noexcept nogil", "", body, flags=re.DOTALL)
    lines = re.sub(r"\(\*(\w+)\)", r"\1", body).splitlines()
    return [name for line in lines for name in re.findall(r"(\w+)[ ;]*(?:,|$)", line.strip())]


def test_the_header_and_the_pxd_have_the_same_fields():
    """The compiler sees a field that the header lacks; one that the pxd lacks it doesn't."""
    pxd = (fresh.PACKAGE / "_norm.pxd").read_text(encoding="utf-8")
    header = fields(HEADER.read_text(encoding="utf-8"), "struct cpunorm_Norm {", "\n};")
    assert header == fields(pxd, 'struct Norm "cpunorm_Norm":', "\n\n")
    assert header[:6] == ["samples", "outer", "middle", "channels", "inner", "x"]
    assert "function" in header


def test_numba_has_the_same_fields():
    """Its kernels find them by their places in memory."""
    pytest.importorskip("numba")
    from cpunorm._numba import plan

    assert list(plan.NORM.names) == fields(HEADER.read_text(encoding="utf-8"), "struct cpunorm_Norm {", "\n};")
