"""The rules of the house: which way imports point, what a CPU reader never meets, what `import tinynet` loads."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinynet as tn

PACKAGE = Path(tn.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FLOORS = 16  # of the graph of packages in version 0.1, which had one room
OWN_TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}


def room(module):
    """The root module or first-level folder that a module is in; None for the package itself."""
    return module.split(".")[1] if "." in module else None


def imports(name):
    """The modules of the package that a module imports, those inside functions included."""
    for node in ast.walk(OWN_TREES[name]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinynet":
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in SOURCES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("tinynet."))


@functools.cache
def rooms():
    """Which rooms each room's imports lead to. The package's front door and its command line are no rooms."""
    found = {room(name): set() for name in SOURCES if room(name) not in (None, "__main__")}
    for name in SOURCES:
        if room(name) in found:
            found[room(name)] |= {room(other) for other in imports(name)} - {room(name), None}
    return found


def floors(name, above=()):
    """How many rooms are on the longest way down from one."""
    assert name not in above, f"a cycle of imports: {' -> '.join([*above[above.index(name) :], name])}"
    return 1 + max((floors(other, (*above, name)) for other in rooms()[name]), default=0)


def test_imports_point_one_way_and_no_deeper_than_before():
    assert len(rooms()) > 15
    assert max(map(floors, rooms())) <= FLOORS


def test_who_imports_whom():
    assert rooms()["engines"] == {"support"}
    assert rooms()["support"] <= {"version"}
    assert "layers" not in rooms()["optimizers"]
    assert "optimizers" not in rooms()["schedules"]


def test_the_root_has_at_most_20_modules():
    assert len(list(PACKAGE.glob("*.py"))) <= 20


def test_nothing_outside_its_engine_names_the_gpus_library():
    outside = {name: path for name, path in SOURCES.items() if not name.startswith("tinynet.engines.gpu")}
    named = [name for name, path in outside.items() if re.search("cupy", path.read_text("utf-8"), re.I)]
    assert named == []


def decisions(tree):
    """The conditions that a module decides by."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            yield node.test
        elif isinstance(node, ast.comprehension):
            yield from node.ifs
        elif isinstance(node, ast.Match):
            yield node.subject


def is_about_a_device(condition):
    """Whether it asks which device something is on; whether one was given at all (is None) is another question."""
    for node in ast.walk(condition):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) and side.value is None for side in sides):
                continue
            words = {word for side in sides for word in words_of(side)}
            if words & {"device", "device_of", "CPU", "Gpu", "cpu", "gpu", "on_gpu"}:
                return True
    return False


def words_of(node):
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr
        elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


# Where a user chooses a device, or hands in an array on one, it is compared with the model's.
CHOICES = {
    ("tinynet.model.sequential", "target is not self.device and is_in_use(self)"),
    ("tinynet.model.sequential", "(dtype, device) == (self.dtype, self.device)"),
    ("tinynet.training.batches", "is_array(result) and device_of(result) is not device_of(x)"),
    ("tinynet.study.tracing.trace", "model.device.on_host(model) is not model and (not dry_run)"),
}


def test_one_line_outside_the_engines_branches_on_a_device():
    found = {
        (name, ast.unparse(condition))
        for name, tree in OWN_TREES.items()
        if room(name) != "engines"
        for condition in decisions(tree)
        if is_about_a_device(condition)
    }
    assert found - CHOICES == {("tinynet.training.steps", "run.model.device.name == 'gpu'")}
    assert found >= CHOICES


@pytest.mark.parametrize(
    "line", ["if model.device.name != 'cpu': pass", "x = 1 if device_of(a) is CPU else 2"]
)
def test_that_test_sees_a_branch(line):
    assert [is_about_a_device(condition) for condition in decisions(ast.parse(line))] == [True]


LOOK = """
import sys
import numpy
import tinynet
heavy = "matplotlib requests tqdm numba cupy safetensors threadpoolctl tinynet.study tinynet.plots".split()
print(" ".join(name for name in heavy if name in sys.modules))
"""


def test_importing_the_package_loads_what_training_needs_and_no_more():
    found = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=True)
    assert not set(found.stdout.split()) & {
        "matplotlib",
        "requests",
        "tqdm",
        "numba",
        "cupy",
        "tinynet.study",
        "tinynet.plots",
    }


IMPORT_TIMES = """
import sys, time
started = time.process_time()
import numpy
middle = time.process_time()
import tinynet
print((time.process_time() - middle) / (middle - started))
"""


def test_importing_the_package_takes_about_as_long_as_importing_numpy():
    """A ratio within one process, the best of five: a busy machine slows both."""
    ratios = [
        float(subprocess.run([sys.executable, "-c", IMPORT_TIMES], capture_output=True, check=True).stdout)
        for _ in range(5)
    ]
    assert min(ratios) < 2


def test_what_is_loaded_when_used_is_there():
    assert tn.plots.plot_history.__module__ == "tinynet.plots.figures"
    assert tn.study.trace.__module__ == "tinynet.study.tracing.trace"
    assert dir(tn) == sorted(tn.__all__)
    assert all(hasattr(tn, name) for name in dir(tn))
    with pytest.raises(AttributeError, match="module 'tinynet' has no attribute 'plotts'"):
        tn.plotts  # noqa: B018


def test_a_model_shows_what_users_use():
    model = tn.Sequential([tn.Dense(2)], (3,))
    internal = ["fuse", "check_head", "begin_step", "forward_backward", "replica", "first_non_finite"]
    assert not set(internal) & set(dir(model))
    assert {"fit", "predict", "evaluate", "layers", "params", "decay_size", "trainable_ranges"} <= set(
        dir(model)
    )


def test_the_old_name_of_allow_tf32_works_and_warns():
    from tinynet.engines.gpu import cublas

    before = cublas.tf32_allowed()
    with pytest.warns(DeprecationWarning, match=r"is now tinynet\.engines\.gpu\.allow_tf32"):
        tn.cublas.allow_tf32(True)
    assert cublas.tf32_allowed()
    tn.engines.gpu.allow_tf32(before)
    assert cublas.tf32_allowed() == before
