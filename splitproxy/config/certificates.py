"""Certificates and keys: read and tried while the configuration is loaded, so that what serves needs no file.

They travel in the plain snapshot itself (docs/decisions/0011-certificates-in-the-snapshot.md).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any, Final

from splitproxy.config.encryption import Certificate, UpstreamTls
from splitproxy.config.nodes import Findings, Path
from splitproxy.config.problems import printable
from splitproxy.config.reading import read_bytes
from splitproxy.config.root import Config
from splitproxy.tls import TlsError, certificates, check_authorities, examine, private_key

_SOON: Final = 14 * 86_400
"""Seconds before its end at which a certificate is worth a warning."""
_UNENCRYPTED: Final = UpstreamTls().model_dump(by_alias=True)


class Certificates:
    """What the files of `tls` hold."""

    def __init__(self) -> None:
        self.files: dict[FilePath, bytes] = {}
        self._pairs: dict[Path, dict[str, Any]] = {}
        """Path of what names both files -> what stands in the plain form beside the names."""
        self._authorities: dict[Path, str] = {}
        self._warnings: list[tuple[Path, str]] = []

    def read(self, config: Config, folder: FilePath, findings: Findings) -> None:
        """Read every file, seen from `folder`, and try what is in it."""
        for path, certificate in _certificates(config):
            self._read_pair(path, certificate.cert_file, certificate.key_file, folder, findings)
        for index, upstream in enumerate(config.upstreams):
            tls = upstream.tls
            if tls is not None and tls.cert_file is not None and tls.key_file is not None:
                self._read_pair(("upstreams", index, "tls"), tls.cert_file, tls.key_file, folder, findings)
        for path, file in _authority_files(config):
            self._read_authorities(path, folder / file, findings)

    def advise(self, findings: Findings) -> None:
        """Report what is allowed but will not go well."""
        for path, message in self._warnings:
            findings.add(path, message)

    def fill(self, plain: dict[str, Any]) -> None:
        """Add to a plain snapshot what was read."""
        for index, listener in enumerate(plain["listeners"]):
            tls = listener["tls"]
            if tls is not None:
                path: Path = ("listeners", index, "tls")
                tls["clientCa"] = self._authorities.get((*path, "clientCaFile"), "")
                for number, certificate in enumerate(tls["certificates"]):
                    certificate |= self._pairs[*path, "certificates", number]
        for index, upstream in enumerate(plain["upstreams"]):
            if any(endpoint["url"].startswith("https:") for endpoint in upstream["endpoints"]):
                path = ("upstreams", index, "tls")
                upstream["tls"] = tls = {**_UNENCRYPTED, **(upstream["tls"] or {})}
                tls["ca"] = self._authorities.get((*path, "caFile"), "")
                tls["pem"] = self._pairs[path]["pem"] if path in self._pairs else None

    def _data(self, path: Path, file: FilePath, findings: Findings) -> bytes | None:
        if file not in self.files:
            data = read_bytes(file)
            if isinstance(data, str):
                findings.add(path, f"{_quoted(file)}: {data}")
                return None
            self.files[file] = data
        return self.files[file]

    def _read_pair(self, path: Path, cert_file: str, key_file: str, folder: FilePath, findings: Findings) -> None:
        texts = []
        for key, name, read in (("certFile", cert_file, certificates), ("keyFile", key_file, private_key)):
            data = self._data((*path, key), folder / name, findings)
            try:
                texts += [] if data is None else [read(data)]
            except TlsError as error:
                findings.add((*path, key), f"{_quoted(folder / name)} {error}")
        if len(texts) < 2:
            return
        try:
            facts = examine(*texts)
        except TlsError as error:
            findings.add(
                (*path, "keyFile"), f"{_quoted(folder / key_file)} with {_quoted(folder / cert_file)}: {error}"
            )
            return
        self._weigh_times((*path, "certFile"), facts.begins, facts.ends)
        ends = datetime.fromtimestamp(facts.ends, UTC).isoformat()
        self._pairs[path] = {
            "names": list(facts.names),
            "expires": ends,
            "pem": {"chain": texts[0], "key": texts[1]},
        }

    def _weigh_times(self, path: Path, begins: float, ends: float) -> None:
        now = datetime.now(UTC).timestamp()
        day = datetime.fromtimestamp(begins if begins > now else ends, UTC).date()
        if ends < now:
            self._warnings.append((path, f"the certificate expired on {day}: clients refuse it"))
        elif begins > now:
            self._warnings.append((path, f"the certificate is valid from {day} on: till then clients refuse it"))
        elif ends < now + _SOON:
            self._warnings.append((path, f"the certificate expires on {day}"))

    def _read_authorities(self, path: Path, file: FilePath, findings: Findings) -> None:
        data = self._data(path, file, findings)
        if data is None:
            return
        try:
            self._authorities[path] = text = certificates(data)
            check_authorities(text)
        except TlsError as error:
            findings.add(path, f"{_quoted(file)} {error}")


def _certificates(config: Config) -> Iterator[tuple[Path, Certificate]]:
    for index, listener in enumerate(config.listeners):
        for number, certificate in enumerate(() if listener.tls is None else listener.tls.certificates):
            yield ("listeners", index, "tls", "certificates", number), certificate


def _authority_files(config: Config) -> Iterator[tuple[Path, str]]:
    for index, listener in enumerate(config.listeners):
        if listener.tls is not None and listener.tls.client_ca_file is not None:
            yield ("listeners", index, "tls", "clientCaFile"), listener.tls.client_ca_file
    for index, upstream in enumerate(config.upstreams):
        if upstream.tls is not None and upstream.tls.ca_file is not None:
            yield ("upstreams", index, "tls", "caFile"), upstream.tls.ca_file


def _quoted(file: FilePath) -> str:
    return f"'{printable(str(file), '?')}'"
