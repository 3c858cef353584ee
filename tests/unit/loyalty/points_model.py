"""The points ledger as naive lists of lots: slow, and obviously right. The SQL functions must equal it.

Every sum moves between two named buckets, so both sides of the books are equal by construction:
`pending`, `available`, `held` and `debt` belong to the member; all others are the outside world.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

GRACE = "grace"
_HOLD_REFUSALS = {
    "HELD": "HOLD_EXISTS",
    "CAPTURED": "HOLD_CAPTURED",
    "VOIDED": "HOLD_VOIDED",
    "EXPIRED": "HOLD_EXPIRED",
    "TOMBSTONE": "HOLD_VOIDED",
}


def thirty_days(now: datetime) -> datetime:
    """When points expire that came back too late for their lot."""
    return now + timedelta(days=30)


class Pool(NamedTuple):
    """Points of one funder under one expiry rule; what is earned first expires first."""

    funder: str
    expiry_class: str


class Entry(NamedTuple):
    """`points` left bucket `source` and arrived in bucket `target`."""

    reason: str
    pool: Pool
    source: str
    target: str
    points: int


class Refusal(Exception):
    """A business refusal, by its reason."""

    def __init__(self, reason: str, missing_points: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missing_points = missing_points


@dataclass(slots=True, kw_only=True)
class Lot:
    """What one earning added to its pool. `size` shrinks only by a take-back of the lot's own sale.

    `unused` is what of it expired before it was drawn, less what was taken back of that since."""

    seq: int
    size: int
    left: int
    expires_at: datetime
    closed: bool = False
    unused: int = 0


@dataclass(slots=True, kw_only=True)
class Earning:
    """One earning, to be taken back in part or whole when its sale is refunded."""

    pool: Pool
    points: int
    expires_at: datetime
    matures_at: datetime | None
    pending: int
    lot: Lot | None = None
    taken: int = 0


@dataclass(slots=True, kw_only=True)
class Hold:
    """Points drawn, in draw order; `None` as a pool means drawn as debt."""

    state: str
    draws: list[tuple[Pool | None, int]]

    @property
    def points(self) -> int:
        """What is drawn and not yet given back."""
        return sum(points for _, points in self.draws)


@dataclass(slots=True, kw_only=True)
class PointsModel:
    """One member's points in one currency."""

    now: datetime
    debt_allowed: bool = True
    grace: Callable[[datetime], datetime] = thirty_days
    debt_funder: str = "brand"
    lots: dict[Pool, list[Lot]] = field(default_factory=dict)
    earnings: dict[str, Earning] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    debts: Counter[str] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)
    verdicts: dict[str, tuple[object, object]] = field(default_factory=dict)

    # -- what can be asked -----------------------------------------------------------------------

    @property
    def available(self) -> int:
        """Points that can be spent now."""
        return sum(lot.left for lots in self.lots.values() for lot in lots)

    @property
    def pending(self) -> int:
        """Points earned whose return window is open."""
        return sum(earning.pending for earning in self.earnings.values())

    @property
    def held(self) -> int:
        """Points drawn by open holds."""
        return sum(hold.points for hold in self.holds.values() if hold.state == "HELD")

    @property
    def debt(self) -> int:
        """Points owed."""
        return sum(self.debts.values())

    def booked(self, bucket: str) -> int:
        """What the entries say the bucket contains."""
        return sum(e.points * ((e.target == bucket) - (e.source == bucket)) for e in self.entries)

    # -- what can be done ------------------------------------------------------------------------

    def once(self, request_id: str, body: object, work: Callable[[], object]) -> object:
        """Does `work` the first time; the same request again gets the first verdict, refusals included."""
        if request_id in self.verdicts:
            first_body, verdict = self.verdicts[request_id]
            if first_body != body:
                raise Refusal("REQUEST_ID_REUSED")
        else:
            try:
                verdict = work()
            except Refusal as refusal:
                verdict = refusal
            self.verdicts[request_id] = (body, verdict)
        if isinstance(verdict, Refusal):
            raise verdict
        return verdict

    def advance(self, now: datetime) -> None:
        """Moves business time: what is due matures, what is past its expiry expires."""
        assert now >= self.now
        self.now = now
        due = [e for e in self.earnings.values() if e.pending and e.matures_at is not None and e.matures_at <= now]
        for earning in sorted(due, key=lambda e: e.matures_at or now):
            points, earning.pending = earning.pending, 0
            earning.lot = self._post("mature", earning.pool, "pending", points, earning.expires_at)
        self._expire()

    def earn(self, key: str, pool: Pool, points: int, expires_at: datetime, matures_at: datetime | None = None) -> None:
        """Adds points to the pool, at once or, while the return window is open, as pending."""
        pending = matures_at is not None and matures_at > self.now
        earning = Earning(pool=pool, points=points, expires_at=expires_at, matures_at=matures_at, pending=0)
        self.earnings[key] = earning
        if pending:
            earning.pending = points
            self._book("earn", pool, "issued", "pending", points)
        else:
            earning.lot = self._post("earn", pool, "issued", points, expires_at)
        self._expire()

    def hold(self, hold_id: str, points: int, *, debt_allowed: bool = False) -> None:
        """Draws the points that expire first. Refuses INSUFFICIENT_POINTS; an off-line sale goes into debt."""
        if hold_id in self.holds:
            raise Refusal(_HOLD_REFUSALS[self.holds[hold_id].state])
        missing = points - self.available
        if missing > 0 and not debt_allowed:
            raise Refusal("INSUFFICIENT_POINTS", missing)
        draws: list[tuple[Pool | None, int]] = list(self._draw("hold", "held", min(points, self.available)))
        if missing > 0:
            self._owe("hold", self.debt_funder, "held", missing)
            draws.append((None, missing))
        self.holds[hold_id] = Hold(state="HELD", draws=draws)

    def capture(self, hold_id: str, points: int | None = None) -> None:
        """Ends the hold: `points` of it (all, if None) are burnt, the rest returns."""
        hold = self._open(hold_id)
        kept = hold.points if points is None else points
        if kept > hold.points:
            raise Refusal("HOLD_TOO_SMALL")
        self._return("void", hold, "held", hold.points - kept)
        hold.state = "CAPTURED"
        for pool, drawn in hold.draws:
            self._book("capture", pool or Pool(self.debt_funder, GRACE), "held", "burnt", drawn)
        self._expire()

    def void(self, hold_id: str) -> None:
        """Returns the hold's points; a void before its hold leaves a tombstone."""
        if hold_id not in self.holds:
            # so that the late hold is refused
            self.holds[hold_id] = Hold(state="TOMBSTONE", draws=[])
            return
        self._end(hold_id, "VOIDED")

    def expire_hold(self, hold_id: str) -> None:
        """The hold's time to live ran out: as a void."""
        self._end(hold_id, "EXPIRED")

    def refund(self, *, gives: Sequence[tuple[str, int]] = (), takes: Sequence[tuple[str, int]] = ()) -> int:
        """Gives back burnt points, then takes back earned ones; returns the shortfall where debt is forbidden.

        `gives` names captured holds, `takes` earnings, each with points. Refuses REFUND_EXCEEDS_SALE."""
        for hold_id, points in gives:
            hold = self.holds.get(hold_id)
            if hold is None or hold.state != "CAPTURED" or points > hold.points:
                raise Refusal("REFUND_EXCEEDS_SALE")
        for key, points in takes:
            if key not in self.earnings or points > self.earnings[key].points - self.earnings[key].taken:
                raise Refusal("REFUND_EXCEEDS_SALE")
        for hold_id, points in gives:
            self._return("give_back", self.holds[hold_id], "burnt", points)
        self._expire()
        return sum(self._take(self.earnings[key], points) for key, points in takes)

    # -- how ---------------------------------------------------------------------------------------

    def _book(self, reason: str, pool: Pool, source: str, target: str, points: int) -> None:
        if points:
            self.entries.append(Entry(reason, pool, source, target, points))

    def _post(self, reason: str, pool: Pool, source: str, points: int, expires_at: datetime) -> Lot:
        lots = self.lots.setdefault(pool, [])
        if lots:  # a late sale never expires before one already posted in its pool
            expires_at = max(expires_at, lots[-1].expires_at)
        lot = Lot(seq=len(self.entries), size=points, left=points, expires_at=expires_at)
        lots.append(lot)
        self._book(reason, pool, source, "available", points)
        self._repay(pool, points)
        return lot

    def _repay(self, pool: Pool, points: int) -> None:
        """The next points of the debt's funder that become available repay it."""
        repaid = min(self.debts[pool.funder], points)
        self.debts[pool.funder] -= repaid
        self._spend(pool, repaid)
        self._book("repay", pool, "available", "debt", repaid)

    def _spend(self, pool: Pool, points: int) -> None:
        for lot in self.lots.get(pool, []):
            spent = min(lot.left, points)
            lot.left -= spent
            points -= spent
        assert points == 0

    def _draw(self, reason: str, target: str, points: int) -> list[tuple[Pool, int]]:
        """Takes points from the lots that expire first, over all pools, ties to the older lot.

        Draws name pools and not lots: what comes back to a pool is placed by the pool's own rule."""
        open_lots = [(lot.expires_at, lot.seq, pool, lot) for pool, lots in self.lots.items() for lot in lots]
        draws: list[tuple[Pool, int]] = []
        for _, _, pool, lot in sorted(open_lots, key=lambda item: item[:2]):
            drawn = min(lot.left, points)
            if drawn:
                lot.left -= drawn
                points -= drawn
                self._book(reason, pool, "available", target, drawn)
                if draws and draws[-1][0] == pool:
                    drawn += draws.pop()[1]
                draws.append((pool, drawn))
        assert points == 0
        return draws

    def _return(self, reason: str, hold: Hold, source: str, points: int) -> None:
        """Puts drawn points back where they came from, last drawn first: the earliest lots count as spent."""
        while points:
            pool, drawn = hold.draws.pop()
            returned = min(drawn, points)
            points -= returned
            if returned < drawn:
                hold.draws.append((pool, drawn - returned))
            if pool is None:
                self._forgive(reason, source, returned)
            else:
                self._put_back(reason, pool, source, returned)

    def _put_back(self, reason: str, pool: Pool, source: str, points: int) -> None:
        placed = 0
        for lot in reversed(self.lots[pool]):
            if not lot.closed:
                room = min(lot.size - lot.left, points - placed)
                lot.left += room
                placed += room
        self._book(reason, pool, source, "available", placed)
        self._repay(pool, placed)
        self._grace(reason, pool.funder, source, points - placed)

    def _forgive(self, reason: str, source: str, points: int) -> None:
        """What was drawn as debt lowers the debt; what was repaid meanwhile becomes a new lot."""
        forgiven = min(self.debts[self.debt_funder], points)
        self.debts[self.debt_funder] -= forgiven
        self._book(reason, Pool(self.debt_funder, GRACE), source, "debt", forgiven)
        self._grace(reason, self.debt_funder, source, points - forgiven)

    def _grace(self, reason: str, funder: str, source: str, points: int) -> None:
        if points:
            self._post(reason, Pool(funder, GRACE), source, points, self.grace(self.now))

    def _take(self, earning: Earning, points: int) -> int:
        earning.taken += points
        pending = min(earning.pending, points)
        earning.pending -= pending
        self._book("take_back", earning.pool, "pending", "issued", pending)
        points -= pending
        if earning.lot is not None:
            own = min(earning.lot.left, points)
            earning.lot.left -= own
            earning.lot.size -= own
            self._book("take_back", earning.pool, "available", "issued", own)
            points -= own
            # never spent either, so it costs nothing. It comes before what was spent, as it did before it expired: a
            # refund on the day after an expiry leaves the member what it leaves on the day before
            unused = min(earning.lot.unused, points)
            earning.lot.unused -= unused
            self._book("take_back", earning.pool, "expired", "issued", unused)
            points -= unused
        others = min(self.available, points)
        self._draw("take_back", "issued", others)
        points -= others
        if points and not self.debt_allowed:
            self._book("take_back", earning.pool, "shortfall", "issued", points)
            return points
        self._owe("take_back", earning.pool.funder, "issued", points)
        return 0

    def _owe(self, reason: str, funder: str, target: str, points: int) -> None:
        self.debts[funder] += points
        self._book(reason, Pool(funder, GRACE), "debt", target, points)

    def _open(self, hold_id: str) -> Hold:
        hold = self.holds.get(hold_id)
        if hold is None:
            raise Refusal("HOLD_NOT_FOUND")
        if hold.state != "HELD":
            raise Refusal(_HOLD_REFUSALS[hold.state])
        return hold

    def _end(self, hold_id: str, state: str) -> None:
        hold = self._open(hold_id)
        self._return("void", hold, "held", hold.points)
        hold.state = state
        self._expire()

    def _expire(self) -> None:
        for pool, lots in self.lots.items():
            for lot in lots:
                if lot.expires_at <= self.now and not lot.closed:
                    self._book("expire", pool, "available", "expired", lot.left)
                    lot.unused, lot.left, lot.closed = lot.left, 0, True
