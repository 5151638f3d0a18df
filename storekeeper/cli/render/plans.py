"""What would be done, as a person reads it before saying yes: one shape for each verb that changes what is live."""

from __future__ import annotations

from storekeeper.cli.document import Document
from storekeeper.cli.render import asked, migrate, recover, repair, restore
from storekeeper.cli.render.layout import Paint

_SHAPES = {"repair": repair.repair, "evict": asked.holder, "recover": recover.plan, "migrate": migrate.plan}


def plan(document: Document, paint: Paint) -> list[str]:
    """The lines of a document whose result holds a `plan`; those of a restore and a reset are the same."""
    return _SHAPES.get(document["verb"], restore.plan)(document, paint)
