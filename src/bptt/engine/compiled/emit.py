"""Vector code for one element type, as LLVM IR: what tiles, reductions and rows of a cell are written with."""

import os
import platform
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

intrinsic: Any = extending.intrinsic  # its functions are called without their first argument, the typing context
_FEATURES = {name for name, has in llvm.get_host_cpu_features().items() if has}
X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
POSIX = os.name == "posix"
BYTES = 64 if "avx512f" in _FEATURES else 32 if "avx" in _FEATURES else 16  # of a vector register
FUSED = not X86 or "fma" in _FEATURES or "avx512f" in _FEATURES
ROWS = 8 if "avx512f" in _FEATURES or not X86 else 4  # of the largest tile: 16 or 8 sums in 32 or 16 registers
ALIGN = 64
I64, I32 = ir.IntType(64), ir.IntType(32)


def panel(itemsize: int) -> int:
    """Columns of a panel: two vectors."""
    return 2 * BYTES // itemsize


class Code:
    """Emits code; addresses are integers, in bytes. With one lane a vector is a number, and all else is the same."""

    def __init__(self, context, builder, dtype, lanes=None):
        self.context, self.b = context, builder
        self.size = dtype.bitwidth // 8
        self.scalar = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.lanes = lanes or BYTES // self.size
        self.vector = self.lanes_of_type(self.scalar)

    def lanes_of_type(self, kind):
        """A vector of this type of element."""
        return kind if self.lanes == 1 else ir.VectorType(kind, self.lanes)

    def at(self, kind, array, offset):
        """The address of an element of an array, as an integer."""
        data = self.context.make_array(kind)(self.context, self.b, array).data
        return self.b.add(self.b.ptrtoint(data, I64), self.bytes(offset))

    def bytes(self, count):
        """Of so many elements."""
        return self.b.mul(count, self.const(self.size))

    def const(self, value):
        """An integer."""
        return ir.Constant(I64, value)

    def load(self, address, plus=0):
        """The vector at an address, `plus` bytes on."""
        address = self.b.add(address, self.const(plus)) if plus else address
        return self.b.load(self.b.inttoptr(address, self.vector.as_pointer()), align=self.size)

    def store(self, value, address, plus=0):
        """A vector to an address."""
        address = self.b.add(address, self.const(plus)) if plus else address
        self.b.store(value, self.b.inttoptr(address, self.vector.as_pointer()), align=self.size)

    def one(self, address):
        """The one element at an address."""
        return self.b.load(self.b.inttoptr(address, self.scalar.as_pointer()), align=self.size)

    def spread(self, value):
        """A vector of one value."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        lane = self.b.insert_element(undefined, value, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(lane, undefined, order)

    def call(self, name, kind, *args):
        """An intrinsic of LLVM that gives a vector or a scalar."""
        suffix = f"v{self.lanes}f{8 * self.size}" if isinstance(kind, ir.VectorType) else f"f{8 * self.size}"
        of = ir.FunctionType(kind, [arg.type for arg in args])
        return self.b.call(cgutils.get_or_insert_function(self.b.module, of, f"llvm.{name}.{suffix}"), args)

    def fma(self, x, y, plus):
        """x y + plus, rounded once where the processor can."""
        if FUSED:
            return self.call("fma", plus.type, x, y, plus)
        return self.b.fadd(self.b.fmul(x, y), plus)

    def zero(self, kind=None):
        """0, of a vector or of the kind given."""
        kind = kind or self.vector
        return ir.Constant(kind, [0.0] * kind.count if isinstance(kind, ir.VectorType) else 0.0)

    def lanes_of(self, vector):
        """The elements of a vector."""
        return [self.b.extract_element(vector, ir.Constant(I32, i)) for i in range(self.lanes)]

    def loop(self, count, values, body, step=1):
        """`values` carried through `for k in range(0, count, step)`; body(k, values) → values."""
        before, at = self.b.block, self.b.append_basic_block("loop")
        end = self.b.append_basic_block("end")
        self.b.cbranch(self.b.icmp_signed(">", count, self.const(0)), at, end)
        self.b.position_at_end(at)
        k = self.b.phi(I64)
        k.add_incoming(self.const(0), before)
        carried = [self.b.phi(value.type) for value in values]
        for phi, value in zip(carried, values, strict=True):
            phi.add_incoming(value, before)
        new = body(k, carried)
        onward = self.b.add(k, self.const(step))
        last = self.b.block
        k.add_incoming(onward, last)
        for phi, value in zip(carried, new, strict=True):
            phi.add_incoming(value, last)
        self.b.cbranch(self.b.icmp_signed("<", onward, count), at, end)
        self.b.position_at_end(end)
        out = []
        for value, updated in zip(values, new, strict=True):
            phi = self.b.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(updated, last)
            out.append(phi)
        return out

    def added(self, vectors):
        """The sum of all lanes, always in the same order."""
        while len(vectors) > 1:
            vectors = [self.b.fadd(x, y) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
        lanes = self.lanes_of(vectors[0])
        while len(lanes) > 1:
            lanes = [self.b.fadd(x, y) for x, y in zip(lanes[::2], lanes[1::2], strict=True)]
        return lanes[0]

    # ---- arithmetic of vectors ---------------------------------------------------------------------------------

    def number(self, value, kind=None):
        """A vector of one number; of floating-point numbers, or of the type given."""
        kind = kind or self.vector
        return ir.Constant(kind, [value] * self.lanes if self.lanes > 1 else value)

    def add(self, x, y):
        """x + y."""
        return self.b.fadd(x, y)

    def sub(self, x, y):
        """x − y."""
        return self.b.fsub(x, y)

    def mul(self, *factors):
        """Their product, from the left."""
        out = factors[0]
        for factor in factors[1:]:
            out = self.b.fmul(out, factor)
        return out

    def rest(self, x):
        """1 − x."""
        return self.b.fsub(self.number(1.0), x)

    def polynomial(self, x, *coefficients):
        """Horner's rule, the highest power first."""
        out = self.number(coefficients[0])
        for coefficient in coefficients[1:]:
            out = self.fma(out, x, self.number(coefficient))
        return out

    def exp(self, x):
        """eˣ; `functions.py` has the formulas and their source."""
        single = self.size == 4
        low, high = (-87.3, 88.0) if single else (-708.0, 709.0)
        for bound, than in ((high, ">"), (low, "<")):  # NaN stays NaN
            x = self.b.select(self.b.fcmp_ordered(than, x, self.number(bound)), self.number(bound), x)
        n = self.call("floor", self.vector, self.fma(x, self.number(1.4426950408889634), self.number(0.5)))
        parts = (0.693359375, -2.12194440e-4) if single else (0.693145751953125, 1.42860682030941723212e-6)
        r = x
        for part in parts:
            r = self.fma(n, self.number(-part), r)
        whole = self.lanes_of_type(I32 if single else I64)
        bias, shift = (127, 23) if single else (1023, 52)
        bits = self.b.add(self.b.fptosi(n, whole), self.number(bias, whole))
        scale = self.b.bitcast(self.b.shl(bits, self.number(shift, whole)), self.vector)
        if single:
            p = self.polynomial(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2,
                                1.6666665459e-1, 5.0000001201e-1)  # fmt: skip
            return self.mul(self.fma(self.mul(p, r), r, self.add(r, self.number(1.0))), scale)
        s = self.mul(r, r)
        p = self.mul(r, self.polynomial(s, 1.26177193074810590878e-4, 3.02994407707441961300e-2, 1.0))
        q = self.polynomial(
            s, 3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.0
        )  # fmt: skip
        quotient = self.b.fdiv(p, self.sub(q, p))
        return self.mul(self.fma(self.number(2.0), quotient, self.number(1.0)), scale)

    def sigmoid(self, x):
        """1 / (1 + e⁻ˣ)."""
        e = self.exp(self.b.fsub(self.number(-0.0), x))
        return self.b.fdiv(self.number(1.0), self.add(self.number(1.0), e))

    def tanh(self, x):
        """tanh x."""
        a, s = self.call("fabs", self.vector, x), self.mul(x, x)
        if self.size == 4:
            p = self.polynomial(s, -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1,
                                -3.33332819422e-1)  # fmt: skip
            near = self.fma(self.mul(p, s), x, x)
        else:
            p = self.polynomial(
                s, -9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3
            )  # fmt: skip
            q = self.polynomial(
                s, 1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3
            )  # fmt: skip
            near = self.fma(self.mul(x, s), self.b.fdiv(p, q), x)
        e = self.add(self.exp(self.add(a, a)), self.number(1.0))
        far = self.sub(self.number(1.0), self.b.fdiv(self.number(2.0), e))
        far = self.call("copysign", self.vector, far, x)
        return self.b.select(self.b.fcmp_ordered("<", a, self.number(0.625)), near, far)


def elementwise(count: int, body: Callable[[Code, list[Any]], None]) -> Any:
    """An intrinsic f(array_1, start_1, array_2, start_2, …, n) that runs a body along n elements.

    body(code, addresses): code for the elements at these addresses, one address per array; it is emitted for whole
    vectors first, and for what is left one by one.
    """

    def along(typing, *args):
        signature = types.void(*args)

        def emit(context, builder, signature, values):
            kinds, n = signature.args, values[-1]
            code = Code(context, builder, kinds[0].dtype)
            starts = [code.at(kinds[2 * i], values[2 * i], values[2 * i + 1]) for i in range(count)]
            whole = builder.mul(builder.sdiv(n, code.const(code.lanes)), code.const(code.lanes))
            for part, first, many in (
                (code, code.const(0), whole),
                (Code(context, builder, kinds[0].dtype, 1), whole, builder.sub(n, whole)),
            ):

                def step(k, carried, part=part, first=first):
                    at = part.bytes(builder.add(first, k))
                    body(part, [builder.add(start, at) for start in starts])
                    return carried

                part.loop(many, [], step, part.lanes)
            return context.get_dummy_value()

        return signature, emit

    names = ", ".join(f"array_{i}, start_{i}" for i in range(1, count + 1))  # an intrinsic has no *args
    scope: dict[str, Any] = {"along": along}
    exec(f"def function(typing, {names}, n):\n    return along(typing, {names}, n)", scope)
    return intrinsic(scope["function"])
