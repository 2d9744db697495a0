"""Pushes that no scorer fetches: announced, not copied, and made good when one comes that fetches."""

from common.protocol import VersionHint
from tests.service.peers import FINGERPRINT
from tests.service.test_service_protocol import Trainer


def test_nothing_is_copied_for_scorers_that_fetch_no_weights_until_one_comes_that_does() -> None:
    with Trainer() as trainer:
        assert trainer.service.weights.is_wanted, "whoever comes first finds weights"
        proxy = trainer.scorer()
        proxy.join(backend="proxy", fingerprint=FINGERPRINT)
        assert not trainer.service.weights.is_wanted
        version = trainer.push(1, is_wanted=False)
        assert proxy.hear(VersionHint).version == version
        assert not trainer.service.push_wanted
        scorer = trainer.scorer()
        assert scorer.join().version is None
        assert trainer.service.push_wanted
        assert trainer.service.weights.is_wanted
        version = trainer.push(2)
        assert scorer.hear(VersionHint).version == version


def test_a_scorer_that_joins_while_a_push_without_bytes_is_under_way_has_another_one_made() -> None:
    with Trainer() as trainer:
        trainer.scorer().join(backend="proxy", fingerprint=FINGERPRINT)
        trainer.scorer().join()
        assert not trainer.service.push_wanted
        trainer.push(1, is_wanted=False)
        assert trainer.service.push_wanted
