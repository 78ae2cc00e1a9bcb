"""The TPM: bare ESAPI sign on a simulator, beside our key behind its owner thread, on the same simulator."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from timing import Case

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["BARE", "missing", "opened"]

BARE = "bare ESAPI sign (swtpm)"
_DATA = b'"@method": POST' * 40


def missing() -> str | None:
    """Say what is not installed, or return None."""
    lacking = [tool for tool in ("swtpm", "swtpm_setup") if shutil.which(tool) is None]
    return f"{' and '.join(lacking)} not found" if lacking else None


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[list[Case]]:
    """Make a TPM, and yield what to time on it."""
    from countersign.attest.tpm import TpmDevice  # noqa: PLC0415 - needs the TPM libraries
    from countersign.devcluster.tpm import EkAuthority  # noqa: PLC0415 - the same

    with tempfile.TemporaryDirectory(prefix="cs-bench-") as place:
        simulator = await asyncio.to_thread(EkAuthority(Path(place)).manufacture, "bench")
        await asyncio.to_thread(simulator.start)
        device = await TpmDevice.open(simulator.tcti)
        try:
            key = await device.create_key()

            async def queued() -> None:
                await key.sign(_DATA)

            async def eight() -> None:
                await asyncio.gather(*(key.sign(_DATA) for _ in range(8)))

            yield [
                Case(BARE, _bare(device), seconds=0.2),
                Case("our key, behind its owner thread", queued, of=BARE, seconds=0.2),
                Case("eight at once, all of them", eight, of=BARE, seconds=0.2),
            ]
        finally:
            await device.aclose()
            await asyncio.to_thread(simulator.stop)


def _bare(device: Any) -> Any:
    """Return ESAPI's own sign with the same key, called from this thread while the owner thread has nothing to do."""
    import tpm2_pytss as tss  # noqa: PLC0415 - needs the TPM libraries

    context, handle = device._context, device._key_handle  # noqa: SLF001 - the point is to go round our code
    digest = hashlib.sha256(_DATA).digest()
    details = tss.TPMU_SIG_SCHEME(ecdsa=tss.TPMS_SCHEME_HASH(hashAlg=tss.TPM2_ALG.SHA256))
    scheme = tss.TPMT_SIG_SCHEME(scheme=tss.TPM2_ALG.ECDSA, details=details)
    ticket = tss.TPMT_TK_HASHCHECK(tag=tss.TPM2_ST.HASHCHECK, hierarchy=tss.TPM2_RH.NULL)

    def sign() -> None:
        context.sign(handle, digest, scheme, ticket)

    return sign
