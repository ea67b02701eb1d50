"""A folder of packages for stories: installed, upgraded and removed as pip does, without pip."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Site:
    """A site-packages folder."""

    folder: Path

    def install(
        self,
        name: str,
        version: str,
        files: Mapping[str, str],
        requires: Sequence[str] = (),
        extras: Sequence[str] = (),
        metadata: str | None = None,
        direct: Mapping[str, object] | None = None,
        record: bool = True,
    ) -> Path:
        """Install a distribution with these files, in place of any other version; returns its metadata's folder.

        `metadata` replaces the text of METADATA, `direct` is that of direct_url.json.
        """
        self.remove(name)
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        written = {
            **files,
            f"{info.name}/METADATA": metadata if metadata is not None else _metadata(name, version, requires, extras),
        }
        if direct is not None:
            written[f"{info.name}/direct_url.json"] = json.dumps(direct)
        rows = []
        for place, text in written.items():
            path = self.folder / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            rows.append(f"{place},sha256={digest},{len(text)}\n")
        if record:
            (info / "RECORD").write_text("".join(rows) + f"{info.name}/RECORD,,\n")
        return info

    def remove(self, name: str) -> None:
        """Remove all versions of a distribution, with the files that they wrote down."""
        for info in self.folder.glob(f"{name.replace('-', '_')}-*.dist-info"):
            record = info / "RECORD"
            for line in record.read_text().splitlines() if record.exists() else ():
                (self.folder / line.split(",")[0]).unlink(missing_ok=True)
            shutil.rmtree(info, ignore_errors=True)


def _metadata(name: str, version: str, requires: Sequence[str], extras: Sequence[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {one}" for one in requires]
    return "\n".join(lines) + "\n\nA description.\n"
