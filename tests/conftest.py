"""What all tests share."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest

# Under pytest-xdist each process has its share of the cores, for BLAS threads without a core of their own wait for each
# other in loops: the largest networks took ten times as long. NumPy isn't imported yet; child processes inherit this.
PROCESSES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if PROCESSES > 1:
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, str(max(1, (os.cpu_count() or 1) // PROCESSES)))

# Where Numba is installed, too, tests are of NumPy's bodies, unless they or the caller choose the other engine.
os.environ.setdefault("TINYNET_ENGINE", "numpy")

TESTS = Path(__file__).parent
HELPERS = [path for path in TESTS.rglob("*.py") if not path.name.startswith(("test_", "conftest", "__"))]
# Helpers' assertions are explained as those of tests are, and checked under `python -O` too.
pytest.register_assert_rewrite(
    *(".".join(path.relative_to(TESTS.parent).with_suffix("").parts) for path in HELPERS)
)

from tests.support.browser import chromium  # noqa: E402, F401  (a fixture)
from tests.support.gpus import gpu  # noqa: E402, F401  (a fixture)
from tests.support.strict_arrays import stand_in  # noqa: E402, F401  (a fixture)

# How long an example takes or is drawn says more of the machine than of tinynet. A database of failing examples would
# be a folder in the checkout, which may be read-only; `print_blob` prints how to run a failing example again.
hypothesis.settings.register_profile(
    "tinynet",
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tinynet")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """An idle process takes tests from a busy one: some tests take half a minute, most a few milliseconds."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own handler, even where the tests run as a background job that ignores Ctrl-C."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.fixture
def reachable_folder():
    """A folder that every user may enter; pytest's own folders are its user's alone."""
    with tempfile.TemporaryDirectory(prefix="tinynet-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def fashion_mnist():
    """The real data: ((x_train, y_train), (x_test, y_test))."""
    import tinynet as tn

    try:
        return tn.datasets.fashion_mnist.load(archive=True)
    except OSError as error:
        if "CI" in os.environ and sys.platform == "linux":
            raise  # there the data set can be had, so a skip would hide a defect
        pytest.skip(f"Fashion-MNIST can't be had here: {error}")
