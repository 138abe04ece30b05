"""A pytest plugin for upstream's server tests: use a generated model, and skip tests that need another one.

QLUTATTN_TEST_MODEL names the model. Cache types are passed in variables of llama-server (LLAMA_ARG_CACHE_TYPE_K, ...).
"""

from __future__ import annotations

import os
from typing import Any

import pytest

STAND_INS = ("tinyllama-2", "tinyllama-infill")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart() -> None:
    """Replace upstream's start of servers before its conftest imports it."""
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
