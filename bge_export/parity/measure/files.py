"""What can be read from the files of artifacts without running them as a whole."""

from collections.abc import Sequence

from bge_export.contracts import Artifact
from bge_export.parity.measure.measurement import FileFacts
from bge_export.parity.measure.operators import known_operators
from bge_export.parity.measure.token_tables import known_tables
from bge_export.parity.report import PairsRecord
from bge_export.saturation import known_facts
from bge_export.sweep.states import Sweep


def known_files(artifacts: Sequence[Artifact], sweep: Sweep) -> dict[str, FileFacts]:
    """Return digest -> what was read from the file of each artifact; the checkpoint's table comes from the sweep."""
    saturation, operators, tables = known_facts(artifacts), known_operators(artifacts), known_tables(artifacts, sweep)
    return {
        digest: FileFacts(
            pairs=PairsRecord.of(saturation[digest]) if digest in saturation else None,
            operators=operators.get(digest),
            table=tables.get(digest),
        )
        for digest in {item.digest for item in artifacts}
    }
