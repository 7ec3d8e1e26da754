"""All random numbers of the library, from one seed.

A stream is named by its purpose and a counter, never by what was drawn before it. So nothing has to be
replayed when a run is resumed, and drawing more from one stream does not change another.

Source: NumPy's SeedSequence (O'Neill's seed_seq_fe), PCG64 (O'Neill 2014), Philox (Salmon et al. 2011).
"""

import secrets
from typing import Any

import numpy as np

INITIAL_VALUES, SHUFFLE, AUGMENT, DROPOUT, GRADIENT_CHECK = range(5)


def draw_seed() -> int:
    """Return a fresh seed when the caller gives none: drawn once, recorded by its owner, short enough to retype."""
    return secrets.randbelow(2**32)


def check_seed(seed: Any) -> int:
    """Return the seed as a non-negative int; raise ValueError if it is anything else."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed: expected a non-negative int or None, got {seed!r}")
    return int(seed)


def generator(seed: int, purpose: int, *counters: int) -> np.random.Generator:
    """Return the generator for one purpose, as in ``generator(seed, SHUFFLE, epoch)``."""
    sequence = np.random.SeedSequence(seed, spawn_key=(purpose, *counters))
    return np.random.Generator(np.random.PCG64(sequence))


def dropout_key(seed: int, layer: int) -> tuple[int, int]:
    """Return the 128-bit Philox key of a dropout layer."""
    words = np.random.SeedSequence(seed, spawn_key=(DROPOUT, layer)).generate_state(2, np.uint64)
    return int(words[0]), int(words[1])


def dropout_bits(key: tuple[int, int], first_row: int, step: int, rows: int, units: int) -> Any:
    """Return the units' 16 random bits, (rows, units or a few more).

    Philox makes 16 units' bits at a time. A row begins with a new block, so any row can be drawn on its own.
    """
    blocks = -(-units // 16)
    philox = np.random.Philox(key=key, counter=(first_row * blocks, step, 0, 0))
    return philox.random_raw(rows * blocks * 4).view(np.uint16).reshape(rows, blocks * 16)
