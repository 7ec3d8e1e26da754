"""The strict stand-in with the real CUDA kernels, run on the CPU from their source, instead of the NumPy twins."""

import numpy as np

from tests.support import cuda_emulation
from tests.support.strict_arrays import Strict
from tests.support.strict_twins import Twins
from tinynet.engines.gpu.device import Gpu
from tinynet.engines.gpu.kernels import Kernels


class EmulatedKernels(Twins):
    """Runs each operation's kernel on guarded copies of the arrays; only matrix products are NumPy's."""

    def __init__(self, strict):
        super().__init__(strict)
        self.cuda = cuda_emulation.Cuda()
        self.kernels = Kernels(self.cuda)
        self.launched = set()

    def _compute(self, name, bound):
        if name == "matmul":
            return super()._compute(name, bound)
        self.launched.add(name)
        host = name in ("flip_images", "shift_images", "erase_squares")
        first = next(iter(bound.arguments))
        given = {
            key: value
            for key, value in bound.arguments.items()
            if isinstance(value, (np.ndarray, np.generic)) and (key == first or not host)
        }
        copies = {key: self._copy(value) for key, value in given.items()}
        bound.arguments.update(copies)
        result = getattr(self.kernels, name)(*bound.args, **bound.kwargs)
        for key, copy in copies.items():
            if isinstance(given[key], np.ndarray) and given[key].flags.writeable:
                given[key][...] = copy
        given_of = {id(copy): given[key] for key, copy in copies.items()}
        several = isinstance(result, tuple)
        found = [
            given_of[id(part)] if id(part) in given_of else None if part is None else np.array(part)
            for part in (result if several else (result,))
        ]
        return tuple(found) if several else found[0]

    def _copy(self, array):
        """A copy of the array in the emulation's memory, with the axes in the same order."""
        array = np.asarray(array)
        order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
        copy = self.cuda.empty([array.shape[axis] for axis in order], array.dtype)
        copy = copy.transpose(np.argsort(order)) if order else copy
        copy[...] = array
        return copy


def emulated_gpu():
    """A `tinynet.engines.gpu.device.Gpu` of the stand-in and the emulated kernels."""
    strict = Strict()
    return Gpu(strict, EmulatedKernels(strict))
