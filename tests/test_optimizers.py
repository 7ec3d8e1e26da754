"""Optimizers against the published formulas, implemented here for one parameter at a time in plain floats."""

import copy
import math
import pickle
import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import tinynet as tn
from tests.support.strategies import seeds
from tinynet.optimizer import gradient_norm

STEPS = 30


class Reference:
    """What the formulas share: plain Python floats, with nothing reused and nothing in place."""

    def __init__(self, rate, weight_decay=0.0, decoupled=True, clip_norm=None, **settings):
        self.rate, self.clip_norm, self.settings = rate, clip_norm, settings
        self.weight_decay, self.decoupled = weight_decay, decoupled
        self.t, self.slots = 0, {}

    def step(self, params, grads, decay_size, trained):
        """The parameters after a step; ``trained`` are the indices that change."""
        rate = self.rate(self.t) if callable(self.rate) else self.rate
        self.t += 1
        decay = [self.weight_decay if i < decay_size else 0.0 for i in range(len(params))]
        if not self.decoupled:
            grads = [grads[i] + decay[i] * params[i] for i in range(len(params))]
        if self.clip_norm is not None:
            norm = math.hypot(*(grads[i] for i in trained))
            if norm > self.clip_norm:
                grads = [g * self.clip_norm / norm for g in grads]
        moved = list(params)
        for i in trained:
            if self.decoupled:
                moved[i] -= rate * decay[i] * params[i]
            slots = self.slots.setdefault(i, {"m": 0.0, "v": 0.0})
            moved[i] += self.change(grads[i], rate, slots)
        return moved


class ReferenceSGD(Reference):
    def change(self, g, rate, slots):
        momentum = self.settings.get("momentum", 0.0)
        slots["v"] = momentum * slots["v"] - rate * g
        if self.settings.get("nesterov"):
            return momentum * slots["v"] - rate * g
        return slots["v"]


class ReferenceRMSprop(Reference):
    def change(self, g, rate, slots):
        rho = self.settings["rho"]
        slots["v"] = rho * slots["v"] + (1 - rho) * g**2
        return -rate * g / math.sqrt(slots["v"] + self.settings["epsilon"])


class ReferenceAdam(Reference):
    def change(self, g, rate, slots):
        beta_1, beta_2 = self.settings["beta_1"], self.settings["beta_2"]
        slots["m"] = beta_1 * slots["m"] + (1 - beta_1) * g
        slots["v"] = beta_2 * slots["v"] + (1 - beta_2) * g**2
        corrected = rate * math.sqrt(1 - beta_2**self.t) / (1 - beta_1**self.t)
        return -corrected * slots["m"] / (math.sqrt(slots["v"]) + self.settings["epsilon"])


PAIRS = {
    tn.SGD: ReferenceSGD,
    tn.RMSprop: ReferenceRMSprop,
    tn.Adam: ReferenceAdam,
    tn.AdamW: ReferenceAdam,
}

rates = st.one_of(
    st.sampled_from([0.0, 1e-3, 0.05, 0.3]),
    st.sampled_from([tn.schedules.cosine(0.1, steps=20), tn.schedules.exponential(0.2, every=5)]),
)
betas = st.sampled_from([0.0, 0.5, 0.9, 0.999])


@st.composite
def optimizers(draw):
    """An optimizer and its reference with the same settings."""
    kind = draw(st.sampled_from(list(PAIRS)))
    settings = {"clip_norm": draw(st.sampled_from([None, 0.5, 3.0, 1e6]))}
    settings["weight_decay"] = draw(st.sampled_from([0.0, 0.01, 0.5]))
    if kind is not tn.AdamW:
        settings["decoupled"] = draw(st.booleans())
    if kind is tn.SGD:
        settings["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        settings["nesterov"] = settings["momentum"] > 0 and draw(st.booleans())
    else:
        settings["epsilon"] = draw(st.sampled_from([1e-10, 1e-7, 1e-3]))
        names = ("rho",) if kind is tn.RMSprop else ("beta_1", "beta_2")
        settings |= {name: draw(betas) for name in names}
    rate = draw(rates)
    return kind(rate, **settings), PAIRS[kind](rate, **settings)


@st.composite
def vectors(draw):
    """How many parameters, how many of them decay, and the ranges that train."""
    size = draw(st.integers(1, 12))
    edges = sorted(draw(st.sets(st.integers(0, size), max_size=6)))
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    return size, draw(st.integers(0, size)), draw(st.sampled_from([None, ranges]))


def gradients(rng, size, steps=STEPS, dtype=np.float64):
    """Gradients of many magnitudes, some of them zero."""
    scales = 10.0 ** rng.uniform(-3, 2, size)
    return (rng.standard_normal((steps, size)) * scales * (rng.random((steps, size)) > 0.2)).astype(dtype)


class TestFormulas:
    @settings(max_examples=300)
    @given(optimizers(), vectors(), seeds)
    def test_many_steps_follow_the_formula(self, pair, sizes, seed):
        optimizer, reference = pair
        size, decay_size, ranges = sizes
        rng = np.random.default_rng(seed)
        params = rng.standard_normal(size)
        expected, largest = params.tolist(), 1.0
        trained = [
            i for start, stop in ([(0, size)] if ranges is None else ranges) for i in range(start, stop)
        ]
        for grads in gradients(rng, size):
            before = grads.copy()
            optimizer.step(params, grads, decay_size, ranges)
            expected = reference.step(expected, before.tolist(), decay_size, trained)
            largest = max(largest, *map(abs, expected))
            np.testing.assert_array_equal(grads, before)
        np.testing.assert_allclose(params, expected, rtol=1e-9, atol=1e-10 * largest)

    @pytest.mark.parametrize(
        ("kind", "settings"),
        [
            (tn.SGD, {}),
            (tn.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1, "decoupled": False}),
            (tn.RMSprop, {"rho": 0.9, "epsilon": 1e-7}),
            (tn.Adam, {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "clip_norm": 1.0}),
            (tn.AdamW, {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.1}),
        ],
    )
    @given(seed=seeds)
    def test_float32_follows_to_its_precision_and_stays_float32(self, kind, settings, seed):
        optimizer, reference = kind(0.01, **settings), PAIRS[kind](0.01, **settings)
        rng = np.random.default_rng(seed)
        params = rng.standard_normal(8).astype(np.float32)
        expected = params.tolist()
        for grads in gradients(rng, 8, dtype=np.float32):
            optimizer.step(params, grads, decay_size=8)
            expected = reference.step(expected, grads.tolist(), 8, range(8))
        np.testing.assert_allclose(params, expected, rtol=1e-4, atol=1e-4 * max(1, *map(abs, expected)))
        assert {array.dtype for array in (params, *optimizer.slots.values())} == {np.dtype(np.float32)}

    @given(optimizers(), vectors(), seeds)
    def test_what_is_frozen_keeps_its_values_and_slots(self, pair, sizes, seed):
        optimizer, _ = pair
        size, decay_size, ranges = sizes
        ranges = ranges or []
        rng = np.random.default_rng(seed)
        params = rng.standard_normal(size)
        before = params.copy()
        frozen = np.ones(size, bool)
        for start, stop in ranges:
            frozen[start:stop] = False
        for grads in gradients(rng, size, steps=5):
            optimizer.step(params, grads, decay_size, ranges)
        np.testing.assert_array_equal(params[frozen], before[frozen])
        for slot in optimizer.slots.values():
            np.testing.assert_array_equal(slot[frozen], 0)

    def test_one_step_worked_by_hand(self):
        """Keras's first steps from 1 with gradient 2, to six figures."""

        def moved(optimizer):
            params = np.array([1.0])
            optimizer.step(params, np.array([2.0]), decay_size=1)
            return params[0]

        assert moved(tn.SGD(0.1)) == pytest.approx(0.8)
        assert moved(tn.SGD(0.1, momentum=0.9)) == pytest.approx(0.8)
        assert moved(tn.SGD(0.1, momentum=0.9, nesterov=True)) == pytest.approx(1 - 0.2 - 0.18)
        assert moved(tn.RMSprop(0.1, rho=0.9, epsilon=0.1)) == pytest.approx(1 - 0.2 / math.sqrt(0.4 + 0.1))
        root = math.sqrt(0.001)
        assert moved(tn.Adam(0.1, epsilon=0.1)) == pytest.approx(
            1 - 0.1 * root / 0.1 * 0.2 / (2 * root + 0.1)
        )
        assert moved(tn.AdamW(0.1, weight_decay=0.5)) == pytest.approx(0.95 - 0.1, abs=1e-5)
        assert moved(tn.SGD(0.1, weight_decay=0.5)) == pytest.approx(0.95 - 0.2)
        assert moved(tn.SGD(0.1, weight_decay=0.5, decoupled=False)) == pytest.approx(1 - 0.1 * 2.5)
        assert moved(tn.SGD(0.1, clip_norm=0.5)) == pytest.approx(0.95)

    @pytest.mark.parametrize("gradient", [1e-3, 1.0, 1e4, -7.0])
    def test_adams_first_step_is_the_learning_rate_whatever_the_gradient(self, gradient):
        params = np.zeros(1)
        tn.Adam(0.25, epsilon=1e-12).step(params, np.array([gradient]))
        assert params[0] == pytest.approx(-math.copysign(0.25, gradient), rel=1e-6)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: tn.SGD(0.1),
            lambda: tn.SGD(0.1, momentum=0.8),
            lambda: tn.SGD(0.1, momentum=0.8, nesterov=True),
            lambda: tn.RMSprop(0.01),
            lambda: tn.Adam(0.1),
            lambda: tn.AdamW(0.1, weight_decay=1e-3),
        ],
    )
    def test_a_bowl_is_descended(self, make):
        optimizer, params = make(), np.array([3.0, -2.0])
        for _ in range(1000):
            optimizer.step(params, params * [1.0, 4.0], decay_size=2)
        np.testing.assert_allclose(params, 0, atol=0.02)


class TestClipping:
    @given(seeds, st.floats(1e-3, 1e3), st.sampled_from([np.float32, np.float64]))
    def test_the_step_is_as_long_as_the_limit_and_in_the_same_direction(self, seed, clip_norm, dtype):
        grads = (np.random.default_rng(seed).standard_normal(20) * 10).astype(dtype)
        params = np.zeros(20, dtype)
        tn.SGD(1.0, clip_norm=clip_norm).step(params, grads)
        norm = np.linalg.norm(grads.astype(float))
        np.testing.assert_allclose(-params, grads * min(1, clip_norm / norm), rtol=1e-5)

    def test_the_norm_is_that_of_the_ranges_that_train(self):
        params, grads = np.zeros(4), np.array([3.0, 1e9, 4.0, 1e9])
        tn.SGD(1.0, clip_norm=1.0).step(params, grads, ranges=[(0, 1), (2, 3)])
        np.testing.assert_allclose(params, [-0.6, 0, -0.8, 0])

    def test_the_penalty_counts_towards_the_norm(self):
        params = np.array([4.0])
        tn.SGD(1.0, weight_decay=1.0, decoupled=False, clip_norm=1.0).step(
            params, np.array([0.5]), decay_size=1
        )
        assert params[0] == pytest.approx(3.0)

    def test_decoupled_decay_does_not(self):
        params = np.array([4.0])
        tn.SGD(1.0, weight_decay=0.25, clip_norm=1.0).step(params, np.array([0.5]), decay_size=1)
        assert params[0] == pytest.approx(4 - 1 - 0.5)

    @given(seeds, st.integers(1, 50))
    def test_norm(self, seed, size):
        values = np.random.default_rng(seed).standard_normal(size)
        assert gradient_norm(values) == pytest.approx(math.sqrt(math.fsum(v * v for v in values)))

    def test_norm_where_the_squares_overflow(self):
        assert gradient_norm(np.full(4, 1e30, np.float32)) == pytest.approx(2e30, rel=1e-6)
        assert gradient_norm(np.array([3e200, -4e200])) == pytest.approx(5e200)
        assert gradient_norm(np.array([1.0, -math.inf])) == math.inf
        assert math.isnan(gradient_norm(np.array([1.0, math.nan])))

    def test_norm_where_the_squares_underflow(self):
        assert gradient_norm(np.full(4, 1e-25, np.float32)) == pytest.approx(2e-25, rel=1e-6)
        assert gradient_norm(np.array([3e-200, -4e-200])) == pytest.approx(5e-200)
        assert gradient_norm(np.zeros(3)) == gradient_norm(np.zeros(0)) == 0

    def test_a_tiny_limit_holds(self):
        params = np.zeros(4, np.float32)
        tn.SGD(1.0, clip_norm=1e-28).step(params, np.full(4, -1e-25, np.float32))
        np.testing.assert_allclose(params, 5e-29, rtol=1e-5)

    def test_a_huge_gradient_is_brought_down(self):
        params = np.zeros(4, np.float32)
        tn.SGD(1.0, clip_norm=2.0).step(params, np.full(4, -1e30, np.float32))
        np.testing.assert_allclose(params, 1, rtol=1e-5)


class TestWeightDecay:
    @pytest.mark.parametrize("decoupled", [True, False])
    def test_only_the_front_decays(self, decoupled):
        params = np.ones(4)
        optimizer = tn.SGD(0.5, weight_decay=0.1, decoupled=decoupled)
        optimizer.step(params, np.zeros(4), decay_size=3)
        np.testing.assert_allclose(params, [0.95, 0.95, 0.95, 1])

    def test_a_models_own_vectors_bring_what_decays_and_what_trains(self):
        model = tn.Sequential([tn.Dense(3), tn.Dense(2)], input_shape=(2,), seed=0)
        x, y, loss = np.ones((4, 2), np.float32), np.array([0, 1, 0, 1]), tn.SoftmaxCrossEntropy()
        optimizer = tn.AdamW(0.1, weight_decay=0.5)
        for step in range(6):
            if step == 3:  # the slots of the frozen layer are not 0 by now
                model.layers[0].trainable = False
                frozen = model.layers[0].W.copy(), model.layers[0].b.copy()
            model.loss_and_gradients(x, y, loss)
            optimizer.step(model.params, model.grads)
        np.testing.assert_array_equal(model.layers[0].W, frozen[0])
        np.testing.assert_array_equal(model.layers[0].b, frozen[1])
        biases = model.layers[1].b.copy()
        model.grads[...] = 0
        tn.SGD(1.0, weight_decay=0.5).step(model.params, model.grads)
        np.testing.assert_array_equal(model.layers[1].b, biases)

    def test_of_other_vectors_all_decay(self):
        params = np.ones(4)
        tn.SGD(0.5, weight_decay=0.1).step(params, np.zeros(4))
        np.testing.assert_allclose(params, 0.95)

    def test_of_a_model_the_weights_decay_and_the_biases_do_not(self):
        model = tn.Sequential([tn.Dense(3), tn.BatchNorm(), tn.Dense(2)], input_shape=(2,), seed=0)
        before = {name: array.copy() for name, array in model.named_params().items()}
        model.grads[...] = 0
        tn.SGD(1.0, weight_decay=0.25).step(
            model.params, model.grads, model.decay_size, model.trainable_ranges()
        )
        for name, array in model.named_params().items():
            np.testing.assert_allclose(array, before[name] * (0.75 if name.endswith("W") else 1), rtol=1e-6)

    def test_adam_scales_a_plain_penalty_and_not_a_decoupled_one(self):
        """This is the point of AdamW: without a gradient, plain decay moves every weight by the same amount."""
        plain, decoupled = np.array([1.0, 100.0]), np.array([1.0, 100.0])
        tn.Adam(0.1, weight_decay=0.01, decoupled=False).step(plain, np.zeros(2), decay_size=2)
        tn.AdamW(0.1, weight_decay=0.01).step(decoupled, np.zeros(2), decay_size=2)
        np.testing.assert_allclose(plain, [0.9, 99.9], atol=1e-4)
        np.testing.assert_allclose(decoupled, [0.999, 99.9], rtol=1e-12)


class TestOverflow:
    @pytest.mark.parametrize("make", [tn.Adam, tn.RMSprop, lambda: tn.SGD(1e20), lambda: tn.SGD(1e20, 0.9)])
    def test_a_slot_never_becomes_infinite_without_an_error(self, make):
        """With an infinite v, Adam would never move the parameter again."""
        params = np.ones(3, np.float32)
        optimizer = make()
        optimizer.step(params, np.ones(3, np.float32))
        with pytest.raises(tn.NonFiniteError, match="overflow"):
            optimizer.step(params, np.array([1, 3e19, 1], np.float32))

    def test_adam_changes_nothing_where_a_square_overflows(self):
        params, optimizer = np.ones(3, np.float32), tn.Adam()
        optimizer.step(params, np.ones(3, np.float32))
        before = [array.copy() for array in (params, *optimizer.slots.values())]
        with pytest.raises(FloatingPointError):
            optimizer.step(params, np.array([1, 3e19, 1], np.float32))
        for array, old in zip((params, *optimizer.slots.values()), before, strict=True):
            np.testing.assert_array_equal(array, old)

    def test_one_with_an_infinite_slot_does_no_more_steps(self):
        model = tn.Sequential([tn.Dense(1, use_bias=False)], input_shape=(1,), seed=0)
        optimizer, large = tn.Adam(), np.array([1.8e19], np.float32)
        optimizer.step(model.params, large)
        with pytest.raises(tn.NonFiniteError, match="overflow encountered"):
            optimizer.step(model.params, large)  # v = 2 g^2
        for use in (lambda: optimizer.step(model.params, large), lambda: optimizer.begin(model)):
            with pytest.raises(tn.NonFiniteError, match="this Adam has overflowed, .* create a new one"):
                use()
        optimizer.reset()
        optimizer.step(model.params, np.ones(1, np.float32))

    def test_what_underflows_is_no_error(self):
        params = np.ones(3, np.float32)
        with np.errstate(all="raise"):
            tn.Adam().step(params, np.full(3, 1e-30, np.float32))


class TestOneModel:
    """An optimizer's slots, step count and reduced rate belong to the model that it trains."""

    def fit(self, model, optimizer):
        x, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
        model.fit(x, y, optimizer=optimizer, loss=tn.SoftmaxCrossEntropy(), verbose=0)

    def model(self):
        return tn.Sequential([tn.Dense(2)], input_shape=(3,), seed=0)

    def test_another_one_is_refused_also_when_the_first_is_gone(self):
        optimizer, models = tn.Adam(), [self.model()]
        self.fit(models[0], optimizer)
        self.fit(models[0], optimizer)
        other = self.model()
        before = other.params.copy()
        for _ in range(2):
            with pytest.raises(
                ValueError, match=r"this Adam has done 2 steps with another model; .* or call reset"
            ):
                self.fit(other, optimizer)
            with pytest.raises(ValueError, match="with another model"):
                optimizer.step(other.params, other.grads)
            with pytest.raises(ValueError, match="with another model"):
                other.train_step(np.zeros((1, 3)), np.array([0]), tn.SoftmaxCrossEntropy(), optimizer)
            models.clear()
        np.testing.assert_array_equal(other.params, before)

    def test_copies_and_what_is_loaded_begin_with_any(self):
        optimizer = tn.Adam()
        self.fit(self.model(), optimizer)
        fresh = tn.Adam()
        fresh.set_state(optimizer.state())
        for twin in (
            copy.copy(optimizer),
            copy.deepcopy(optimizer),
            pickle.loads(pickle.dumps(optimizer)),
            fresh,
        ):
            self.fit(self.model(), twin)
            assert twin.step_count == 2

    def test_reset_begins_anew(self):
        optimizer, models = tn.Adam(0.1), [self.model() for _ in range(2)]
        for model in models:
            self.fit(model, optimizer)
            optimizer.learning_rate = 0.01
            optimizer.reset()
            assert (optimizer.learning_rate, optimizer.step_count, optimizer.slots) == (0.1, 0, {})
        np.testing.assert_array_equal(models[0].params, models[1].params)

    def test_one_that_has_done_nothing_yet_is_free(self):
        optimizer = tn.Adam()
        optimizer.begin(self.model())
        self.fit(self.model(), optimizer)

    def test_a_model_that_moves_keeps_its_optimizer(self):
        model, optimizer = self.model(), tn.Adam()
        self.fit(model, optimizer)
        self.fit(model.to("cpu"), optimizer)
        assert optimizer.step_count == 2


class TestDenormals:
    @pytest.mark.parametrize(
        "make",
        [
            tn.Adam,
            lambda: tn.SGD(momentum=0.99),
            lambda: tn.RMSprop(rho=0.99),
            lambda: tn.Adam(beta_2=0.99),
        ],
        ids=["Adam", "momentum", "RMSprop", "Adam, quick"],
    )
    def test_slots_hold_none_after_thousands_of_steps_without_a_gradient(self, make):
        """Without the flush they would stay: 0.9 times the smallest denormal rounds to itself."""
        optimizer = make()
        size = 40_000  # more than one block of the flush
        params = np.zeros(size, np.float32)
        first = np.geomspace(1e-21, 1, size, dtype=np.float32)
        optimizer.step(params, first)
        zero = np.zeros(size, np.float32)
        for _ in range(2047):
            optimizer.step(params, zero)
        tiny = np.finfo(np.float32).tiny
        for name, slot in optimizer.slots.items():
            assert not ((slot != 0) & (np.abs(slot) < tiny)).any(), name
        assert any(slot.any() for slot in optimizer.slots.values())

    def test_the_flush_changes_nothing_that_is_larger(self):
        tiny = float(np.finfo(np.float32).tiny)
        optimizer = tn.SGD(0.0, momentum=0.5)
        params = np.zeros(3, np.float32)
        optimizer.prepare(params)
        for _ in range(255):
            optimizer.step(params, np.zeros(3, np.float32))
        optimizer.slots["velocity"][...] = [4 * tiny, -4 * tiny, tiny]
        optimizer.step(params, np.zeros(3, np.float32))
        np.testing.assert_array_equal(
            optimizer.slots["velocity"], np.array([2 * tiny, -2 * tiny, 0], np.float32)
        )


class TestState:
    @given(optimizers(), seeds, st.integers(0, 5))
    def test_a_new_optimizer_with_the_state_goes_on_to_the_bit(self, pair, seed, cut):
        optimizer, reference = pair
        rng = np.random.default_rng(seed)
        params = rng.standard_normal(6)
        all_gradients = gradients(rng, 6, steps=10)
        for grads in all_gradients[:cut]:
            optimizer.step(params, grads, decay_size=3)
        settings = reference.settings | {
            "weight_decay": reference.weight_decay,
            "clip_norm": reference.clip_norm,
        }
        if type(optimizer) is not tn.AdamW:
            settings["decoupled"] = reference.decoupled
        resumed, resumed_params = type(optimizer)(reference.rate, **settings), params.copy()
        resumed.set_state(optimizer.state())
        for grads in all_gradients[cut:]:
            optimizer.step(params, grads, decay_size=3)
            resumed.step(resumed_params, grads, decay_size=3)
        np.testing.assert_array_equal(resumed_params, params)
        assert resumed.step_count == optimizer.step_count == 10

    def test_a_state_is_a_copy_on_both_ways(self):
        optimizer, twin = tn.Adam(), tn.Adam()
        params = np.zeros(3)
        optimizer.step(params, np.ones(3))
        state = optimizer.state()
        twin.set_state(state)
        kept = {name: slot.copy() for name, slot in state["slots"].items()}
        for either in (optimizer, twin):
            either.step(params, np.ones(3))
        for name, slot in state["slots"].items():
            np.testing.assert_array_equal(slot, kept[name])

    @pytest.mark.parametrize("begun", [tn.SGD, lambda: tn.SGD(momentum=0.9), tn.RMSprop, tn.Adam])
    @pytest.mark.parametrize("other", [tn.SGD, lambda: tn.SGD(momentum=0.9), tn.RMSprop, tn.Adam])
    def test_the_state_of_another_kind_is_refused(self, begun, other):
        optimizer, other = begun(), other()
        optimizer.step(np.zeros(2), np.ones(2))
        if other.slot_names == optimizer.slot_names:
            other.set_state(optimizer.state())
            assert other.step_count == 1
            return
        with pytest.raises(ValueError, match=f"{type(other).__name__} keeps the slots .*, the state has"):
            other.set_state(optimizer.state())
        assert (other.step_count, other.slots) == (0, {})

    @pytest.mark.parametrize("params", [np.zeros(4), np.zeros(3, np.float32), np.zeros(1)])
    def test_a_model_of_another_size_or_dtype_is_refused(self, params):
        begun, resumed = tn.Adam(), tn.Adam()
        begun.step(np.zeros(3), np.ones(3))
        resumed.set_state(begun.state())
        for optimizer in (begun, resumed):
            with pytest.raises(
                ValueError, match="was first used with a model of 3 float64 parameters and can't"
            ):
                optimizer.step(params, np.ones_like(params))
            assert optimizer.step_count == 1
        np.testing.assert_array_equal(params, 0)

    def test_a_state_from_before_the_first_step_begins_anew(self):
        optimizer = tn.Adam()
        optimizer.step(np.zeros(2), np.ones(2))
        optimizer.set_state(tn.Adam().state())
        params, fresh = np.zeros(2), np.zeros(2)
        optimizer.step(params, np.ones(2))
        tn.Adam().step(fresh, np.ones(2))
        np.testing.assert_array_equal(params, fresh)


class TestLearningRate:
    def test_a_schedule_sees_each_step_once(self):
        seen = []

        def schedule(step):
            seen.append(step)
            return 0.5**step

        optimizer, params = tn.SGD(schedule), np.zeros(1)
        for _ in range(4):
            optimizer.step(params, np.ones(1))
        assert seen == [0, 1, 2, 3]
        assert params[0] == -(1 + 0.5 + 0.25 + 0.125)
        assert optimizer.current_learning_rate() == 0.0625

    @pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf, "fast"])
    def test_a_schedule_that_gives_no_rate_is_named_with_its_step_and_changes_nothing(self, bad):
        optimizer = tn.SGD(lambda step: 0.1 if step == 0 else bad)
        params = np.zeros(1)
        optimizer.step(params, np.ones(1))
        with pytest.raises(ValueError, match="learning rate at step 1: expected a number"):
            optimizer.step(params, np.ones(1))
        assert params[0] == -0.1
        assert optimizer.step_count == 1

    def test_it_can_be_set_between_steps(self):
        optimizer, params = tn.SGD(1.0), np.zeros(1)
        optimizer.step(params, np.ones(1))
        optimizer.learning_rate = 0.5
        optimizer.step(params, np.ones(1))
        assert params[0] == -1.5
        with pytest.raises(ValueError, match="learning_rate: expected a number"):
            optimizer.learning_rate = -1
        assert optimizer.learning_rate == 0.5


class TestArguments:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: tn.SGD(-0.1), "learning_rate: expected a number"),
            (lambda: tn.SGD(math.nan), "learning_rate: expected a number"),
            (lambda: tn.SGD("0.1"), "learning_rate: expected a number, got '0.1'"),
            (lambda: tn.SGD(momentum=1.0), r"SGD momentum: expected a number in \[0, 1\)"),
            (lambda: tn.SGD(nesterov=True), "looks ahead along the momentum; also give momentum, e.g. 0.9"),
            (lambda: tn.SGD(weight_decay=-1), "weight_decay: expected a number"),
            (lambda: tn.SGD(clip_norm=0), "clip_norm: expected a number"),
            (lambda: tn.RMSprop(rho=1.0), r"RMSprop rho: expected a number in \[0, 1\)"),
            (lambda: tn.RMSprop(epsilon=0), "RMSprop epsilon: expected a number"),
            (lambda: tn.Adam(beta_1=1.0), r"Adam beta_1: expected a number in \[0, 1\)"),
            (lambda: tn.Adam(beta_2=-0.1), r"Adam beta_2: expected a number in \[0, 1\)"),
            (lambda: tn.Adam(epsilon=0), "Adam epsilon: expected a number"),
        ],
    )
    def test_out_of_range(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_keras_defaults(self):
        assert (tn.SGD().learning_rate, tn.SGD().momentum, tn.SGD().nesterov) == (0.01, 0.0, False)
        rmsprop = tn.RMSprop()
        assert (rmsprop.learning_rate, rmsprop.rho, rmsprop.epsilon) == (0.001, 0.9, 1e-7)
        for adam, decay in ((tn.Adam(), 0.0), (tn.AdamW(), 0.004)):
            assert (adam.learning_rate, adam.beta_1, adam.beta_2, adam.epsilon) == (0.001, 0.9, 0.999, 1e-7)
            assert (adam.weight_decay, adam.decoupled, adam.clip_norm) == (decay, True, None)

    def test_an_optimizer_without_a_formula_says_so(self):
        class Mine(tn.Optimizer):
            pass

        with pytest.raises(NotImplementedError, match="Mine defines no update"):
            Mine(0.1).step(np.zeros(1), np.ones(1))

    def test_repr_names_rate_and_steps(self):
        assert repr(tn.Adam(0.5)) == "<Adam(learning_rate=0.5), 0 steps>"
        assert repr(tn.SGD(0.1, 0.9, nesterov=True, weight_decay=1e-4)) == (
            "<SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.0001), 0 steps>"
        )


@pytest.mark.parametrize(
    "make",
    [
        tn.SGD,
        lambda: tn.SGD(momentum=0.9, nesterov=True),
        tn.RMSprop,
        tn.AdamW,
        lambda: tn.Adam(clip_norm=1e-3),
        lambda: tn.Adam(weight_decay=0.1, decoupled=False),
    ],
    ids=["SGD", "Nesterov", "RMSprop", "AdamW", "clipped", "penalty"],
)
def test_after_the_first_a_step_allocates_next_to_nothing(make):
    optimizer = make()
    params, grads = np.ones(100_000, np.float32), np.ones(100_000, np.float32)
    for _ in range(2):
        optimizer.step(params, grads, decay_size=50_000)
    tracemalloc.start()
    try:
        for _ in range(3):
            optimizer.step(params, grads, decay_size=50_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000


class TestMisspeltSettings:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [("lr", "learning_rate"), ("learning_rat", "learning_rate"), ("beta1", "beta_1"), ("clipnorm", "clip_norm"),
         ("eps", "epsilon"), ("weight_decey", "weight_decay")],
    )  # fmt: skip
    def test_they_are_refused(self, name, meant):
        optimizer = tn.Adam()
        with pytest.raises(AttributeError, match=f"Adam has no attribute '{name}'; did you mean '{meant}'"):
            setattr(optimizer, name, 0.5)
        assert not hasattr(optimizer, name)

    def test_an_optimizer_of_ones_own_has_attributes_of_its_own(self):
        class Own(tn.SGD):
            def __init__(self, lr):
                super().__init__(lr)
                self.lr, self.seen, self.restarts = lr, [], 0

        own = Own(0.1)
        own.warmup, own.decay = 3, 0.5
        assert (own.lr, own.warmup) == (0.1, 3)
