"""What a model file holds, read from its bytes without running it; one module per format, found by its name.

The gate reads the files of a folder again instead of believing a record of them, so a report and a manifest cannot say
anything else. It must do so without the formats' own libraries, which a machine that only judges does not have.
"""

from bge_export.bundle.contents._expected import MODEL_FILES, differences
from bge_export.bundle.contents._facts import Contents
from bge_export.contracts import Artifact
from bge_export.errors import ArtifactError
from bge_export.plugins import find, names

__all__ = ["MODEL_FILES", "Contents", "differences", "read_contents"]


def read_contents(artifact: Artifact) -> Contents | None:
    """Return what an artifact's model file holds; None if nothing here reads its format.

    Raises:
        ArtifactError: the file is missing, or not of its format.
    """
    if artifact.target.format not in names(__name__):
        return None

    path = artifact.root / artifact.model
    try:
        found: Contents = find(__name__, artifact.target.format, "contents")(path)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror or error}. Export it again.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is not a file of {artifact.target.format}: {error}. Export it again.") from error
    return found
