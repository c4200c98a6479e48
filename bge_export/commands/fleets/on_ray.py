"""The parts of a fleet on a Ray cluster: one task each, which Ray starts again if its worker or node dies.

Every node needs the same environment, and reaches the checkpoints, the files that recipes name, and the store.
"""

import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Any

from bge_export.commands.fleets.parts import Part, PartResult, make_part
from bge_export.errors import MeasurementError, MissingLibrary, UsageError

RETRIES = 3
"""How often a part is begun again whose worker died: killed, out of memory, or its node gone."""

CONNECT_SECONDS = 10
"""How long a cluster may take to answer a connection."""

LOCAL = "local"
"""The address that starts a cluster of this machine alone."""


class OnRay:
    """Makes parts on a cluster, as many at a time as its processors and memory allow."""

    def __init__(self, address: str) -> None:
        """Join a cluster.

        Args:
            address: `auto` for the cluster of this machine or of RAY_ADDRESS, `HOST:PORT`, or `local` for a new one on
                this machine.

        Raises:
            MissingLibrary: Ray is not installed.
            MeasurementError: there is no cluster at that address.
        """
        try:
            import ray
        except ImportError as error:
            raise MissingLibrary("ray", "fleet", "A build on a cluster (--ray)") from error

        _refuse_silent(address)
        self._ray: Any = ray
        self._running: dict[Any, Part] = {}
        try:
            ray.init(
                address=None if address == LOCAL else address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False if address == LOCAL else None,
                ignore_reinit_error=False,
            )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise _no_cluster(address, str(error).strip().partition("\n")[0]) from error

        self._task = ray.remote(make_part)

    def submit(self, part: Part) -> None:
        """Take a part.

        Raises:
            UsageError: no node of the cluster could ever take it.
        """
        self._refuse_too_large(part)
        options = {
            "num_cpus": part.threads,
            "memory": part.memory,
            "max_retries": RETRIES,
            "scheduling_strategy": "SPREAD",
            "name": f"{part.recipe.source.model} {part.target}",
        }
        self._running[self._task.options(**options).remote(part.model_dump_json())] = part

    def results(self) -> Iterator[PartResult]:
        """Yield the result of each part as they come; one whose worker died again and again has an error."""
        while self._running:
            (done, *_), _ = self._ray.wait(list(self._running), num_returns=1)
            part = self._running.pop(done)
            try:
                yield PartResult.model_validate_json(self._ray.get(done))
            except self._ray.exceptions.RayError as error:
                yield PartResult(number=part.number, target=part.target, error=_reason(error), exit_status=3)

    def close(self) -> None:
        """Stop what still runs, and leave the cluster."""
        for running in self._running:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(running, force=True)
        self._running.clear()
        self._ray.shutdown()

    def _refuse_too_large(self, part: Part) -> None:
        """Raise UsageError for a part that would wait for ever, since no node has so many processors or memory."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(one.get("CPU", 0) >= part.threads and one.get("memory", 0) >= part.memory for one in nodes):
            return

        most = max((int(one.get("CPU", 0)) for one in nodes), default=0)
        if most < part.threads:
            raise UsageError(
                f"No node of the cluster has {part.threads} processors, at most {most}. Give --threads {most}."
            )
        raise UsageError(
            f"No node of the cluster has the {part.memory / 2**30:.1f} GiB of memory that {part.target} of "
            f"{part.recipe.source.model} may need. Add a larger node."
        )


def _refuse_silent(address: str) -> None:
    """Raise MeasurementError where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal():
        return

    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> MeasurementError:
    return MeasurementError(
        f"There is no Ray cluster at {address!r}: {reason}. Start one with ray start --head, or give --ray local."
    )


def _reason(error: Exception) -> str:
    """Return why a task has no result, in one line."""
    first = str(error).strip().partition("\n")[0]
    return f"no worker could finish it, {RETRIES + 1} tries: {type(error).__name__}: {first}"
