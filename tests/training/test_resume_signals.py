"""Real processes, stopped by real signals at random batches and restarted until they finish."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# It imports the library once and forks a process for each start of a run, so that hundreds of starts take seconds. The
# process reports each batch. After enough of them it gets its signal, wherever it is by then: in a batch, writing the
# checkpoint, or between two epochs.
SERVER = """
import json, os, random, signal, sys, time, warnings
import tinynet as tn
from tests.support.runs import digest, start

tn.engines.current()  # loads Numba, if it is chosen

folder, kill = sys.argv[1], sys.argv[2] == "SIGKILL"
chance = random.Random(int(sys.argv[3]))

class Tell(tn.Callback):
    def __init__(self, pipe):
        self.pipe = pipe

    def on_batch_end(self, run):
        os.write(self.pipe, b".")

def train(case, path, pipe):
    # What a program that may be stopped does: start, or resume.
    resume = path if os.path.exists(path) else None
    ended = start(case, Tell(pipe), checkpoint=path, checkpoint_every=2 if kill else None, resume=resume)
    with open(path + ".half", "w") as file:
        file.write(digest(*ended))
    os.replace(path + ".half", path + ".digest")
    return 0

def process(case, path, batches, again):
    # One start; the signal comes after so many batches and, with `again`, a second one right after it.
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        warnings.simplefilter("ignore")
        status = 1
        try:
            status = train(case, path, tell)
        except KeyboardInterrupt:
            status = 130
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(tell)
    while batches > 0 and (heard := os.read(told, batches)):
        batches -= len(heard)
    if batches == 0:
        time.sleep(chance.random() * 0.003)
        os.kill(child, signal.SIGKILL if kill else signal.SIGINT)
        if again:
            time.sleep(chance.random() * 0.002)
            os.kill(child, signal.SIGINT)
    status = os.waitpid(child, 0)[1]
    os.close(told)
    return os.waitstatus_to_exitcode(status)

rounds = []
for number in range(int(sys.argv[4])):
    case = ["dense", "two_workers", "pruned"][number % 3]
    path = os.path.join(folder, f"{number}")
    codes = []
    while not os.path.exists(path + ".digest"):
        again = not kill and chance.random() < 0.3
        codes.append(process(case, path, chance.randint(1, 14), again))
        if codes[-1] == 1 or len(codes) == 200:
            sys.exit(f"{case}: {codes}")
    rounds.append({"case": case, "codes": codes, "digest": open(path + ".digest").read()})
print(json.dumps(rounds))
"""

undisturbed = """
import json
from tests.support.runs import digest, start
print(json.dumps({case: digest(*start(case)) for case in ("dense", "two_workers", "pruned")}))
"""


def python(program, engine, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TINYNET_ENGINE": engine},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=["numpy", "numba"])
def engine(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    return request.param


@pytest.fixture(scope="module")
def expected(engine):
    """The digest of each case's end in a process that is never stopped."""
    return python(undisturbed, engine)


@pytest.mark.skipif(sys.platform != "linux", reason="forking a process that computes is safe on Linux only")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_twenty_runs_end_bit_for_bit_as_if_nothing_had_stopped_them(name, engine, expected, tmp_path):
    seed = 20
    rounds = python(SERVER, engine, tmp_path, name, seed, 20)
    assert len(rounds) == 20
    for number, one in enumerate(rounds):
        assert one["digest"] == expected[one["case"]], (number, one)
    codes = [code for one in rounds for code in one["codes"]]
    stopped = {"SIGKILL": (-9,), "SIGINT": (130, -2)}[name]
    assert sum(code in stopped for code in codes) >= 20, (
        codes
    )  # otherwise the signals came too late to show anything
    assert set(codes) <= {0, *stopped}
