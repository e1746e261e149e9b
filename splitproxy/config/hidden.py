"""Values that may be kept in files of their own, since they are not for everybody who reads the configuration."""

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from splitproxy.config.fields import HeaderValue, Text
from splitproxy.config.spec import Spec


class FileReference(Spec):
    """A secret kept in a file of its own."""

    file: Text
    """Its path, seen from the configuration's folder; one trailing line break is left out."""


def _kind(value: Any) -> str:
    return "<file>" if isinstance(value, dict) else "<text>"


HiddenValue = Annotated[
    Annotated[HeaderValue, Tag("<text>")] | Annotated[FileReference, Tag("<file>")], Discriminator(_kind)
]
"""Text that can stand in a header, or `{file: path}`."""
