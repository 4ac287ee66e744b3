"""Whole mixtures from the description in docs/mixing-proofs.md alone, as golden values for simplemix-mix. Plain Python 3.

    python mix_orders.py > ../../crates/simplemix-mix/tests/golden/orders.json
"""

import json
from fractions import Fraction

MASK = (1 << 64) - 1


def mix(z):
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def place(rows, key, epoch, index):
    if rows < 2:
        return 0
    bits = max((rows - 1).bit_length(), 2)
    low = bits // 2
    high = bits - low
    base = mix(mix(key) ^ epoch)
    keys = [mix(base ^ i) for i in range(6)]
    value = index
    while True:
        hi, lo = value >> low, value & ((1 << low) - 1)
        for a, b in zip(keys[::2], keys[1::2]):
            hi ^= mix(a ^ lo) & ((1 << high) - 1)
            lo ^= mix(b ^ hi) & ((1 << low) - 1)
        value = hi << low | lo
        if value < rows:
            return value


def two(weights, steps):
    p, q = weights[0], sum(weights)
    rounded = lambda t: (2 * p * t + q) // (2 * q)
    return [0 if rounded(t + 1) > rounded(t) else 1 for t in range(steps)]


def tijdeman(weights, steps):
    k, q = len(weights), sum(weights)
    bound = 1 - Fraction(1, 2 * k - 2)
    given, order = [0] * k, []
    for t in range(1, steps + 1):
        share = lambda i, t: Fraction(weights[i] * t, q)
        open_ = [i for i in range(k) if given[i] + 1 <= share(i, t) + bound]
        # Last row by which the next must come: the first t at which the count as it is falls below share - bound.
        deadline = lambda i: int((given[i] + bound) / Fraction(weights[i], q)) + 1
        source = min(open_, key=lambda i: (deadline(i), i))
        given[source] += 1
        order.append(source)
    return order


def mixture(weights, rows, seed, steps):
    sources = (two if len(weights) == 2 else tijdeman)(weights, steps)
    given, draws = [0] * len(weights), []
    for source in sources:
        epoch, index = divmod(given[source], rows[source])
        draws.append([source, place(rows[source], mix(seed ^ mix(source)), epoch, index), epoch])
        given[source] += 1
    return draws


CASES = [([1, 1], [40, 25], 7), ([3, 7], [9, 9], 0), ([1, 2, 3], [10, 7, 30], 1), ([13, 1, 6], [50, 3, 8], 2**63 + 5),
         ([5, 4, 3, 2, 1], [6, 6, 6, 6, 6], 42)]
print(json.dumps([{"weights": w, "rows": r, "seed": s, "draws": mixture(w, r, s, 60)} for w, r, s in CASES]))
