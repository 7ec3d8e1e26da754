"""BLAS threads are set while training runs, then restored; elementwise work on two cores gives the same results."""

import math
import multiprocessing
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

import tinynet as tn
from tinynet.engines import cpu
from tinynet.training.team import workers_for


def blas_threads_now():
    return [pool["num_threads"] for pool in cpu.blas_info()]


pytestmark = pytest.mark.skipif(not cpu.blas_info(), reason="NumPy's BLAS has no threads that can be set")


class TestBlasThreads:
    def test_they_are_set_and_put_back(self):
        before = blas_threads_now()
        with cpu.blas_threads(1):
            assert set(blas_threads_now()) == {1}
        assert blas_threads_now() == before

    def test_they_are_put_back_after_an_error(self):
        before = blas_threads_now()
        with pytest.raises(KeyError), cpu.blas_threads(1):
            raise KeyError
        assert blas_threads_now() == before

    def test_a_second_holder_changes_nothing_and_the_last_one_puts_them_back(self):
        before = blas_threads_now()
        first, second = cpu.blas_threads(1), cpu.blas_threads(2)
        first.__enter__()
        second.__enter__()
        assert set(blas_threads_now()) == {1}
        first.__exit__(None, None, None)
        assert set(blas_threads_now()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads_now() == before

    def test_fit_holds_one_thread_for_a_small_model(self):
        seen = []

        class Look(tn.Callback):
            def on_epoch_end(self, run):
                seen.extend(blas_threads_now())

        before = blas_threads_now()
        model = tn.Sequential([tn.Dense(2), tn.Softmax()], input_shape=(3,), seed=0)
        fit = {"optimizer": tn.SGD(), "loss": tn.CrossEntropy(), "verbose": 0}
        model.fit(np.ones((4, 3)), [0, 1, 0, 1], callbacks=[Look()], **fit)
        assert set(seen) == {1}
        assert blas_threads_now() == before

    def test_the_size_of_the_step_decides(self, monkeypatch):
        assert cpu.blas_threads_for(100_000, 32) == 1
        monkeypatch.setattr(cpu, "cores", lambda: 4)
        assert cpu.blas_threads_for(100_000, 64) == 2
        assert cpu.blas_threads_for(50_000_000, 1024) == 4

    def test_it_is_never_raised(self):
        with threadpoolctl.threadpool_limits(1, "blas"), cpu.blas_threads(2):
            assert set(blas_threads_now()) == {1}

    def test_who_asked_for_one_thread_gets_one(self, monkeypatch):
        monkeypatch.setattr(cpu, "cores", lambda: 2)
        model = tn.recipes.make("cnn", seed=0).model
        with threadpoolctl.threadpool_limits(1, "blas"):
            assert cpu.threads_allowed() == 1
            assert workers_for(model, 64) == 1
            with cpu.blas_threads(1):  # as in fit
                assert cpu.threads_allowed() == 1
        with threadpoolctl.threadpool_limits(2, "blas"):
            allowed = min(blas_threads_now())  # 1 where BLAS is built for one
            with cpu.blas_threads(1):  # what we hold is not what was asked for
                assert cpu.threads_allowed() == allowed
                assert workers_for(model, 64) == allowed


GROUPS_1 = "5:memory:/elsewhere\n4:cpu,cpuacct:{path}\n1:name=systemd:/\n0::/\n"
V1, V2 = "sys/fs/cgroup/cpu,cpuacct", "sys/fs/cgroup"

# What the kernel shows: /proc/self/cgroup and the files of the groups, with the cores that they allow.
QUOTAS = {
    "no cgroups": ({}, math.inf),
    "2, no limit": ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "max 100000\n"}, math.inf),
    "2, the root has no file": ({"proc/self/cgroup": "0::/\n"}, math.inf),
    "2, one core": ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "100000 100000\n"}, 1),
    "2, half a core": ({"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "50000 100000\n"}, 0.5),
    "2, nested": (
        {
            "proc/self/cgroup": "0::/a/b/c\n",
            f"{V2}/a/b/c/cpu.max": "800000 100000\n",
            f"{V2}/a/b/cpu.max": "max 100000\n",
            f"{V2}/a/cpu.max": "100000 50000\n",
        },
        2,
    ),
    "2, beside others": (
        {"proc/self/cgroup": "0::/a/b\n", f"{V2}/a/b/cpu.max": "max 1000\n", f"{V2}/a/c/cpu.max": "1 1000\n"},
        math.inf,
    ),
    "2, outside of the namespace": (
        {"proc/self/cgroup": "0::/../other\n", f"{V2}/cpu.max": "300000 100000\n"},
        3,
    ),
    "1, no limit": (
        {
            "proc/self/cgroup": GROUPS_1.format(path="/"),
            f"{V1}/cpu.cfs_quota_us": "-1\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        math.inf,
    ),
    "1, one and a half": (
        {
            "proc/self/cgroup": GROUPS_1.format(path="/a"),
            f"{V1}/a/cpu.cfs_quota_us": "150000\n",
            f"{V1}/a/cpu.cfs_period_us": "100000\n",
            f"{V1}/cpu.cfs_quota_us": "-1\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        1.5,
    ),
    "1, mounted as cpu": (
        {
            "proc/self/cgroup": "1:cpu:/\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        2,
    ),
    "1, a container that sees the host's path": (
        {
            "proc/self/cgroup": GROUPS_1.format(path="/docker/0123"),
            f"{V1}/cpu.cfs_quota_us": "400000\n",
            f"{V1}/cpu.cfs_period_us": "100000\n",
        },
        4,
    ),
}


class TestQuota:
    @pytest.mark.parametrize("case", QUOTAS)
    def test_the_smallest_on_the_way_up_counts(self, case, tmp_path):
        files, expected = QUOTAS[case]
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        assert cpu.quota(tmp_path) == expected

    @pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1, 1), (1.5, 2), (math.inf, 64)])
    def test_it_bounds_the_cores(self, quota, cores, monkeypatch):
        monkeypatch.setattr(cpu.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
        monkeypatch.setattr(cpu, "quota", lambda root: quota)
        cpu._quota.cache_clear()
        try:
            assert cpu.cores() == cores
        finally:
            cpu._quota.cache_clear()

    @pytest.mark.parametrize(
        ("asked", "threads"), [("3", 3), ("2,1", 2), ("", 8), ("0", 8), ("many", 8), (None, 8), ("99", 8)]
    )
    def test_omp_num_threads_counts_where_blas_has_no_threads_of_its_own(self, asked, threads, monkeypatch):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if asked is not None:
            monkeypatch.setenv("OMP_NUM_THREADS", asked)
        monkeypatch.setattr(cpu, "cores", lambda: 8)
        monkeypatch.setattr(cpu, "blas_info", list)
        assert cpu.threads_allowed() == threads
        monkeypatch.setattr(cpu, "blas_info", lambda: [{"num_threads": 5, "threading_layer": "pthreads"}])
        assert cpu.threads_allowed() == 5


LARGE = 3 * cpu.MANY_ELEMENTS + 1
HERE = np.empty(0)  # an array on the CPU


@pytest.mark.parametrize("held", [None, 2])
def test_work_is_not_halved_where_blas_may_have_the_other_core(held, monkeypatch):
    monkeypatch.setattr(cpu, "threads_allowed", lambda: 2)
    monkeypatch.setattr(cpu, "_held", held)
    parts = []
    cpu.in_halves(lambda start, stop: parts.append((start, stop)), 0, LARGE, HERE)
    assert parts == [(0, LARGE)]


@pytest.fixture
def one_blas_thread():
    with cpu.blas_threads(1):
        yield


def _holds_and_lets_go():
    """In a child that was forked while its parent held one BLAS thread."""
    assert cpu._holders == 0
    before = blas_threads_now()
    with cpu.blas_threads(1):
        assert cpu._held == 1
    assert blas_threads_now() == before
    assert (cpu._holders, cpu._held) == (0, None)


@pytest.mark.usefixtures("one_blas_thread")
class TestInHalves:
    @pytest.mark.parametrize("size", [0, 1, 1000, LARGE])
    def test_each_element_is_worked_on_once(self, size):
        counts = np.zeros(size + 2, int)

        def work(start, stop):
            counts[start:stop] += 1

        cpu.in_halves(work, 1, size + 1, HERE)
        assert counts[1:-1].all()
        assert counts.sum() == size

    def test_large_ranges_use_two_threads(self, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 2)
        threads = set()
        cpu.in_halves(lambda start, stop: threads.add(threading.get_ident()), 0, LARGE, HERE)
        assert len(threads) == 2

    def test_one_core_is_not_divided(self, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 1)
        parts = []
        cpu.in_halves(lambda start, stop: parts.append((start, stop)), 0, LARGE, HERE)
        assert parts == [(0, LARGE)]

    @pytest.mark.parametrize("failing", [0, 1])
    def test_an_error_in_either_half_is_raised(self, failing, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 2)

        def work(start, stop):
            if (start > 0) == failing:
                raise ArithmeticError(f"half {failing}")

        with pytest.raises(ArithmeticError, match=f"half {failing}"):
            cpu.in_halves(work, 0, LARGE, HERE)

    def test_the_other_thread_has_the_callers_errstate(self, monkeypatch):
        monkeypatch.setattr(cpu, "threads_allowed", lambda: 2)
        values = np.full(LARGE, 3e38, np.float32)
        with np.errstate(over="ignore"):
            cpu.in_halves(lambda start, stop: np.multiply(values[start:stop], 10), 0, LARGE, HERE)

    @pytest.mark.parametrize(
        "make", [lambda: tn.Adam(0.01), lambda: tn.AdamW(0.01), lambda: tn.SGD(0.01, momentum=0.9)]
    )
    def test_an_optimizer_gives_the_same_bits_either_way(self, make, monkeypatch):
        rng = np.random.default_rng(0)
        start, grads = rng.standard_normal((2, LARGE)).astype(np.float32)
        results = []
        for cores in (1, 2):
            monkeypatch.setattr(cpu, "threads_allowed", lambda cores=cores: cores)
            params, optimizer = start.copy(), make()
            for _ in range(3):
                optimizer.step(params, grads, decay_size=LARGE // 3)
            results.append(params)
        np.testing.assert_array_equal(*results)

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems don't fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
    def test_a_forked_child_holds_nothing(self):
        context = multiprocessing.get_context("fork")
        with cpu.blas_threads(1):
            process = context.Process(target=_holds_and_lets_go)
            process.start()
            process.join(300)
        assert process.exitcode == 0

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems don't fork")
    @pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
    def test_a_forked_child_has_a_helper_of_its_own(self):
        cpu.in_halves(lambda start, stop: None, 0, LARGE, HERE)
        process = multiprocessing.get_context("fork").Process(
            target=cpu.in_halves, args=(lambda start, stop: None, 0, LARGE, HERE)
        )
        process.start()
        process.join(300)
        assert process.exitcode == 0
