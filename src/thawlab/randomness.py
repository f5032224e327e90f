"""One seed, many independent streams: each purpose derives its own number from the seed and its name.

Deriving by name keeps purposes independent of each other: drawing one more augmentation parameter never changes the order
of the images. Deriving anew for every epoch and step makes the streams stateless, so that an interrupted run continues
exactly from (epoch, step) alone.
"""

import hashlib


def derive(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed of one purpose.

    Args:
        seed: the recipe's seed.
        names: the purpose, from the general to the particular, e.g. `("order", phase, epoch)`.
    """
    text = "/".join(["thawlab", str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
