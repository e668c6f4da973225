"""How a norm is seen and cut, as a record.

This depends on lengths and on the order of axes in memory alone, and so do the bits of a result:

    rows     the values of a domain follow each other: vectors run along them
    columns  neighbouring channels, with the positions inside them, are columns of lines: each lane is one column
    short    domains of few values: LANES of them are transposed into L1, and are columns there

A step is all of some domains; or there are three phases: the moments of parts, the coefficients, and y.
"""

import numpy as np
from numba.np.numpy_support import from_dtype

from cpunorm._numba.lanes import REGISTERS, inlined, jit, record_at

__all__ = [
    "ABOUT_ZERO",
    "APPLY",
    "BLOCK",
    "CHAIN",
    "FINISH",
    "FUNCTION",
    "GIVEN",
    "KINDS",
    "LARGEST",
    "MOMENTS",
    "NORM_WORDS",
    "PHASES",
    "PLAN_WORDS",
    "ROWS",
    "SPREAD",
    "TALL",
    "WHOLE",
    "apply_lines",
    "domain_at",
    "make_plan",
    "norm_at",
    "plan_at",
    "steps_of",
]

INT, CINT, DOUBLE = np.intp, np.int32, np.float64
GIVEN, ABOUT_ZERO = 1, 2  # of `Statistic`
FUNCTION = 11  # of `Activation`
OPERAND = np.dtype([(name, INT) for name in ("data", "sample", "outer", "middle", "channel", "inner")], align=True)
NORM = np.dtype(  # the fields of `cpunorm.h`
    [(name, INT) for name in ("samples", "outer", "middle", "channels", "inner")]
    + [("x", OPERAND), ("y", OPERAND), ("element", CINT), ("statistic", CINT), ("groups", INT), ("along", CINT)]
    + [("weight", INT), ("bias", INT), ("parameter_element", CINT), ("residual", INT), ("activation", CINT)]
    + [(name, INT) for name in ("function", "addend", "total", "mean", "var")]
    + [("eps", DOUBLE)],
    align=True,
)
AXES = np.dtype([(name, INT, 4) for name in ("n", "x", "y")])  # lengths and strides, outermost first
ROWS, COLUMNS, SHORT = range(3)  # kinds
KINDS, PHASES = 3, 5
SPREAD, WHOLE, MOMENTS, FINISH, APPLY = range(5)  # phases
PLAN = np.dtype(
    [
        ("norm", NORM),
        ("values", AXES),  # a domain as a sequence of values
        ("lines", AXES),  # the same, axes of channels and of positions not merged; in columns, the lines of a sample
        ("columns", AXES),  # of a line
        ("kind", INT),
        ("channel_axis", INT),  # of `lines`; -1 if a domain has one channel
        ("step", INT),  # from the weights of one channel to the next
        ("member", INT),  # channels of a domain
        ("inside", INT),  # positions inside a channel
        ("domains", INT),
        ("size", INT),  # values of a domain; in columns, lines of a sample
        ("wide", INT),  # columns of a line,
        ("fold", INT),  # of which so many are seen as one
        ("part", INT),  # values (lines) of a part
        ("parts", INT),  # of a domain (sample)
        ("chunk", INT),  # domains (columns) that are done at once
        ("chunks", INT),
        ("simple", INT),  # dense rows: `simple_rows` of one block, `given_rows`
        ("whole", INT),  # moments, then y, of a chunk; otherwise all moments, then all of y
        ("spread", INT),  # values of a longer weight and bias,
        ("repeated", INT),  # each so many times
        ("weight", INT),  # addresses
        ("bias", INT),
        ("summand", INT),  # the address of what the addend is added to; x is the total then
        ("finish", INT),  # whether y goes through `write`
        ("residual", INT),  # values from y to the residual
        ("bytes", INT),  # of the scratch
        ("scratch", INT),  # the address of float64 mean and M2 of each part (and column)
        ("slot", INT),  # bytes of the scratch of a thread, if `whole`, else of a domain (sample)
        ("dense_x", INT),  # whether values (columns) follow each other, and lines lie evenly
        ("dense_y", INT),
        ("tiny", DOUBLE),  # a mean square below this has lost its digits
    ],
    align=True,
)
NORM_WORDS, PLAN_WORDS = NORM.itemsize // 8, PLAN.itemsize // 8
CHAIN = 8  # values that a lane adds up before its sum is added to others
BLOCK = 4 * CHAIN  # vectors of a block, whose sum is added to others in float64
TALL = 64  # lines of a block of columns
PART = 32768  # values of a part
TOGETHER = 4096  # values of the rows that are done at once, so that the latencies of their ends overlap
NARROW = 32  # positions below which channels and the positions inside them are columns
FEW = 20  # values of a short domain
FEW_CHANNELS = 3  # of samples of so few positions: each channel of each sample is a short domain, however it lies
FOLDED = 512  # columns of a line, if lines of few columns can be seen as one
PAGE = 4096  # bytes
TILE = 16384  # values of a step of the apply
TINY, LARGEST = 1e-36, float(np.finfo(np.float32).max)  # of a mean square and a sum that kept their digits
norm_at, plan_at = record_at(from_dtype(NORM)), record_at(from_dtype(PLAN))


@inlined
def set_axis(axes, at, n, x, y):
    """Axis `at` of `axes`."""
    axes.n[at], axes.x[at], axes.y[at] = n, x, y


@jit
def merged(axes, apart):
    """Merge neighbours that lie evenly, but for the axis `apart`; returns where that is now, or -1."""
    to, place = 3, 3 if apart == 3 and axes.n[3] > 1 else -1
    for a in range(2, -1, -1):
        n, x, y = axes.n[a], axes.x[a], axes.y[a]
        even = x == axes.n[to] * axes.x[to] and y == axes.n[to] * axes.y[to] and to != place and a != apart
        if n == 1:
            continue
        if axes.n[to] == 1:
            set_axis(axes, to, n, x, y)
        elif even:
            axes.n[to] *= n
        else:
            to -= 1
            set_axis(axes, to, n, x, y)
        if a == apart:
            place = to
    for a in range(to):
        set_axis(axes, a, 1, 0, 0)
    return place


@inlined
def even(n, strides, gap):
    """Whether all axes are one, of the stride `gap`."""
    return n[0] == n[1] == n[2] == 1 and (strides[3] == gap or n[3] == 1)


@inlined
def domain_at(plan, operand, d):
    """Where the domain d starts."""
    groups, step = plan.norm.groups, plan.member * operand.channel
    return d * step if plan.norm.samples == 1 else d // groups * operand.sample + d % groups * step


@inlined
def is_inside(norm, n, stride):
    """Whether an axis of positions lies inside the channels in memory."""
    return n == 1 or norm.channels == 1 or abs(stride) < abs(norm.x.channel)


@jit
def make_plan(plan, threads):
    """Fill in `plan`, all but the norm and what is in its scratch."""
    norm, vector = plan.norm, REGISTERS // (8 if plan.norm.element else 4)
    outer, middle, inner = (
        is_inside(norm, norm.outer, norm.x.outer),
        is_inside(norm, norm.middle, norm.x.middle),
        is_inside(norm, norm.inner, norm.x.inner),
    )
    positions = norm.outer * norm.middle * norm.inner
    inside = (norm.outer if outer else 1) * (norm.middle if middle else 1) * (norm.inner if inner else 1)
    plan.member, plan.step, plan.repeated = norm.channels // norm.groups, 0, 1
    short = inside == positions < NARROW and (plan.member == 1 or norm.outer == 1)
    scattered = positions <= FEW and plan.member == 1 and 1 < norm.channels <= FEW_CHANNELS and norm.samples > 1
    if (short or scattered) and norm.statistic != GIVEN and not norm.along:
        # Short lines of the channels of a group make one: these are an axis of positions, weight and bias run along.
        plan.repeated, norm.along, norm.channels = positions, 1, norm.groups
        if plan.member > 1:
            norm.outer, norm.x.outer, norm.y.outer = plan.member, norm.x.channel, norm.y.channel
            norm.x.channel, norm.y.channel = norm.x.channel * plan.member, norm.y.channel * plan.member
        plan.step = positions = inside = plan.member * positions
        plan.member, outer, middle, inner = 1, True, True, True
    plan.spread = 0
    if norm.along and (norm.weight or norm.bias) and (plan.repeated > 1 or not (norm.weight and norm.bias)):
        plan.spread = plan.step * norm.groups if plan.step else positions
    plan.inside, plan.domains = inside, norm.samples * norm.groups
    if norm.along:
        plan.kind = SHORT if inside == positions <= FEW else COLUMNS if inside == 1 < positions else ROWS
        if plan.kind != COLUMNS:
            outer = middle = inner = True  # in the order of the weights, whatever it is in memory
    else:
        plan.kind = COLUMNS if inside < NARROW and norm.channels > 1 else ROWS
    if norm.statistic == GIVEN and plan.kind == ROWS and norm.samples == 1 and not outer:
        # in the order of memory
        norm.samples, norm.x.sample, norm.y.sample, norm.outer = norm.outer, norm.x.outer, norm.y.outer, 1
        positions //= norm.samples
        plan.domains *= norm.samples
    plan.tiny = TINY if norm.eps < TINY else 0.0
    plan.finish = norm.residual or norm.activation
    plan.residual = (norm.residual - norm.y.data) // (8 if norm.element else 4)
    # The axes outside the channels, the channels, the axes inside.
    lines, values, at, channel = plan.lines, plan.values, 0, 0
    for side in range(2):
        if outer == (side == 1):
            set_axis(lines, at, norm.outer, norm.x.outer, norm.y.outer)
            at += 1
        if middle == (side == 1):
            set_axis(lines, at, norm.middle, norm.x.middle, norm.y.middle)
            at += 1
        if inner == (side == 1):
            set_axis(lines, at, norm.inner, norm.x.inner, norm.y.inner)
            at += 1
        if side == 0:
            channel = at
            set_axis(lines, at, plan.member, norm.x.channel, norm.y.channel)
            at += 1
    columns = plan.columns
    for a in range(4):
        set_axis(values, a, lines.n[a], lines.x[a], lines.y[a])
        set_axis(columns, a, lines.n[a] if a > channel else 1, lines.x[a], lines.y[a])
    if plan.kind == COLUMNS:
        set_axis(columns, channel, norm.channels, norm.x.channel, norm.y.channel)
        for a in range(channel, 4):
            set_axis(lines, a, 1, 0, 0)
        merged(columns, -1)
        merged(lines, -1)
        plan.wide, plan.size = norm.channels * inside, positions // inside
        plan_columns(plan, threads, 8 if norm.element else 4)
        return
    merged(values, -1)
    plan.channel_axis = merged(lines, channel if plan.member > 1 else -1)
    plan.dense_x, plan.dense_y = even(values.n, values.x, 1), even(values.n, values.y, 1)
    plan.size, plan.part = positions * plan.member, PART
    plan.parts = (plan.size + PART - 1) // PART
    plan.chunk = max(1, TOGETHER // plan.size)
    if plan.kind == SHORT:
        plan.chunk = (plan.chunk + vector - 1) // vector * vector
    plan.whole = threads == 1 or plan.parts == 1 or plan.domains >= 4 * threads
    dense = plan.dense_x and plan.dense_y
    plain = norm.along or not (norm.weight or norm.bias)
    given = norm.statistic == GIVEN and plan.parts == 1 and not plan.finish
    one_block = norm.statistic != GIVEN and plain and plan.size <= BLOCK * vector
    plan.simple = dense and norm.y.data and (given or one_block)
    make_room(plan, 16 * plan.parts, threads, plan.domains)


@inlined
def make_room(plan, size, threads, units):
    """Scratch of `size` bytes for each unit, or for each thread: no two share a page, all of which hardware fetches."""
    plan.slot = size + PAGE if plan.whole else size
    plan.bytes = plan.slot * (threads if plan.whole else units)


@inlined
def pitch_of(plan, columns, lines):
    """The distance of lines that lie evenly and whose columns follow each other; 0 for others."""
    if not (even(plan.columns.n, columns, 1) and even(plan.lines.n, lines, lines[3])):
        return 0
    pitch = lines[3] if plan.size > 1 else plan.wide
    return pitch * plan.fold if plan.fold == 1 or pitch == plan.wide else 0


@jit
def plan_columns(plan, threads, size):
    """How lines are cut."""
    norm = plan.norm
    plan.fold = 1
    while not norm.along and 2 * plan.fold * plan.wide <= FOLDED and 2 * plan.fold <= plan.size:
        plan.fold *= 2
    plan.dense_x, plan.dense_y = (
        pitch_of(plan, plan.columns.x, plan.lines.x),
        pitch_of(plan, plan.columns.y, plan.lines.y),
    )
    columns, lines, group = plan.wide * plan.fold, plan.size // plan.fold, plan.member * plan.inside
    # Columns that are rows are cut by their lengths alone: their number may not show in the bits of one.
    plan.part = 8 * TALL if norm.along else max(TALL, 2 * PART // columns // TALL * TALL)
    plan.parts = 1 if norm.statistic == GIVEN else (lines + plan.part - 1) // plan.part
    plan.chunk = columns if plan.fold > 1 else min(columns, (FOLDED + group - 1) // group * group)
    plan.chunks = (columns + plan.chunk - 1) // plan.chunk
    plan.whole = threads == 1 or norm.samples * plan.chunks >= 4 * threads
    if not plan.whole:
        plan.chunk, plan.chunks = columns, 1
    make_room(plan, plan.chunk * (16 * plan.parts + 3 * size) + 7 & -8, threads, norm.samples)


@inlined
def apply_lines(plan):
    """Lines of a step of the apply."""
    return max(1, TILE // (plan.wide * plan.fold))


@jit
def steps_of(plan, phase):
    """How many steps a phase has; 0 if it is left out."""
    columns, samples = plan.kind == COLUMNS, plan.norm.samples
    if phase == SPREAD:
        return min(plan.spread, 1)
    if (phase == WHOLE) != (plan.whole != 0):
        return 0
    if phase == WHOLE:
        return samples * plan.chunks if columns else (plan.domains + plan.chunk - 1) // plan.chunk
    if phase == FINISH:
        return samples if columns else plan.domains
    if (phase == MOMENTS and plan.norm.statistic == GIVEN) or (phase == APPLY and not plan.norm.y.data):
        return 0
    if phase == APPLY and columns:
        tall = apply_lines(plan)
        return samples * ((plan.size // plan.fold + tall - 1) // tall)
    return (samples if columns else plan.domains) * plan.parts
