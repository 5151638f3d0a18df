"""Make a host what its inventory declares: program, directories, configuration, stack files, schedules. A second run changes nothing.

pyinfra INVENTORY deploys/site.py
"""

from pyinfra import host
from pyinfra.operations import systemd

from operations import declared, entries, preflight, release, schedule, secrets
from operations.program import Program

sudo = declared.sudo(host)
owner = declared.user(host)
config = declared.place(host, "storekeeper_config")
state = declared.place(host, "storekeeper_state")
repository = declared.place(host, "storekeeper_repository")
scratch = declared.place(host, "storekeeper_scratch")
schedules = declared.place(host, "storekeeper_cron")
schedules_owner = schedule.owner_of(schedules, owner)
units = declared.place(host, "storekeeper_units")
stacks = declared.stacks(host)
logs = declared.logs(host)
wanted_secrets = declared.put_secrets(host)
timers = [(stack, timer) for stack in stacks for timer in schedule.timers(stack.stack, Program.of(host))]
crons = {stack.name: lines for stack in stacks if (lines := schedule.cron_lines(stack.stack, Program.of(host), host.name))}

preflight.ready(
    name="Preflight",
    **declared.ground(host),
    puts=[config, state, repository, *([declared.place(host, "storekeeper_releases")] if declared.brings_program(host) else [])],
    cron=bool(crons) and schedules == schedule.SYSTEM,
    systemd=bool(timers),
    _sudo=sudo,
)

if sudo:
    entries.uploads(name="Directory of uploads", _sudo=False)

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

directories = {
    "configuration": (config, owner, "700"),
    "stack files": (f"{config}/stacks", owner, "700"),
    **({"secrets": (f"{config}/secrets", owner, "700")} if wanted_secrets else {}),
    "state": (state, owner, "700"),
    "repository": (repository, owner, "700"),
    "schedules": (schedules, schedules_owner, "755"),
}
files_of_stacks = {stack.name: f"{config}/stacks/{stack.name}.yml" for stack in stacks}
files_of_cron = {name: f"{schedules}/{schedule.cron_file(name)}" for name in crons}
files_of_units = [f"{units}/{timer.name}.{kind}" for _, timer in timers for kind in ("service", "timer")]
files_of_logs = {name: f"/etc/logrotate.d/storekeeper-{name}" for name in logs}
# Looked at in one round trip, however many stacks there are.
among = [
    *(path for path, _, _ in directories.values()),
    f"{config}/storekeeper.yml",
    *files_of_stacks.values(),
    *files_of_cron.values(),
    *files_of_units,
    *files_of_logs.values(),
]

for purpose, (directory, user, mode) in host.loop(directories.items()):
    entries.directory(name=f"Directory of the {purpose}", path=directory, user=user, mode=mode, among=among, _sudo=sudo)

entries.template(
    name="Configuration",
    src="templates/storekeeper.yml.j2",
    dest=f"{config}/storekeeper.yml",
    user=owner,
    mode="600",
    among=among,
    repository=repository,
    state=state,
    scratch=scratch,
    _sudo=sudo,
)

if wanted_secrets:
    secrets.put(name="Secrets", directory=f"{config}/secrets", secrets=wanted_secrets, user=owner, _sudo=sudo)

for stack in host.loop(stacks):
    entries.put(
        name=f"Stack file of {stack.name}",
        text=stack.text,
        dest=files_of_stacks[stack.name],
        user=owner,
        mode="600",
        among=among,
        _sudo=sudo,
    )
    if stack.name in crons:
        entries.template(
            name=f"Schedule of {stack.name}",
            src="templates/cron.j2",
            dest=files_of_cron[stack.name],
            user=schedules_owner,
            mode="644",
            among=among,
            stack=stack.name,
            config=config,
            lines=crons[stack.name],
            run_as=owner,
            _sudo=sudo,
        )

written = []
for stack, timer in host.loop(timers):
    for kind in ("service", "timer"):
        placed = entries.template(
            name=f"{kind.capitalize()} {timer.name}",
            src=f"templates/{kind}.j2",
            dest=f"{units}/{timer.name}.{kind}",
            user="root",
            mode="644",
            among=among,
            stack=stack.name,
            config=config,
            timer=timer,
            run_as=owner,
            _sudo=sudo,
        )
        written.append(placed)
if written:
    systemd.daemon_reload(name="Units are read", _if=lambda: any(each.did_change() for each in written), _sudo=sudo)
for _, timer in host.loop(timers):
    systemd.service(name=f"Timer {timer.name} is on", service=f"{timer.name}.timer", running=True, enabled=True, _sudo=sudo)

schedule.only(
    name="No other schedules",
    cron=[schedule.cron_file(name) for name in crons],
    units=[timer.name for _, timer in timers],
    config=config,
    cron_directory=schedules,
    unit_directory=units,
    _sudo=sudo,
)

for name, log in host.loop(logs.items()):
    entries.template(
        name=f"Log rotation of {name}",
        src="templates/logrotate.j2",
        dest=files_of_logs[name],
        user="root",
        mode="644",
        among=among,
        log=log,
        _sudo=sudo,
    )
