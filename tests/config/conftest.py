"""Configurations out of text, and the problems that were found in them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from splitproxy.config import Loaded, Problem, load
from splitproxy.errors import ConfigError

Load = Callable[..., Loaded]
Refuse = Callable[..., list[Problem]]

GOOD = """
listeners: [{address: 127.0.0.1:8080}]
upstreams:
  - {name: a, endpoints: ["http://127.0.0.1:9001"]}
  - {name: b, endpoints: ["http://127.0.0.1:9002"]}
"""
"""What most texts need beside their own part."""


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    """Load a text as a file."""

    def load_it(text: str | bytes, environment: Mapping[str, str] | None = None) -> Loaded:
        file = tmp_path / "shop.yaml"
        file.write_bytes(text if isinstance(text, bytes) else dedent(text).encode())
        return load(file, environment or {})

    return load_it


@pytest.fixture
def refuse(load_text: Load) -> Refuse:
    """Load a text that is wrong, and return the problems."""

    def refuse_it(text: str | bytes, environment: Mapping[str, str] | None = None) -> list[Problem]:
        with pytest.raises(ConfigError) as caught:
            load_text(text, environment)
        return caught.value.args[0]

    return refuse_it


@pytest.fixture
def good() -> str:
    """Return the part that most texts need beside their own."""
    return GOOD
