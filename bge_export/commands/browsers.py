"""Measures parity in the browsers that open a served page, and joins their lanes to the report of this machine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bge_export.contracts import Artifact
from bge_export.errors import ClientError
from bge_export.javascript.served import ServedBrowser, page_address, serve, visitors
from bge_export.javascript.server import PageLink
from bge_export.parity.figures import cosine_figure
from bge_export.parity.measure.measurement import RuntimeDevice
from bge_export.parity.report import Lane, ParityReport

Measure = Callable[[Sequence[Artifact], Sequence[RuntimeDevice]], ParityReport]
CLOSING_SECONDS = 10.0


@dataclass(frozen=True)
class Browsers:
    """Settings of the page that is served to browsers.

    Attributes:
        announce: called with the address that a browser must open.
        wait_for: names of browsers that must all open the page; if empty, the first browser is enough.
        host: the address to listen on.
        versions: client versions to measure in each browser; empty for all.
    """

    announce: Callable[[str], None]
    wait_for: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    versions: tuple[str, ...] = ()


def with_browsers(
    report: ParityReport, artifacts: Sequence[Artifact], browsers: Browsers, measure: Measure
) -> ParityReport:
    """Return the report with the lanes of each browser that opened the page.

    Raises:
        ClientError: a browser did not open the page in time.
        DeviceUnavailable: the clients are not installed.
        MeasurementError: the server cannot listen on the address.
    """
    server = serve(artifacts, browsers.host)
    try:
        browsers.announce(page_address(server))
        for visitor in visitors(server, browsers.wait_for):
            runtime = ServedBrowser(server, visitor)
            shown: list[Lane] = []

            for device in runtime.devices():
                if browsers.versions and device.partition("@")[2] not in browsers.versions:
                    continue

                found = measure(artifacts, [RuntimeDevice(runtime, device, requested=device.startswith("web:"))])
                shown += found.lanes
                report = _joined(report, found)
                _show(PageLink(server, visitor.page), shown)

            _end(PageLink(server, visitor.page))
    finally:
        server.close()

    return report


def _joined(report: ParityReport, found: ParityReport) -> ParityReport:
    """Join two reports of the same run."""
    return report.model_copy(
        update={
            "lanes": (*report.lanes, *found.lanes),
            "requested": tuple(dict.fromkeys((*report.requested, *found.requested))),
        }
    ).sealed()


def _show(link: PageLink, lanes: Sequence[Lane]) -> None:
    """Show the browser's figures on its page, without a verdict."""
    rows = [["file", "device", "texts", "smallest cosine"]]
    for lane in lanes:
        cosines = [row.cosine for row in lane.rows]
        known = [value for value in cosines if value is not None]
        figure = cosine_figure(min(known) if known and len(known) == len(cosines) else None)
        rows.append([lane.model, lane.device, str(len(lane.rows)), lane.unavailable or lane.failed or figure])

    try:
        link.ask("show", CLOSING_SECONDS, rows=rows)
    except ClientError:  # the page is closed; the next lane reports it
        return


def _end(link: PageLink) -> None:
    """Tell the user on the page that it can be closed."""
    try:
        link.ask("end", CLOSING_SECONDS)
    except ClientError:
        return
