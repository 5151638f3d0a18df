"""Read by pyinfra before any deploy: the version it needs, and a guard against another distribution's `operations`."""

from pathlib import Path

from pyinfra import config, state

import operations

config.REQUIRE_PYINFRA_VERSION = ">=3.10,<3.11"

# What is put somewhere with sudo goes through here first, below the home of the user who logs in. pyinfra's own choice is /tmp, where
# anybody can foresee its names, make them first, and read what comes.
config.TEMP_DIR = ".storekeeper-uploads"

if Path(operations.__file__ or "").resolve().parent != Path(__file__).resolve().parent / "operations":
    raise SystemExit(f"{operations.__file__} would be used as `operations`: run pyinfra from the checkout's root, in its .venv")

# A deploy says why it changed nothing, also without -v.
state.print_noop_info = True

from operations import login  # noqa: E402 not before it is known whose they are

login.careful()
