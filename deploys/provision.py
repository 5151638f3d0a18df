"""Make a bare Debian server one that can hold the stacks: users, directories, packages, PostgreSQL. A second run changes nothing.

pyinfra INVENTORY deploys/provision.py
"""

from pyinfra import host, logger
from pyinfra.operations import files, server

from operations import debian, declared, entries, postgresql, preflight
from operations.postgresql.packages import needed
from operations.program import Program

UPDATE, UPDATES = "/usr/local/sbin/storekeeper-update-postgresql", "/etc/cron.d/storekeeper-update-postgresql"

sudo = declared.sudo(host)
wanted = declared.postgresql(host)
passwords = declared.passwords(host)
users = declared.users(host)
directories = declared.directories(host)
keepers = [each.name for each in declared.stacks(host) if any(store.kind == "postgresql" for store in each.stack.stores.values())]

if wanted is not None and wanted.updates is not None and not keepers:
    raise SystemExit(f"{host.name}: storekeeper_postgresql.updates: no stack with PostgreSQL is declared, to take a set of first")

if declared.provisions(host):
    ground = {**declared.ground(host), "python": None}
    preflight.ready(name="Preflight", **ground, puts=["/etc"], distributions=preflight.DISTRIBUTIONS, _sudo=sudo)
    if sudo:
        entries.uploads(name="Directory of uploads", _sudo=False)
    if wanted is not None:
        postgresql.available(name="PostgreSQL is to be had", server=wanted, _sudo=sudo)
        postgresql.sourced(name="Source of the packages", server=wanted, _sudo=sudo)
    debian.packages(name="Packages", packages=["python3", "python3-venv", "logrotate", "cron"], _sudo=sudo)
else:
    host.log_styled("nothing is declared for provision.py: nothing is done", fg="yellow", log_func=logger.warning)

for name, user in host.loop(users.items()):
    home, shell = (str(each) if each else None for each in (user.home, user.shell))
    server.user(name=f"User {name}", user=name, home=home, shell=shell, system=True, groups=list(user.groups), _sudo=sudo)

for path, directory in host.loop(directories.items()):
    entries.directory(
        name=f"Directory {path}",
        path=path,
        user=directory.user,
        group=directory.user,
        mode=directory.mode,
        among=list(directories),
        _sudo=sudo,
    )

if wanted is not None:
    # Debian's package would make a cluster of its own, with the locale of whoever installs it.
    entries.directory(
        name="Directory of cluster defaults", path="/etc/postgresql-common/createcluster.d", user="root", mode="755", _sudo=sudo
    )
    entries.template(
        name="No cluster but the declared one",
        src="templates/createcluster.j2",
        dest="/etc/postgresql-common/createcluster.d/storekeeper.conf",
        user="root",
        mode="644",
        _sudo=sudo,
    )
    debian.packages(name="Packages of PostgreSQL", packages=needed(wanted), _sudo=sudo)
    postgresql.created(name="Cluster", server=wanted, _sudo=sudo)
    postgresql.configured(name="Settings", server=wanted, restart=declared.flag(host, "restart"), _sudo=sudo)
    postgresql.roles(name="Roles", server=wanted, passwords=passwords, _sudo=sudo)
    postgresql.databases(name="Databases", server=wanted, _sudo=sudo)

if wanted is not None and wanted.updates is not None:
    entries.template(
        name="Script of updates",
        src="templates/update.sh.j2",
        dest=UPDATE,
        user="root",
        mode="755",
        functions=debian.FUNCTIONS,
        packages=" ".join(needed(wanted)),
        stacks=keepers,
        cluster=f"{wanted.version} {wanted.cluster}",
        data=f"/var/lib/postgresql/{wanted.version}/{wanted.cluster}",
        program=Program.of(host).plain,
        _sudo=sudo,
    )
    entries.template(
        name="Schedule of updates",
        src="templates/update.cron.j2",
        dest=UPDATES,
        user="root",
        mode="644",
        at=str(wanted.updates),
        script=UPDATE,
        _sudo=sudo,
    )
elif declared.provisions(host):
    for path in host.loop((UPDATES, UPDATE)):
        files.file(name=f"No {path}", path=path, present=False, _sudo=sudo)
