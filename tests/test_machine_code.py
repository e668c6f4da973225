"""Vectors stay in registers: no line loop of the kernels sends one through the stack, at any ISA level.

The installed modules are stripped, so `lines.h` is compiled once more, with the flags that setup.py gives them.
"""

import ast
import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cpunorm._levels import LEVELS

PACKAGE = Path(__file__).parent.parent / "cpunorm"
SETUP = PACKAGE.parent / "setup.py"
COMPILER, DISASSEMBLER = shutil.which("gcc"), shutil.which("objdump")

pytestmark = [
    pytest.mark.skipif(not SETUP.exists(), reason="the sources aren't here"),
    pytest.mark.skipif(COMPILER is None or DISASSEMBLER is None, reason="needs gcc and objdump"),
    pytest.mark.skipif("baseline" in LEVELS and not LEVELS["baseline"].flags, reason="reads x86-64 machine code"),
]

ARITHMETIC = re.compile(r"v?(add|sub|mul|fn?m(add|sub)\d*)p[sd]\b")
# A slot has a place of its own; what is indexed is an array.
SLOT = re.compile(r"-?0x[0-9a-f]+\((%rsp|%rbp)\)|[\s,]\((%rsp|%rbp)\)")
VECTOR = re.compile(r"%[xyz]mm\d+")
LINE_LOOPS = ("block_moments", "row_moments", "tile_sums")  # `tile_sums` of `column_moments`, whose own loops are short
LINE_LOOPS += ("apply_constant", "apply_along", "apply_columns", "apply_columns_along")


def gnu_flags():
    """The flags of all modules, as setup.py spells them."""
    for node in ast.parse(SETUP.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "GNU":
            return ast.literal_eval(node.value).split()
    raise LookupError("setup.py has no GNU")


def functions(level, source, folder):
    """{name: [(address, instruction), ...]} of a C source that is compiled for a level."""
    code, program = folder / "lines.c", folder / "lines.o"
    code.write_text(source)
    whole = "-fno-reorder-blocks-and-partition"  # cold blocks stay in their function
    flags = [*gnu_flags(), *LEVELS[level].flags, whole]
    subprocess.run([COMPILER, "-fPIC", *flags, "-c", str(code), "-o", str(program)], check=True)
    command = [DISASSEMBLER, "-d", "--no-show-raw-insn", str(program)]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = {}
    for line in listing.splitlines():
        if start := re.fullmatch(r"[0-9a-f]+ <(.+)>:", line):
            found[start[1]] = body = []
        elif instruction := re.fullmatch(r"\s*([0-9a-f]+):\s+(.*)", line):
            body.append((int(instruction[1], 16), instruction[2]))
    return found


def blocks(body):
    """{address: (instructions, addresses of the blocks that may follow)} of the basic blocks of a function."""
    jumps = {at: int(jump[1], 16) for at, text in body if (jump := re.match(r"j\w+\s+([0-9a-f]+) <", text))}
    after = {at: then for (at, _), (then, _) in itertools.pairwise(body)}
    starts = {body[0][0], *jumps.values(), *(after[at] for at in jumps if at in after)} & {at for at, _ in body}
    graph = {}
    for at, text in body:
        if at in starts:
            inside, follow = graph[at] = [], set()
        inside.append(text)
        ends = re.match(r"ret|jmp", text)
        follow |= {jumps[at]} & starts if at in jumps else set()
        if not ends and after.get(at) in starts:
            follow.add(after[at])
    return graph


def inner_loops(body):
    """The instructions of each loop that has no loop inside and does arithmetic on vectors."""
    graph = blocks(body)
    before = {at: set() for at in graph}
    for at, (_, follow) in graph.items():
        for other in follow:
            before[other].add(at)
    entry = body[0][0]
    above = {at: set(graph) for at in graph} | {entry: {entry}}  # blocks that every way to a block goes through
    changed = True
    while changed:
        changed = False
        for at in graph:
            now = {at} | set.intersection(*(above[block] for block in before[at] or [at]))
            if at != entry and now != above[at]:
                above[at], changed = now, True
    loops = {}
    for at, (_, follow) in graph.items():
        for head in follow & above[at]:
            inside, todo = loops.setdefault(head, {head}), [at]
            while todo:
                block = todo.pop()
                if block not in inside:
                    inside.add(block)
                    todo += before[block]
    for head, inside in loops.items():
        if not any(other in inside for other in loops if other != head):
            texts = [text for block in sorted(inside) for text in graph[block][0]]
            if any(ARITHMETIC.match(text) for text in texts):
                yield texts


def through_the_stack(body, loops):
    """Instructions of a function's inner loops that move a vector to or from a slot of the stack."""
    frame = any(re.match(r"mov\s+%rsp,%rbp", text) for _, text in body)
    for loop in loops:
        for text in loop:
            slot = SLOT.search(text)
            if slot and VECTOR.search(text) and ("%rsp" in slot[0] or frame):
                yield text


def spills(level, folder, types, tile=None):
    """{function: what its line loops of some types move through the stack}, and the functions that have such loops."""
    for header in (PACKAGE / "kernels").glob("*.h"):
        shutil.copy(header, folder)
    lines = (folder / "lines.h").read_text()
    if tile is not None:
        lines, changed = re.subn(r"TALL = [^,]+,", f"TALL = {tile},", lines)
        assert changed == 1
    (folder / "lines.h").write_text(lines)
    used = "".join(f"const Lines *used_{name}(void) {{ return &lines_{name}; }}\n" for name in types)
    found = functions(level, f'#include "lines.h"\n{used}', folder)
    bodies = {name: body for name, body in found.items() if name.startswith(LINE_LOOPS)}
    loops = {name: list(inner_loops(body)) for name, body in bodies.items()}
    moves = {name: sorted(set(through_the_stack(body, loops[name]))) for name, body in bodies.items()}
    return {name: texts for name, texts in moves.items() if texts}, {name for name in loops if loops[name]}


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_line_loops_keep_vectors_in_registers(level, tmp_path):
    """Of halves at the last level alone: where their conversion takes several instructions, it takes registers, too."""
    types = ["float", "double", *(["float16", "bfloat16"] if level == list(LEVELS)[-1] else [])]
    found, looping = spills(level, tmp_path, types)
    assert looping == {f"{name}_{value}" for name in LINE_LOOPS for value in types}
    assert not found


@pytest.mark.slow
def test_a_tile_of_more_vectors_than_registers_is_seen(tmp_path):
    found, _ = spills(next(iter(LEVELS)), tmp_path, ["float", "double"], tile=12)
    assert {"tile_sums_float", "tile_sums_double"} <= set(found)
