"""What every new set goes through before it has its name: each byte compared with what was written down, then all of it decoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from storekeeper.host.progress import Progress
from storekeeper.outcomes import Failed, naming
from storekeeper.sets.artefacts import Findings, look_around
from storekeeper.sets.manifest import Manifest
from storekeeper.sets.readahead import ReadAhead
from storekeeper.stores.protocol import Store


def read_back(folder: Path, manifest: Manifest, stores: Mapping[str, Store], progress: Progress) -> None:
    """Raises Failed for the first fault. A raw copy is compared and not decoded: it is kept because it could not be read."""
    _refuse_faults(look_around(folder, manifest))
    with ReadAhead(folder, manifest, progress) as ahead:
        for name in ahead.order:
            _refuse_faults(ahead.findings(name))
            if not manifest.stores[name].is_raw:
                progress.step(name, "decoding")
                with naming(name):
                    stores[name].verify(folder / name, manifest.stores[name])


def _refuse_faults(findings: Findings) -> None:
    for fault in findings.faults:
        raise Failed(f"the set could not be read back: {fault.message}", store=fault.store)
