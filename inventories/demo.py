"""This machine, with everything of the demo under one directory: no root, no server, no Docker.

pyinfra inventories/demo.py deploys/site.py
"""

import getpass
import sys

from demo import place

_root = place.directory()

hosts = [
    (
        "@local",
        {
            "storekeeper_program": f"{sys.prefix}/bin/storekeeper",
            "storekeeper_config": f"{_root}/etc",
            "storekeeper_repository": f"{_root}/sets",
            "storekeeper_state": f"{_root}/state",
            "storekeeper_scratch": str(_root),
            "storekeeper_cron": f"{_root}/cron.d",
            "storekeeper_user": getpass.getuser(),
            "storekeeper_stacks": {place.STACK: place.stack_text()},
        },
    )
]
