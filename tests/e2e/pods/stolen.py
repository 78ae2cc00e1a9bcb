"""A thief on another node: presents a pod's token beside this node's own approved TPM; prints the reason it was refused.

``stolen.py TCTI TRUST TOKEN``: the TPM, a folder like the mounted ConfigMap countersign-trust, the stolen token's file.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from countersign.attest.client import AttestationClient, b64, prove
from countersign.attest.tpm import TpmDevice
from countersign.attest.trust import read_trust
from countersign.errors import Denied


async def main(tcti: str, trust: Path, token: Path) -> str:
    """Return the code of the refusal, or what was answered."""
    device = await TpmDevice.open(tcti)
    try:
        async with AttestationClient.to(read_trust(trust), token) as client:
            secret = await prove(device, "P256", client)
            return str(await client.post("/secret", {"secret": b64(secret)}))
    except Denied as refused:
        return refused.code
    finally:
        await device.aclose()


print(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201 - its answer
