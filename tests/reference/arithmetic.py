"""Rounding and dividing, spelled out with fractions."""

from collections.abc import Sequence
from fractions import Fraction


def half_away(value: Fraction) -> int:
    """The nearest integer; exactly between two, the one that is further from zero."""
    if value < 0:
        return -half_away(-value)
    whole = int(value)
    return whole + 1 if value - whole >= Fraction(1, 2) else whole


def divide(total: int, weights: Sequence[int] | Sequence[Fraction]) -> list[int]:
    """Parts of a total that is not negative, in proportion to the weights, to the unit.

    Everybody gets the whole part of the exact share; the units that are left go one by one to the largest fractions,
    the earlier of two equal ones first. Without any weight everybody counts the same.
    """
    if not weights:
        return []
    if sum(weights) == 0:
        weights = [1] * len(weights)
    everything = sum(weights)
    exact = [Fraction(total * weight) / everything for weight in weights]
    parts = [int(share) for share in exact]
    waiting = [(-(share - int(share)), position) for position, share in enumerate(exact)]
    for _, position in sorted(waiting)[: total - sum(parts)]:
        parts[position] += 1
    return parts


def of_first_units(total: int, units: int, first: int) -> int:
    """What belongs to the first units when a total is divided over units that are all alike."""
    each = total // units
    larger = total - each * units
    return each * first + (first if first < larger else larger)
