"""The CUDA kernels, run on the CPU from their source, against their NumPy twins."""

import inspect
import re
import shutil
import subprocess

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.support import cuda_emulation
from tests.support.operation_cases import CASES, Draw, On, compare
from tests.support.strict_twins import twin_of
from tinynet.engines.gpu import kernels, source
from tinynet.engines.operation import OPERATIONS
from tinynet.layers.windows.geometry import windows


@pytest.fixture(autouse=True)
def compiler():
    cuda_emulation.skip_without_compiler()


WITHOUT = {  # which run call by call, as their NumPy bodies do
    "sgd_update", "momentum_update", "rmsprop_update", "depthwise", "depthwise_dw", "depthwise_dx", "average_pool",
    "average_pool_backward", "global_average", "global_average_backward",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(CASES) - WITHOUT))
@settings(max_examples=50)
@given(data=st.data())
def test_kernel_computes_what_its_twin_does(name, data):
    cuda = cuda_emulation.Cuda()
    cuda.order = data.draw(st.sampled_from(cuda_emulation.ORDERS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_BLOCKS", data.draw(st.sampled_from([1 << 16, 2])))  # threads loop
        patch.setattr(kernels, "_PART", data.draw(st.sampled_from([1 << 15, 256])))  # sums in parts
        draw = Draw(data)
        given = CASES[name](draw)
        dtypes = {one.values.dtype.name for one in given if isinstance(one, On)}
        if not dtypes & {"float64", "bool"} and data.draw(
            st.booleans()
        ):  # each dtype would be compiled twice
            patch.setattr(kernels, "_WIDE", 0)
        assert compare(name, getattr(kernels.Kernels(cuda), name), given, cuda, draw.dtype)
        assert cuda.launches


def test_every_operation_has_a_kernel_of_its_signature_and_a_case_here():
    assert set(CASES) == set(OPERATIONS) - {"matmul"}  # which is cuBLAS's
    assert {name for name in OPERATIONS if not hasattr(kernels.Kernels, name)} == WITHOUT
    for name in set(OPERATIONS) - WITHOUT:
        kernel = inspect.signature(getattr(kernels.Kernels, name)).parameters
        assert list(kernel)[1:] == list(inspect.signature(twin_of(name)).parameters), name


def test_each_kernel_of_the_source_is_launched():
    found = re.findall(r"__global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(", source.MATH + source.MOVES)
    launched = re.findall(r'_(?:launch|each|rows|moved|softmax)\(\s*"(\w+)"', inspect.getsource(kernels))
    assert set(found) == set(launched)
    assert len(found) == len(set(found))


# -- what the comparison can't show -------------------------------------------------------------------


def run(name, *given, order="forward"):
    """A kernel's results and its arguments afterwards, from a fresh stand-in."""
    cuda = cuda_emulation.Cuda()
    cuda.order = order
    on_device = [one.put(cuda) if isinstance(one, On) else one for one in given]
    found = getattr(kernels.Kernels(cuda), name)(*on_device)
    return (
        [one for one in (found if isinstance(found, tuple) else (found,)) if one is not None],
        on_device,
        cuda,
    )


@pytest.mark.parametrize("shape", [(64, 300), (5000, 10), (3, 1), (40000, 8)])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_sums_have_the_same_bits_whatever_the_order_of_the_threads(shape, order):
    rng = np.random.default_rng(0)
    rows, x_hat = (On(rng.standard_normal(shape, np.float32) + 3, order) for _ in range(2))
    f = np.full(shape[1], np.nan, np.float32)
    bits = set()
    for threads in cuda_emulation.ORDERS:
        (mean, var), *_ = run("moments", rows, x_hat, None, order=threads)
        _, (*_, dbeta, dgamma), _ = run("feature_sums", rows, x_hat, On(f), On(f), order=threads)
        (norm,), *_ = run("squared_norm", rows, order=threads)
        bits.add(b"".join(array.tobytes() for array in (mean, var, dbeta, dgamma, norm)))
    assert len(bits) == 1


@pytest.mark.parametrize("threads", cuda_emulation.ORDERS)
@pytest.mark.parametrize("shape", [(1500, 3), (70, 5, 5, 3)])
@pytest.mark.parametrize("channel_major", [False, True])
def test_dropout_over_several_rounds_of_a_block(threads, shape, channel_major, monkeypatch):
    monkeypatch.setattr(kernels, "_BLOCKS", 1)
    order = tuple(range(len(shape)))[:: -1 if channel_major else 1]
    x = On(np.random.default_rng(0).standard_normal(shape), order)
    mask, y = (On(x.values, order, unset=True) for _ in range(2))
    cuda = cuda_emulation.Cuda()
    cuda.order = threads
    compare(
        "drop",
        kernels.Kernels(cuda).drop,
        (x, (2**63 + 12345, 5), 7, 11, 30_000, mask, y),
        cuda,
        np.dtype(float),
    )
    assert cuda.launches == ["drop"]


def test_float32_sums_of_a_long_column_keep_their_digits():
    rng = np.random.default_rng(1)
    rows = On(rng.standard_normal((300_000, 2), np.float32) + 10, (1, 0))
    exact = rows.values.astype(np.float64)
    (mean, var), _, cuda = run("moments", rows, None, None)
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=2e-7)
    np.testing.assert_allclose(var, exact.var(axis=0), rtol=2e-6)
    assert cuda.launches == ["moments", "combine_moments"]  # it was summed in parts
    _, (_, total), cuda = run("sum_rows", rows, On(np.empty(2, np.float32), unset=True))
    np.testing.assert_allclose(total, exact.sum(axis=0), rtol=2e-7)
    assert cuda.launches == ["feature_sums"] * 2


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("softmax", [On(np.ones((64, 10), np.float32))]),
        ("softmax_cross_entropy", [On(np.ones((64, 10), np.float32)), On(np.zeros(64, np.int64)), 0.1]),
        ("sum_rows", [On(np.ones((512, 300), np.float32)), On(np.zeros(300, np.float32))]),
        ("moments", [On(np.ones((30_000, 2), np.float32), (1, 0)), None, None]),
        ("rectify", [On(np.ones((4, 5, 6, 7)), (3, 1, 2, 0)), On(np.ones(7)), None, None]),
        ("rectify_backward", [On(np.ones((4, 5, 6)), order) for order in [(0, 1, 2), (2, 1, 0), (2, 1, 0)]] + [None]),
        ("drop", [On(np.ones((9, 7))), (1, 2), 0, 3, 99, On(np.ones((9, 7))), On(np.ones((9, 7)))]),
    ],
)  # fmt: skip
def test_it_is_one_launch(name, given):
    assert run(name, *given)[2].launches in ([name], ["feature_sums"])


def test_no_number_is_read_beyond_the_last_window_of_padding_only():
    # Windows of "same" padding with strides above their size: the last tap of a row belongs to no window.
    over = windows((5, 5, 1), (3, 3), (4, 4), "same", "pool")
    x = np.arange(25.0).reshape(1, 5, 5, 1)
    y = On(np.zeros((1, *over.output_shape, 1)), unset=True)
    _, (_, _, y, *_), _ = run("max_pool", On(x), over, y, None, False)
    expected = np.empty(y.shape)
    twin_of("max_pool")(x, over, expected, None, False)
    np.testing.assert_array_equal(y, expected)


def test_nan_is_passed_on_and_is_the_first_argmax():
    x = np.array([[1.0, np.nan, 3.0], [np.nan, 2.0, np.nan], [5.0, 5.0, 1.0]])
    (y,), *_ = run("rectify", On(x), None, None, None)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    for labels, hits in [([1, 0, 0], 3), ([2, 2, 1], 0)]:
        _, (meter, *_), _ = run("record", On(np.zeros(4)), 2.0, On(x), On(np.array(labels)))
        assert meter.tolist() == [6.0, hits, 3.0, 2.0]
    ties = On(np.ones((4, 600)))
    _, (meter, *_), _ = run("record", On(np.zeros(4)), 2.0, ties, On(np.array([0, 256, 512, 0])))
    assert meter.tolist() == [8.0, 2.0, 4.0, 2.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_where_the_squares_overflow(dtype):
    g = np.array([3e200, 4e200] if dtype == np.float64 else [3e30, 4e30], dtype)
    _, (clipped, *_), _ = run("clip", On(g), [(0, 2)], 10.0)
    np.testing.assert_allclose(clipped, [6, 8], rtol=1e-6)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match="no GPU kernels for float16.*float32"):
        run("softmax", On(np.ones((2, 3), np.float16)))
    with pytest.raises(TypeError, match="no GPU kernels for int64"):
        run("softmax", On(np.ones((2, 3), np.int64)))


@pytest.mark.parametrize("names", [("float32",), ("float64",), ("uint8", "float32"), ("int64", "int64")])
@pytest.mark.parametrize("wide", [False, True])
def test_nvcc_compiles_the_kernels_without_warnings(names, wide, tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed")
    path = tmp_path / "kernels.cu"
    path.write_text(kernels.source(*names))
    options = ["-std=c++17", "-arch=sm_80", "-Werror", "all-warnings", *(["-DWIDE"] if wide else [])]
    command = ["nvcc", *options, "-Xptxas", "-v", "-cubin", "-o", str(tmp_path / "kernels.cubin"), str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"[1-9]\d* bytes spill", result.stderr)  # registers suffice
