"""Reductions and copies over vectors, and what a thread needs: denormals, counters that others see, a breath.

Arrays are given with an offset in elements, as flat memory.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils

from bptt.engine.compiled.emit import BYTES, I32, I64, POSIX, X86, Code, intrinsic


@intrinsic
def dot(typing, a, ai, b, bi, n):
    """Σ a[ai + j] b[bi + j] over j < n."""
    signature = a.dtype(a, types.intp, b, types.intp, types.intp)

    def emit(context, builder, signature, args):
        a, ai, b, bi, n = args
        code, kinds = Code(context, builder, signature.args[0].dtype), signature.args
        a, b = code.at(kinds[0], a, ai), code.at(kinds[2], b, bi)
        whole = 4 * code.lanes
        many = builder.mul(builder.sdiv(n, code.const(whole)), code.const(whole))

        def step(k, sums):
            at = code.bytes(k)
            x, y = builder.add(a, at), builder.add(b, at)
            return [code.fma(code.load(x, i * BYTES), code.load(y, i * BYTES), s) for i, s in enumerate(sums)]

        sums = code.loop(many, [code.zero()] * 4, step, whole)

        def rest(k, total):
            at = code.bytes(builder.add(many, k))
            return [code.fma(code.one(builder.add(a, at)), code.one(builder.add(b, at)), total[0])]

        tail = code.loop(builder.sub(n, many), [code.zero(code.scalar)], rest)
        return builder.fadd(code.added(sums), tail[0])

    return signature, emit


@intrinsic
def largest(typing, a, ai, n):
    """max |a[ai + j]| over j < n."""
    signature = a.dtype(a, types.intp, types.intp)

    def emit(context, builder, signature, args):
        a, ai, n = args
        code = Code(context, builder, signature.args[0].dtype)
        a = code.at(signature.args[0], a, ai)
        many = builder.mul(builder.sdiv(n, code.const(code.lanes)), code.const(code.lanes))

        def step(k, found):
            value = code.call("fabs", code.vector, code.load(builder.add(a, code.bytes(k))))
            return [builder.select(builder.fcmp_ordered(">", value, found[0]), value, found[0])]

        lanes = code.lanes_of(code.loop(many, [code.zero()], step, code.lanes)[0])
        top = lanes[0]
        for lane in lanes[1:]:
            top = builder.select(builder.fcmp_ordered(">", lane, top), lane, top)

        def rest(k, found):
            value = code.one(builder.add(a, code.bytes(builder.add(many, k))))
            value = code.call("fabs", code.scalar, value)
            return [builder.select(builder.fcmp_ordered(">", value, found[0]), value, found[0])]

        return code.loop(builder.sub(n, many), [top], rest)[0]

    return signature, emit


@intrinsic
def copy_panel(typing, a, ai, lda, rows, out, oi, total, ti):
    """`rows` rows of one panel's width, lda apart, copied one behind the other; their sum is put into total."""
    n = types.intp
    signature = types.void(a, n, n, n, out, n, total, n)

    def emit(context, builder, signature, args):
        a, ai, lda, rows, out, oi, total, ti = args
        code, kinds = Code(context, builder, signature.args[0].dtype), signature.args
        a, out, across = code.at(kinds[0], a, ai), code.at(kinds[4], out, oi), code.bytes(lda)

        def step(k, sums):
            here = builder.add(a, builder.mul(k, across))
            there = builder.add(out, builder.mul(k, code.const(2 * BYTES)))
            values = [code.load(here), code.load(here, BYTES)]
            for j, value in enumerate(values):
                code.store(value, there, j * BYTES)
            return [builder.fadd(s, value) for s, value in zip(sums, values, strict=True)]

        place = code.at(kinds[6], total, ti)
        for j, value in enumerate(code.loop(rows, [code.zero()] * 2, step)):
            code.store(value, place, j * BYTES)
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def copy_eights(typing, a, ai, lda, rows, out, oi):
    """`rows` times 8 elements, lda apart, copied one behind the other."""
    n = types.intp
    signature = types.void(a, n, n, n, out, n)

    def emit(context, builder, signature, args):
        a, ai, lda, rows, out, oi = args
        code, kinds = Code(context, builder, signature.args[0].dtype), signature.args
        eight = ir.VectorType(code.scalar, 8).as_pointer()
        a, out, across = code.at(kinds[0], a, ai), code.at(kinds[4], out, oi), code.bytes(lda)

        def step(k, values):
            here = builder.add(a, builder.mul(k, across))
            there = builder.add(out, builder.mul(k, code.const(8 * code.size)))
            value = builder.load(builder.inttoptr(here, eight), align=code.size)
            builder.store(value, builder.inttoptr(there, eight), align=code.size)
            return values

        code.loop(rows, [], step)
        return context.get_dummy_value()

    return signature, emit


_FLUSH = 0x8040  # of MXCSR: flush to zero, denormals are zero


@intrinsic
def flush_denormals(typing):
    """From here on, in this thread, numbers below the normal range are 0; returns what to hand to `restore`."""

    def emit(context, builder, signature, args):
        if not X86:
            return ir.Constant(I32, 0)
        place = cgutils.alloca_once(builder, I32)
        _control(builder, "stmxcsr", place)
        old = builder.load(place)
        builder.store(builder.or_(old, ir.Constant(I32, _FLUSH)), place)
        _control(builder, "ldmxcsr", place)
        return old

    return types.int32(), emit


@intrinsic
def restore(typing, control):
    """What `flush_denormals` found."""

    def emit(context, builder, signature, args):
        if X86:
            place = cgutils.alloca_once(builder, I32)
            builder.store(args[0], place)
            _control(builder, "ldmxcsr", place)
        return context.get_dummy_value()

    return types.void(types.int32), emit


def _control(builder, name, place):
    byte = ir.IntType(8).as_pointer()
    of = ir.FunctionType(ir.VoidType(), [byte])
    function = cgutils.get_or_insert_function(builder.module, of, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(place, byte)])


@intrinsic
def arrive(typing, counter):
    """Add 1 to counter[0] for all threads to see; returns what it was."""

    def emit(context, builder, signature, args):
        place = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.atomic_rmw("add", place, ir.Constant(I64, 1), "seq_cst")

    return types.int64(counter), emit


@intrinsic
def look(typing, counter, i):
    """counter[i] as other threads have left it."""

    def emit(context, builder, signature, args):
        place = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.load_atomic(builder.gep(place, [args[1]]), "seq_cst", 8)

    return types.int64(counter, types.intp), emit


@intrinsic
def give_way(typing):
    """Let another thread of this machine have the core, where the system has a word for it."""

    def emit(context, builder, signature, args):
        if POSIX:
            of = ir.FunctionType(I32, [])
            builder.call(cgutils.get_or_insert_function(builder.module, of, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def pause(typing):
    """A breath in a loop that waits."""

    def emit(context, builder, signature, args):
        if X86:
            of = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, of, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), emit
