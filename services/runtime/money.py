"""The one way to round and to divide money and points: integers in, integers out, parts that sum to the whole."""

from collections.abc import Sequence
from decimal import Decimal


def allocate(total: int, weights: Sequence[int]) -> tuple[int, ...]:
    """Divides `total` over `weights` by largest remainder, ties to the earliest; the parts sum to `total`.

    Weights are not negative; all zero means equal shares. A negative total mirrors the positive one.
    """
    assert all(weight >= 0 for weight in weights), "a weight is negative"
    assert weights or total == 0, "nobody to allocate to"
    if total < 0:
        return tuple(-part for part in allocate(-total, weights))
    whole = sum(weights)
    if whole == 0:
        weights, whole = (1,) * len(weights), len(weights)
    parts = [total * weight // whole for weight in weights] if whole else []
    left = total - sum(parts)
    if left:
        # sorted() is stable, so equal remainders stay in order: ties go to the earliest
        by_remainder = sorted(range(len(weights)), key=lambda i: -(total * weights[i] % whole))
        for i in by_remainder[:left]:
            parts[i] += 1
    assert sum(parts) == total
    return tuple(parts)


def prefix_share(total: int, units: int, first_k: int) -> int:
    """What the first `first_k` of `units` equal units hold of `total`: a prefix of the largest-remainder vector, O(1).

    The share of the units [j, k) is `prefix_share(total, n, k) - prefix_share(total, n, j)`. No units hold all of it.
    """
    assert 0 <= first_k <= units, f"unit {first_k} of {units}"
    if total < 0:
        return -prefix_share(-total, units, first_k)
    if first_k == units:
        return total
    each, extra = divmod(total, units)
    return each * first_k + min(first_k, extra)


def percent_of(amount_minor: int, rate: Decimal) -> int:
    """`amount_minor` times `rate` (a fraction: Decimal("0.15") is 15%), half away from zero, to the minor unit."""
    numerator, denominator = rate.as_integer_ratio()
    return round_ratio(amount_minor * numerator, denominator)


def price_of(price_minor: int, quantity: int, price_quantity: int) -> int:
    """The price of `quantity` base units at `price_minor` for `price_quantity` of them, half away from zero."""
    return round_ratio(price_minor * quantity, price_quantity)


def round_ratio(numerator: int, denominator: int) -> int:
    """The integer nearest to numerator / denominator, half away from zero. The denominator is positive."""
    assert denominator > 0, "the denominator is not positive"
    rounded = (2 * abs(numerator) + denominator) // (2 * denominator)
    return rounded if numerator >= 0 else -rounded


def tenders_by_line(lines: Sequence[int], tenders: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """What each line takes of each tender, one row a line: lines in order, each over what remains of every tender.

    Rows sum to the lines, columns to the tenders. Both must sum to the same amount, in minor units, none negative.
    """
    assert sum(lines) == sum(tenders), f"lines {sum(lines)} are not what the tenders {sum(tenders)} pay"
    assert all(amount >= 0 for amount in (*lines, *tenders)), "a line or tender is negative"
    remaining = list(tenders)
    rows: list[tuple[int, ...]] = []
    for line in lines:
        # no line exceeds what remains in total, so no share exceeds what remains of its tender
        shares = allocate(line, remaining) if remaining else ()
        remaining = [left - share for left, share in zip(remaining, shares, strict=True)]
        rows.append(shares)
    assert not any(remaining)
    return tuple(rows)
