"""Faults planted one at a time into a copy of the package: does the test that should catch it fail?

    python tests/planted_faults.py                 # all, some minutes
    python tests/planted_faults.py --only gate     # those whose name says so

First the tests are run without a fault, and must pass. Of the kernels only one ISA level is built. Ends with an error
if a fault is not caught; those that no test can see are named with the reason.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LEVEL = "v3"  # of kernels


class Fault(NamedTuple):
    """In `file`, `search` becomes `replace`; `tests` are arguments of pytest that then must fail."""

    name: str
    file: str
    search: str
    replace: str
    tests: str


LINES, VECTORS = "cpunorm/kernels/lines.h", "cpunorm/kernels/vectors.h"
MOMENTS, WALK, ROWS, COLUMNS, LANES, STATISTICS, IMAGE = (
    f"cpunorm/kernels/{name}.pxi" for name in ("moments", "walk", "rows", "columns", "lanes", "statistics", "image")
)
APPLY, STORE, RECORDS, COPY, SUMMED, PIXELS, HALVES, ACTIVATIONS = (
    f"cpunorm/kernels/{name}.h"
    for name in ("apply", "store", "records", "copy", "statistics", "image", "halves", "activations")
)
RUNNING, MEMORY, CALL = (f"cpunorm/{name}.pyx" for name in ("_running", "_memory", "_call"))
GUARDS = f"tests/test_guard_pages.py -k {LEVEL}"
MOMENT = "tests/test_running_statistics.py -k moment"

FAULTS = [
    # Reads and writes too far
    Fault(
        "a tail is read as a whole vector",
        VECTORS,
        "load_part)(const R *p, int n) { return (VEC) MM(maskload)(p, (__m256i) NAME(first)(n)); }",
        "load_part)(const R *p, int n) { (void) n; return NAME(load)(p); }",
        GUARDS,
    ),
    Fault(
        "a tail is read one value too far",
        VECTORS,
        "MM(maskload)(p, (__m256i) NAME(first)(n))",
        "MM(maskload)(p, (__m256i) NAME(first)(n + 1))",
        GUARDS,
    ),
    Fault(
        "a tail is written one value too far",
        VECTORS,
        "store_first(p, (Eights) low, n % (WIDTH / 2) * R_BYTES)",
        "store_first(p, (Eights) low, (n % (WIDTH / 2) + 1) * R_BYTES)",
        GUARDS,
    ),
    Fault(
        "of a short run is read one register too far",
        COPY,
        "memcpy(&last, x + bytes - sizeof last, sizeof last);",
        "memcpy(&last, x + bytes - 2, sizeof last);",
        GUARDS,
    ),
    Fault(
        "a strided line is read one value too far",
        WALK,
        "target[i * to_stride] = source[i * stride]",
        "target[i * to_stride] = source[i * stride + 1]",
        GUARDS,
    ),
    Fault(
        "weights are read one too far",
        APPLY,
        "NAME(load_part)(bias + i, part)), ",
        "NAME(load_part)(bias + i + 1, part)), ",
        GUARDS,
    ),
    Fault(
        "columns before the first aligned one are left out",
        APPLY,
        "            TILE(1, head);",
        "            ;",
        f"tests/test_past_cache.py -k {LEVEL}",
    ),
    Fault(
        "what is left of lines that are streamed as one doesn't go on with the next",
        STORE,
        "memmove(z, z + i, lead * sizeof(X));",
        "memmove(z, z, lead * sizeof(X));",
        f"tests/test_past_cache.py -k {LEVEL}",
    ),
    Fault(
        "what is added to lines that are streamed as one is that of the first",
        STORE,
        "t->residual + ((const char *) (y + row * n)",
        "t->residual + ((const char *) y",
        f"tests/test_past_cache.py -k {LEVEL}",
    ),
    Fault(
        "coefficients don't turn with the beginning of a line",
        COLUMNS,
        "scale, columns, fold, some, computed)",
        "scale, columns, fold, 0, computed)",
        f"tests/test_past_cache.py -k {LEVEL}",
    ),
    # Sums and merges
    Fault(
        "a merge of parts is left out",
        MOMENTS,
        "merge(&parts[i], &parts[i + step])",
        "parts[i].count += parts[i + step].count",
        f"tests/test_accuracy.py tests/test_norms.py -k {LEVEL}",
    ),
    Fault(
        "a merge of blocks is left out",
        MOMENTS,
        "                    merge(&all[domain], &block)",
        "                    all[domain].count += block.count",
        f"tests/test_accuracy.py tests/test_norms.py -k {LEVEL}",
    ),
    Fault(
        "rows that lie across each other are cut by their number",
        MOMENTS,
        "ROWS_APART if job.apart else max(",
        "max(",
        f"tests/test_determinism.py -k {LEVEL}",
    ),
    Fault(
        "domains that are summed together share a shift",
        MOMENTS,
        "fresh, &shift[domain])",
        "fresh, &shift[0])",
        f"tests/test_accuracy.py tests/test_determinism.py tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "a merge of columns forgets the distance of means",
        MOMENTS,
        "a2[c] += b2[c] + delta * delta * between",
        "a2[c] += b2[c]",
        f"tests/test_accuracy.py tests/test_norms.py -k {LEVEL}",
    ),
    Fault(
        "chains are four times as long",
        LINES,
        "CHAIN = 8,",
        "CHAIN = 32,",
        "tests/test_accuracy.py -k no_data_move",
    ),
    Fault(
        "the low part of the mean is dropped",
        APPLY,
        "low = mean[i] - h",
        "low = 0 * (mean[i] - h)",
        f"tests/test_accuracy.py -k {LEVEL}",
    ),
    Fault(
        "the cut depends on the threads",
        ROWS,
        "share(work_parts, job, domains * job.parts, threads)",
        "share(work_parts, job, domains * job.parts - (1 if threads > 1 else 0), threads)",
        f"tests/test_determinism.py -k {LEVEL}",
    ),
    Fault(
        "scratch of threads is shared",
        COLUMNS,
        "+ thread * strip_bytes(job))",
        "+ 0 * thread * strip_bytes(job))",
        f"tests/test_determinism.py tests/test_norms.py tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "scratch of columns is allocated while others write",
        COLUMNS,
        "sample, column, columns, part, lines = job.tall // job.fold, at\n",
        "sample, column, columns, part, lines = job.tall // job.fold, at\n"
        "    if malloc(1) == NULL:\n        job.failed = 1\n        return\n",
        "tests/test_memory.py -k allocation_in_c",
    ),
    Fault(
        "a sum is written before there is scratch",
        COLUMNS,
        "    allocate_strips(job, threads if whole else 1)\n",
        "    if job.n.addend != NULL:\n        add_all(job, threads)\n"
        "    allocate_strips(job, threads if whole else 1)\n",
        "tests/test_memory.py -k allocation_in_c",
    ),
    Fault(
        "lines that lie across have the weights of the first ones",
        APPLY,
        "            weight += chunk, bias += chunk;\n",
        "            weight += 0, bias += 0;\n",
        f"tests/test_layouts.py tests/test_add_norm.py -k {LEVEL}",
    ),
    # Half precision, epilogues, sums, statistics, images
    Fault(
        "a tail of halves is written one value too far",
        VECTORS,
        "store_first(p, FROM_HALVES(HALF(narrowed)(v)), n * (int) sizeof(X))",
        "store_first(p, FROM_HALVES(HALF(narrowed)(v)), (n + 1) * (int) sizeof(X))",
        GUARDS,
    ),
    Fault(
        "a tail of halves isn't written to its end",
        VECTORS,
        "store_first(p, FROM_HALVES(HALF(narrowed)(v)), n * (int) sizeof(X))",
        "store_first(p, FROM_HALVES(HALF(narrowed)(v)), (n - 1) * (int) sizeof(X))",
        f"tests/test_halves.py -k {LEVEL}",
    ),
    Fault(
        "lines of a group have the weights of the next group",
        ROWS,
        "            at = (channel + c) * job.along_step * computed\n",
        "            at = (channel + c + 1) % n.channels * job.along_step * computed\n",
        "tests/test_group_norm.py -k share_its_weights",
    ),
    Fault(
        "bfloat16 rounds ties away from zero",
        HALVES,
        "((0x8000 + even) & number)",
        "((0x8000 + 0 * even) & number)",
        f"tests/test_halves.py -k {LEVEL}",
    ),
    Fault(
        "bfloat16 rounds NaN as if it were a number",
        HALVES,
        "((0x8000 + even) & number)",
        "((0x8000 + even) | (0 & number))",
        f"tests/test_halves.py -k {LEVEL}",
    ),
    Fault(
        "large values of GELU and tanh leave their last piece",
        ACTIVATIONS,
        "return at_most_float(ALL(limit), magnitude_float(v));",
        "return limit < 0 ? v : magnitude_float(v);",
        f"tests/test_epilogues.py -k {LEVEL}",
    ),
    Fault(
        "float64's GELU forgets the lower part of the square",
        ACTIVATIONS,
        "exponential_double(upper * upper * -0.5, low, &power)",
        "exponential_double(upper * upper * -0.5, 0 * low, &power)",
        f"tests/test_epilogues.py -k {LEVEL}",
    ),
    Fault(
        "a tail has no activation",
        STORE,
        "return finish & CUT ? ",
        "return finish & CUT && !part ? ",
        f"tests/test_epilogues.py -k {LEVEL}",
    ),
    Fault(
        "a tail takes its residual at a wrong distance",
        STORE,
        "(const X *) ((const char *) y + residual);",
        "(const X *) ((const char *) y + residual - (part ? sizeof(X) : 0));",
        f"tests/test_epilogues.py -k {LEVEL}",
    ),
    Fault(
        "a sum is not written to its end",
        APPLY,
        "NAME(put_part)(total + i, v, part);",
        "(void) 0;",
        f"tests/test_add_norm.py -k {LEVEL}",
    ),
    Fault(
        "a merge of moments is left out",
        STATISTICS,
        "        while i + step < t.parts:\n",
        "        while i + step < t.parts - 1:\n",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    Fault(
        "a merge of moments forgets the distance of means",
        RECORDS,
        "empty ? m : known ? total :",
        "empty ? m : known ? m :",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    Fault(
        "moments never are summed again",
        STATISTICS,
        "if t.add.careful == 0 and has_cancelled(&t):",
        "if 0:",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    Fault(
        "the last pixel of a piece is left out",
        IMAGE,
        "min(last, image.columns) - first)",
        "min(last, image.columns) - first - 1)",
        f"tests/test_image.py -k {LEVEL}",
    ),
    Fault(
        "rows of an image are where its columns are",
        IMAGE,
        "source.data + (row * source.row + first * source.pixel)",
        "source.data + (row * source.pixel + first * source.pixel)",
        f"tests/test_image.py -k {LEVEL}",
    ),
    Fault(
        "a tail of a line of pixels is written one value too far",
        PIXELS,
        "memcpy(y + i * y_size, last_y, (n - i) * y_size);",
        "memcpy(y + i * y_size, last_y, (n - i + 1) * y_size);",
        f"tests/test_image.py -k 'no_byte_outside and {LEVEL}'",
    ),
    Fault(
        "packed pixels are read past their end",
        PIXELS,
        "readable = n * channels - SPAN(channels);",
        "readable = n * channels - SPAN(channels) + 1;",
        f"tests/test_image.py -k 'no_byte_outside and {LEVEL}'",
    ),
    Fault(
        "squares of pixels are read past their end",
        PIXELS,
        "(channels + E - 1) / E * E > end)",
        "(channels + E - 1) / E * E > end + 1)",
        f"tests/test_image.py -k 'no_byte_outside and {LEVEL}'",
    ),
    Fault(
        "the last values of a line are counted twice",
        SUMMED,
        "(mask) ? chosen_lanes(high, lanes) : (high);",
        "(high);",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    Fault(
        "a copy of a bias that lies badly begins where that of the weight does",
        "cpunorm/kernels/walk.pxi",
        "lengthen_one(job, target + bytes, <const char*> job.n.bias)",
        "lengthen_one(job, target, <const char*> job.n.bias)",
        f"tests/test_norms.py -k 'anywhere and {LEVEL}'",
    ),
    Fault(
        "of rows that lie apart the first is packed again and again",
        "cpunorm/kernels/sum.pxi",
        "memcpy(packed + row * bytes, source, bytes)",
        "memcpy(packed, source, bytes)",
        f"tests/test_add_norm.py -k 'past_the_caches and {LEVEL}'",
    ),
    Fault(
        "weights that are made longer are copied as if they were",
        "cpunorm/kernels/rows.pxi",
        " and not job.longer.times",
        "",
        f"tests/test_norms.py -k 'anywhere and {LEVEL}'",
    ),
    Fault(
        "columns beside those that are done are added to these too",
        SUMMED,
        "1, (int) (c - at), next",
        "1, 0, next",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    Fault(
        "squares about 0 stay when they are added about a shift",
        SUMMED,
        "    sums[SQUARES * pitch] = sums[SQUARES_LOW * pitch] = 0;\n    return 1;",
        "    return 1;",
        f"tests/test_moments.py -k {LEVEL}",
    ),
    # Copies and turned tiles
    Fault(
        "columns beside the tiles of a copy are left out",
        COPY,
        "tall, columns - wide, y_row",
        "tall, columns - wide - 1, y_row",
        f"tests/test_copy.py -k {LEVEL}",
    ),
    Fault(
        "a tile of a copy is written past its block",
        COPY,
        "across ? rows / SIDE * SIDE : 0",
        "across ? (rows + 1) / SIDE * SIDE : 0",
        f"tests/test_copy.py -k {LEVEL}",
    ),
    Fault(
        "the last values of a short row are taken one too early",
        COPY,
        "(turn_square)(y, x, p, run - SIDE, j, back)",
        "(turn_square)(y, x, p, run - SIDE - 1, j, back)",
        f"tests/test_norms.py tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "the last of the rows of three values is left out",
        COPY,
        "(turn_following)(y, x, lanes, 3, back)",
        "(turn_following)(y, x, lanes - 1, 3, back)",
        f"tests/test_norms.py tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "a value is not repeated to its end",
        COPY,
        "        *(Some *) (to + width - SOME) = value - (Some){0};\n",
        "",
        f"tests/test_norms.py tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "short groups of samples that lie apart are seen as one sample's",
        LANES,
        "t.even = n.x.sample == n.groups * n.x.channel and (",
        "t.even = (",
        f"tests/test_determinism.py -k 'short_groups and {LEVEL}'",
    ),
    Fault(
        "a turned tile goes back in another order",
        LANES,
        "target[places[lane] + offsets[v]] = source[v * MOST_LANES + lane]",
        "target[places[lane] + offsets[values - 1 - v]] = source[v * MOST_LANES + lane]",
        f"tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "the next sample's domains lie where this one's would go on",
        LANES,
        "            at += a.sample - groups * a.channel",
        "            at += 0",
        f"tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "runs of a turned tile all go where the first does",
        LANES,
        "turn_run(target + offsets[v] * size, source",
        "turn_run(target, source",
        f"tests/test_layouts.py -k {LEVEL}",
    ),
    Fault(
        "weights of a turned tile stay those of the window before",
        LANES,
        "if job.along_step and known != first % n.groups:",
        "if job.along_step and known < 0:",
        f"tests/test_group_norm.py -k 'many_groups and {LEVEL}'",
    ),
    Fault(
        "residuals of a turned tile lie in the lanes of its first sample",
        LANES,
        "turn(beside(tile) + lane * size, y,",
        "turn(beside(tile), y,",
        f"tests/test_epilogues.py -k {LEVEL}",
    ),
    # Which memory `out` may be
    Fault(
        "an out whose elements lie on each other is taken",
        "cpunorm/call/arguments.pxi",
        "        if least < extent:\n",
        "        if least < 0:\n",
        "tests/test_out.py",
    ),
    Fault(
        "an out of other strides than the input at the same place is taken for it",
        "cpunorm/call/arguments.pxi",
        "same = same and (stride_of(out, axis) == stride_of(x, axis) or length_of(x, axis) <= 1)",
        "same = same",
        "tests/test_out.py",
    ),
    # State
    Fault(
        "an engine is set in several steps",
        CALL,
        "    kernels, python_forward, takes_halves, address_of = chosen, forward, compiled, address\n",
        "    kernels, python_forward, address_of = chosen, forward, address\n"
        "    hasattr(module, 'FORWARD')\n    takes_halves = compiled\n",
        "tests/test_attacks_state.py -k set_at_once",
    ),
    Fault(
        "norms by samples write where they read",
        "cpunorm/_arguments.py",
        "return out is not None and any(",
        "return False and any(",
        "tests/test_memory.py -k allocation_in_c",
    ),
    Fault(
        "a forked child finds the gate closed",
        RUNNING,
        "if at_fork_in_child(open_gate):",
        "if 0:",
        "tests/test_attacks_state.py -k fork",
    ),
    Fault(
        "a load does not wait for calls at the gate",
        RUNNING,
        "while value_of(&gate.calls) and not Py_IsFinalizing():",
        "while 0:",
        "tests/test_running_statistics.py -k checkpoint",
    ),
    Fault(
        "calls do not wait for a load at the gate",
        RUNNING,
        "while value_of(&gate.writers) and not Py_IsFinalizing():",
        "while 0:",
        "tests/test_attacks_state.py -k put_off",
    ),
    Fault(
        "Python ends while a load waits at the gate",
        RUNNING,
        " and not Py_IsFinalizing():",
        ":",
        "tests/test_attacks_state.py -k end_of",
    ),
    Fault(
        "the GIL is let go between mean and variance",
        RUNNING,
        "        blend(running_mean, mean, factor, 1)\n",
        "        blend(running_mean, mean, factor, 1)\n        with nogil: pause_briefly()\n",
        MOMENT,
    ),
    Fault(
        "a batch is counted in another hold of the GIL",
        RUNNING,
        "find_elements(running_var, &e):\n        return move(running_mean, running_var, counter",
        "find_elements(running_var, &e):\n        count_up(counter)\n        with nogil: pause_briefly()\n"
        "        return move(running_mean, running_var, None",
        "tests/test_running_statistics.py -k 'moment and float16'",
    ),
    Fault(
        "half precision is rounded up in the middle",
        RUNNING,
        " - 1 + (magnitude >> shift & 1);",
        ";",
        "tests/test_running_statistics.py -k rounded_once",
    ),
    Fault(
        "the GIL is let go in a snapshot",
        RUNNING,
        "            copy(copies[i], arrays[i])",
        "            copy(copies[i], arrays[i])\n            with nogil: pause_briefly()",
        MOMENT,
    ),
    Fault(
        "the GIL is let go in a load",
        RUNNING,
        "        copy(targets[i], values[i])",
        "        copy(targets[i], values[i])\n        with nogil: pause_briefly()",
        "tests/test_running_statistics.py -k 'reset or checkpoint'",
    ),
    Fault(
        "the counter moves before the statistics",
        RUNNING,
        "0 if counter is None else next_number(counter)",
        "0 if counter is None else next_number(counter)\n        with nogil: pause_briefly()",
        MOMENT,
    ),
    Fault(
        "a call that fails does not leave the gate",
        "cpunorm/call/run.pxi",
        "            failed = forward_each(chosen, n, samples, threads)\n    finally:\n        leave()",
        "            failed = forward_each(chosen, n, samples, threads)\n"
        "    finally:\n        if not failed:\n            leave()",
        "tests/test_memory.py -k allocation_in_c",
    ),
    # Threads
    Fault(
        "the handlers of forks are gone",
        "cpunorm/_cpu.pyx",
        "if at_fork(end_threads, be_alone):",
        "if 0:",
        "tests/test_threads.py tests/test_attacks_state.py -k fork",
    ),
    # Memory
    Fault(
        "the pool hands out memory that lives",
        MEMORY,
        "SLOTS - 1)\n    blocks[count] = block",
        "SLOTS - 1)\n    if count:\n        block = blocks[count - 1]\n    blocks[count] = block",
        "tests/test_memory.py -k 'not numba'",
    ),
    Fault(
        "a block leaks",
        MEMORY,
        "    if block.size + spare > most:\n        block_free(block, block.size)\n",
        "    if block.size + spare > most:\n",
        "tests/test_memory.py -k limit",
    ),
    Fault(
        "emptying the pool keeps a block",
        MEMORY,
        "    while count and (kept + spare > target or count > slots):",
        "    while count > 1 and (kept + spare > target or count > slots):",
        "tests/test_memory.py -k 'not numba'",
    ),
    Fault(
        "of a half's sums of one value the first are normalised alone",
        "cpunorm/kernels/sum.pxi",
        "        sums += some * sizeof(float)\n",
        "        sums += 0\n",
        f"tests/test_add_norm.py -k 'width and {LEVEL}'",
    ),
    Fault(
        "about zero, coefficients keep the shift that lay there",
        APPLY,
        "        high[i] = shift[i] = 0; ",
        "        high[i] = 0;            ",
        f"tests/test_norms.py -k {LEVEL}",
    ),
    Fault(
        "about zero, weights of the channels are left out",
        ROWS,
        "scale_alone = job.rule.about_zero and weight == NULL and bias == NULL",
        "scale_alone = job.rule.about_zero",
        "tests/test_embedding.py -k squares",
    ),
    Fault(
        "an output lies just ahead of its input within a page",
        MEMORY,
        "data if (<size_t> data - <size_t> beside) % COMPARED >= COMPARED // 2 else data + COMPARED // 2",
        "data",
        "tests/test_memory.py -k ahead",
    ),
    Fault(
        "an output half a page later ends behind its block",
        MEMORY,
        "(size + HEADER + COMPARED // 2 + page - 1)",
        "(size + HEADER + page - 1)",
        "tests/test_memory.py -k ahead",
    ),
    Fault(
        "kept memory is not given back when there is none",
        MEMORY,
        "        if block == NULL and shrink_to_nothing():",
        "        if block == NULL and 0:",
        "tests/test_memory.py -k given_back",
    ),
    # NumPy's error state, checkpoints
    Fault(
        "half precision looks at NumPy's error state",
        "cpunorm/call/run.pxi",
        'with np.errstate(all="ignore"):  # beyond the range of half',
        "with np.errstate():  # beyond the range of half",
        "tests/test_fuzz.py -k error_state",
    ),
    Fault(
        "a checkpoint is converted before its shape is looked at",
        "cpunorm/modules/_module.py",
        'if hasattr(value, "shape"):',
        "if False:",
        "tests/test_fuzz.py -k claimed",
    ),
    Fault(
        "a checkpoint is written entry by entry",
        "cpunorm/modules/_module.py",
        "_converted(name, value, own[name])\n            except",
        "_converted(name, value, own[name])\n                own[name][...] = values[name]\n            except",
        "tests/test_fuzz.py -k state_dict",
    ),
    # Short runs
    Fault(
        "a copy of short runs goes to an output that lies otherwise",
        "cpunorm/call/run.pxi",
        'x = dense(x, "K") if y is out or samples is not None else fill(y, x)',
        "x = fill(y, x)",
        "tests/test_layouts.py -k short_runs",
    ),
    Fault(
        "lines of one channel take the coefficients of the next",
        "cpunorm/kernels/rows.pxi",
        "cdef int step = 0 if down else 1",
        "cdef int step = 1",
        "tests/test_layouts.py -k any_layout",
    ),
]

UNSEEN = {
    "a streamed store without its fence": "what is stored around the caches drains long before another thread is awake",
}


def copy_of_tree(folder):
    """The tree as it is, with what was compiled."""
    shutil.copytree(
        ROOT, folder, ignore=shutil.ignore_patterns(".git", "build", "results", "*.png", ".hypothesis", "*_cache")
    )
    levels = folder / "cpunorm" / "_levels.py"
    before = levels.stat()
    levels.write_text(levels.read_text() + f'\nLEVELS = {{"{LEVEL}": LEVELS["{LEVEL}"]}}\n')
    os.utime(levels, ns=(before.st_atime_ns, before.st_mtime_ns))  # or all that was compiled would be built again
    for level in ("_kernels", "_kernels_v4"):
        for library in (folder / "cpunorm").glob(f"{level}.*.so"):
            library.unlink()


def run(command, folder):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CPUNORM_")} | {"PYTHONPATH": str(folder)}
    if shutil.which("ccache"):  # each header is in every module
        environment = {"CC": "ccache cc", "CCACHE_BASEDIR": str(folder)} | environment
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


def test(arguments, folder):
    return run(f"timeout 900 {sys.executable} -P -m pytest -q -x -p no:cacheprovider -m '' {arguments}", folder)


def verdict(fault, folder):
    """What became of a fault, in a tree that is as it was before and after."""
    path = folder / fault.file
    before = path.read_text()
    if before.count(fault.search) == 0:
        return "NOT PLANTED: the text is not there"
    path.write_text(before.replace(fault.search, fault.replace))
    try:
        if path.suffix != ".py":
            built = run(f"{sys.executable} setup.py -q build_ext --inplace", folder)
            if built.returncode:
                return f"NOT BUILT: {built.stderr.strip().splitlines()[-1]}"
        tested = test(fault.tests, folder)
    finally:
        path.write_text(before)
    failed = [line for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    if failed:
        return "caught by " + failed[0].split(" - ")[0].removeprefix("FAILED tests/")
    return {0: "NOT CAUGHT", 124: "caught by a hang"}.get(
        tested.returncode, f"caught: pytest ended with {tested.returncode}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", default="", help="faults in files whose name has this in it")
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--faults-only", action="store_true", help="do not run the tests without a fault first")
    given = parser.parse_args()
    chosen = [fault for fault in FAULTS if given.only in fault.name and given.file in fault.file]
    missed = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "tree")
        copy_of_tree(folder)
        good = run(f"{sys.executable} setup.py -q build_ext --inplace", folder)
        if good.returncode:
            raise SystemExit(good.stderr)
        for arguments in {} if given.faults_only else dict.fromkeys(fault.tests for fault in chosen):
            start = time.monotonic()
            tested = test(arguments, folder)
            if tested.returncode:
                raise SystemExit(f"without a fault, {arguments}:\n{tested.stdout}")
            print(f"{arguments:60} {time.monotonic() - start:4.0f} s  passes without a fault", flush=True)
        for fault in chosen:
            start = time.monotonic()
            result = verdict(fault, folder)
            missed += not result.startswith("caught")
            print(f"{fault.name:60} {time.monotonic() - start:4.0f} s  {result}", flush=True)
            time.sleep(1)  # a file written in the second of the build before is not built again
    for name, why in UNSEEN.items():
        print(f"{name:60}    -    no test can see it: {why}")
    print(f"{len(chosen) - missed} of {len(chosen)} faults caught")
    raise SystemExit(missed > 0)


if __name__ == "__main__":
    main()
