"""A GPU for tests: the strict stand-in and, in tests marked gpu, a real device if there is one."""

import pytest

from tinynet.engines import devices
from tinynet.support.errors import DeviceError


@pytest.fixture(params=["stand-in", pytest.param("device", marks=pytest.mark.gpu)])
def gpu(request):
    """What ``device="gpu"`` stands for in a test, as a `tinynet.engines.gpu.device.Gpu`."""
    if request.param == "stand-in":
        request.getfixturevalue("stand_in")
    try:
        return devices.get_device("gpu")
    except DeviceError as error:
        pytest.skip(str(error))
