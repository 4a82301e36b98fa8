"""How sure is a share, and how sure is a difference? Intervals in which the truth lies 19 times in 20.

Wilson's score interval for one share; Newcombe's hybrid of two of them for the difference of independent shares (his
method 10). Both hold for few cases and for shares near 0 and 1, where the usual formula fails.
R. G. Newcombe, Statistics in Medicine 17 (1998), pages 857-872 and 873-890.
"""

from __future__ import annotations

from math import hypot, sqrt

Z = 1.959964  # 95 % of a normal distribution lie nearer to its middle than so many standard deviations

Interval = tuple[float, float]


def wilson(part: int, whole: int) -> Interval | None:
    """Return the interval of ``part / whole``, or None without a whole."""
    if not whole:
        return None
    share, square = part / whole, Z * Z / whole
    middle, reach = share + square / 2, Z * sqrt(share * (1 - share) / whole + square / whole / 4)
    return max((middle - reach) / (1 + square), 0.0), min((middle + reach) / (1 + square), 1.0)


def newcombe(one: tuple[int, int], other: tuple[int, int]) -> Interval | None:
    """Return the interval of the difference between two shares, each told as part and whole; None where one is none."""
    first, second = wilson(*one), wilson(*other)
    if first is None or second is None:
        return None
    share, base = one[0] / one[1], other[0] / other[1]
    less, more = hypot(share - first[0], second[1] - base), hypot(first[1] - share, base - second[0])
    return share - base - less, share - base + more
