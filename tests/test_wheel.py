"""What is shipped: machine code that every x86-64-v2 CPU runs, but for the modules of higher levels, and no sources."""

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sysconfig

import fresh
import pytest

from cpunorm._levels import LEVELS

DISASSEMBLER = shutil.which("objdump")
LEVELLED = {level.module for name, level in LEVELS.items() if name != "baseline"}
MODULES = sorted(fresh.PACKAGE.rglob("*.so"))
BUNDLED = sorted((fresh.PACKAGE.parent / "cpunorm.libs").glob("*"))  # by auditwheel
# Above x86-64-v2: all with VEX or EVEX encoding, whose names begin with v or k (`verr` and `verw` are older), and the
# integer ones of v3. Not `tzcnt`, which older CPUs run as `bsf`: gcc writes it where both give the same. Nor `xgetbv`,
# which the compiler's own look at the CPU runs where cpuid says that it is there; nor `xbegin`, `xend` and the like,
# which libgomp runs where cpuid says so.
ABOVE_V2 = re.compile(
    r"\t(v(?!err|erw)\w+|k(add|and|mov|not|or|shift|test|unpck|xnor|xor)\w+"
    r"|andn|bextr|blsi|blsmsk|blsr|bzhi|lzcnt|movbe|mulx|pdep|pext|rorx|sarx|shlx|shrx)[lqw]?\s"
)


def above_v2(path):
    """The instructions of a shared object that an x86-64-v2 CPU doesn't have."""
    command = [DISASSEMBLER, "-d", "--no-show-raw-insn", str(path)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert listing.count("\n") > 100
    return {found[1] for found in ABOVE_V2.finditer(listing)}


def module_of(path):
    return path.name.split(".")[0]


@pytest.mark.skipif(platform.machine() != "x86_64" or DISASSEMBLER is None, reason="reads x86-64 machine code")
@pytest.mark.parametrize("path", [*MODULES, *BUNDLED], ids=lambda path: path.name)
def test_instructions_above_v2_stand_where_they_are_chosen_alone(path):
    assert bool(above_v2(path)) == (module_of(path) in LEVELLED)


def test_files():
    """A wheel has no source of a compiled module. (An editable installation lists none of its files.)"""
    names = [file.name for file in importlib.metadata.files("cpunorm") or ()]
    assert not [name for name in names if name.endswith((".c", ".pyx", ".pxi"))]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="a Python with a GIL")
def test_the_gil_stays_off():
    imports = "\n".join(f"import cpunorm.{path.stem.split('.')[0]}" for path in MODULES if path.parent == fresh.PACKAGE)
    assert fresh.output(f"{imports}\nimport sys; print(sys._is_gil_enabled())") == "False"
