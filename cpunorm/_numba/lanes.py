"""Vectors in Numba, the sister of `kernels/vectors.h`: a type of several values, and what LLVM does with one.

A vector is some registers long, enough sums at once to hide the latency of an addition; LLVM splits it.  Said so, and
not left to its vectoriser, a sum has the same order on every machine of as many lanes, no instruction needs leave to be
reordered (the subtraction of a shift must not be), and y may be x.

Pointers are `types.CPointer`: an index costs nothing, a slice of an array does.
"""

import inspect

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

__all__ = [
    "REGISTERS",
    "STATE",
    "add",
    "address_of",
    "apart",
    "call",
    "exchange",
    "first",
    "fma",
    "free",
    "get_threads",
    "itemsize",
    "lanes",
    "load",
    "load_first",
    "malloc",
    "pointer",
    "prefetch",
    "record_at",
    "set_threads",
    "shifted",
    "stack",
    "state",
    "store",
    "store_first",
    "sub",
    "sum_of",
    "thread_id",
    "vector",
    "widened",
    "zeros",
]

STATE = "cpunorm_numba_state"  # a symbol, for what is cached on disk can know no address
REGISTERS = 256 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 128  # bytes of a vector


class Lanes(types.Type):
    """`count` values of the type `dtype`."""

    def __init__(self, dtype, count):
        self.dtype, self.count = dtype, count
        super().__init__(f"Lanes({dtype}, {count})")


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """An LLVM vector."""

    def __init__(self, dmm, kind):
        super().__init__(dmm, kind, ir.VectorType(dmm.lookup(kind.dtype).get_value_type(), kind.count))


def _count(pointer):
    return REGISTERS // (pointer.dtype.bitwidth // 8)


# Memory


@intrinsic
def pointer(typing_context, address, like):
    """The address as a pointer to values of the type of `like`."""

    def code(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(address, like), code


@intrinsic
def address_of(typing_context, pointer):
    """The address that a pointer, or a record, holds."""

    def code(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], context.get_value_type(types.intp))

    return types.intp(pointer), code


def record_at(dtype):
    """An intrinsic that sees an address as a record of the Numba type `dtype`."""

    def record(typing_context, address):
        def code(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0], context.get_value_type(dtype))

        return dtype(address), code

    return intrinsic(record)


@intrinsic
def shifted(typing_context, pointer, offset):
    """`pointer`, `offset` values on."""

    def code(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.intp), code


@intrinsic(prefer_literal=True)
def stack(typing_context, count, like):
    """A pointer to `count` values of the type of `like`, until the function that calls returns."""
    kind, size = types.unliteral(like), count.literal_value

    def code(context, builder, signature, arguments):
        block = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(kind), size))
        block.align = 64
        return builder.bitcast(block, context.get_value_type(signature.return_type))

    return types.CPointer(kind)(count, like), code


@intrinsic
def itemsize(typing_context, pointer):
    """Bytes of a value."""
    return types.intp(pointer), lambda context, builder, signature, arguments: context.get_constant(
        types.intp, pointer.dtype.bitwidth // 8
    )


@intrinsic
def lanes(typing_context, pointer):
    """How many values of `pointer` make a vector."""
    return types.intp(pointer), lambda context, builder, signature, arguments: context.get_constant(
        types.intp, _count(pointer)
    )


@intrinsic
def prefetch(typing_context, pointer):
    """Fetch a cache line, there or past the end."""

    def code(context, builder, signature, arguments):
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [arguments[0].type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", (arguments[0].type,), kind)
        builder.call(function, [arguments[0], flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(pointer), code


# What the compiled code calls, and is told, from outside


@intrinsic
def apart(typing_context):
    """Keep the function that calls this out of its callers: LLVM takes a minute for all of them in one."""

    def code(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def call(typing_context, function, *arguments):
    """Call the C function at the address `function`, so that it need not be compiled into its caller."""

    def code(context, builder, signature, arguments):
        function, arguments = arguments[0], cgutils.unpack_tuple(builder, arguments[1])
        kind = ir.FunctionType(ir.IntType(32), [argument.type for argument in arguments])
        return builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)

    return types.int32(types.intp, types.StarArgTuple.from_types([types.unliteral(kind) for kind in arguments])), code


def outside(name, result, *parameters):
    """An intrinsic that calls the C function of that name, without the GIL."""

    def call(typing_context, *arguments):
        def code(context, builder, signature, arguments):
            kinds = [context.get_value_type(kind) for kind in (result, *parameters)]
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kinds[0], kinds[1:]), name)
            return builder.call(function, arguments)

        return result(*parameters), code

    call.__signature__ = inspect.Signature(
        [inspect.Parameter(f"p{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(1 + len(parameters))]
    )
    return intrinsic(call)


malloc, free = outside("malloc", types.intp, types.intp), outside("free", types.void, types.intp)
thread_id = outside("get_thread_id", types.intp)  # these three are Numba's
get_threads, set_threads = outside("get_num_threads", types.intp), outside("set_num_threads", types.void, types.intp)


@intrinsic
def state(typing_context):
    """The address of the memory that the symbol STATE stands for."""

    def code(context, builder, signature, arguments):
        memory = cgutils.add_global_variable(builder.module, ir.IntType(64), STATE)
        memory.linkage = "external"
        return builder.ptrtoint(memory, context.get_value_type(types.intp))

    return types.intp(), code


@intrinsic
def exchange(typing_context, pointer, index, before, after):
    """Write `after` if there is `before`, at once; whether it was."""

    def code(context, builder, signature, arguments):
        pointer, index, before, after = arguments
        done = builder.cmpxchg(builder.gep(pointer, [index]), before, after, "seq_cst", "seq_cst")
        return builder.extract_value(done, 1)

    return types.boolean(pointer, types.intp, types.intp, types.intp), code


# Vectors


def _cast(builder, value, to):
    """Lanes as those of another type of value."""
    if value.type == to:
        return value
    wider = isinstance(to.element, ir.DoubleType)
    return builder.fpext(value, to) if wider else builder.fptrunc(value, to)


def _suffix(kind):
    """What LLVM calls a type of vector."""
    return f"v{kind.count}f{64 if isinstance(kind.element, ir.DoubleType) else 32}"


def _in_memory(context, builder, pointer, kind, index, value):
    """The type of a vector of `kind` in the memory of a pointer, and its address there."""
    vector = ir.VectorType(context.get_value_type(pointer.dtype), kind.count)
    return vector, builder.bitcast(builder.gep(value, [index]), vector.as_pointer())


def _mask(builder, count, number):
    """True in the first `number` of `count` lanes."""
    flag = ir.IntType(32)
    vector = ir.VectorType(flag, count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), builder.trunc(number, flag), flag(0))
    number = builder.shuffle_vector(one, one, ir.Constant(vector, [0] * count))
    return builder.icmp_signed("<", ir.Constant(vector, list(range(count))), number)


def _masked(builder, name, address, vector, result, arguments):
    """Call one of LLVM's two intrinsics for memory under a mask."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    name = f"llvm.masked.{name}.{_suffix(vector)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


@intrinsic
def vector(typing_context, pointer, value):
    """`value` in each lane; as many lanes as `pointer` has values in a vector."""
    kind = Lanes(value, _count(pointer))

    def code(context, builder, signature, arguments):
        empty = ir.Constant(context.get_value_type(kind), ir.Undefined)
        one = builder.insert_element(empty, arguments[1], ir.IntType(32)(0))
        return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count))

    return kind(pointer, value), code


@intrinsic
def zeros(typing_context, pointer, value):
    """`vector` of 0, of the type of `value`."""
    kind = Lanes(value, _count(pointer))
    return kind(pointer, value), lambda context, builder, signature, arguments: ir.Constant(
        context.get_value_type(kind), None
    )


@intrinsic
def load(typing_context, pointer, index, like):
    """A vector of the type of `like` from `index` on."""

    def code(context, builder, signature, arguments):
        kind, address = _in_memory(context, builder, pointer, like, arguments[1], arguments[0])
        return _cast(builder, builder.load(address, align=pointer.dtype.bitwidth // 8), arguments[2].type)

    return like(pointer, types.intp, like), code


@intrinsic
def load_first(typing_context, pointer, index, number, like):
    """`load` of the first `number` lanes, 0 in the others; nothing past them is read."""

    def code(context, builder, signature, arguments):
        kind, address = _in_memory(context, builder, pointer, like, arguments[1], arguments[0])
        mask = _mask(builder, like.count, arguments[2])
        zero, align = ir.Constant(kind, None), ir.IntType(32)(pointer.dtype.bitwidth // 8)
        value = _masked(builder, "load", address, kind, kind, [address, align, mask, zero])
        return _cast(builder, value, arguments[3].type)

    return like(pointer, types.intp, types.intp, like), code


@intrinsic
def store(typing_context, pointer, index, value):
    """Write a vector from `index` on."""

    def code(context, builder, signature, arguments):
        kind, address = _in_memory(context, builder, pointer, value, arguments[1], arguments[0])
        builder.store(_cast(builder, arguments[2], kind), address, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), code


@intrinsic
def store_first(typing_context, pointer, index, number, value):
    """`store` of the first `number` lanes."""

    def code(context, builder, signature, arguments):
        kind, address = _in_memory(context, builder, pointer, value, arguments[1], arguments[0])
        mask, align = _mask(builder, value.count, arguments[2]), ir.IntType(32)(pointer.dtype.bitwidth // 8)
        stored = [_cast(builder, arguments[3], kind), address, align, mask]
        _masked(builder, "store", address, kind, ir.VoidType(), stored)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), code


@intrinsic
def first(typing_context, value, number):
    """The first `number` lanes, 0 in the others."""

    def code(context, builder, signature, arguments):
        mask = _mask(builder, value.count, arguments[1])
        return builder.select(mask, arguments[0], ir.Constant(arguments[0].type, None))

    return value(value, types.intp), code


@intrinsic
def add(typing_context, a, b):
    """a + b."""
    return a(a, a), lambda context, builder, signature, arguments: builder.fadd(*arguments)


@intrinsic
def sub(typing_context, a, b):
    """a - b."""
    return a(a, a), lambda context, builder, signature, arguments: builder.fsub(*arguments)


@intrinsic
def fma(typing_context, a, b, c):
    """a * b + c, with one rounding where the machine can."""

    def code(context, builder, signature, arguments):
        kind = arguments[0].type
        function = ir.FunctionType(kind, [kind] * 3)
        name = f"llvm.fmuladd.{_suffix(kind)}"
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)

    return a(a, a, a), code


@intrinsic
def widened(typing_context, value):
    """The same values as float64."""
    kind = Lanes(types.float64, value.count)
    return kind(value), lambda context, builder, signature, arguments: _cast(
        builder, arguments[0], context.get_value_type(kind)
    )


@intrinsic
def sum_of(typing_context, value):
    """The sum of all lanes: halves are added until eight are left, those in float64."""

    def code(context, builder, signature, arguments):
        (lanes,), count, flag = arguments, value.count, ir.IntType(32)
        while count > 1:
            if count == 8:
                lanes = _cast(builder, lanes, ir.VectorType(ir.DoubleType(), count))
            count //= 2
            low, high = (
                builder.shuffle_vector(
                    lanes, lanes, ir.Constant(ir.VectorType(flag, count), list(range(start, start + count)))
                )
                for start in (0, count)
            )
            lanes = builder.fadd(low, high)
        return builder.extract_element(lanes, flag(0))

    return types.float64(value), code
