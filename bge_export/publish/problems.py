"""Turns errors of huggingface_hub while publishing into messages without secrets, with the next step.

The library's own texts are never quoted: they may hold headers, and so tokens.
"""

from bge_export.checkpoint.hub_errors import TEMPORARY, chain, is_of_this_machine, reason
from bge_export.errors import BgeExportError, HubError, OutputError

AGAIN = "Run the same command again: it goes on where it stopped"
MOVED = frozenset({409, 412})
"""Statuses by which the Hub refuses a commit whose parent is no longer the head."""


def explain(error: Exception, repository: str, doing: str) -> BgeExportError:
    """Return the error to raise for a failed call of huggingface_hub.

    Args:
        error: what was raised.
        repository: the repository.
        doing: what was being done, such as "uploading onnx/model.onnx".
    """
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, OIDCError

    if isinstance(error, BgeExportError):
        return error

    links = chain(error)
    answer = next((link for link in links if isinstance(link, HfHubHTTPError)), None)
    if answer is not None:
        return _explain_answer(int(answer.response.status_code), repository, doing)

    if any(isinstance(link, OfflineModeIsEnabled) for link in links):
        return HubError(f"{repository}: HF_HUB_OFFLINE forbids {doing}. Unset it.")
    if any(isinstance(link, OIDCError) for link in links):
        return HubError(
            f"{repository}: the Hub gave this job no token. Name the workflow as a trusted publisher in the settings "
            "of the repository, give the job the permission id-token: write, and check HF_OIDC_RESOURCE."
        )

    if is_of_this_machine(error):
        return HubError(f"{repository}: {doing} failed on this machine: {getattr(error, 'strerror', '')}. {AGAIN}.")
    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError, RecursionError)):
        return HubError(
            f"{repository}: {doing} failed, because the Hub's answer is not what its interface says "
            f"({type(error).__name__}). Check HF_ENDPOINT, HF_TOKEN and the proxy."
        )

    return HubError(f"{repository}: {doing} failed ({reason(links)}). Check the network. {AGAIN}.")


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the Hub's answer that an error is about, None if it is about none."""
    from huggingface_hub.errors import HfHubHTTPError

    answer = next((link for link in chain(error) if isinstance(link, HfHubHTTPError)), None)
    return None if answer is None else int(answer.response.status_code)


def _explain_answer(status: int, repository: str, doing: str) -> BgeExportError:
    """Return the error for an answer of the Hub that is a refusal."""
    if status == 401:
        return HubError(
            f"{repository}: the Hub knows no token of yours for {doing} (401): it is missing, wrong or expired. "
            "Log in with `hf auth login`, or set HF_TOKEN to a token that may write there."
        )
    if status == 403:
        return HubError(
            f"{repository}: your token does not allow {doing} (403). Take a token that may write there, ask the owner "
            "for access, or propose the files with --create-pr."
        )
    if status == 404:
        return OutputError(
            f"{repository}: {doing} failed, because the Hub has no such model, or it is private and your token may not "
            "see it. Check its spelling and the token."
        )

    if status in MOVED:
        return HubError(
            f"{repository}: somebody else changed it while these files were uploaded, so they were not committed. Look "
            "at what changed there, and run the same command again."
        )
    if status in TEMPORARY:
        return HubError(f"{repository}: {doing} failed: the Hub answers with an error of its own ({status}). {AGAIN}.")
    return HubError(f"{repository}: the Hub refuses {doing} ({status}). Check HF_ENDPOINT, the token and the proxy.")
