"""Whatever the schema of the API allows, and some that it does not: every answer is one of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.api.counter import Caller, application, error_of
from unit.manager.desk import fake_host, furnish

EXAMPLES = 6
"""For each operation of the API."""
LIMIT_S = 20.0


@dataclass
class Bench:
    """An application and the loop that it lives in."""

    runner: asyncio.Runner
    app: FastAPI

    def ask(self, case: Any) -> httpx.Response:
        """Send a case that has been made up."""
        words = case.as_transport_kwargs(base_url="http://t4-1")
        known = {key: words[key] for key in ("method", "url", "params", "json", "headers", "cookies") if words.get(key)}

        async def send() -> httpx.Response:
            async with Caller(self.app) as caller, asyncio.timeout(LIMIT_S):
                return await caller.request(**known)

        return self.runner.run(send())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A furnished host on fakes, which lives through all the examples."""
    directory: Path = tmp_path_factory.mktemp("api")
    host = fake_host(directory)
    with asyncio.Runner() as runner:
        manager = runner.run(host.start())
        runner.run(furnish(manager))
        yield Bench(runner, application(manager, directory))
        runner.run(host.stop())


def test_no_input_breaks_the_server(bench: Bench) -> None:
    """An exception that nobody has meant would come through here; every error has the one shape."""
    schema = schemathesis.openapi.from_dict(bench.app.openapi())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 30
    cases = st.one_of([operation.as_strategy() for operation in operations])

    @settings(
        max_examples=EXAMPLES * len(operations),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    @given(cases)
    def survives(case: Any) -> None:
        if case.path.endswith("/trust") and case.method == "POST":
            return  # goes out to another host
        answer = bench.ask(case)
        if answer.status_code >= 400:
            assert error_of(answer)["code"] != "internal", answer.text

    survives()
