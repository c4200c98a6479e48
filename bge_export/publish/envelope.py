"""Reads what a signature says, whoever made it: the statement in a Sigstore bundle, and the files that it names."""

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bge_export.bundle.documents import PRIVATE, SIGNATURE
from bge_export.errors import ArtifactError
from bge_export.files.json_files import parse
from bge_export.files.regular import SETTINGS_BYTES, read_regular_text

OURS = re.compile(rb'"application/vnd\.dev\.sigstore\.bundle')
"""Matches the beginning of a signature, which a new one may replace."""

FOLDER_PREDICATE = "https://model_signing/signature/v1.0"
IGNORED = frozenset({SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore", *PRIVATE})
"""Paths of a folder that its signature leaves out: Git's, those of huggingface_hub, and the signature itself."""


class NotAuthenticError(Exception):
    """A signature that is missing, damaged, or of somebody else; its text is a sentence."""


def payload(path: Path) -> Mapping[str, Any]:
    """Return the statement in a signed file, whoever signed it.

    Raises:
        NotAuthenticError: it is missing or damaged.
    """
    try:
        bundle: Any = parse(read_regular_text(path, SETTINGS_BYTES))
        found = parse(base64.b64decode(bundle["dsseEnvelope"]["payload"], validate=True).decode("utf-8"))
    except FileNotFoundError as error:
        raise NotAuthenticError(f"{path} is not there") from error
    except (OSError, ValueError, KeyError, TypeError, binascii.Error) as error:
        raise NotAuthenticError(f"{path} is not a signed statement") from error

    if not isinstance(found, dict):
        raise NotAuthenticError(f"{path} is not a signed statement")
    return found


def signed_digests(folder: Path) -> Mapping[str, str] | None:
    """Return name -> sha256 as a folder's signature says, whoever made it; None if the folder is not signed.

    Raises:
        ArtifactError: the signature cannot be read, or is not one of files by their sha256.
    """
    path = folder / SIGNATURE
    if not path.exists():
        return None

    advice = "Remove it, or sign the folder again: bge-export sign"
    try:
        found = payload(path)
        resources = found["predicate"]["resources"]
        if found["predicateType"] != FOLDER_PREDICATE or any(one["algorithm"] != "sha256" for one in resources):
            raise ArtifactError(f"{path} is not a signature of files by their sha256. {advice}")
        return {str(one["name"]): str(one["digest"]) for one in resources}
    except NotAuthenticError as error:
        raise ArtifactError(f"{error}. {advice}") from error
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not the signature of a folder. {advice}") from error
