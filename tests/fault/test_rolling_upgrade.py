"""A rolling upgrade with another bundle under load: decisions name the old bundle, then the new one; none is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runbooks.site import NEW, OLD
from tests.runbooks.upgrade import rolling_upgrade

pytestmark = [pytest.mark.fault, pytest.mark.kafka]


@pytest.mark.timeout(600)
def test_a_rolling_upgrade_with_another_bundle_loses_nothing(tmp_path: Path) -> None:
    found = rolling_upgrade(tmp_path, ("classifier", "spectral", "mllm"), per_s=10.0, before=20, kept=("mllm",))
    assert set(found.by_bundle) == {OLD, NEW}
    assert found.by_bundle[OLD] >= 20
    assert found.by_bundle[NEW] >= 20
    by_time = [bundle for _, bundle in sorted(found.bundles)]
    assert (by_time[0], by_time[-1]) == (OLD, NEW)
