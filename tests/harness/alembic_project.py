"""An application whose migrations are Alembic's: an env.py that reads DATABASE_URL, and revisions of a few lines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = """
import os
from alembic import context
from sqlalchemy import create_engine

with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {revision!r}, {before!r}, None, None

def upgrade():
    {up}

def downgrade():
    {down}
"""
SEEN = "op.add_column('things', sa.Column('seen', sa.Text))"
NOT_SEEN = "op.drop_column('things', 'seen')"


class Project:
    """An application's Alembic directory with its revisions, and the declaration of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "alembic/versions").mkdir(parents=True)
        (root / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/alembic\n", encoding="utf-8")
        (root / "alembic/env.py").write_text(ENVIRONMENT, encoding="utf-8")

    def revision(self, revision: str, before: str | None, up: str, down: str = "pass") -> None:
        text = REVISION.format(revision=revision, before=before, up=up, down=down)
        (self._root / f"alembic/versions/{revision}.py").write_text(text, encoding="utf-8")

    def command(self, *words: str, url: str = "sqlite:///{main}", **more: Any) -> dict[str, Any]:
        run = [str(Path(sys.executable).with_name("alembic")), *words]
        return {"run": run, "directory": str(self._root), "environment": {"DATABASE_URL": url}, **more}
