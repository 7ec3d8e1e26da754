"""The emulation of CUDA detects what would go wrong on a GPU."""

import numpy as np
import pytest

from tests.support.cuda_emulation import ORDERS, Cuda, LaunchError, skip_without_compiler


@pytest.fixture(autouse=True)
def compiler():
    skip_without_compiler()


def launch(cuda, body, *arguments, block=(64,), grid=(1,), parameters="float* y"):
    code = f'extern "C" __global__ void kernel({parameters}) {{ {body} }}'
    cuda.RawModule(code=code, options=("-std=c++17",)).get_function("kernel")(grid, block, arguments)


def array(cuda, *shape, dtype=np.float32):
    return cuda.zeros(shape, dtype)


def test_every_thread_runs_once():
    cuda = Cuda()
    for cuda.order in ORDERS:
        y = array(cuda, 3, 2, 4, 16)
        body = "y[((blockIdx.y * gridDim.x + blockIdx.x) * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x] += 1;"
        launch(cuda, body, y, grid=(2, 3), block=(16, 4))
        assert (y == 1).all()


REVERSAL = """
    __shared__ float memory[64];
    memory[threadIdx.x] = threadIdx.x;
    BARRIER
    y[threadIdx.x] = memory[63 - threadIdx.x];
"""


@pytest.mark.parametrize("order", ORDERS)
def test_a_barrier_lets_all_threads_arrive(order):
    cuda = Cuda()
    cuda.order = order
    y = array(cuda, 64)
    launch(cuda, REVERSAL.replace("BARRIER", "__syncthreads();"), y)
    np.testing.assert_array_equal(y, np.arange(64)[::-1])


def test_a_missing_barrier_shows():
    cuda = Cuda()
    cuda.order = "mixed"
    y = array(cuda, 64)
    launch(cuda, REVERSAL.replace("BARRIER", ""), y)
    assert (y != np.arange(64)[::-1]).any()


@pytest.mark.parametrize(
    "body",
    [
        "if (threadIdx.x < 9) __syncthreads();",
        "if (threadIdx.x == 3) return; __syncthreads();",
        "if (threadIdx.x < 9) __syncthreads();\nelse __syncthreads();",
    ],
)
def test_a_barrier_that_not_all_threads_reach_is_refused(body):
    cuda = Cuda()
    for _ in range(2):  # the second time, no fiber continues where it was left
        with pytest.raises(LaunchError, match="not all threads reach the barrier in line"):
            launch(cuda, body, array(cuda, 1))


@pytest.mark.parametrize("body", ["y[-1] = 1;", "y[64] = 1;", "y[0] = y[64];", "y[0] = y[-9999];"])
def test_reaching_outside_of_an_array_is_refused(body):
    cuda = Cuda()
    for _ in range(2):
        with pytest.raises(LaunchError, match="outside (the arrays|argument)"):
            launch(cuda, body, array(cuda, 64))
    y = array(cuda, 64)
    launch(cuda, "y[threadIdx.x] = y[-1];", y)
    assert np.isnan(y).all()


def test_memory_is_nan_until_it_is_written():
    assert np.isnan(Cuda().empty((3, 4), np.float32)).all()


def test_a_write_into_a_const_array_is_refused():
    cuda = Cuda()
    with pytest.raises(LaunchError, match="argument 0, which is const"):
        launch(cuda, "((float*)y)[0] = 1;", array(cuda, 4), parameters="const float* y")


WRONG = {
    "int for int": ("int n", 3),
    "double for float": ("float x", 3.0),
    "int64 for float": ("float x", np.int64(3)),
    "unsigned": ("unsigned long long n", 3),
    "array of float64 for float": ("float* y", Cuda().zeros(3, np.float64)),
    "array of uint8 for bool": ("const bool* y", Cuda().zeros(3, np.uint8)),
    "array for a value": ("long long n", Cuda().zeros(1, np.int64)),
    "host array": ("float* y", np.zeros(3, np.float32)),
    "host scalar": ("float* y", np.float32(3)),
    "number for an array": ("float* y", 0),
    "None for a value": ("long long n", None),
    "structure of another size": ("long long n", np.array((1, 2), "q,q")),
}


@pytest.mark.parametrize("what", WRONG)
def test_an_argument_of_another_type_is_refused(what):
    parameter, value = WRONG[what]
    with pytest.raises(LaunchError, match="argument 0: expected"):
        launch(Cuda(), "", value, parameters=parameter)


def test_arguments_arrive():
    cuda, y = Cuda(), array(Cuda(), 6, dtype=np.float64)
    parameters = (
        "double* y, const float* none, long long i, double d, float f, unsigned long long u, bool b, Two t"
    )
    code = f"""
        struct Two {{ long long a; int b[2]; }};
        extern "C" __global__ void kernel({parameters}) {{
            y[0] = none ? -1 : i; y[1] = d; y[2] = f; y[3] = u >> 40; y[4] = b; y[5] = t.a + 10 * t.b[1];
        }}"""
    two = np.array((5, (6, 7)), [("a", np.int64), ("b", np.int32, 2)])
    arguments = y, None, -3, 0.25, np.float32(1.5), np.uint64(1 << 63), True, two
    cuda.RawModule(code=code).get_function("kernel")((1,), (1,), arguments)
    assert y.tolist() == [-3, 0.25, 1.5, 2**23, 1, 75]


def test_too_many_threads_or_blocks_are_refused():
    for sizes in ({"block": (1025,)}, {"block": (64, 32)}, {"grid": (1, 65536)}):
        with pytest.raises(LaunchError, match="more than CUDA allows"):
            launch(Cuda(), "", parameters="", **sizes)
    with pytest.raises(LaunchError, match="1 parameters, 0 arguments"):
        launch(Cuda(), "")
