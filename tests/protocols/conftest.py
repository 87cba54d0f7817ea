"""What tests of several protocols share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dtls_net import Files


@pytest.fixture(scope="session")
def dtls_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates of one authority for DTLS."""
    from certificates import Authority
    from dtls_net import Files

    return Files(Authority(tmp_path_factory.mktemp("dtls")))
