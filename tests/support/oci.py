"""A container image of one static file, written without a builder: layer, config, manifest and index in one tar."""

from __future__ import annotations

import io
import json
import tarfile
from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_TYPE = "application/vnd.oci.image"


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))


def write_image(program: Path, name: str, archive: Path) -> Path:
    """Write ``archive`` (OCI layout): an image called ``name`` whose entry point is ``program``, as uid 65532."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        _add(layer, program.name, program.read_bytes(), 0o755)
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"{_TYPE}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    files = blob("layer.v1.tar", buffer.getvalue())
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [files["digest"]]},
    }
    settings = blob("config.v1+json", json.dumps(config).encode())
    manifest = {"schemaVersion": 2, "mediaType": f"{_TYPE}.manifest.v1+json", "config": settings, "layers": [files]}
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name}
    temporary = archive.with_suffix(".new")
    with tarfile.open(temporary, "w") as output:
        _add(output, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(output, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        for digest, data in blobs.items():
            _add(output, f"blobs/sha256/{digest}", data)
    temporary.replace(archive)
    return archive
