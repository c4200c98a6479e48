"""Asks the Hub for the licence and the languages of the model that a folder was exported from."""

from collections.abc import Sequence

from bge_export.bundle.manifest import Source
from bge_export.checkpoint.hub_guard import run
from bge_export.checkpoint.hub_listing import CONTACT_SECONDS, LISTING_BYTES, STEP_SECONDS
from bge_export.checkpoint.hub_transfer import Transfer
from bge_export.publish.facts import REPOSITORY
from bge_export.publish.problems import explain, status_of


def license_and_languages(source: Source) -> tuple[str | None, tuple[str, ...]]:
    """Return what the card of the base model declares at the exported revision; nothing for a local checkpoint.

    Raises:
        HubError: the Hub cannot be reached, or refuses to say.
    """
    if source.revision is None or not REPOSITORY.fullmatch(source.id):
        return None, ()

    def ask() -> object:
        from huggingface_hub import HfApi

        return HfApi().model_info(source.id, revision=source.revision, timeout=STEP_SECONDS).card_data

    try:
        card = run(Transfer(source.id, LISTING_BYTES), ask, CONTACT_SECONDS)
    except Exception as error:
        if status_of(error) in (401, 403, 404):  # it was private, or is gone
            return None, ()
        raise explain(error, source.id, "reading its licence") from error

    declared, languages = getattr(card, "license", None), getattr(card, "language", None)
    return declared if isinstance(declared, str) else None, _texts(languages)


def _texts(value: object) -> tuple[str, ...]:
    """Return one text or several as a tuple."""
    if isinstance(value, str):
        return (value,)
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, Sequence) else ()
