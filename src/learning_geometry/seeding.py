"""Generators by name: the one source of randomness of the package."""

import numpy as np


def seeded(*key: int | str) -> np.random.Generator:
    """Return the generator that belongs to ``key``, such as ``seeded(seed, "batch", step)``.

    The same key always gives the same numbers and different keys give independent ones, so the batch of
    any step can be drawn again without replaying the run, and a resumed run needs no generator state.

    Args:
        key: non-negative integers and strings; their types and order matter.

    Raises:
        ValueError: the key is empty or holds a negative integer.

    Source: numpy's ``SeedSequence`` (O'Neill's seed_seq_fe) spreads the key over the state of SFC64.

    >>> seeded(0, "batch", 7).integers(100) == seeded(0, "batch", 7).integers(100)
    np.True_
    """
    if not key:
        raise ValueError("seeded: the key is empty; name the generator, for example seeded(seed, 'batch', step)")
    # SeedSequence pads with zeros and flattens large integers, so lengths are part of the words
    words: list[int] = [len(key)]
    for part in key:
        if isinstance(part, str):
            data = part.encode()
            words += [1, len(data), int.from_bytes(data, "little")]
        else:
            if part < 0:
                raise ValueError(f"seeded: key {key} holds the negative integer {part}; use integers from 0 up")
            words += [0, int(part).bit_length(), int(part)]
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))
