"""Vectors in Numba, the sister of `kernels/vectors.h`: a type of several values, and what LLVM does with one.

A vector is some registers long, enough sums at once to hide the latency of an addition; LLVM splits it.  Said so, and
not left to its vectoriser, a sum has the same order on every machine of as many lanes, no instruction needs leave to be
reordered (the subtraction of a shift must not be), and y may be x.

Pointers are `types.CPointer`: an index costs nothing, a slice of an array does.
"""

import functools
import inspect
from types import SimpleNamespace

import llvmlite.binding
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

__all__ = ["REGISTERS", "STATE"]  # and the functions below, which only compiled code can call

STATE = "cpunorm_numba_state"  # a symbol, for what is cached on disk can know no address
REGISTERS = 256 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 128  # bytes of a vector
INT32 = ir.IntType(32)

# Not called by Python.  What is not `inlined` says so, for Numba passes that on from a function to those that it calls.
OPTIONS = {"nogil": True, "error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
jit, inlined = (functools.partial(numba.njit, **OPTIONS, forceinline=forced) for forced in (False, True))


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


def emitted(result):
    """Make an intrinsic: `result` gives its type, from those of its arguments; the function below writes its code.

    That is given the LLVM builder, types (`kinds`, of the result `to`), and values of the arguments.
    """

    def decorator(write):
        def typed(typing_context, *kinds):
            kinds = [types.unliteral(kind) for kind in kinds]
            to = result(*kinds)

            def code(context, builder, signature, values):
                llvm = SimpleNamespace(
                    builder=builder, kinds=kinds, to=context.get_value_type(to), type=context.get_value_type
                )
                value = write(llvm, *values)
                return context.get_dummy_value() if to == types.void else value

            return to(*kinds), code

        typed.__signature__ = inspect.signature(write)
        typed.__doc__ = write.__doc__
        return intrinsic(typed)

    return decorator


# Memory


@emitted(lambda address, like: types.CPointer(like))
def pointer(llvm, address, like):
    """The address as a pointer to values of the type of `like`."""
    return llvm.builder.inttoptr(address, llvm.to)


def record_at(dtype):
    """What sees an address as a record of the Numba type `dtype`."""
    return emitted(lambda address: dtype)(lambda llvm, address: llvm.builder.inttoptr(address, llvm.to))


@emitted(lambda pointer: types.intp)
def address_of(llvm, pointer):
    """The address that a pointer, or a record, holds."""
    return llvm.builder.ptrtoint(pointer, llvm.to)


@emitted(lambda pointer, offset: pointer)
def shifted(llvm, pointer, offset):
    """`pointer`, `offset` values on."""
    return llvm.builder.gep(pointer, [offset])


@intrinsic(prefer_literal=True)
def stack(typing_context, count, like):
    """A pointer to `count` values of the type of `like`, until the function that calls returns."""
    kind, size = types.unliteral(like), count.literal_value

    def code(context, builder, signature, arguments):
        block = cgutils.alloca_once(builder, ir.ArrayType(context.get_data_type(kind), size))
        block.align = 64
        return builder.bitcast(block, context.get_value_type(signature.return_type))

    return types.CPointer(kind)(count, like), code


@emitted(lambda pointer: types.intp)
def itemsize(llvm, pointer):
    """Bytes of a value."""
    return llvm.to(_bytes(llvm.kinds[0]))


@emitted(lambda pointer: types.intp)
def lanes(llvm, pointer):
    """How many values of `pointer` make a vector."""
    return llvm.to(REGISTERS // _bytes(llvm.kinds[0]))


@emitted(lambda pointer, index, before, after: types.boolean)
def exchange(llvm, pointer, index, before, after):
    """Write `after` if there is `before`, at once; whether it was."""
    done = llvm.builder.cmpxchg(llvm.builder.gep(pointer, [index]), before, after, "seq_cst", "seq_cst")
    return llvm.builder.extract_value(done, 1)


# What is not in the code of its caller


@intrinsic
def apart(typing_context):
    """Keep the function that calls this out of its callers: LLVM takes a minute for all of them in one."""

    def code(context, builder, signature, arguments):
        builder.function.attributes.add("noinline")
        return context.get_dummy_value()

    return types.void(), code


@emitted(lambda: types.intp)
def state(llvm):
    """The address of the memory that the symbol STATE stands for."""
    memory = cgutils.add_global_variable(llvm.builder.module, ir.IntType(64), STATE)
    memory.linkage = "external"
    return llvm.builder.ptrtoint(memory, llvm.to)


@intrinsic
def call(typing_context, function, *arguments):
    """Call the C function at the address `function`, which returns an int, or nothing if that is not asked for."""

    def code(context, builder, signature, arguments):
        function, arguments = arguments[0], cgutils.unpack_tuple(builder, arguments[1])
        kind = ir.FunctionType(INT32, [argument.type for argument in arguments])
        return builder.call(builder.inttoptr(function, kind.as_pointer()), arguments)

    return types.int32(types.intp, types.StarArgTuple.from_types([types.unliteral(kind) for kind in arguments])), code


def _function(llvm, name, result, *values):
    """Call the C function, or intrinsic of LLVM, of that name."""
    kind = ir.FunctionType(result, [value.type for value in values])
    return llvm.builder.call(cgutils.get_or_insert_function(llvm.builder.module, kind, name), values)


def outside(name, result, *parameters):
    """What calls the C function of that name."""

    def typed(typing_context, *arguments):
        def code(context, builder, signature, values):
            llvm = SimpleNamespace(builder=builder)
            return _function(llvm, name, context.get_value_type(result), *values)

        return result(*parameters), code

    each = [inspect.Parameter(f"p{i}", inspect.Parameter.POSITIONAL_ONLY) for i in range(1 + len(parameters))]
    typed.__signature__ = inspect.Signature(each)
    return intrinsic(typed)


malloc, free = outside("malloc", types.intp, types.intp), outside("free", types.void, types.intp)
thread_id = outside("get_thread_id", types.intp)  # these three are Numba's
get_threads, set_threads = outside("get_num_threads", types.intp), outside("set_num_threads", types.void, types.intp)


# Vectors


def _bytes(pointer):
    return pointer.dtype.bitwidth // 8


def _of(pointer, value):
    """The type of a vector of as many values as `pointer` has in one."""
    return Lanes(value, REGISTERS // _bytes(pointer))


def _cast(llvm, value, to):
    """Lanes as those of another type of value."""
    if value.type == to:
        return value
    wider = isinstance(to.element, ir.DoubleType)
    return llvm.builder.fpext(value, to) if wider else llvm.builder.fptrunc(value, to)


def _suffix(kind):
    """What LLVM calls a type of vector."""
    return f"v{kind.count}f{64 if isinstance(kind.element, ir.DoubleType) else 32}"


def _indices(values):
    values = list(values)
    return ir.Constant(ir.VectorType(INT32, len(values)), values)


def _splat(llvm, value, count):
    one = llvm.builder.insert_element(ir.Constant(ir.VectorType(value.type, count), ir.Undefined), value, INT32(0))
    return llvm.builder.shuffle_vector(one, one, _indices([0] * count))


def _mask(llvm, count, number):
    """True in the first `number` of `count` lanes."""
    return llvm.builder.icmp_signed("<", _indices(range(count)), _splat(llvm, llvm.builder.trunc(number, INT32), count))


def _in_memory(llvm, count, pointer, index):
    """The address of a vector behind a pointer, its type there, and its alignment."""
    kind = ir.VectorType(llvm.type(llvm.kinds[0].dtype), count)
    return llvm.builder.bitcast(llvm.builder.gep(pointer, [index]), kind.as_pointer()), kind, _bytes(llvm.kinds[0])


@emitted(_of)
def vector(llvm, pointer, value):
    """`value` in each lane; as many lanes as `pointer` has values in a vector."""
    return _splat(llvm, value, llvm.to.count)


@emitted(_of)
def zeros(llvm, pointer, value):
    """`vector` of 0, of the type of `value`."""
    return ir.Constant(llvm.to, None)


@emitted(lambda pointer, index, like: like)
def load(llvm, pointer, index, like):
    """A vector of the type of `like` from `index` on."""
    address, _, align = _in_memory(llvm, like.type.count, pointer, index)
    return _cast(llvm, llvm.builder.load(address, align=align), like.type)


@emitted(lambda pointer, index, number, like: like)
def load_first(llvm, pointer, index, number, like):
    """`load` of the first `number` lanes, 0 in the others; nothing past them is read."""
    address, kind, align = _in_memory(llvm, like.type.count, pointer, index)
    values = address, INT32(align), _mask(llvm, kind.count, number), ir.Constant(kind, None)
    return _cast(llvm, _function(llvm, f"llvm.masked.load.{_suffix(kind)}.p0", kind, *values), like.type)


@emitted(lambda pointer, index, value: types.void)
def store(llvm, pointer, index, value):
    """Write a vector from `index` on."""
    address, kind, align = _in_memory(llvm, value.type.count, pointer, index)
    llvm.builder.store(_cast(llvm, value, kind), address, align=align)


@emitted(lambda pointer, index, number, value: types.void)
def store_first(llvm, pointer, index, number, value):
    """`store` of the first `number` lanes."""
    address, kind, align = _in_memory(llvm, value.type.count, pointer, index)
    values = _cast(llvm, value, kind), address, INT32(align), _mask(llvm, kind.count, number)
    _function(llvm, f"llvm.masked.store.{_suffix(kind)}.p0", ir.VoidType(), *values)


@emitted(lambda value, number: value)
def first(llvm, value, number):
    """The first `number` lanes, 0 in the others."""
    return llvm.builder.select(_mask(llvm, llvm.to.count, number), value, ir.Constant(llvm.to, None))


@emitted(lambda a, b: a)
def add(llvm, a, b):
    """a + b."""
    return llvm.builder.fadd(a, b)


@emitted(lambda a, b: a)
def sub(llvm, a, b):
    """a - b."""
    return llvm.builder.fsub(a, b)


@emitted(lambda a, b: a)
def lesser(llvm, a, b):
    """a where it is less, else b."""
    return llvm.builder.select(llvm.builder.fcmp_ordered("<", a, b), a, b)


@emitted(lambda a, b: a)
def greater(llvm, a, b):
    """a where it is greater, else b."""
    return llvm.builder.select(llvm.builder.fcmp_ordered(">", a, b), a, b)


@emitted(lambda a, b, c: a)
def fma(llvm, a, b, c):
    """a * b + c, with one rounding where the machine can."""
    return _function(llvm, f"llvm.fmuladd.{_suffix(a.type)}", a.type, a, b, c)


@emitted(lambda value: Lanes(types.float64, value.count))
def widened(llvm, value):
    """The same values as float64."""
    return _cast(llvm, value, llvm.to)


@emitted(lambda value: types.float64)
def sum_of(llvm, value):
    """The sum of all lanes: halves are added until eight are left, those in float64."""
    count = value.type.count
    while count > 1:
        if count == 8:
            value = _cast(llvm, value, ir.VectorType(llvm.to, 8))
        count //= 2
        halves = (llvm.builder.shuffle_vector(value, value, _indices(range(at, at + count))) for at in (0, count))
        value = llvm.builder.fadd(*halves)
    return llvm.builder.extract_element(value, INT32(0))


@inlined
def load_some(p, i, n, like):
    """The first n lanes of a vector, which may be all."""
    return load(p, i, like) if n >= lanes(p) else load_first(p, i, n, like)


@inlined
def store_some(p, i, n, value):
    """Write the first n lanes, which may be all."""
    store(p, i, value) if n >= lanes(p) else store_first(p, i, n, value)
