"""Whom a witness believes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast.audit.checkpoint import Origin
from holdfast.audit.note import COSIGNATURE, KeyName, Signer, sign_note
from holdfast.errors import BadRequest, ConfigurationError, Forbidden, NotFound
from holdfast.witness.trust import Trust
from witness.witnessing import NOW, OTHER_ROOT, ROOT, Log

LOG = Log()
LATER = NOW + timedelta(days=60)


def origin(text: str) -> Origin:
    return Origin(KeyName(text))


def test_a_certified_key_signs_for_its_replicas_only() -> None:
    trust = Trust([ROOT.verifier], [])
    with pytest.raises(NotFound):
        trust.find_verifiers(LOG.origin, NOW)
    trust.learn(LOG.certificate(replicas=("replica", "replica.maintenance")), NOW)
    assert trust.find_verifiers(LOG.origin, NOW) == [LOG.signer.verifier]
    assert [str(key.name) for key in trust.find_verifiers(origin("holdfast/test/replica.maintenance/7"), NOW)] == [
        "holdfast/test/replica.maintenance/7"
    ]
    for other in ("holdfast/test/other/1", "holdfast/other/replica/1", "holdfast/test/replica/0", "replica"):
        with pytest.raises(NotFound):
            trust.find_verifiers(origin(other), NOW)


def test_a_certificate_ends() -> None:
    trust = Trust([ROOT.verifier], [])
    trust.learn(LOG.certificate(), NOW)
    assert trust.find_verifiers(LOG.origin, LATER) == []
    with pytest.raises(Forbidden, match="not valid at this time"):
        trust.learn(LOG.certificate(), LATER)
    with pytest.raises(Forbidden, match="not valid at this time"):
        trust.learn(LOG.certificate(), NOW - timedelta(days=2))


def test_what_was_learned_can_be_recalled_where_the_root_is_still_trusted() -> None:
    kept = Trust([ROOT.verifier], []).learn(LOG.certificate(), NOW)
    again = Trust([ROOT.verifier], [])
    again.recall(kept)
    assert again.find_verifiers(LOG.origin, NOW) == [LOG.signer.verifier]
    assert again.find_verifiers(LOG.origin, LATER) == []
    other = Trust([OTHER_ROOT.verifier], [])
    with pytest.raises(Forbidden, match="no good signature of a root key"):
        other.recall(kept)
    with pytest.raises(BadRequest):
        again.recall(kept[:-1])


def test_two_keys_may_sign_for_one_log() -> None:
    other = Log(seed="next")
    trust = Trust([ROOT.verifier], [])
    for certificate in (LOG.certificate(), other.certificate(), LOG.certificate()):
        trust.learn(certificate, NOW)
    assert trust.find_verifiers(LOG.origin, NOW) == [LOG.signer.verifier, other.signer.verifier]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not a note",
        LOG.note(3),
        sign_note("holdfast/certificate/v1\n", ROOT),
        sign_note("holdfast/certificate/v1\ncluster test\n", ROOT),
        sign_note("holdfast/certificate/v1\ncluster\n", ROOT),
        sign_note(LOG.certificate().partition("\n\n")[0].replace("v1", "v2") + "\n", ROOT),
        sign_note(LOG.certificate().partition("\n\n")[0].replace("cluster", "Cluster") + "\n", ROOT),
    ],
)
def test_what_is_no_certificate_is_refused(text: str) -> None:
    trust = Trust([ROOT.verifier], [])
    with pytest.raises((BadRequest, Forbidden)):
        trust.learn(text, NOW)
    with pytest.raises(NotFound):
        trust.find_verifiers(LOG.origin, NOW)


def test_only_a_pinned_root_certifies() -> None:
    trust = Trust([ROOT.verifier], [LOG.signer.verifier])
    for signer in (OTHER_ROOT, LOG.signer):
        with pytest.raises(Forbidden, match="no good signature of a root key"):
            trust.learn(LOG.certificate(signer), NOW)
    assert trust.find_verifiers(LOG.origin, NOW) == [LOG.signer.verifier]
    both = Trust([OTHER_ROOT.verifier, ROOT.verifier], [])
    both.learn(LOG.certificate(), NOW)
    both.learn(Log(seed="next").certificate(OTHER_ROOT), NOW)
    assert len(both.find_verifiers(LOG.origin, NOW)) == 2


def test_a_pinned_key_signs_for_the_log_of_its_name() -> None:
    trust = Trust([], [LOG.signer.verifier])
    assert trust.find_verifiers(LOG.origin, LATER) == [LOG.signer.verifier]
    with pytest.raises(NotFound):
        trust.find_verifiers(origin("holdfast/test/replica/2"), NOW)


def test_nobody_is_no_trust() -> None:
    with pytest.raises(ConfigurationError, match="trusts nobody"):
        Trust([], [])


def test_a_witness_s_key_is_neither_root_nor_log() -> None:
    key = Signer(ROOT.name, ROOT.private_key, COSIGNATURE).verifier
    with pytest.raises(ConfigurationError, match="is the key of a witness"):
        Trust([key], [])
    with pytest.raises(ConfigurationError, match="is the key of a witness"):
        Trust([], [key])
