"""Every program of the repository as a process of its own, on streams that are closed, broken or narrow."""

import io
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from tinynet.datasets import download

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    path.stem: [str(path)]
    for folder in ("examples", "benchmarks", "benchmarks/gpu")
    for path in sorted((ROOT / folder).glob("*.py"))
    if "console.run(" in path.read_text(encoding="utf-8")
}
COMMANDS = {
    "tinynet": ["-m", "tinynet", "--help"],
    "info": ["-m", "tinynet", "info"],
    "exercise": ["-m", "tinynet", "exercise"],
    **{name: [*program, "--help"] for name, program in PROGRAMS.items() if not name.startswith("report")},
}
WITH_DATA = {
    "download": ["-m", "tinynet", "download"],
    "gradcheck": ["-m", "tinynet", "gradcheck", "--batch-size", "2", "--elements", "1"],
    "trace": ["-m", "tinynet", "trace", "--text", "--batch-size", "2"],
}
EVERY = [*COMMANDS, *(pytest.param(name, marks=pytest.mark.data) for name in WITH_DATA)]


def python(*arguments, redirect="", folder=None, options=(), **settings):
    """Run Python with a shell's redirections; the status, standard output and standard error."""
    command = [sys.executable, "-W", "error", *options, *map(str, arguments)]
    if redirect:
        command = ["sh", "-c", f'exec "$@" {redirect}', "sh", *command]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "0"} | settings.pop("environment", {})
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    done = subprocess.run(command, cwd=folder, check=False, env=environment, timeout=600, **settings)
    return done.returncode, done.stdout, done.stderr


def arguments_of(name):
    if name == "load_in_pytorch":
        pytest.importorskip("torch")
    return (COMMANDS | WITH_DATA)[name]


@pytest.fixture
def broken_pipe():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_no_program_goes_its_own_way():
    """Each ends by console.run, but for workers, which another program reads from and waits for."""
    for folder in ("examples", "benchmarks", "benchmarks/gpu"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "__main__" in text and not path.stem.startswith("worker"):
                assert path.stem in PROGRAMS, path
    assert len(PROGRAMS) >= 12


@pytest.mark.skipif(os.name == "nt", reason="a closed pipe is another error there")
class TestStandardOutput:
    @pytest.mark.parametrize("name", EVERY)
    def test_a_closed_pipe_ends_the_program_quietly(self, name, broken_pipe, tmp_path):
        status, _, errors = python(*arguments_of(name), stdout=broken_pipe, folder=tmp_path)
        assert (status, errors) == (141, b"")

    @pytest.mark.parametrize(
        "name", ["info", *(pytest.param(name, marks=pytest.mark.data) for name in WITH_DATA)]
    )
    def test_unbuffered_too(self, name, broken_pipe, tmp_path):
        status, _, errors = python(*arguments_of(name), stdout=broken_pipe, folder=tmp_path, options=["-u"])
        assert (status, errors) == (141, b"")

    @pytest.mark.data
    def test_head_reads_one_line_of_the_trace(self, tmp_path):
        status, output, errors = python(*WITH_DATA["trace"], redirect="| head -n 1", folder=tmp_path)
        assert (status, errors) == (0, b"")
        assert output.startswith(b"forward  0  Rescale(")
        assert output.count(b"\n") == 1

    @pytest.mark.parametrize("name", EVERY)
    @pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-"])
    def test_closed_streams_are_no_error(self, name, redirect, tmp_path):
        if name in PROGRAMS and redirect != ">&-":
            return  # their --help writes nothing there
        status, output, errors = python(*arguments_of(name), redirect=redirect, folder=tmp_path)
        assert (status, errors) == (0, b"")
        assert bool(output) == (redirect == "2>&-")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no such device")
    def test_a_full_disk_is_named(self):
        status, _, errors = python("-m", "tinynet", "info", redirect="> /dev/full")
        assert (status, errors) == (1, b"standard output: [Errno 28] No space left on device\n")

    def test_an_error_on_a_closed_stderr_is_no_output(self, tmp_path):
        status, output, _ = python("-m", "tinynet", "exercise", "dense", "missing.py", redirect="2>&-")
        assert (status, output) == (2, b"")

    def test_streams_that_only_write_and_flush(self, tmp_path):
        script = tmp_path / "script.py"
        script.write_text(
            "import pathlib, sys\n"
            "log = []\n"
            "class Log:\n"
            "    def write(self, text): log.append(text)\n"
            "    def flush(self): pass\n"
            "sys.stdout = sys.stderr = Log()\n"
            "from tinynet.support import console\n"
            "from tinynet.__main__ import main\n"
            "try: console.run(lambda: main(['exercise']))\n"
            "finally: pathlib.Path('log').write_text(''.join(log))\n"
        )
        assert python(script, folder=tmp_path) == (0, b"", b"")
        assert "dense" in (tmp_path / "log").read_text()


def fail(text):
    raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("kind", ["none", "closed", "write only", "broken"])
def test_what_is_told_on_stderr_never_stops_the_work(kind, monkeypatch, capsys):
    """Such as which mirror is asked, which would otherwise look like a failure of the mirror."""
    closed, written = io.StringIO(), []
    closed.close()
    streams = {"none": None, "closed": closed, "broken": types.SimpleNamespace(write=fail)}
    streams["write only"] = types.SimpleNamespace(write=written.append)
    monkeypatch.setattr(sys, "stderr", streams[kind])
    download._say("asking a mirror")
    assert written == (["tinynet: asking a mirror\n"] if kind == "write only" else [])
    assert capsys.readouterr().out == ""


STEP = """
import numpy as np, tinynet as tn
model = tn.Sequential([tn.Dense(4), tn.ReLU(), tn.Dense(3), tn.Softmax()], (5,), seed=0)
x = np.random.default_rng(0).standard_normal((6, 5))
step = tn.study.trace(model, x, np.arange(6) % 3, tn.CrossEntropy(), tn.Adam())
for event in step.events():
    print(event)
print(step)
"""


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["cp1252", "cp437", "cp932", "ascii", "latin-1"])
    def test_a_step_is_printed_in_ascii_where_its_bars_are_missing(self, encoding):
        status, output, errors = python("-c", STEP, environment={"PYTHONIOENCODING": encoding})
        assert (status, errors) == (0, b"")
        assert output.isascii()
        assert b"0% zeros  = +=@##***" in output

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
    def test_with_its_bars_where_they_are_not(self, encoding):
        status, output, errors = python("-c", STEP, environment={"PYTHONIOENCODING": encoding})
        assert (status, errors) == (0, b"")
        assert "█" in output.decode(encoding)

    @pytest.mark.data
    @pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
    def test_commands_escape_what_is_missing(self, encoding, tmp_path):
        arguments = [*WITH_DATA["trace"], "--output", "Schritt Ω.html"]
        status, output, errors = python(
            *arguments, folder=tmp_path, environment={"PYTHONIOENCODING": encoding}
        )
        assert (status, errors) == (0, b"")
        assert rb"wrote Schritt \u03a9.html" in output


@pytest.mark.parametrize("options", [["-O"], ["-OO"]])
def test_formulas_are_printed_without_docstrings_too(options):
    """-OO drops docstrings, from which formulas are taken; the source still has them."""
    status, output, errors = python("-c", STEP, options=options)
    assert (status, errors) == (0, b"")
    assert output == python("-c", STEP)[1]
    assert b"  dW = x^T dy     db = sum_n dy     dx = dy W^T" in output
