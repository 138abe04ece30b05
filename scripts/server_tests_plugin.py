"""A pytest plugin for upstream's server tests: a model made here stands in, what needs another one is skipped.

QLUTATTN_TEST_MODEL names the model. Types of caches come as variables of llama-server (LLAMA_ARG_CACHE_TYPE_K, ...).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

STAND_INS = ("tinyllama-2", "tinyllama-infill")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Change upstream's way of starting servers, before its conftest takes over the names."""
    import utils  # type: ignore[import-not-found]  # upstream's, in the folder of the tests

    start = utils.ServerProcess.start

    def start_with_stand_in(self: Any, *arguments: Any, **named: Any) -> None:
        if self.model_alias in STAND_INS:
            self.model_hf_repo = self.model_hf_file = None
            self.model_file = os.environ["QLUTATTN_TEST_MODEL"]
        elif self.model_hf_repo or self.model_url:
            pytest.skip("needs a model from the network")
        start(self, *arguments, **named)

    utils.ServerProcess.start = start_with_stand_in
    utils.ServerPreset.load_all = staticmethod(lambda: None)
