"""What the console sees when it holds the services' answers against each other."""

from collections.abc import Mapping
from io import StringIO

import grpc
import pytest
from rich.console import Console

from services.console.audit import (
    OF_ALL,
    Audited,
    Auditor,
    Consumer,
    Finding,
    compare,
    findings_of_tenants,
    own_findings,
    show,
    show_verdict,
    summarise,
    tenants_at_rest,
)
from services.console.stack.refusals import StackRefused
from services.console.tenants import remember_tenant, replaying
from siyu.common.v1 import audit_pb2

ACCRUAL = Consumer(producer="commerce", service="loyalty", queue="accrual")


def log(*heads: tuple[int, int, int]) -> audit_pb2.AuditResponse:
    return audit_pb2.AuditResponse(
        log=[
            audit_pb2.LogPosition(partition=number, seq=seq, events_total=events, checksum_total=checksum)
            for number, (seq, events, checksum) in enumerate(heads)
        ]
    )


def cursors(*positions: tuple[int, int, int], queue: str = "accrual") -> audit_pb2.AuditResponse:
    return audit_pb2.AuditResponse(
        positions=[
            audit_pb2.ConsumerPosition(
                producer="commerce",
                queue=queue,
                partition=number,
                seq=seq,
                events_total=events,
                checksum_total=checksum,
            )
            for number, (seq, events, checksum) in enumerate(positions)
        ]
    )


@pytest.mark.parametrize(
    ("heads", "positions", "ok", "lags", "detail"),
    [
        pytest.param([(3, 70, 9)], [(3, 70, 9)], True, False, "", id="all of it, once"),
        pytest.param([(3, 70, 9)], [(2, 50, 7)], False, True, "at block 2 of 3", id="not yet at the end"),
        pytest.param([(3, 70, 9)], [(3, 69, 8)], False, False, "took 69 events of 70", id="one event dropped"),
        pytest.param([(3, 70, 9)], [(3, 71, 10)], False, False, "took 71 events of 70", id="one event twice"),
        pytest.param([(3, 70, 9)], [(3, 70, 8)], False, False, "other events", id="one instead of another"),
        pytest.param([(3, 70, 9)], [], False, True, "at block 0 of 3", id="never begun"),
        pytest.param([(0, 0, 0)], [], True, False, "", id="nothing to take"),
        pytest.param(
            [(1, 1, 1), (2, 4, 5)], [(1, 1, 1), (2, 4, 4)], False, False, "partition 1", id="the second partition"
        ),
        pytest.param([(1, 1, 1)], [(2, 2, 2)], False, False, "at block 2 of 1", id="beyond the log's end"),
        pytest.param([], [], False, False, "commerce tells no log", id="a log that isn't told"),
    ],
)
def test_every_event_is_taken_exactly_once(heads, positions, ok, lags, detail) -> None:
    (finding,) = compare({"commerce": log(*heads), "loyalty": cursors(*positions)}, consumers=[ACCRUAL])
    assert (finding.ok, finding.lags) == (ok, lags)
    assert detail in finding.detail
    assert bool(finding.detail) == (not ok)


def test_another_queues_cursor_does_not_count() -> None:
    answers = {"commerce": log((1, 5, 5)), "loyalty": cursors((1, 5, 5), queue="members")}
    (finding,) = compare(answers, consumers=[ACCRUAL])
    assert not finding.ok


@pytest.mark.parametrize(
    ("loyalty", "ok"), [pytest.param(100, True, id="to the unit"), pytest.param(101, False, id="one unit off")]
)
def test_a_figure_that_two_services_know_must_agree(loyalty, ok) -> None:
    answers = {
        "commerce": audit_pb2.AuditResponse(figures={"orders_paid": 100, "stock": 7}),
        "loyalty": audit_pb2.AuditResponse(figures={"orders_paid": loyalty}),
    }
    (finding,) = compare(answers, consumers=[])
    assert (finding.check, finding.ok) == ("orders_paid", ok)
    assert finding.where == "commerce = loyalty"


def test_a_service_that_checks_nothing_is_red() -> None:
    found = audit_pb2.AuditFinding(check="points.sum", ok=True, examined=5)
    answers = {"loyalty": audit_pb2.AuditResponse(findings=[found]), "campaign": audit_pb2.AuditResponse()}
    assert [(finding.where, finding.ok) for finding in own_findings(answers)] == [
        ("loyalty", True),
        ("campaign", False),
    ]


@pytest.mark.parametrize(
    ("checks", "code", "told"),
    [
        pytest.param([("a", True), ("b", True)], 0, "2 checks agree.", id="all agree"),
        pytest.param([("a", True), ("b", False), ("c", False)], 1, "2 of 3 checks differ: b; c", id="some differ"),
    ],
)
def test_one_line_is_the_verdict_and_the_exit_code(checks, code, told) -> None:
    written = StringIO()
    assert show_verdict(checks, console=Console(file=written, color_system=None)) == code
    assert written.getvalue().strip() == told


def test_the_verdict_says_what_its_number_is_made_of() -> None:
    written = StringIO()
    console = Console(file=written, color_system=None)
    show_verdict([("a", True), ("b", True)], console=console, sum_of="1 of coverage and engine, 1 of the audit")
    assert written.getvalue() == "2 checks agree: 1 of coverage and engine, 1 of the audit.\n"


@pytest.mark.parametrize("tell", [show, summarise])
def test_what_is_in_the_logs_is_told_apart_from_the_brands_own_rows(tell) -> None:
    """A new brand's audit said that it had looked at 35,264 rows, nearly all of them another brand's."""
    answers = {
        "commerce": audit_pb2.AuditResponse(
            findings=[
                audit_pb2.AuditFinding(check="commerce.lines_sum_to_orders", ok=True, examined=3),
                audit_pb2.AuditFinding(check="commerce.log_runs_on", ok=True, examined=700),
            ],
            log=[audit_pb2.LogPosition(partition=0, seq=2, events_total=9000)],
        ),
        "loyalty": audit_pb2.AuditResponse(
            positions=[
                audit_pb2.ConsumerPosition(producer="commerce", queue="accrual", partition=0, seq=2, events_total=9000)
            ]
        ),
    }
    findings = [
        *(each for each in own_findings(answers) if each.where == "commerce"),
        *compare(answers, consumers=[ACCRUAL]),
    ]
    written = StringIO()
    console = Console(file=written, width=160, color_system=None)
    tell(Audited(tenant_id="t", code="tea", findings=findings), console=console)
    told = written.getvalue()
    assert OF_ALL in told
    assert "700*" in told
    assert "9,000*" in told
    assert "3*" not in told


class _Auditor(Auditor):
    """One whose services fail for some tenants."""

    def __init__(self, failing: Mapping[str, grpc.StatusCode]) -> None:
        super().__init__(addresses={}, client_secret="")
        self._failing = failing

    async def code_of(self, tenant_id: str) -> str:
        return f"code-of-{tenant_id}"

    async def audit(self, tenant_id: str, *, wait_s: float = 0.0) -> list[Finding]:
        if tenant_id in self._failing:
            metadata = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(self._failing[tenant_id], metadata, metadata, details="a bug")
        return [Finding(where="loyalty", check="adds up", ok=True)]


async def test_a_tenant_that_cannot_be_audited_does_not_stop_the_next() -> None:
    asked = {"first": False, "second": True, "third": False}
    found = await findings_of_tenants(_Auditor({"second": grpc.StatusCode.INTERNAL}), asked, wait_s=0)
    assert [(str(each), [finding.ok for finding in each.findings]) for each in found] == [
        ("code-of-first (tenant first)", [True]),
        ("code-of-second (tenant second), whose replay was not finished", [False]),
        ("code-of-third (tenant third)", [True]),
    ]
    assert "INTERNAL" in found[1].findings[0].detail


async def test_nobody_there_is_no_finding() -> None:
    with pytest.raises(StackRefused, match="UNAVAILABLE"):
        await findings_of_tenants(_Auditor({"only": grpc.StatusCode.UNAVAILABLE}), {"only": False}, wait_s=0)


@pytest.mark.parametrize("tell", [pytest.param(show, id="as a table"), pytest.param(summarise, id="in few lines")])
@pytest.mark.parametrize(
    ("code", "note", "told"),
    [
        pytest.param("tea", "", "tea (tenant 0190)", id="finished"),
        pytest.param("tea", "whose replay was not finished", "tea (tenant 0190), whose replay was not", id="half"),
        pytest.param("", "", " tenant 0190", id="one whose code nobody told"),
    ],
)
def test_a_tenant_is_named_by_its_code(tell, code, note, told) -> None:
    written = StringIO()
    audited = Audited(tenant_id="0190", code=code, findings=[Finding(where="loyalty", check="a", ok=True)], note=note)
    tell(audited, console=Console(file=written, color_system=None, width=120))
    assert told in " ".join(written.getvalue().split())


def test_a_brand_that_is_being_replayed_is_told_and_the_others_are_audited(tmp_path) -> None:
    written = StringIO()
    console = Console(file=written, color_system=None)
    with replaying(tmp_path):
        remember_tenant(tmp_path, "moving", unfinished=True)
        with pytest.raises(StackRefused, match=r"a replay is under way.*`make run` does so by itself"):
            tenants_at_rest(tmp_path, console=console)
        remember_tenant(tmp_path, "at rest")
        assert tenants_at_rest(tmp_path, console=console) == {"at rest": False}
    assert "a replay is under way, and its brand (tenant moving)" in " ".join(written.getvalue().split())
    assert tenants_at_rest(tmp_path, console=console) == {"moving": True, "at rest": False}
