"""The strict stand-in for CuPy: NumPy's results, CuPy's refusals, and graphs that compute only when launched."""

import inspect
import itertools
import operator

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from tests.support.strict_arrays import Strict, strict
from tests.support.strict_functions import Functions
from tests.support.strict_ndarray import UFUNCS, StrictArray

DTYPES = ["bool", "uint8", "int32", "int64", "float32", "float64"]
BINARY = [np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum, np.greater, np.equal]
UNARY = [np.exp, np.sqrt, np.log, np.tanh, np.negative, np.abs, np.isfinite, np.square]
REDUCTIONS = [
    np.sum,
    np.prod,
    np.mean,
    np.max,
    np.min,
    np.argmax,
    np.argmin,
    np.any,
    np.all,
    np.count_nonzero,
]

dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**32 - 1)


def numbers(seed, shape, dtype):
    return np.random.default_rng(seed).integers(-9, 9, shape).astype(dtype)


def check_equal(found, expected):
    """The same values, shape and dtype."""
    assert isinstance(found, strict.ndarray)
    expected = np.asarray(expected)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_array_equal(found.get(), expected)


@settings(max_examples=60)
@given(
    st.sampled_from(BINARY),
    arrays.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3),
    dtypes,
    dtypes,
    seeds,
)
def test_binary_ufuncs_are_numpys(ufunc, shapes, one, other, seed):
    a, b = (numbers(seed, shapes.input_shapes[i], dtype) for i, dtype in enumerate((one, other)))
    if ufunc is np.subtract and one == other == "bool":
        return
    with np.errstate(all="ignore"):
        expected = ufunc(a, b)
        check_equal(ufunc(strict.asarray(a), strict.asarray(b)), expected)
        out = strict.empty(expected.shape, expected.dtype)
        assert ufunc(strict.asarray(a), strict.asarray(b), out=out) is out
        check_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [2, 2.5, np.float32(2.5), np.float64(2.5), np.int64(3), True])
def test_numbers_are_as_weak_as_numpys(number, dtype):
    a = numbers(0, (3, 2), dtype)
    check_equal(strict.asarray(a) * number, a * number)
    check_equal(number + strict.asarray(a), number + a)
    zero_d = strict.asarray(np.asarray(number))
    check_equal(strict.asarray(a) * zero_d, a * np.asarray(number))


@pytest.mark.parametrize("ufunc", UNARY)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unary_ufuncs_are_numpys(ufunc, dtype):
    a = numbers(1, (2, 3), dtype)
    with np.errstate(all="ignore"):
        expected = ufunc(a)
    check_equal(ufunc(strict.asarray(a)), expected)
    check_equal(getattr(strict, ufunc.__name__)(strict.asarray(a)), expected)
    check_equal(ufunc(strict.asarray(a)[0, 0]), expected[0, 0])


@pytest.mark.parametrize("function", REDUCTIONS)
@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
def test_reductions_are_numpys(function, axis, dtype):
    a = numbers(2, (4, 3), dtype)
    check_equal(function(strict.asarray(a), axis=axis), function(a, axis=axis))


def test_functions_are_numpys():
    a, b = numbers(3, (2, 3, 4), "float32"), numbers(4, (2, 3, 4), "float32")
    x, y = strict.asarray(a), strict.asarray(b)
    check_equal(np.stack([x, y], axis=1), np.stack([a, b], axis=1))
    check_equal(np.concatenate([x, y], axis=2), np.concatenate([a, b], axis=2))
    check_equal(np.moveaxis(x, 0, 2), np.moveaxis(a, 0, 2))
    check_equal(np.where(x > y, x, 0), np.where(a > b, a, 0))
    check_equal(np.einsum("nhw,nhw->n", x, y), np.einsum("nhw,nhw->n", a, b))
    check_equal(np.matmul(x, y.swapaxes(1, 2)), a @ b.swapaxes(1, 2))
    check_equal(x @ y.swapaxes(1, 2), a @ b.swapaxes(1, 2))
    check_equal(np.add.reduce(x, axis=(0, 2), keepdims=True), np.add.reduce(a, axis=(0, 2), keepdims=True))
    check_equal(
        np.add.reduceat(x, strict.asarray([0, 2]), axis=2), np.add.reduceat(a, np.array([0, 2]), axis=2)
    )
    check_equal(np.broadcast_to(x[0, 0], (5, 4)), np.broadcast_to(a[0, 0], (5, 4)))
    check_equal(np.array_equal(x, x), True)
    check_equal(np.clip(x, -1, 1), np.clip(a, -1, 1))
    check_equal(np.arange(3, like=x), np.arange(3))
    check_equal(np.zeros((2, 1), np.float32, like=x), np.zeros((2, 1), np.float32))
    check_equal(np.full_like(x, 3), np.full_like(a, 3))
    best = np.argmax(x, axis=-1)
    check_equal(
        np.take_along_axis(x, best[..., None], axis=-1),
        np.take_along_axis(a, a.argmax(axis=-1)[..., None], axis=-1),
    )
    np.copyto(x, y, where=x > y)
    check_equal(x, np.where(a > b, b, a))


@pytest.mark.parametrize(
    "key",
    [
        0,
        -1,
        (1, 2),
        (slice(1, None), None),
        (..., 0),
        (slice(None, None, -1), ..., slice(0, 2)),
        (),
        np.int64(1),
    ],
)
def test_views_are_numpys(key):
    a = numbers(5, (3, 4, 2), "float64")
    x = strict.asarray(a)
    check_equal(x[key], a[key])
    x[key] = 7
    a[key] = 7
    check_equal(x, a)
    x[key][...] = 8  # a view, even of no axes
    a[key] = 8
    check_equal(x, a)


@pytest.mark.parametrize("other", [(), (slice(None), 1), (slice(1, 3),)])
@settings(max_examples=20)
@given(seed=seeds)
def test_arrays_of_indices_wrap_around(other, seed):
    a, i = numbers(seed, (4, 3, 2), "float32"), np.array([[0, 5], [-1, -9]])
    x = strict.asarray(a)
    check_equal(x[(strict.asarray(i), *other)], a[(i % 4, *other)])
    check_equal(np.take(x, strict.asarray(i), axis=1), np.take(a, i % 3, axis=1))


def test_items_set_by_indices_and_masks():
    a = numbers(6, (5, 3), "float32")
    x, rows = strict.asarray(a), strict.asarray(np.array([6, 3]))
    x[rows] = strict.asarray(np.float32([[1, 2, 3], [4, 5, 6]]))
    a[[1, 3]] = [[1, 2, 3], [4, 5, 6]]
    check_equal(x, a)
    x[x > 4], a[a > 4] = 0, 0
    check_equal(x, a)
    check_equal(x[x < 0], a[a < 0])
    with pytest.raises(AssertionError, match="set twice"):
        x[strict.asarray([1, 6])] = strict.asarray(np.float32([[1], [2]]))


@settings(max_examples=40)
@given(st.permutations(range(3)), seeds)
def test_layouts_are_cupys(axes, seed):
    a = numbers(seed, (2, 3, 4), "float32").transpose(axes)
    x = strict.asarray(a.copy(order="K").transpose(np.argsort(axes))).transpose(axes)
    assert x.strides == a.strides
    assert np.empty_like(x).strides == np.empty_like(a).strides
    assert x.astype("float64").strides == a.astype("float64").strides
    assert strict.asarray(np.asfortranarray(a)).flags.f_contiguous
    assert strict.asarray(a[::-1, ::-1]).flags.c_contiguous
    for new in (x + 1, x.copy(), np.exp(x), np.where(x > 0, x, 0), np.add.reduce(x, axis=0), x.ravel()):
        assert new.flags.c_contiguous
    check_equal(x.reshape(4, -1), a.reshape(4, -1))


REFUSED = {
    "NumPy operand": (TypeError, lambda x, a: x + a),
    "NumPy operand on the left": (TypeError, lambda x, a: a + x),
    "NumPy operand in place": (TypeError, lambda x, a: operator.iadd(x, a)),
    "NumPy operand in place on the left": (TypeError, lambda x, a: operator.iadd(a, x)),
    "NumPy out": (TypeError, lambda x, a: np.add(x, x, out=a)),
    "NumPy matmul": (TypeError, lambda x, a: a @ x),
    "NumPy array set": (ValueError, lambda x, a: operator.setitem(x, ..., a)),
    "NumPy where": (TypeError, lambda x, a: np.where(a, x, x)),
    "NumPy copyto": (ValueError, lambda x, a: np.copyto(x, a)),
    "copyto NumPy": (TypeError, lambda x, a: np.copyto(a, x)),
    "NumPy concatenate": (TypeError, lambda x, a: np.concatenate([x, a])),
    "NumPy index": (TypeError, lambda x, a: x[np.array([0])]),
    "list index": (TypeError, lambda x, a: x[[0]]),
    "bool index": (TypeError, lambda x, a: x[True]),
    "float index": (TypeError, lambda x, a: x[1.0]),
    "array of floats as index": (IndexError, lambda x, a: x[x]),
    "index out of range": (IndexError, lambda x, a: x[2]),
    "device array in a slice": (TypeError, lambda x, a: x[: np.argmax(x)]),
    "device array as range": (TypeError, lambda x, a: range(np.argmax(x))),
    "device array as index of NumPy's": (TypeError, lambda x, a: a[np.argmax(x)]),
    "asarray": (TypeError, lambda x, a: np.asarray(x)),
    "array": (TypeError, lambda x, a: np.array(x)),
    "ascontiguousarray": (TypeError, lambda x, a: np.ascontiguousarray(x)),
    "as_strided": (TypeError, lambda x, a: np.lib.stride_tricks.as_strided(x, (2,), (8,))),
    "linalg": (TypeError, lambda x, a: np.linalg.norm(x)),
    "a function not listed": (TypeError, lambda x, a: np.cross(x, x)),
    "NumPy vstack": (TypeError, lambda x, a: np.vstack([x, x])),
    "where=": (TypeError, lambda x, a: np.add(x, 1, where=x > 0)),
    "sum where=": (TypeError, lambda x, a: np.sum(x, where=x > 0)),
    "max initial=": (TypeError, lambda x, a: np.max(x, initial=0)),
    "reduce initial=": (TypeError, lambda x, a: np.add.reduce(x, initial=0)),
    "take mode=": (TypeError, lambda x, a: np.take(x, np.argmax(x), mode="clip")),
    "einsum out=": (TypeError, lambda x, a: np.einsum("ij->i", x, out=x[0])),
    "maximum.reduce": (NotImplementedError, lambda x, a: np.maximum.reduce(x)),
    "multiply.reduceat": (NotImplementedError, lambda x, a: np.multiply.reduceat(x, np.argmax(x))),
    "add.accumulate": (NotImplementedError, lambda x, a: np.add.accumulate(x)),
    "add.at": (NotImplementedError, lambda x, a: np.add.at(x, 0, 1)),
    "add.outer": (NotImplementedError, lambda x, a: np.add.outer(x, x)),
    "modf, of two results": (TypeError, lambda x, a: np.modf(x)),
    "out too small": (ValueError, lambda x, a: np.add(x, x, out=x[0])),
    "out of another kind": (TypeError, lambda x, a: np.add(x, 0.5, out=strict.zeros(x.shape, int))),
    "sum's out of another shape": (ValueError, lambda x, a: np.sum(x, axis=0, out=strict.zeros(2))),
    "sum's out of another dtype": (
        ValueError,
        lambda x, a: np.sum(x, axis=0, out=strict.zeros(3, "float32")),
    ),
    "out without its name": (TypeError, lambda x, a: strict.add(x, x, x)),
    "somebody's ufunc": (TypeError, lambda x, a: np.frompyfunc(abs, 1, 1)(x)),
    "vecdot": (TypeError, lambda x, a: np.vecdot(x, x)),
    "truth of many": (ValueError, lambda x, a: bool(x)),
    "len of a scalar": (TypeError, lambda x, a: len(x[0, 0])),
    "iteration over a scalar": (TypeError, lambda x, a: iter(x[0, 0])),
    "hash": (TypeError, lambda x, a: hash(x)),
    "set, which may read the array later": (NotImplementedError, lambda x, a: x.set(a)),
    "get's out": (NotImplementedError, lambda x, a: x.get(out=a)),
    "an object array": (ValueError, lambda x, a: strict.asarray(np.array([None]))),
    "another stand-in's array": (TypeError, lambda x, a: x + Strict().zeros(x.shape)),
    "pickle": (TypeError, lambda x, a: x.__reduce_ex__(2)),
    "a name CuPy lacks": (AttributeError, lambda x, a: strict.vecdot),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refusals(what):
    a = numbers(7, (2, 3), "float64")
    error, call = REFUSED[what]
    x = strict.asarray(a)
    with pytest.raises(error):
        call(x, a)
    np.testing.assert_array_equal(x.get(), numbers(7, (2, 3), "float64"))
    np.testing.assert_array_equal(a, numbers(7, (2, 3), "float64"))


# Comparisons with CuPy itself, which needs no device for this


@pytest.fixture(scope="module")
def cupy():
    return pytest.importorskip("cupy", reason="needs the package cupy, though no GPU")


def test_functions_have_cupys_arguments(cupy):
    def arguments(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    names = [name for name in vars(Functions) if not name.startswith("_")]
    assert len(names) > 40
    assert {name: arguments(getattr(strict, name)) for name in names} == {
        name: arguments(getattr(cupy, name)) for name in names
    }


def test_cupy_has_the_ufuncs_and_the_methods(cupy):
    assert not [name for name in UFUNCS if not hasattr(cupy, name)]
    assert not [name for name in vars(StrictArray) if name[0] != "_" and not hasattr(cupy.ndarray, name)]
    assert not hasattr(cupy.ndarray, "__index__")


def test_cupys_ufuncs_give_these_dtypes(cupy):
    """As CuPy chooses: by the first of its loops whose inputs the arrays' dtypes can be cast to."""
    for name in sorted(set(UFUNCS) - {"matmul"}):
        loops = [types.split("->") for types in getattr(cupy, name).types]
        for kinds in itertools.product(DTYPES, repeat=UFUNCS[name].nin):
            try:
                expected = getattr(strict, name)(*(strict.ones(1, dtype) for dtype in kinds)).dtype
            except TypeError:
                continue  # refused here
            found = next(out for ins, out in loops if all(map(np.can_cast, kinds, ins)))
            assert expected == found, (name, kinds)
