"""A GPU for tests: the strict stand-in and, in tests marked gpu, a real device if there is one."""

import pytest

from tinynet import backend


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def gpu(request):
    """The `tinynet.backend.Gpu` that ``device="gpu"`` stands for in a test."""
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
    try:
        return backend.get_device("gpu")
    except backend.DeviceError as error:
        pytest.skip(str(error))
