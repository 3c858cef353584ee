"""One customer's points as a list of lots, moved by hand."""

from collections import Counter
from datetime import date, timedelta
from typing import TypedDict

from tests.reference import brand

GRACE = "grace"


def payer(pool: str) -> str:
    """Who pays for the points of a pool; graced points stay with theirs."""
    return pool.removeprefix(f"{GRACE}/") if pool.startswith(GRACE) else brand.PAID_BY.get(pool, "brand")


class Lot(TypedDict):
    """What one earning added to a pool. `last_day` is the last day on which it can be spent.

    `wasted` is what was still there after it, and has not been taken back."""

    order: int
    pool: str
    size: int
    left: int
    last_day: date
    over: bool
    wasted: int


class Earned(TypedDict):
    """What one rule gave for one sale (or a grant)."""

    pool: str
    points: int
    waiting: int
    ready_after: date
    last_day: date
    lot: Lot | None


class Purse:
    """A customer's points. Days end at midnight; `today` is the day that is being lived."""

    def __init__(self, today: date) -> None:
        self.today = today
        self.lots: list[Lot] = []
        self.earned: dict[str, Earned] = {}
        self.spent: dict[str, list[tuple[str, int]]] = {}
        self.owed_to: Counter[str] = Counter()
        self.told: Counter[str] = Counter()

    def available(self) -> int:
        """What can be spent."""
        return sum(lot["left"] for lot in self.lots)

    def debt(self) -> int:
        """What is owed, to whoever paid for the points."""
        return self.owed_to.total()

    def waiting(self) -> int:
        """What is earned, but may still be returned."""
        return sum(earned["waiting"] for earned in self.earned.values())

    def earn(self, name: str, pool: str, points: int, *, sold_on: date, returnable: bool) -> None:
        """Adds what a sale earned: after the days to return, if there are any left."""
        last_day = sold_on + timedelta(days=brand.LIFE_IN_DAYS[pool])
        ready_after = sold_on + timedelta(days=brand.DAYS_TO_RETURN if returnable else -1)
        earned = Earned(pool=pool, points=points, waiting=points, ready_after=ready_after, last_day=last_day, lot=None)
        self.earned[name] = earned
        self.told["earned"] += points
        if ready_after < self.today:
            self._ripen(earned)
            self._throw_out()

    def next_day(self, today: date) -> None:
        """Midnight: what has waited long enough becomes available, then what has lived long enough is gone."""
        self.today = today
        ripe = [earned for earned in self.earned.values() if earned["waiting"] and earned["ready_after"] < today]
        for earned in sorted(ripe, key=lambda earned: earned["ready_after"]):
            self._ripen(earned)
        self._throw_out()

    def burn(self, name: str, points: int) -> None:
        """Spends available points, those that expire first, and remembers where they came from."""
        assert points <= self.available()
        self.spent[name] = self._take_first(points)
        self.told["burnt"] += points

    def refund(self, *, burnt: list[tuple[str, int]], earned: list[tuple[str, int]]) -> None:
        """Gives back what was burnt, then takes back what was earned."""
        for name, points in burnt:
            self._give_back(self.spent[name], points)
            self.told["given_back"] += points
        self._throw_out()
        for name, points in earned:
            self.told["taken_back"] += self._take_back(self.earned[name], points)

    def _ripen(self, earned: Earned) -> None:
        points, earned["waiting"] = earned["waiting"], 0
        earned["lot"] = self._add(earned["pool"], points, earned["last_day"])

    def _add(self, pool: str, points: int, last_day: date) -> Lot:
        # nothing expires before what was in its pool already
        others = [lot["last_day"] for lot in self.lots if lot["pool"] == pool]
        lot = Lot(
            order=len(self.lots),
            pool=pool,
            size=points,
            left=points,
            last_day=max([last_day, *others]),
            over=False,
            wasted=0,
        )
        self.lots.append(lot)
        self._repay(pool, points)
        return lot

    def _repay(self, pool: str, points: int) -> None:
        owed = min(self.owed_to[payer(pool)], points)
        self.owed_to[payer(pool)] -= owed
        self.told["repaid"] += owed
        for lot in self.lots:
            if lot["pool"] == pool:
                part = min(owed, lot["left"])
                lot["left"] -= part
                owed -= part
        assert owed == 0

    def _take_first(self, points: int) -> list[tuple[str, int]]:
        taken: list[tuple[str, int]] = []
        for lot in sorted(self.lots, key=lambda lot: (lot["last_day"], lot["order"])):
            part = min(points, lot["left"])
            if part:
                lot["left"] -= part
                points -= part
                taken.append((lot["pool"], part))
        assert points == 0
        return taken

    def _give_back(self, spent: list[tuple[str, int]], points: int) -> None:
        while points:
            pool, drawn = spent.pop()
            part = min(points, drawn)
            points -= part
            if drawn > part:
                spent.append((pool, drawn - part))
            self._put_back(pool, part)

    def _put_back(self, pool: str, points: int) -> None:
        back = 0
        for lot in reversed(self.lots):
            if lot["pool"] == pool and not lot["over"]:
                part = min(points - back, lot["size"] - lot["left"])
                lot["left"] += part
                back += part
        self._repay(pool, back)
        if points > back:
            self._add(f"{GRACE}/{payer(pool)}", points - back, self.today + timedelta(days=brand.GRACE_DAYS))
            self.told["graced"] += points - back

    def _take_back(self, earned: Earned, points: int) -> int:
        """Returns what it cost the customer: all but what nobody had spent in time."""
        cost = points
        part = min(points, earned["waiting"])
        earned["waiting"] -= part
        points -= part
        lot = earned["lot"]
        if lot is not None:
            part = min(points, lot["left"])
            lot["left"] -= part
            lot["size"] -= part
            points -= part
            part = min(points, lot["wasted"])
            lot["wasted"] -= part
            points -= part
            cost -= part
        part = min(points, self.available())
        self._take_first(part)
        self.owed_to[payer(earned["pool"])] += points - part
        self.told["owed"] += points - part
        return cost

    def _throw_out(self) -> None:
        for lot in self.lots:
            if lot["last_day"] < self.today and not lot["over"]:
                self.told["expired"] += lot["left"]
                lot["wasted"] = lot["left"]
                lot["left"] = 0
                lot["over"] = True
