"""Signing a proven folder, and verifying it: what was changed after that is refused by name."""

import base64
import datetime
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import token_world
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hub_repository import Repository, WritableHub
from publishing import Done, Run
from task_results import FILE, write_result
from token_world import token_report

from bge_export.bundle.documents import SIGNATURE, STATEMENT
from bge_export.bundle.integrity import CARD, MANIFEST, REPORT
from bge_export.bundle.manifest import read_bundle
from bge_export.parity.report import read_report, write_report
from bge_export.publish.loosened import loosened
from bge_export.publish.statement import limits_of, stated_lane
from bge_export.texts.fixtures import fixtures_folder

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

REPO = "somebody/tiny-onnx"


def write_key(path: Path, key: ec.EllipticCurvePrivateKey, encryption=None) -> tuple[Path, Path]:
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, private, encryption or serialization.NoEncryption()))
    public = path.with_suffix(".pub")
    public.write_bytes(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    return path, public


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private and a public key."""
    return write_key(tmp_path_factory.mktemp("keys") / "key.pem", ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def signed(bundle: Path, keys: tuple[Path, Path], command: Run) -> Path:
    """The proven export, signed."""
    done = command("sign", bundle, "--key", keys[0])
    assert done.returncode == 0, done.stderr
    return bundle


def refused(done: Done, *parts: str, status: int = 1) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    for part in parts:
        assert part in done.stdout + done.stderr, done.stdout + done.stderr


def sign_again(folder: Path, keys: tuple[Path, Path], *left_out: str) -> None:
    """Sign a folder with the library itself, as somebody who has the key and another tool would."""
    from model_signing import hashing, signing

    config = hashing.Config().set_ignored_paths(paths=[SIGNATURE, *left_out])
    signer = signing.Config().set_hashing_config(config).use_elliptic_key_signer(private_key=keys[0])
    signer.sign(folder, folder / SIGNATURE)


def reseal(folder: Path, cosine: float = 1.0) -> None:
    """Change a figure of the report and seal it again; 1.0 passes the gate."""
    report = read_report(folder / REPORT)
    lane = report.lanes[0]
    rows = (lane.rows[0].model_copy(update={"cosine": cosine}), *lane.rows[1:])
    lanes = (lane.model_copy(update={"rows": rows}), *report.lanes[1:])
    write_report(report.model_copy(update={"lanes": lanes}), folder / REPORT)


def statement(folder: Path) -> dict:
    bundle = json.loads((folder / STATEMENT).read_text("utf-8"))
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def loose_limits(path: Path) -> Path:
    """Write the package's limits with one of fp32's ten thousand times as wide."""
    text = (fixtures_folder() / "thresholds.toml").read_text("utf-8")
    assert text.count("max_abs = 1e-5") >= 1
    path.write_text(text.replace("max_abs = 1e-5", "max_abs = 0.1"), "utf-8")
    return path


def test_a_signed_folder_is_verified_by_its_key_and_by_the_library_itself(signed: Path, keys, command: Run) -> None:
    done = command("verify", signed, "--key", keys[1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Files and statement are signed." in done.stdout

    from model_signing import verifying

    verifying.Config().use_elliptic_key_verifier(public_key=keys[1]).verify(signed, signed / SIGNATURE)


def test_the_statement_says_by_which_limits_and_where_it_was_proven(signed: Path) -> None:
    found = statement(signed)
    report = read_report(signed / REPORT)
    predicate = found["predicate"]
    assert {one["name"] for one in found["subject"]} >= {MANIFEST, REPORT, "onnx/model.onnx"}
    assert predicate["report"]["facts"] == report.digest
    assert predicate["limits"]["lanes"]["onnx-fp32@onnxruntime:cpu"]["max_abs"] == 1e-5
    assert predicate["lanes"][0]["worst"]["cosine"] == min(row.cosine for row in report.lanes[0].rows)
    assert predicate["buildDefinition"]["resolvedDependencies"][0]["digest"]["sha256"] == report.checkpoint.digest
    assert predicate["runDetails"]["builder"]["id"]


def test_by_whom_it_was_signed_is_not_asked_without_a_key(signed: Path, command: Run) -> None:
    done = command("verify", signed)
    assert done.returncode == 0
    assert "was not checked" in done.stdout


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", REPORT, MANIFEST, STATEMENT])
def test_a_byte_that_changed_after_signing_is_refused_by_name(signed: Path, keys, command: Run, name: str) -> None:
    content = bytearray((signed / name).read_bytes())
    content[len(content) // 2] ^= 1
    (signed / name).write_bytes(content)
    refused(command("verify", signed, "--key", keys[1]), f"signature: {name} was changed after it was signed")


@pytest.mark.parametrize("name", ["logo.png", "LICENSE", "onnx/other.onnx", "parity-other.json"])
def test_a_file_that_was_added_after_signing_is_refused_by_name(signed: Path, keys, command: Run, name: str) -> None:
    (signed / name).write_bytes(b"whose?")
    refused(command("verify", signed, "--key", keys[1]), f"signature: {name} is there, and was not signed")


def test_a_file_that_is_gone_is_refused_by_name(signed: Path, keys, command: Run) -> None:
    (signed / "tokenizer.json").unlink()
    refused(command("verify", signed, "--key", keys[1]), "signature: tokenizer.json was signed, and is not there")


def test_a_link_in_place_of_a_signed_file_is_refused(signed: Path, keys, command: Run, tmp_path: Path) -> None:
    moved = (signed / "config.json").rename(tmp_path / "config.json")
    (signed / "config.json").symlink_to(moved)
    refused(command("verify", signed, "--key", keys[1]), "signature:", "config.json")


def test_a_report_that_was_sealed_again_is_refused_by_name(signed: Path, keys, command: Run) -> None:
    reseal(signed)
    assert command("verify", signed).returncode == 0  # the gate alone cannot tell
    refused(command("verify", signed, "--key", keys[1]), "signature:", REPORT)


def test_a_report_sealed_again_and_signed_again_is_refused_by_the_statement(signed: Path, keys, command: Run) -> None:
    reseal(signed)
    sign_again(signed, keys)
    refused(command("verify", signed, "--key", keys[1]), "statement-files:", "statement-report:", REPORT)


def test_limits_loosened_in_the_statement_are_refused_by_name(signed: Path, keys, command: Run) -> None:
    bundle = json.loads((signed / STATEMENT).read_text("utf-8"))
    found = statement(signed)
    found["predicate"]["limits"]["lanes"]["onnx-fp32@onnxruntime:cpu"]["max_abs"] = 0.1
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(found).encode()).decode()
    (signed / STATEMENT).write_text(json.dumps(bundle), "utf-8")
    sign_again(signed, keys)
    refused(command("verify", signed, "--key", keys[1]), "statement:", STATEMENT, "changed since")


def test_a_folder_signed_by_looser_limits_is_refused_until_they_are_given(
    bundle: Path, keys, command: Run, tmp_path: Path
) -> None:
    loose = loose_limits(tmp_path / "loose.toml")
    assert command("sign", bundle, "--key", keys[0], "--thresholds", loose).returncode == 0
    refused(
        command("verify", bundle, "--key", keys[1]), "statement-limits:", "onnx-fp32@onnxruntime:cpu", "max_abs is 0.1"
    )
    assert command("verify", bundle, "--key", keys[1], "--thresholds", loose).returncode == 0


def test_another_key_is_refused(signed: Path, command: Run, tmp_path: Path) -> None:
    _, other = write_key(tmp_path / "other.pem", ec.generate_private_key(ec.SECP256R1()))
    refused(command("verify", signed, "--key", other), "signature:", SIGNATURE)


def test_a_folder_that_is_not_signed_is_refused_if_it_must_be(bundle: Path, keys, command: Run) -> None:
    refused(command("verify", bundle, "--key", keys[1]), "not-signed:", SIGNATURE)
    assert "It is not signed." in command("verify", bundle).stdout


def test_a_statement_that_is_missing_is_refused(signed: Path, keys, command: Run) -> None:
    (signed / STATEMENT).unlink()
    sign_again(signed, keys)
    refused(command("verify", signed, "--key", keys[1]), "statement:", STATEMENT)


def test_a_signature_that_leaves_files_out_is_refused(signed: Path, keys, command: Run) -> None:
    sign_again(signed, keys, "onnx")
    refused(command("verify", signed, "--key", keys[1]), "signature-scope:", "onnx")


def test_a_statement_in_place_of_the_signature_is_refused(signed: Path, keys, command: Run) -> None:
    shutil.copyfile(signed / STATEMENT, signed / SIGNATURE)
    refused(command("verify", signed, "--key", keys[1]), "signature-scope:", "not the signature of a folder")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"dsseEnvelope": {"payload": "e30="}}', '{"dsseEnvelope": 1}'])
def test_a_signature_that_is_none_is_refused_by_name(signed: Path, keys, command: Run, content: str) -> None:
    (signed / SIGNATURE).write_text(content, "utf-8")
    refused(command("verify", signed, "--key", keys[1]), "signature:", SIGNATURE)


def test_the_result_for_machines_names_what_is_wrong(signed: Path, keys, command: Run) -> None:
    (signed / "logo.png").write_bytes(b"whose?")
    facts = json.loads(command("verify", signed, "--key", keys[1], "--json").stdout)
    assert (facts["passed"], facts["signed"], facts["report"]) == (False, True, None)
    assert [one["rule"] for one in facts["wrong"]] == ["signature"]


def test_an_unproven_folder_is_not_signed(bundle: Path, keys, command: Run) -> None:
    reseal(bundle, 0.5)
    refused(command("sign", bundle, "--key", keys[0]), "cosine")
    assert not (bundle / SIGNATURE).exists()
    assert not (bundle / STATEMENT).exists()


def test_a_folder_is_signed_again_after_it_changed(signed: Path, keys, command: Run) -> None:
    (signed / "logo.png").write_bytes(b"mine")
    assert command("sign", signed, "--key", keys[0]).returncode == 0
    assert command("verify", signed, "--key", keys[1]).returncode == 0


def test_a_file_of_the_users_is_not_replaced_by_a_signature(bundle: Path, keys, command: Run) -> None:
    (bundle / SIGNATURE).write_text("mine", "utf-8")
    refused(command("sign", bundle, "--key", keys[0]), SIGNATURE, "not replaced", status=2)
    assert (bundle / SIGNATURE).read_text("utf-8") == "mine"


def test_a_certificate_signs_and_its_root_is_believed(bundle: Path, command: Run, tmp_path: Path) -> None:
    top, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    write_key(tmp_path / "leaf.pem", leaf)
    root = certificate(tmp_path / "root.crt", "root", top, "root", top)
    own = certificate(tmp_path / "own.crt", "release", leaf, "root", top)
    done = command("sign", bundle, "--key", tmp_path / "leaf.pem", "--certificate", own)
    assert done.returncode == 0, done.stderr
    assert command("verify", bundle, "--certificate", root).returncode == 0

    stranger = certificate(tmp_path / "stranger.crt", "stranger", leaf, "stranger", leaf)
    refused(command("verify", bundle, "--certificate", stranger), "signature:", SIGNATURE)


def certificate(path: Path, name: str, key, issuer: str, signer) -> Path:
    """Write a certificate of a key, by a signer."""
    start = datetime.datetime.now(tz=datetime.UTC)
    named = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in (name, issuer)]
    usage = dict.fromkeys(
        ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"], False
    )
    made = (
        x509.CertificateBuilder(*reversed(named), key.public_key(), x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(days=1))
        .not_valid_after(start + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=key is signer, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=key is signer, crl_sign=False, decipher_only=False, **usage
            ),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--keyless"),
        (["--key", "KEY", "--keyless"], "--keyless"),
        (["--key", "WRONG"], "as PEM"),
        (["--key", "LOCKED"], "unencrypted"),
    ],
)
def test_keys_that_cannot_be_used_are_usage_errors(
    bundle: Path, keys, command: Run, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "wrong.pem").write_text("no key", "utf-8")
    encryption = serialization.BestAvailableEncryption(b"secret")
    locked, _ = write_key(tmp_path / "locked.pem", ec.generate_private_key(ec.SECP256R1()), encryption)
    paths = {"KEY": keys[0], "WRONG": tmp_path / "wrong.pem", "LOCKED": locked}
    refused(command("sign", bundle, *(paths.get(one, one) for one in arguments)), said, status=2)
    assert not (bundle / SIGNATURE).exists()


def test_one_kind_of_trust_is_given(signed: Path, keys, command: Run) -> None:
    refused(command("verify", signed, "--identity", "somebody"), "--issuer", status=2)
    both = command("verify", signed, "--key", keys[1], "--identity", "somebody", "--issuer", "https://issuer")
    refused(both, "one of", status=2)


def test_a_missing_library_is_named(bundle: Path, keys, command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    refused(command("sign", bundle, "--key", keys[0]), "bge-export[sign]", status=3)
    assert not (bundle / SIGNATURE).exists()


def test_a_published_folder_is_signed_with_its_card(bundle: Path, hub: WritableHub, keys, command: Run) -> None:
    done = command("publish", bundle, "--repo", REPO, "--sign", keys[0])
    assert done.returncode == 0, done.stderr
    head = hub.repositories[REPO].head
    assert {SIGNATURE, STATEMENT, CARD} <= head.keys()
    assert command("verify", REPO, "--key", keys[1]).returncode == 0

    # What is signed is published as it is, without the key.
    again = command("publish", bundle, "--repo", REPO)
    assert again.returncode == 0, again.stderr
    assert "holds all of it already" in again.stdout


def test_a_dry_run_signs_nothing(bundle: Path, keys, command: Run) -> None:
    done = command("publish", bundle, "--repo", REPO, "--sign", keys[0], "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "signs nothing" in done.stderr
    assert not (bundle / SIGNATURE).exists()


def test_a_folder_that_changed_after_signing_is_not_published(
    bundle: Path, hub: WritableHub, keys, command: Run
) -> None:
    (bundle / CARD).write_text("# Mine", "utf-8")
    assert command("sign", bundle, "--key", keys[0]).returncode == 0
    (bundle / CARD).write_text("# Theirs", "utf-8")
    refused(command("publish", bundle, "--repo", REPO), CARD, "signed", status=3)
    (bundle / CARD).unlink()
    refused(command("publish", bundle, "--repo", REPO), CARD, SIGNATURE, status=3)
    assert REPO not in hub.repositories


def test_a_folder_signed_without_a_card_is_not_published_with_one(signed: Path, hub: WritableHub, command: Run) -> None:
    refused(command("publish", signed, "--repo", REPO), CARD, "--sign", status=2)
    assert REPO not in hub.repositories


@pytest.mark.parametrize("name", ["LICENSE", "logo.png"])
def test_a_document_that_was_added_to_a_signed_repository_is_refused_by_name(
    bundle: Path, hub: WritableHub, keys, command: Run, name: str
) -> None:
    assert command("publish", bundle, "--repo", REPO, "--sign", keys[0]).returncode == 0
    repository = hub.repositories[REPO]
    repository.add({**repository.head, name: b"whose?"})
    refused(command("verify", REPO, "--key", keys[1]), "signature:", name)


def test_a_document_that_is_there_keeps_a_signed_folder_out(bundle: Path, hub: WritableHub, keys, command: Run) -> None:
    repository = hub.repositories[REPO] = Repository()
    repository.add({".gitattributes": b"", "LICENSE": b"theirs"})
    publish = ("publish", bundle, "--repo", REPO, "--sign", keys[0])
    refused(command(*publish), "LICENSE", "--remove-others", status=2)
    assert command(*publish, "--remove-others").returncode == 0
    assert command("verify", REPO, "--key", keys[1]).returncode == 0


def test_an_old_signature_does_not_stay_beside_other_files(
    bundle: Path, hub: WritableHub, keys, command: Run, tmp_path: Path
) -> None:
    plain = shutil.copytree(bundle, tmp_path / "plain")
    assert command("publish", bundle, "--repo", REPO, "--sign", keys[0]).returncode == 0
    refused(command("publish", plain, "--repo", REPO), SIGNATURE, "--remove-others", status=2)


LANE = "onnx-fp32@onnxruntime:cpu"
OWN = {"min_cosine": 0.99, "max_norm_error": 0.01, "max_abs": 0.1, "token_differences": ["spaces"]}


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({}, None),
        ({"min_cosine": 0.995, "max_abs": 0.01, "token_differences": []}, None),
        ({"min_stress_cosine": 0.99}, None),
        ({"min_cosine": 0.98}, "min_cosine is 0.98, yours is 0.99"),
        ({"min_stress_cosine": 0.9}, "min_stress_cosine is 0.9"),
        ({"max_norm_error": 0.02}, "max_norm_error is 0.02"),
        ({"max_raw_norm_error": 0.02}, "max_raw_norm_error is 0.02"),
        ({"max_raw_stress_norm_error": 0.02}, "max_raw_stress_norm_error is 0.02"),
        ({"max_abs": None}, "max_abs is missing"),
        ({"max_abs": "0.1"}, "max_abs is not a number"),
        ({"max_abs": True}, "max_abs is not a number"),
        ({"max_broken_pairs": 3}, "max_broken_pairs is 3"),
        ({"token_differences": ["spaces", "case"]}, "accepts case"),
    ],
)
def test_each_limit_that_is_looser_is_named(stated: dict, said: str | None) -> None:
    found = list(loosened({"lanes": {LANE: {**OWN, **stated}}}, {"lanes": {LANE: OWN}}))
    assert any(said in one for one in found) if said else not found
    assert all(LANE in one for one in found)


LOOSE_HEADS = {
    "sparse": {"max_error": 0.5},
    "multi_vector": {"max_norm_error": 0.5, "min_token_cosine": 0.1},
}


@pytest.mark.parametrize("kind", LOOSE_HEADS)
def test_looser_limits_of_a_head_on_tokens_are_named_with_its_output(kind: str) -> None:
    report, policy = token_report(), token_world.POLICY
    tables = {name: one.model_copy(update=LOOSE_HEADS[kind]) for name, one in policy.heads[kind].items()}
    loose = replace(policy, heads={**policy.heads, kind: tables})

    found = list(loosened(limits_of(report, loose), limits_of(report, policy)))
    output = {"sparse": "sparse_weights", "multi_vector": "colbert_vecs"}[kind]
    assert len(found) == len(LOOSE_HEADS[kind])
    assert all(one.startswith(f"onnx-fp32@fake:cpu {output}: ") for one in found)
    assert not list(loosened(limits_of(report, policy), limits_of(report, policy)))


def test_the_statement_has_the_worst_figures_of_heads_on_tokens() -> None:
    lanes = {lane["output"]: lane for lane in map(stated_lane, token_report().lanes)}
    assert lanes["sparse_weights"]["worst"]["largest_weight_difference"] < 1e-6
    assert lanes["colbert_vecs"]["worst"]["smallest_token_cosine"] > 0.999999
    assert lanes["colbert_vecs"]["worst"]["largest_batch_norm_error"] < 1e-6


@pytest.mark.parametrize("stated", [None, {}, {"lanes": []}, {"lanes": {}}, {"lanes": {LANE: None}}])
def test_limits_that_are_missing_are_named(stated: object) -> None:
    assert len(list(loosened(stated, {"lanes": {LANE: OWN}}))) == 1


def test_scores_are_signed_and_those_of_an_earlier_signature_are_replaced(
    bundle: Path, hub: WritableHub, keys, command: Run, tmp_path: Path
) -> None:
    artifact = read_bundle(bundle)[1][0]
    write_result(tmp_path / "scores", str(artifact.target), artifact.digest, 0.85)
    publish = ("publish", bundle, "--repo", REPO, "--sign", keys[0])
    done = command(*publish, "--scores", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    assert FILE in hub.repositories[REPO].head
    assert command("verify", REPO, "--key", keys[1]).returncode == 0

    refused(command("publish", bundle, "--repo", REPO, "--scores", tmp_path / "scores"), "--sign", status=2)
    assert command(*publish, "--remove-others").returncode == 0
    assert FILE not in hub.repositories[REPO].head
