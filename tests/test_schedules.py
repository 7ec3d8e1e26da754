"""Schedules: where they begin and end, whether they rise or fall, and that they don't jump."""

import itertools
import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import tinynet as tn
from tinynet import schedules

rates = st.floats(1e-6, 10)
factors = st.floats(0.05, 1)
lengths = st.integers(1, 400)


def values(schedule, steps):
    return [schedule(step) for step in range(steps)]


def falls(sequence):
    """Check that values never rise, except by rounding."""
    return all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(sequence))


def largest_jump(sequence):
    return max((abs(after - before) for before, after in itertools.pairwise(sequence)), default=0)


class TestStepDecay:
    def test_worked_by_hand(self):
        assert values(schedules.step_decay(0.8, every=2, factor=0.5), 7) == [
            0.8,
            0.8,
            0.4,
            0.4,
            0.2,
            0.2,
            0.1,
        ]

    @given(rates, lengths, factors)
    def test_constant_within_a_stair_and_falling_by_the_factor(self, rate, every, factor):
        schedule = schedules.step_decay(rate, every, factor)
        assert schedule(0) == schedule(every - 1) == rate
        for stair in range(1, 4):
            assert schedule(stair * every) == pytest.approx(schedule(stair * every - 1) * factor)


class TestExponential:
    @given(rates, lengths, factors)
    def test_a_constant_ratio_from_step_to_step(self, rate, every, factor):
        sequence = values(schedules.exponential(rate, every, factor), 20)
        assert sequence[0] == rate
        for before, after in itertools.pairwise(sequence):
            assert after / before == pytest.approx(factor ** (1 / every))

    @given(rates, lengths, factors, st.integers(0, 8))
    def test_meets_step_decay_at_each_stair(self, rate, every, factor, stair):
        smooth, stairs = (make(rate, every, factor) for make in (schedules.exponential, schedules.step_decay))
        assert smooth(stair * every) == pytest.approx(stairs(stair * every))
        assert smooth(stair * every + every - 1) <= stairs(stair * every + every - 1)


class TestCosine:
    @given(rates, lengths, st.floats(0, 1))
    def test_from_the_rate_down_to_the_final_one_and_no_further(self, rate, steps, share):
        final = rate * share
        schedule = schedules.cosine(rate, steps, final)
        sequence = values(schedule, steps + 5)
        assert sequence[0] == pytest.approx(rate)
        assert sequence[steps:] == pytest.approx([final] * 5, abs=1e-15)
        assert falls(sequence[: steps + 1])
        assert largest_jump(sequence) <= (rate - final) * math.pi / 2 / steps + 1e-12

    def test_half_way_it_is_half_way(self):
        schedule = schedules.cosine(1.0, steps=4, final=0.5)
        assert values(schedule, 5) == pytest.approx(
            [1, 0.75 + math.sqrt(0.5) / 4, 0.75, 0.75 - math.sqrt(0.5) / 4, 0.5]
        )


class TestOneCycle:
    @given(rates, lengths, st.floats(0, 0.95), st.floats(0, 1), st.floats(0, 1))
    def test_up_to_the_peak_and_down_again(self, peak, steps, warm_up_share, start, final):
        sequence = values(schedules.one_cycle(peak, steps, warm_up_share, start, final), steps + 4)
        up = warm_up_share * steps
        top = math.ceil(up)
        assert sequence[0] == pytest.approx(peak * start if up else peak)
        assert sequence[steps:] == pytest.approx([peak * final] * 4, abs=1e-12)
        assert max(sequence) <= peak * (1 + 1e-12)
        assert falls(sequence[:top][::-1])
        assert falls(sequence[top:])
        steepest = max((1 - start) / up if up else 0, (1 - final) / (steps - up)) * peak * math.pi / 2
        assert largest_jump(sequence) <= steepest * (1 + 1e-12) + 1e-12

    @pytest.mark.parametrize("warm_up_share", [0.0, 0.25, 0.5])
    def test_the_peak_is_reached_where_the_warm_up_ends(self, warm_up_share):
        schedule = schedules.one_cycle(0.5, steps=100, warm_up_share=warm_up_share)
        peak_step = int(100 * warm_up_share)
        assert schedule(peak_step) == 0.5
        assert max(values(schedule, 100)) == 0.5
        assert schedule(peak_step + 1) < 0.5

    def test_defaults_begin_at_a_25th_and_end_near_nothing(self):
        schedule = schedules.one_cycle(0.5, steps=1000)
        assert schedule(0) == pytest.approx(0.02)
        assert schedule(300) == 0.5
        assert schedule(1000) == pytest.approx(0.5e-4)

    @pytest.mark.parametrize("edge", [299, 300, 999, 1000])
    def test_no_jump_where_the_pieces_meet(self, edge):
        schedule = schedules.one_cycle(1.0, steps=1000)
        assert abs(schedule(edge + 1) - schedule(edge)) < 1e-4


class TestWarmUp:
    @given(rates, st.integers(1, 50))
    def test_a_straight_line_to_a_constant(self, rate, steps):
        sequence = values(schedules.warm_up(rate, steps), steps + 5)
        assert sequence[:steps] == pytest.approx([rate * (step + 1) / steps for step in range(steps)])
        assert sequence[steps - 1 :] == [rate] * 6

    @given(rates, st.integers(1, 50), lengths)
    def test_over_another_schedule(self, rate, warm_up_steps, steps):
        inner = schedules.cosine(rate, steps)
        outer = schedules.warm_up(inner, warm_up_steps)
        for step in range(warm_up_steps):
            assert outer(step) == pytest.approx(inner(step) * (step + 1) / warm_up_steps)
        for step in range(warm_up_steps - 1, warm_up_steps + 5):
            assert outer(step) == inner(step)


SCHEDULES = {
    "step_decay": schedules.step_decay(0.1, every=3),
    "exponential": schedules.exponential(0.1, every=3),
    "cosine": schedules.cosine(0.1, steps=10),
    "one_cycle": schedules.one_cycle(0.1, steps=10),
    "warm_up": schedules.warm_up(schedules.cosine(0.1, steps=10), steps=3),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
class TestEverySchedule:
    def test_is_a_plain_function_of_the_step(self, schedule):
        forward = values(schedule, 30)
        backward = [schedule(step) for step in reversed(range(30))]
        assert backward[::-1] == forward
        assert all(type(value) is float and 0 <= value <= 0.1 * (1 + 1e-12) for value in forward)

    def test_goes_on_for_a_run_longer_than_planned(self, schedule):
        far = schedule(10**9)
        assert 0 <= far <= 0.1
        assert math.isfinite(far)

    def test_drives_an_optimizer_and_resumes_at_its_step(self, schedule):
        def run(optimizer, params, steps):
            for _ in range(steps):
                optimizer.step(params, np.ones(1))

        whole, params = tn.SGD(schedule), np.zeros(1)
        run(whole, params, 12)
        assert params[0] == pytest.approx(-sum(values(schedule, 12)))
        first, second, resumed = tn.SGD(schedule), tn.SGD(schedule), np.zeros(1)
        run(first, resumed, 5)
        second.set_state(first.state())
        run(second, resumed, 7)
        assert resumed[0] == params[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.step_decay(-0.1, 3), "learning rate: expected a number"),
        (lambda: schedules.step_decay(0.1, 0), "every: expected a positive int, got 0"),
        (lambda: schedules.step_decay(0.1, 2.5), "every: expected a positive int, got 2.5"),
        (lambda: schedules.step_decay(0.1, 3, factor=1.1), r"factor: expected a number in \[0, 1\]"),
        (lambda: schedules.exponential(0.1, 3, factor=-0.5), r"factor: expected a number in \[0, 1\]"),
        (lambda: schedules.cosine(0.1, 0), "steps: expected a positive int"),
        (lambda: schedules.cosine(0.1, 10, final=-1), "learning rate: expected a number"),
        (lambda: schedules.cosine(math.nan, 10), "learning rate: expected a number"),
        (lambda: schedules.one_cycle(0.1, True), "steps: expected a positive int"),
        (
            lambda: schedules.one_cycle(0.1, 10, warm_up_share=1.0),
            r"warm_up_share: expected a number in \[0, 1\)",
        ),
        (lambda: schedules.one_cycle(0.1, 10, start=2), "start: expected a number"),
        (lambda: schedules.one_cycle(0.1, 10, final=-1), "final: expected a number"),
        (lambda: schedules.warm_up(0.1, 0), "steps: expected a positive int"),
        (lambda: schedules.warm_up("0.1", 5), "learning rate: expected a number"),
    ],
)
def test_bad_arguments_are_refused_when_the_schedule_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()
