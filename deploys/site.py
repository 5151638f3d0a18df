"""Make a host what its inventory declares: program, directories, configuration, stack files, schedules. A second run changes nothing.

pyinfra INVENTORY deploys/site.py
"""

from io import StringIO

from pyinfra import host
from pyinfra.operations import files

from operations import declared, preflight, release
from operations.program import Program
from operations.schedule import cron_lines, owner_of

sudo = declared.sudo(host)
owner = declared.user(host)
config = declared.place(host, "storekeeper_config")
state = declared.place(host, "storekeeper_state")
repository = declared.place(host, "storekeeper_repository")
scratch = declared.place(host, "storekeeper_scratch")
schedules = declared.place(host, "storekeeper_cron")
schedules_owner = owner_of(schedules, owner)
stacks = declared.stacks(host)

preflight.ready(name="Preflight", **declared.ground(host), _sudo=sudo)

if declared.brings_program(host):
    release.installed(
        name="Program",
        kinds=sorted({store.kind for each in stacks for store in each.stack.stores.values()}),
        root=declared.place(host, "storekeeper_releases"),
        python=declared.place(host, "storekeeper_python"),
        version=declared.text(host, "storekeeper_release"),
        wheelhouse=declared.flag(host, "storekeeper_wheelhouse"),
        _sudo=sudo,
    )

for purpose, directory, user, mode in host.loop(
    (
        ("configuration", config, owner, "700"),
        ("stack files", f"{config}/stacks", owner, "700"),
        ("state", state, owner, "700"),
        ("repository", repository, owner, "700"),
        ("schedules", schedules, schedules_owner, "755"),
    )
):
    files.directory(name=f"Directory of the {purpose}", path=directory, user=user, mode=mode, _sudo=sudo)

files.template(
    name="Configuration",
    src="templates/storekeeper.yml.j2",
    dest=f"{config}/storekeeper.yml",
    user=owner,
    mode="600",
    repository=repository,
    state=state,
    scratch=scratch,
    _sudo=sudo,
)

for stack in host.loop(stacks):
    files.put(
        name=f"Stack file of {stack.name}",
        src=StringIO(stack.text),
        dest=f"{config}/stacks/{stack.name}.yml",
        user=owner,
        mode="600",
        _sudo=sudo,
    )
    cron_file = f"{schedules}/storekeeper-{stack.name}"
    lines = cron_lines(stack.stack, Program.of(host))
    if lines:
        files.template(
            name=f"Schedule of {stack.name}",
            src="templates/cron.j2",
            dest=cron_file,
            user=schedules_owner,
            mode="644",
            stack=stack.name,
            lines=lines,
            run_as=owner,
            _sudo=sudo,
        )
    else:
        files.file(name=f"No schedule of {stack.name}", path=cron_file, present=False, _sudo=sudo)
