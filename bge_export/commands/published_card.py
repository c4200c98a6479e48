"""Chooses the card that is published with a folder: the user's own, or one made from manifest and report."""

from dataclasses import replace
from pathlib import Path

from bge_export.bundle.foreign import is_generated_card
from bge_export.bundle.integrity import CARD
from bge_export.bundle.manifest import read_manifest
from bge_export.errors import HubError
from bge_export.parity.gate.policy import ThresholdPolicy
from bge_export.parity.report import ParityReport
from bge_export.publish.base_model import license_and_languages
from bge_export.publish.card import card_text
from bge_export.publish.contents import PublishedFile, own_card
from bge_export.publish.facts import CardFacts, facts_of


def card_of(folder: Path, report: ParityReport, facts: CardFacts, policy: ThresholdPolicy) -> PublishedFile:
    """Return the card: the user's own as it is, otherwise one made from the report at this moment.

    Raises:
        ArtifactError: the user's own cannot be read.
    """
    own = own_card(folder)
    if own is not None and not is_generated_card(folder / CARD):
        return own
    return PublishedFile.of_bytes(CARD, card_text(folder, read_manifest(folder), facts, report, policy).encode())


def facts_for(
    folder: Path, report: ParityReport, repository: str, license_name: str | None, *, must: bool
) -> tuple[CardFacts, list[str]]:
    """Return what a made card says besides, from an earlier card or the base model on the Hub, and notes for the user.

    Args:
        folder: the folder.
        report: its report.
        repository: the repository that the examples name.
        license_name: the licence, if the user gave one.
        must: whether a Hub that cannot be asked is an error; otherwise it is a note.

    Raises:
        HubError: the Hub cannot be asked.
    """
    clients = any(lane.measured and lane.runtime == "transformersjs" for lane in report.lanes)
    known = facts_of(folder) or CardFacts(repository, clients=clients)
    known = replace(known, id=repository, license=license_name or known.license)
    if known.license and known.languages:
        return known, []

    try:
        declared, languages = license_and_languages(read_manifest(folder).source)
    except HubError as error:
        if must:
            raise
        return known, [f"Licence and languages are not known: {error}"]

    return replace(known, license=known.license or declared, languages=known.languages or languages), []
