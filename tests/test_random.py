"""The random streams: all from one seed, named by purpose and counter, and all different."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from tests.support.strategies import seeds
from tinynet.support import random

PURPOSES = [random.INITIAL_VALUES, random.SHUFFLE, random.AUGMENT, random.DROPOUT, random.GRADIENT_CHECK]


def first_words(*name):
    return tuple(random.generator(*name).integers(0, 2**64, 4, dtype=np.uint64).tolist())


class TestGenerator:
    @given(seeds, st.sampled_from(PURPOSES), st.lists(st.integers(0, 1000), max_size=2))
    def test_a_name_is_a_stream(self, seed, purpose, counters):
        assert first_words(seed, purpose, *counters) == first_words(seed, purpose, *counters)

    def test_streams_of_other_names_are_others(self):
        names = [
            (seed, purpose, *counters)
            for seed in (0, 1, 2**32, 2**64)
            for purpose in PURPOSES
            for counters in ((), (0,), (1,), (0, 0), (0, 1), (1, 0))
        ]
        assert len({first_words(*name) for name in names}) == len(names)

    def test_drawing_from_one_moves_no_other(self):
        shuffle = random.generator(3, random.SHUFFLE, 1)
        random.generator(3, random.AUGMENT, 1).random(1000)
        np.random.default_rng(3).random(10)
        assert tuple(shuffle.integers(0, 2**64, 4, dtype=np.uint64).tolist()) == first_words(
            3, random.SHUFFLE, 1
        )

    def test_purposes_have_numbers_of_their_own(self):
        assert len(set(PURPOSES)) == len(PURPOSES)

    def test_the_stream_is_the_documented_one(self):
        """Saved runs are resumed by seed: a different generator or spawn key would break them."""
        sequence = np.random.SeedSequence(7, spawn_key=(random.SHUFFLE, 4))
        expected = np.random.Generator(np.random.PCG64(sequence)).permutation(20)
        np.testing.assert_array_equal(random.generator(7, random.SHUFFLE, 4).permutation(20), expected)
        assert PURPOSES == [0, 1, 2, 3, 4]

    def test_neighbouring_seeds_and_epochs_are_uncorrelated(self):
        draws = np.array(
            [
                random.generator(seed, random.SHUFFLE, epoch).standard_normal(2000)
                for seed in range(4)
                for epoch in range(4)
            ]
        )
        correlations = np.corrcoef(draws) - np.eye(16)
        assert np.abs(correlations).max() < 0.1


class TestDropoutKey:
    def test_keys_of_seeds_and_layers_are_128_bits_and_all_different(self):
        keys = {random.dropout_key(seed, layer) for seed in range(20) for layer in range(20)}
        assert len(keys) == 400
        for key in keys:
            assert len(key) == 2
            assert all(type(word) is int and 0 <= word < 2**64 for word in key)
        assert len({word for key in keys for word in key}) == 800

    def test_same_name_same_key(self):
        assert random.dropout_key(5, 2) == random.dropout_key(5, 2)

    def test_philox_takes_it(self):
        assert np.random.Philox(key=random.dropout_key(5, 2)).random_raw() >= 0


class TestSeeds:
    @pytest.mark.parametrize("seed", [0, 7, 2**32, 2**200, np.int64(3), np.uint8(200)])
    def test_accepted(self, seed):
        checked = random.check_seed(seed)
        assert checked == seed
        assert type(checked) is int
        random.generator(checked, random.SHUFFLE)

    @pytest.mark.parametrize("seed", [-1, 1.0, "0", True, None, np.int64(-3), [1]])
    def test_refused(self, seed):
        with pytest.raises(ValueError, match="seed: expected a non-negative int or None, got"):
            random.check_seed(seed)

    def test_drawn_seeds_differ_and_are_short(self):
        drawn = [random.draw_seed() for _ in range(20)]
        assert len(set(drawn)) > 15
        assert all(0 <= seed < 2**32 for seed in drawn)

    def test_drawing_one_is_not_decided_by_numpys_or_pythons_global_seed(self):
        import random as python_random

        drawn = set()
        for _ in range(4):
            python_random.seed(0)
            drawn.add(random.draw_seed())
        assert len(drawn) > 1
