"""Turns huggingface_hub's errors into messages without secrets: the library's own texts are never quoted."""

from bge_export.errors import BgeExportError, CheckpointError, HubError

LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token that may read it"
LOCAL = "Check the network, or give a local folder that holds the checkpoint instead of the id"
TEMPORARY = frozenset({408, 429, 500, 502, 503, 504})


class HubUnreachableError(HubError):
    """The Hub cannot be reached now; files in the local cache may be used."""


def explain(error: Exception, model_id: str, revision: str | None, name: str = "") -> BgeExportError:
    """Return the error to raise for a failed call of huggingface_hub; its message names the next step."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, BgeExportError):
        return error

    links = chain(error)
    what = f"{model_id}: {name}" if name else model_id

    answer = next((link for link in links if isinstance(link, HfHubHTTPError)), None)
    if answer is not None:
        return _explain_answer(answer, model_id, revision, what)

    if any(isinstance(link, OfflineModeIsEnabled) for link in links):
        return HubUnreachableError(
            f"{what} is not in the Hub's cache, and HF_HUB_OFFLINE forbids to fetch it. "
            "Unset HF_HUB_OFFLINE, or give a local folder that holds the checkpoint instead of the id."
        )

    if is_of_this_machine(error):
        return HubError(
            f"{what} cannot be written to the Hub's cache: {getattr(error, 'strerror', '')}. "
            "Make room there, or set HF_HOME to a folder that can be written."
        )

    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError, RecursionError)):
        return HubError(
            f"{what}: the answer is not one of the Hub ({type(error).__name__}). "
            "Check HF_ENDPOINT, HF_TOKEN and the proxy, or give a local folder that holds the checkpoint."
        )

    return HubUnreachableError(
        f"{what} cannot be fetched from the Hub ({reason(links)}), and there is no folder {model_id} here. {LOCAL}."
    )


def is_worth_repeating(error: Exception) -> bool:
    """Return whether an immediate retry may succeed: not if the Hub answered or the local disk failed."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    return not isinstance(error, (HfHubHTTPError, EntryNotFoundError)) and not is_of_this_machine(error)


def _explain_answer(error: Exception, model_id: str, revision: str | None, what: str) -> BgeExportError:
    """Return the error for a refusal by the Hub."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = int(error.response.status_code) if hasattr(error, "response") else 0
    if isinstance(error, GatedRepoError):
        return HubError(f"{what} is gated: accept its terms on its page of the Hub. {LOGIN}.")
    if isinstance(error, RevisionNotFoundError):
        return CheckpointError(f"{model_id} has no revision {revision or 'main'!r} on the Hub. Check its spelling.")
    if isinstance(error, RemoteEntryNotFoundError):
        return HubError(f"{what} is listed by the Hub, but is not there. Try another --revision.")
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return CheckpointError(
            f"The Hub has no model {model_id!r}, or it is private. Check its spelling, or give a local folder. "
            f"If it is private: {LOGIN[0].lower()}{LOGIN[1:]}."
        )

    if status in (401, 403):
        return HubError(f"{what}: the Hub refuses access ({status}): it is private, or the token is wrong. {LOGIN}.")
    if status in TEMPORARY:
        return HubUnreachableError(f"{what}: the Hub answers with an error of its own ({status}). Try later. {LOCAL}.")
    return HubError(f"{what}: the Hub refuses the request ({status}). Check HF_ENDPOINT and the proxy. {LOCAL}.")


def is_of_this_machine(error: Exception) -> bool:
    """Return whether the local disk failed, not the network: only then does the error name a file."""
    return isinstance(error, OSError) and error.errno is not None and error.filename is not None


def reason(links: list[BaseException]) -> str:
    """Return the operating system's reason, else the error type: error texts can quote headers, and so tokens."""
    if isinstance(links[0], TimeoutError):
        return "no answer in time"
    system = [link.strerror for link in links if isinstance(link, OSError) and link.errno and link.strerror]
    return system[-1] if system else type(links[-1]).__name__


def chain(error: BaseException) -> list[BaseException]:
    """Return the error and its chain of causes, the first cause last."""
    links: list[BaseException] = [error]
    while (cause := links[-1].__cause__ or links[-1].__context__) is not None and cause not in links:
        links.append(cause)
    return links
