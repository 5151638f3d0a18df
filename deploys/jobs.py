"""Print the running and past runs of each host; with `stop=JOB`, ask that run to end and wait until it has.

pyinfra INVENTORY deploys/jobs.py --data stack=maestro
pyinfra INVENTORY deploys/jobs.py --limit HOST --data stop=20260101T030000Z-backup-0a1b2c3d
"""

from pyinfra import host

from operations import declared, jobs, preflight

sudo = declared.sudo(host)
preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)
stopped = declared.text(host, "stop")
if stopped is not None:
    jobs.stop(name=f"End {stopped}", job=stopped, _sudo=sudo)
else:
    jobs.show(name="Runs", stack=declared.text(host, "stack"), _sudo=sudo)
