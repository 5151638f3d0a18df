"""`python -m storekeeper`."""

from storekeeper.cli.main import run

run()
