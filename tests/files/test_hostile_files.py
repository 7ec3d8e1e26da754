"""Files from strangers: whatever they contain, they are rejected by name, quickly and with little memory."""

import io
import json
import os
import pickle
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import safetensors.numpy

import tinynet as tn
from tests.support.loopback import child_environment
from tinynet.files import architecture, storage

MEGABYTES = 50
TIMES = 80  # the slowest, descriptions of a million characters, take 25 times as long as a model of a million weights

PACKAGE = "Error while deserializing"  # the safetensors package says this
OURS = b'{"__metadata__":{"tinynet":"{\\"format\\":1}","sha256":""},'  # so that the rest of the header is looked at


def framed(head, rest=b""):
    """A file that begins as a safetensors file does; an object that names only arrays gets the metadata of a model."""
    if isinstance(head, dict):
        head = json.dumps(json.loads(OURS[:-1] + b"}") | head).encode()
    return len(head).to_bytes(8, "little") + head + rest


def entry(begin, end, shape=None, dtype="F32"):
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def zipped(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


class Dangerous:
    """Ends the process when unpickled."""

    def __reduce__(self):
        return os._exit, (1,)


LISTS = b"[" + b"[]," * 349_000 + b"[]]"

HEADERS = {
    "a size of 2^63": (
        (1 << 63).to_bytes(8, "little") + b"{}" * 20,
        "does not begin like a safetensors file",
    ),
    "a size of 2^64 - 1": (b"\xff" * 40, "does not begin like a safetensors file"),
    "a size of 0": (bytes(40), "does not begin like a safetensors file"),
    "a size above the limit": (
        (storage.MAX_HEADER + 1).to_bytes(8, "little") + b" " * (storage.MAX_HEADER + 9),
        "does not begin like a safetensors file",
    ),
    "a size beyond the file": ((1000).to_bytes(8, "little") + b"{}", "it ends before its header does"),
    "arrays that overlap": (framed({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), PACKAGE),
    "arrays in one place": (framed({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), PACKAGE),
    "an array within another": (framed({"a": entry(0, 12), "b": entry(4, 8)}, bytes(12)), PACKAGE),
    "a gap": (framed({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), PACKAGE),
    "a gap in front": (framed({"a": entry(4, 8)}, bytes(8)), PACKAGE),
    "bytes behind": (framed({"a": entry(0, 4)}, bytes(8)), PACKAGE),
    "bytes missing": (framed({"a": entry(0, 8)}, bytes(4)), PACKAGE),
    "offsets exchanged": (framed({"a": entry(8, 0, [2])}, bytes(8)), PACKAGE),
    "a negative offset": (framed({"a": entry(-4, 0)}, bytes(4)), PACKAGE),
    "an offset of 2^63": (framed({"a": entry(0, 1 << 63)}, bytes(4)), PACKAGE),
    "three offsets": (framed({"a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4, 4]}}), PACKAGE),
    "a negative size": (framed({"a": entry(0, 4, [-1])}, bytes(4)), PACKAGE),
    "two negative sizes": (framed({"a": entry(0, 4, [-1, -1])}, bytes(4)), PACKAGE),
    "a size of 2^63 in a shape": (framed({"a": entry(0, 4, [1 << 63])}, bytes(4)), PACKAGE),
    "a product of 2^64": (framed({"a": entry(0, 0, [1 << 32, 1 << 32])}), PACKAGE),
    "a product of 2^124, but for a 0": (
        framed({"a": entry(0, 0, [0, 1 << 62, 1 << 62])}),
        "array is too big",
    ),
    "a terabyte": (framed({"a": entry(0, 1 << 40, [1 << 38])}, bytes(4)), PACKAGE),
    "65 dimensions": (framed({"a": entry(0, 4, [1] * 65)}, bytes(4)), "maximum supported dimension"),
    "300,000 dimensions": (
        framed({"a": entry(0, 4, [1] * 300_000)}, bytes(4)),
        "maximum supported dimension",
    ),
    "half a size": (framed({"a": entry(0, 4, [1.0])}, bytes(4)), PACKAGE),
    "true as a size": (framed({"a": entry(0, 4, [True])}, bytes(4)), PACKAGE),
    "a size as text": (framed({"a": entry(0, 4, ["1"])}, bytes(4)), PACKAGE),
    "no shape": (framed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, bytes(4)), PACKAGE),
    "an array that is a list": (framed({"a": []}), PACKAGE),
    "a dtype of half a byte": (framed({"a": entry(0, 4, [8], "F4")}, bytes(4)), f"F4|{PACKAGE}"),
    "a dtype that NumPy lacks": (framed({"a": entry(0, 4, [2], "BF16")}, bytes(4)), "BF16"),
    "a dtype that is a list": (framed({"a": entry(0, 4, dtype=["F32"])}, bytes(4)), PACKAGE),
    "a dtype that nobody knows": (framed({"a": entry(0, 4, dtype="X1")}, bytes(4)), PACKAGE),
    "metadata twice": (framed(b'{"__metadata__":{},' + OURS[1:-1] + b"}"), PACKAGE),
    "a name twice within": (framed(OURS + b'"a":{"dtype":"F32","dtype":"F64"}}'), PACKAGE),
    "ten thousand names twice": (
        framed(OURS + b",".join(b'"%d":[],"%d":[]' % (i, i) for i in range(10_000)) + b"}"),
        PACKAGE,
    ),
    "16,000 arrays of nothing": (framed({str(i): entry(0, 0, [0]) for i in range(16_000)}), "SHA-256"),
    "lists nested": (framed(b"[" * 1_000_000), "recursion"),
    "lists nested and closed": (framed(b"[" * 500_000 + b"]" * 500_000), "recursion"),
    "objects nested": (framed(b'{"a":' * 200_000), "recursion"),
    "lists nested 500 deep": (framed(OURS + b'"a":' + b"[" * 500 + b"]" * 500 + b"}"), PACKAGE),
    "nested behind a text": (framed(b'{"\\"]}":' * 100_000), "recursion"),
    "a text without an end": (framed(b'{"' + b'\\"' * 500_000), "Unterminated string"),
    "many texts without an end": (framed(b'"\\' * 500_000), "is damaged or not a tinynet model"),
    "many lists": (framed(LISTS), "not a description and its digest"),
    "many lists in an object": (framed(OURS + b'"a":' + LISTS[:900_001] + b"[]]}"), PACKAGE),
    "a million numbers": (framed(OURS + b'"a":[' + b"1," * 500_000 + b"1]}"), PACKAGE),
    "a number of a million digits": (framed(b'{"a":' + b"7" * 1_000_000 + b"}"), "integer"),
    "a huge power": (framed(OURS + b'"a":1e999}'), PACKAGE),
    "NaN": (framed(OURS + b'"a":NaN}'), PACKAGE),
    "no UTF-8": (framed(b'{"\xff":1}'), "utf-8"),
    "UTF-16": (framed((OURS[:-1] + b"}").decode().encode("utf-16")), PACKAGE),
    "a byte order mark": (framed(b"\xef\xbb\xbf" + OURS[:-1] + b"}"), PACKAGE),
    "half a character": (framed(b'{"__metadata__":{"tinynet":"\\ud800","sha256":""}}'), "is damaged or not"),
    "half a character in JSON": (
        framed(b'{"__metadata__":{"tinynet":"{\\"format\\":1,\\"x\\":\\"\\ud800\\"}","sha256":""}}'),
        "is damaged or not a tinynet model",
    ),
    "no JSON": (framed(b"{'a': 1}"), "is damaged or not a tinynet model"),
    "a number": (framed(b"17"), "not a description and its digest"),
    "metadata that is a list": (framed({"__metadata__": []}), "not a description and its digest"),
    "metadata of numbers": (
        framed({"__metadata__": {"tinynet": 1, "sha256": 2}}),
        "not a description and its digest",
    ),
    "metadata of someone else": (framed({"__metadata__": {"format": "pt"}}), "not a description and its dig"),
    "a pickle": (
        pickle.dumps(Dangerous()),
        "is not a tinynet model but a pickle, which can run arbitrary code",
    ),
    "an old pickle": (pickle.dumps(Dangerous(), 0), "is not a tinynet model"),
    "an .h5": (b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0" + bytes(2000), "but an HDF5 file, like Keras's .h5"),
    "a .keras": (zipped("config.json", '{"class_name": "Sequential"}'), "but a zip archive, like .keras"),
    "nothing": (b"", "is not a tinynet model"),
    "a text": (b"import os\n" * 100, "is not a tinynet model"),
}


def sealed(text, arrays=None, **metadata):
    """Return a file with a correct digest: someone made it like this."""
    arrays = {} if arrays is None else arrays
    return safetensors.numpy.save(
        arrays, {"tinynet": text, "sha256": storage._digest(text, arrays), **metadata}
    )


def described(stack, arrays=None, input_shape=(3,), **changes):
    """Return a sealed file with these layers, given as (type, config)."""
    description = {
        "format": 1,
        "kind": "model",
        "layers": [{"type": kind, "config": config, "custom": False} for kind, config in stack],
        "trainable": [True] * len(stack),
        "input_shape": list(input_shape),
        "seed": 0,
        "dtype": "float32",
        "loss": None,
        "fitted_on_bytes": False,
        "step": 0,
        "epoch": 0,
    }
    return sealed(json.dumps(description | changes), arrays)


def nested(depth, layer=("ReLU", {})):
    for _ in range(depth):
        kind, config = layer
        layer = "Residual", {"layers": [{"layer": {"type": kind, "config": config, "custom": False}}]}
    return layer


ONE = {"0.W": np.ones((1, 2), np.float32)}
HUGE = 1 << 62

DESCRIPTIONS = {
    "a tebi of units": (
        described([("Dense", {"units": 1 << 40})], ONE),
        r"expected float32 \(3, 1099511627776\)",
    ),
    "2^62 units": (described([("Dense", {"units": HUGE})], ONE), "0.W: expected"),
    "units of 4000 digits": (
        described([("Dense", {"units": 10**4000})], ONE),
        "units: expected a positive int",
    ),
    "a huge input": (
        described([("Dense", {"units": 2})], ONE, (1 << 40,)),
        r"0.W: expected .*got float32 \(1, 2\)",
    ),
    "an input of too many elements": (
        described([("ReLU", {})], {}, (HUGE, HUGE)),
        "no array can have as many",
    ),
    "an input of 100,000 axes": (described([("ReLU", {})], {}, [1] * 100_000), "at most 63 axes, got 100000"),
    "a shape of 100,000 axes": (described([("Reshape", {"target_shape": [1] * 100_000})]), "at most 63 axes"),
    "a shape of 4000 digits": (described([("Reshape", {"target_shape": [10**4000]})]), "a positive int"),
    "a batch-norm of a tebi": (described([("BatchNorm", {})], ONE, (1 << 40,)), "0.running_mean is missing"),
    "a kernel of a tebi": (
        described([("Conv2D", {"filters": 1, "kernel_size": 1 << 40, "padding": "same"})], ONE, (4, 4, 1)),
        "0.W: expected",
    ),
    "2^62 filters": (
        described([("Conv2D", {"filters": HUGE, "kernel_size": 1})], ONE, (4, 4, 1)),
        "no array can hold the output",
    ),
    "huge steps": (
        described([("Conv2D", {"filters": 1, "kernel_size": 1, "strides": HUGE})], ONE, (4, 4, 1)),
        "0.W: expected",
    ),
    "a pool of a tebi": (
        described([("AveragePool2D", {"pool_size": 1 << 40, "padding": "same"})], ONE, (4, 4, 1)),
        "0.W belongs to no layer",
    ),
    "a pool over a tera-pixel image": (
        described([("AveragePool2D", {"pool_size": 1})], ONE, (1 << 20, 1 << 20, 1)),
        "0.W belongs to no layer",
    ),
    "channels multiplied again and again": (
        described(
            [("DepthwiseConv2D", {"kernel_size": 1, "depth_multiplier": 1 << 20})] * 10, ONE, (4, 4, 1)
        ),
        "layer 2 .*no array can hold the output",
    ),
    "a thousand and one layers": (described([("ReLU", {})] * 1001), "expected at most 1,000 layers"),
    "twenty thousand layers": (described([("ReLU", {})] * 15_000), "expected at most 1,000 layers"),
    "a thousand layers that don't fit": (
        described([("Dense", {"units": 5})] * 1000, ONE),
        "999.W is missing",
    ),
    "layers in layers in layers": (described([nested(26)]), "nested at most 100 deep"),
    "an unknown layer": (described([("os.system", {"command": "x"})]), "layer 'os.system' is not known"),
    "a base class": (described([("Layer", {})]), "layer 'Layer' is not known"),
    "a model as a layer": (described([("Sequential", {})]), "layer 'Sequential' is not known"),
    "a dunder as a layer": (described([("__class__", {})]), "layer '__class__' is not known"),
    "a list as a layer": (described([(["Dense"], {})]), "unhashable"),
    "an unknown argument": (described([("Dense", {"units": 2, "exec": "x"})]), "exec"),
    "an argument called self": (described([("Dense", {"units": 2, "self": 1})]), "self"),
    "an unknown initializer": (
        described([("Dense", {"units": 2, "kernel_initializer": "os.system"})]),
        "unknown initializer 'os.system'",
    ),
    "an initializer that is a list": (
        described([("Dense", {"units": 2, "kernel_initializer": []})]),
        "initializer",
    ),
    "no layers": (described([]), "expected at least one layer"),
    "layers that are a text": (described([], layers="Dense"), "the model can't be made"),
    "a compound dtype": (described([("ReLU", {})], dtype="f4,f4"), "dtype: expected"),
    "a dtype that is an object": (described([("ReLU", {})], dtype={"names": []}), "dtype: expected"),
    "a seed below 0": (described([("ReLU", {})], seed=-1), "seed: expected"),
    "a seed that is a text": (described([("ReLU", {})], seed="1"), "seed: expected"),
    "a step below 0": (described([("ReLU", {})], step=-1), "step: expected"),
    "half a step": (described([("ReLU", {})], step=0.5), "step: expected"),
    "an epoch beyond counting": (described([("ReLU", {})], epoch=10**300), "epoch: expected"),
    "trainable by half": (described([("ReLU", {})], trainable=[0.5]), "trainable: expected True or False"),
    "trainable too often": (described([("ReLU", {})], trainable=[True, True]), "the model can't be made"),
    "fitted on something": (
        described([("ReLU", {})], fitted_on_bytes="no"),
        "fitted_on_bytes: expected True",
    ),
    "fitted on a negative magnitude": (
        described([("ReLU", {})], fitted_magnitude=-1),
        "fitted_magnitude: exp",
    ),
    "fitted on a text": (
        described([("ReLU", {})], fitted_magnitude="1"),
        "fitted_magnitude: expected a number",
    ),
    "an unknown loss": (described([("ReLU", {})], loss={"type": "eval", "config": {}}), "loss 'eval' is not"),
    "a loss that is a list": (described([("ReLU", {})], loss=[]), "the model can't be made"),
    "a format to come": (sealed('{"format": 2}'), "expected format 1, got 2; update tinynet"),
    "a kind to come": (sealed('{"format": 1, "kind": "video"}'), "expected a model file, got 'video'"),
    "a kind that is a list": (sealed('{"format": 1, "kind": []}'), "expected a model file, got"),
    "a description nested deeply": (sealed("[" * 200_000), "nested at most 100 deep"),
    "a description nested 101 deep": (sealed("[" * 101 + "]" * 101), "nested at most 100 deep"),
    "a description of many lists": (sealed(LISTS.decode()[:1_000_000] + "[]]"), "does not name a format"),
    "a truth value of 2": (
        sealed('{"format": 1}', {"0.W": np.array([2], np.uint8).view(bool)}),
        "a boolean in it is neither 0 nor 1",
    ),
    "more metadata": (sealed('{"format": 1}', note="x"), "its metadata is not a description and its digest"),
}

HOSTILE = HEADERS | DESCRIPTIONS


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_by_name_with_the_cause(name, tmp_path):
    data, cause = HOSTILE[name]
    (tmp_path / "stranger").write_bytes(data)
    with pytest.raises(tn.ModelFileError, match=f"(?s)stranger: .*({cause})"):
        tn.load_model(tmp_path / "stranger")
    if name in HEADERS:
        with pytest.raises(tn.ModelFileError, match=r"stranger: is (.*tinynet checkpoint|damaged)"):
            storage.load(tmp_path / "stranger", kind="checkpoint")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model of a million weights in a file of 4 MB, which takes some 20 ms to load."""
    path = tmp_path_factory.mktemp("hostile") / "good"
    tn.Sequential([tn.Dense(1000)], input_shape=(1000,), seed=0).save(path)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_quickly_and_in_little_memory(name, good, tmp_path):
    (tmp_path / "stranger").write_bytes(HOSTILE[name][0])
    refusals, loads = [], []
    for _ in range(10):  # the best of them: the machine may be busy
        start = time.process_time()
        with pytest.raises(tn.ModelFileError):
            tn.load_model(tmp_path / "stranger")
        middle = time.process_time()
        tn.load_model(good)
        refusals.append(middle - start)
        loads.append(time.process_time() - middle)
        if min(refusals) < TIMES * min(loads):
            break
    assert min(refusals) < TIMES * min(loads)
    tracemalloc.start()
    try:
        with pytest.raises(tn.ModelFileError):
            tn.load_model(tmp_path / "stranger")
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 1e6
    finally:
        tracemalloc.stop()


LOAD_ALL = """
import os, resource, sys
import tinynet as tn

names = os.listdir(sys.argv[1])
tn.load_model(os.path.join(sys.argv[1], "good"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in names:
    try:
        tn.load_model(os.path.join(sys.argv[1], name))
    except tn.ModelFileError:
        names = [other for other in names if other != name]
print(names, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux")
def test_all_of_them_in_one_process_take_little_memory(tmp_path):
    """This includes memory that Python's tracing does not see, such as the safetensors package's."""
    tn.Sequential([tn.Dense(2)], input_shape=(3,)).save(tmp_path / "good")
    for index, (data, _) in enumerate(HOSTILE.values()):
        (tmp_path / str(index)).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, tmp_path],
        env=child_environment(OPENBLAS_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names, kilobytes = done.stdout.rsplit(maxsplit=1)
    assert names == "['good']"
    assert int(kilobytes) < MEGABYTES * 1000


def small_model():
    return tn.Sequential([tn.Dense(1)], input_shape=(1,), seed=0)


@pytest.fixture(scope="module")
def attempts(tmp_path_factory):
    """(change, error or None) of each attempt, the most memory that one took, and the model that should get them."""
    path = tmp_path_factory.mktemp("damage") / "m"
    small_model().save(path)
    good, target, results, peaks = path.read_bytes(), small_model(), [], []
    tn.load_model(path)

    def attempt(what):
        traced = len(results) % 17 == 0
        error = None
        if traced:
            tracemalloc.start()
        try:
            if len(results) % 4:
                tn.load_model(path)
            else:
                tn.transfer_weights(path, target)
        except tn.ModelFileError as refusal:
            error = str(refusal).removeprefix(f"{path}: ")
        if traced:
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        results.append((what, error))

    # Changed in place: writing a new file 6,000 times would keep the disk busy.
    for length in reversed(range(len(good))):
        os.truncate(path, length)
        attempt(f"cut at {length}")
    path.write_bytes(good)
    with open(path, "r+b", buffering=0) as file:
        for position, byte in enumerate(good):
            for change in [*(byte ^ 1 << bit for bit in range(8)), byte]:
                file.seek(position)
                file.write(bytes([change]))
                if change != byte:
                    attempt(f"byte {position} changed from {byte:08b} to {change:08b}")
    assert path.read_bytes() == good
    return good, results, max(peaks), target


class TestEveryByte:
    """A small file cut at every length and with every bit flipped."""

    def test_each_is_refused(self, attempts):
        good, results, _, _ = attempts
        assert len(results) == 9 * len(good)
        assert [what for what, error in results if error is None] == []

    def test_each_error_names_the_file_and_the_cause(self, attempts):
        _, results, _, _ = attempts
        causes = ("is not a tinynet model", "is damaged", "expected format 1", "expected a model file")
        assert [error for _, error in results if not error.startswith(causes)] == []

    def test_memory_stays_small(self, attempts):
        assert attempts[2] < 1e6

    def test_the_model_is_unchanged(self, attempts):
        np.testing.assert_array_equal(attempts[3].params, small_model().params)


@pytest.mark.parametrize("name", ["an array with a name twice", "an array with an entry too many"])
def test_what_the_package_passes_over_changes_nothing(name, tmp_path):
    """Of two entries of one name it takes the last, and what it does not know it leaves out; the digest is the same."""
    small_model().save(tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    size = int.from_bytes(data[:8], "little")
    head, weights = data[8 : 8 + size].rstrip(), data[8 + size :]
    found = b'"0.b":{"dtype":"F32",'
    assert head.count(found) == 1
    more = b'"0.b":{"dtype":"F64","shape":[9],"data_offsets":[0,72]},' if "twice" in name else b""
    changed = head.replace(found, more + found + (b"" if more else b'"x":1,'))
    (tmp_path / "m").write_bytes(framed(changed, weights))
    np.testing.assert_array_equal(tn.load_model(tmp_path / "m").params, small_model().params)


def test_a_sparse_terabyte_is_refused_unread(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        head = framed({"a": entry(0, 1 << 40, [1 << 38])})
        file.write(head)
        try:
            file.truncate(len(head) + (1 << 40))
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
    with pytest.raises(tn.ModelFileError, match="it has more than 4,294,967,296 bytes"):
        tn.load_model(tmp_path / "m")


def test_a_large_file_of_another_library_is_refused_unread(tmp_path):
    with open(tmp_path / "m", "wb") as file:
        head = framed({"__metadata__": {"format": "pt"}, "a": entry(0, 1 << 31)})
        file.write(head)
        try:
            file.truncate(len(head) + (1 << 31))
        except OSError as error:
            pytest.skip(f"no sparse files here: {error}")
    tracemalloc.start()
    try:
        with pytest.raises(tn.ModelFileError, match="its metadata is not a description and its digest"):
            tn.load_model(tmp_path / "m")
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_every_mismatch_is_listed(tmp_path):
    model = tn.Sequential([tn.Dense(2), tn.BatchNorm(), tn.Dense(3)], input_shape=(4,), seed=0)
    arrays = {name: array.copy() for name, array in model.named_weights().items()}
    del arrays["0.b"], arrays["1.running_var"]
    arrays |= {"0.W": np.ones((2, 4), np.float32), "1.gamma": np.ones(2), "3.W": np.ones(1, np.float32)}
    storage.save(tmp_path / "m", architecture.describe(model), arrays)
    with pytest.raises(tn.ModelFileError) as error:
        tn.load_model(tmp_path / "m")
    assert str(error.value) == (
        f"{tmp_path / 'm'}: the model can't be made: the arrays don't fit the layers: "
        "0.W: expected float32 (4, 2), got float32 (2, 4); 0.b is missing; "
        "1.gamma: expected float32 (2,), got float64 (2,); 1.running_var is missing; 3.W belongs to no layer"
    )


def test_layers_as_deep_and_as_many_as_a_file_may_have_come_back(tmp_path):
    block = tn.ReLU()
    for _ in range(20):
        block = tn.Residual(block)
    model = tn.Sequential([block, *(tn.ReLU() for _ in range(979))], input_shape=(3,), seed=0)
    model.save(tmp_path / "m")
    assert repr(tn.load_model(tmp_path / "m")) == repr(model)


def test_what_load_would_refuse_is_not_saved(tmp_path):
    def saved(*layers):
        tn.Sequential(layers, input_shape=(3,), seed=0).save(tmp_path / "m")

    with pytest.raises(tn.ModelFileError, match="has 1,001 layers; a file can have at most 1,000"):
        saved(*(tn.ReLU() for _ in range(1001)))
    block = tn.ReLU()
    for _ in range(26):
        block = tn.Residual(block)
    with pytest.raises(tn.ModelFileError, match=r"m: the model can't be written: .*nested at most 100 deep"):
        saved(block)
    with pytest.raises(
        tn.ModelFileError, match=r"m: .*array 'x': expected floats, integers or booleans, got complex128"
    ):
        storage.save(tmp_path / "m", {}, {"x": np.ones(2, complex)})
    with pytest.raises(tn.ModelFileError, match=r"m: .*got datetime64"):
        storage.save(tmp_path / "m", {}, {"x": np.zeros(2, "M8[s]")})
    assert os.listdir(tmp_path) == []


def test_more_arrays_than_a_file_may_have(tmp_path, monkeypatch):
    small_model().save(tmp_path / "m")
    monkeypatch.setattr(storage, "MAX_PAYLOAD", 7)
    with pytest.raises(
        tn.ModelFileError, match="new: the model can't be written: its arrays are over 7 bytes"
    ):
        small_model().save(tmp_path / "new")
    with pytest.raises(tn.ModelFileError, match="m: is not a tinynet model: it has more than 7 bytes"):
        tn.load_model(tmp_path / "m")
    assert os.listdir(tmp_path) == ["m"]


def test_a_layer_that_makes_its_state_itself(tmp_path):
    """Without `add_state`, which declares it; such a file is checked against the state of the built layer."""

    class Counts(tn.Layer):
        state_names = ("counts",)

        def build(self, input_shape):
            self.counts = np.zeros(input_shape, np.int64)
            return input_shape

        def forward(self, x, training=False):
            return x

    def model(features):
        return tn.Sequential([Counts()], input_shape=(features,), seed=0)

    saved = model(3)
    saved.layers[0].counts[...] = [1, 2, 3]
    saved.save(tmp_path / "m")
    loaded = tn.load_model(tmp_path / "m", custom_layers={"Counts": Counts})
    np.testing.assert_array_equal(loaded.layers[0].counts, [1, 2, 3])
    storage.save(tmp_path / "m", architecture.describe(model(2)), {"0.counts": np.zeros(3, np.int64)})
    with pytest.raises(tn.ModelFileError, match=r"0.counts: expected int64 \(2,\), got int64 \(3,\)"):
        tn.load_model(tmp_path / "m", custom_layers={"Counts": Counts})


DTYPES = [
    *("float64", "float32", "float16", "bool"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
]


class TestKinds:
    def test_a_checkpoint_is_no_model(self, tmp_path):
        storage.save(tmp_path / "c", {"epoch": 3}, {"0.W": np.ones(2)}, kind="checkpoint")
        with pytest.raises(tn.ModelFileError, match="c: expected a model file, got a checkpoint, which fit"):
            tn.load_model(tmp_path / "c")
        with pytest.raises(tn.ModelFileError, match="expected a model file, got a checkpoint"):
            tn.transfer_weights(tmp_path / "c", small_model())

    def test_a_model_is_no_checkpoint(self, tmp_path):
        small_model().save(tmp_path / "m")
        with pytest.raises(
            tn.ModelFileError, match="m: expected a checkpoint, got a model file, which load_model"
        ):
            storage.load(tmp_path / "m", kind="checkpoint")

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
    def test_arrays_come_back_to_the_bit(self, dtype, shape, tmp_path):
        array = np.random.default_rng(0).integers(0, 120, shape).astype(dtype)
        storage.save(tmp_path / "c", {"note": "größer"}, {"x": array, "y": array.T}, kind="checkpoint")
        description, arrays = storage.load(tmp_path / "c", kind="checkpoint")
        assert description == {"format": storage.FORMAT, "kind": "checkpoint", "note": "größer"}
        for name, expected in (("x", array), ("y", array.T)):
            assert arrays[name].dtype == dtype
            assert arrays[name].shape == expected.shape
            np.testing.assert_array_equal(arrays[name], expected)

    def test_files_from_before_there_were_kinds_are_models(self, tmp_path):
        model = small_model()
        description = {"format": 1, **architecture.describe(model)}
        (tmp_path / "m").write_bytes(sealed(json.dumps(description), dict(model.named_weights())))
        np.testing.assert_array_equal(tn.load_model(tmp_path / "m").params, model.params)


class TestUnreadable:
    def test_a_folder(self, tmp_path):
        with pytest.raises(tn.ModelFileError, match=f"{tmp_path.name}: can't be read"):
            tn.load_model(tmp_path)

    @pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no /dev/zero")
    def test_a_device_without_an_end(self):
        with pytest.raises(
            tn.ModelFileError, match="/dev/zero: is not a tinynet model: it is not a regular file"
        ):
            tn.load_model("/dev/zero")

    def test_a_file_that_shrinks_while_it_is_read(self, tmp_path, monkeypatch):
        tn.Sequential([tn.Dense(500)], input_shape=(50,)).save(tmp_path / "m")  # more than a buffer

        def cut_and_parse(head):
            os.truncate(tmp_path / "m", 100)
            return loads(head)

        loads = json.loads
        monkeypatch.setattr(storage.json, "loads", cut_and_parse)
        with pytest.raises(tn.ModelFileError, match="m: is damaged or not a tinynet model: .*deserializing"):
            tn.load_model(tmp_path / "m")
