"""CUDA kernels run on the CPU, from their real source: the part of CuPy that `tinynet.engines.gpu.kernels` calls.

g++ compiles the source after a header that defines CUDA's keywords. Each thread of a block is a fiber; they run one
after the other from barrier to barrier, in an order that can be chosen. This detects barriers that not all threads
reach, reads and writes outside arrays, and arguments of another type than the kernel declares, whose bits CUDA would
simply reinterpret.
"""

import atexit
import ctypes
import functools
import hashlib
import mmap
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

GUARD = 16 * mmap.PAGESIZE  # bytes before and after each array
ORDERS = ("forward", "backward", "mixed")

_HEADER = r"""
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>
#include <cmath>
#include <type_traits>
#include <utility>

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;
#define __global__
#define __device__ inline
#define __forceinline__ inline
#define __shared__ static  // blocks run one after the other
#define __launch_bounds__(...)
#define __restrict__ __restrict
using std::exp; using std::log; using std::sqrt; using std::fabs; using std::isnan; using std::isinf;
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}

namespace emulation {
enum State { READY, WAITING, ENDED };
struct Fiber { void* stack; ucontext_t start; jmp_buf here; State state; bool made; dim3 index; int line; };
static Fiber fibers[1024];
static jmp_buf scheduler;
static Fiber* running;
static void (*work)(void*);
static void* work_arguments;

// A fiber serves block after block; setjmp and longjmp switch, because swapcontext costs two system calls.
static void serve() {
    for (;;) {
        work(work_arguments);
        running->state = ENDED;
        if (!_setjmp(running->here)) _longjmp(scheduler, 1);
    }
}

static __attribute__((noinline)) void resume(Fiber* fiber) {
    running = fiber;
    threadIdx = fiber->index;
    fiber->state = READY;
    if (_setjmp(scheduler)) return;
    if (fiber->made) _longjmp(fiber->here, 1);
    fiber->made = true;
    getcontext(&fiber->start);
    const size_t size = 1 << 16;
    if (!fiber->stack) fiber->stack = malloc(size);
    fiber->start.uc_stack.ss_sp = fiber->stack;
    fiber->start.uc_stack.ss_size = size;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, serve, 0);
    setcontext(&fiber->start);
}

static __attribute__((noinline)) void barrier(int line) {
    running->line = line;
    running->state = WAITING;
    if (!_setjmp(running->here)) _longjmp(scheduler, 1);
}

// The i-th of n in an order: 0 forward, 1 backward, 2 mixed (7919 is a prime that divides no n here)
static unsigned turn(unsigned i, unsigned n, int order) {
    if (order == 0) return i;
    return order == 1 ? n - 1 - i : (unsigned)((i * 7919ULL + 3) % n);
}

// 0, or the line of a barrier that not all threads of a block reached.
static int run_block(int order) {
    const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    for (unsigned t = 0; t < threads; ++t)
        fibers[t].index = {t % blockDim.x, t / blockDim.x % blockDim.y, t / blockDim.x / blockDim.y};
    for (;;) {
        for (unsigned i = 0; i < threads; ++i) resume(&fibers[turn(i, threads, order)]);
        unsigned ended = 0;
        int line = 0;
        for (unsigned t = 0; t < threads; ++t) {
            if (fibers[t].state == ENDED) ++ended;
            else if (line && line != fibers[t].line) return line;
            else line = fibers[t].line;
        }
        if (ended == threads) return 0;
        if (ended) return line;
    }
}

static sigjmp_buf before_fault;
static void fault(int) { siglongjmp(before_fault, 1); }

// 0, the line of a barrier that not all threads reached, or -1 if memory outside the arrays was touched.
static int run_grid(void (*function)(void*), void* arguments, const unsigned* sizes, int order) {
    work = function;
    work_arguments = arguments;
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    struct sigaction action = {}, former;
    action.sa_handler = fault;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, &former);
    const unsigned blocks = gridDim.x * gridDim.y * gridDim.z;
    volatile int wrong = sigsetjmp(before_fault, 1) ? -1 : 0;
    for (unsigned i = 0; i < blocks && !wrong; ++i) {
        const unsigned b = turn(i, blocks, order == 2 ? 1 : order);
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        wrong = run_block(order);
    }
    sigaction(SIGSEGV, &former, nullptr);
    for (Fiber& fiber : fibers) fiber.made &= !wrong;  // after an error, they are left in the middle
    return wrong;
}

// What the compiler knows about a parameter: 'p' and the kind and size of what it points to, or its own kind and size.
template <class T> constexpr char kind() {
    return std::is_same<T, bool>::value ? 'b' : std::is_floating_point<T>::value ? 'f'
        : std::is_signed<T>::value ? 'i' : std::is_unsigned<T>::value ? 'u' : 'V';
}
struct Parameter { char pointer, kind, constant, unused; int size; };
template <class T> Parameter parameter() {
    typedef typename std::remove_pointer<T>::type Target;
    return {std::is_pointer<T>::value ? 'p' : 'v', kind<typename std::remove_const<Target>::type>(),
            std::is_const<Target>::value ? 'c' : 'm', 0, (int)sizeof(Target)};
}

template <class... A> struct Kernel {
    template <void (*kernel)(A...), size_t... I> static void call(void* arguments, std::index_sequence<I...>) {
        kernel(*(typename std::remove_reference<A>::type*)((void**)arguments)[I]...);
    }
    template <void (*kernel)(A...)> static void enter(void* arguments) {
        call<kernel>(arguments, std::index_sequence_for<A...>());
    }
    template <void (*kernel)(A...)>
    static int launch(void** arguments, const unsigned* sizes, int order) {
        return run_grid(enter<kernel>, arguments, sizes, order);
    }
    static int parameters(Parameter* list) {
        const Parameter all[] = {parameter<A>()...};
        for (const Parameter& one : all) *list++ = one;
        return sizeof...(A);
    }
};
template <class... A> Kernel<A...> kernel_of(void (*)(A...));
}
#define __syncthreads() emulation::barrier(__LINE__)
#line 1 "kernels.cu"
"""

_ENTRY = """
extern "C" int launch_NAME(void** arguments, const unsigned* sizes, int order) {
    return decltype(emulation::kernel_of(NAME))::launch<NAME>(arguments, sizes, order);
}
extern "C" int parameters_NAME(emulation::Parameter* list) {
    return decltype(emulation::kernel_of(NAME))::parameters(list);
}
"""


class LaunchError(AssertionError):
    """A launch that would go wrong on a GPU."""


class ndarray(np.ndarray):
    """An array "on the device"; plain NumPy arrays are on the host."""

    allocation, slack = np.empty(0, np.uint8), 0

    def __array_finalize__(self, parent):
        self.allocation, self.slack = (
            getattr(parent, "allocation", ndarray.allocation),
            getattr(parent, "slack", 0),
        )


class _Parameter(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char) for name in ("pointer", "kind", "constant", "unused")] + [
        ("size", ctypes.c_int)
    ]


class RawKernel:
    """A kernel, called as CuPy's are: ``kernel(grid, block, arguments)``."""

    def __init__(self, name, library, cuda):
        self.name, self.cuda = name, cuda
        self._launch = library[f"launch_{name}"]
        parameters = (_Parameter * 64)()
        self.parameters = parameters[: library[f"parameters_{name}"](parameters)]

    def __call__(self, grid, block, arguments):
        sizes = [max(1, size) for pair in (grid, block) for size in (*pair, 1, 1)[:3]]
        limits = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
        if any(size > limit for size, limit in zip(sizes, limits, strict=True)) or np.prod(sizes[3:]) > 1024:
            raise LaunchError(f"{self.name}: grid {grid}, block {block} are more than CUDA allows")
        if len(arguments) != len(self.parameters):
            raise LaunchError(f"{self.name}: {len(self.parameters)} parameters, {len(arguments)} arguments")
        held = [self._held(*pair, i) for i, pair in enumerate(zip(arguments, self.parameters, strict=True))]
        pointers = (ctypes.c_void_p * len(held))(*(array.ctypes.data for array in held))
        before = [
            (i, array, array.copy())
            for i, (array, parameter) in enumerate(zip(arguments, self.parameters, strict=True))
            if isinstance(array, ndarray) and parameter.constant == b"c"
        ]
        line = self._launch(pointers, (ctypes.c_uint * 6)(*sizes), ORDERS.index(self.cuda.order))
        self.cuda.launches.append(self.name)
        if line < 0:
            raise LaunchError(f"{self.name}: touched memory outside the arrays")
        if line:
            raise LaunchError(f"{self.name}: not all threads reach the barrier in line {line}")
        for i, array in enumerate(arguments):
            if isinstance(array, ndarray) and not before_is_whole(array):
                raise LaunchError(f"{self.name}: wrote outside argument {i}")
        written = [
            array for array, one in zip(arguments, self.parameters, strict=True) if one.constant == b"m"
        ]
        for i, array, copy in before:
            shared = any(isinstance(other, ndarray) and np.shares_memory(array, other) for other in written)
            if not shared and array.tobytes() != copy.tobytes():
                raise LaunchError(f"{self.name}: wrote into argument {i}, which is const")

    def _held(self, value, parameter, i):
        """The argument's bits in an array, as CuPy would pass them; LaunchError if they are not of that type."""
        where, kind = f"{self.name}, argument {i}", parameter.kind.decode()
        if parameter.pointer == b"p":
            if value is None:
                return np.zeros(1, np.uintp)
            if not isinstance(value, ndarray):
                raise LaunchError(f"{where}: expected an array on the device, got {type(value).__name__}")
            if (value.dtype.kind, value.dtype.itemsize) != (kind, parameter.size):
                raise LaunchError(f"{where}: expected a pointer to {kind}{parameter.size}, got {value.dtype}")
            return np.array([value.ctypes.data], np.uintp)
        if isinstance(value, ndarray) or (isinstance(value, np.ndarray) and value.size != 1):
            raise LaunchError(f"{where}: expected a value, got an array")
        if not isinstance(value, (bool, int, float, np.generic, np.ndarray)):
            raise LaunchError(f"{where}: expected a number, got {value!r}")
        held = np.array(value)  # as in CuPy, an int is 64 bits and a float a double
        found = "V" if held.dtype.kind == "V" else held.dtype.kind
        if (found, held.dtype.itemsize) != (kind, parameter.size):
            raise LaunchError(f"{where}: expected {kind}{parameter.size}, got {value!r} of {held.dtype}")
        return held


class Cuda:
    """Stands in for the module ``cupy``.

    ``order``: that in which the threads of a block take turns; ``launches``: the names of the kernels launched.
    """

    ndarray = ndarray

    def __init__(self):
        self.order = "forward"
        self.launches = []

    def RawModule(self, *, code, options=()):
        return _Module(code, options, self)

    def empty(self, shape, dtype=float):
        shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        # It ends where a page ends; the memory before and after can't be touched.
        room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = np.frombuffer(mmap.mmap(-1, room + 2 * GUARD), np.uint8)
        for start in (0, GUARD + room):
            if _libc().mprotect(ctypes.c_void_p(whole.ctypes.data + start), GUARD, 0):
                raise OSError(ctypes.get_errno(), "mprotect fails")
        allocation = whole[GUARD : GUARD + room]
        allocation.fill(0xFF)  # NaN, in floating point
        array = allocation[room - size :].view(dtype).reshape(shape).view(ndarray)
        array.allocation, array.slack = allocation, room - size
        return array

    def zeros(self, shape, dtype=float):
        array = self.empty(shape, dtype)
        array.fill(0)
        return array

    def empty_like(self, array):
        order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
        flat = self.empty([array.shape[axis] for axis in order], array.dtype)
        return flat.transpose(np.argsort(order)) if order else flat

    def asarray(self, array):
        if isinstance(array, ndarray):
            return array
        array = np.asarray(array)
        device = self.empty(array.shape, array.dtype)
        device[...] = array
        return device

    def ascontiguousarray(self, array):
        if array.flags.c_contiguous:
            return array
        dense = self.empty(array.shape, array.dtype)
        dense[...] = array
        return dense


class _Module:
    def __init__(self, code, options, cuda):
        self.library, self.names, self.cuda = _library(code, tuple(options)), _names(code), cuda

    def get_function(self, name):
        if name not in self.names:
            raise LaunchError(f"no kernel {name}; the kernels are {self.names}")
        return RawKernel(name, self.library, self.cuda)


@functools.cache
def _libc():
    return ctypes.CDLL(None, use_errno=True)


def before_is_whole(array):
    """Whether the memory before the array in its first page is unchanged."""
    return bool((array.allocation[: array.slack] == 0xFF).all())


def skip_without_compiler():
    if shutil.which("g++") is None or not sys.platform.startswith("linux"):
        pytest.skip("compiling the kernels' source needs g++ on Linux")


def _names(code):
    return re.findall(r"__global__\s+void\s+(?:__launch_bounds__\(\w+\)\s+)?(\w+)\(", code)


@functools.cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="tinynet-kernels-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@functools.cache
def _library(code, options):
    whole = _HEADER + code + "".join(_ENTRY.replace("NAME", name) for name in _names(code))
    path = _folder() / hashlib.sha256(repr((whole, options)).encode()).hexdigest()[:16]
    path.with_suffix(".cpp").write_text(whole)
    # Denormals, NaN and rounding as written: no -ffast-math, and no contraction to fused multiply-adds.
    flags = ["-O1", "-fPIC", "-shared", "-ffp-contract=off", "-U_FORTIFY_SOURCE", *options]
    command = ["g++", *flags, "-o", f"{path}.so", f"{path}.cpp"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise LaunchError(f"g++ can't compile the kernels:\n{result.stderr[:4000]}")
    return ctypes.CDLL(f"{path}.so")
