"""Every key that the deploys read, with its default. An inventory, another group or `--data` overrides them."""

# The host program: the directory of its releases, and the interpreter (3.11 or later, with venv) that they are made with.
storekeeper_releases = "/opt/storekeeper"
storekeeper_python = "/usr/bin/python3"
storekeeper_wheelhouse = False  # True sends the packages along, for a host that reaches no package index
# storekeeper_release = "VERSION-HASH"   a release that is on the host, to go back to it; else the one of this checkout
# storekeeper_program = "/PATH"          where the program is, where something else puts it there: then nothing is released

# A host whose key is not the one in known_hosts is not talked to.
ssh_strict_host_key_checking = "yes"

# The directory of the program's configuration on the host.
storekeeper_config = "/etc/storekeeper"

# Where sets, the program's own state, and scratch copies of proofs are kept on the host.
storekeeper_repository = "/var/backups/storekeeper"
storekeeper_state = "/var/lib/storekeeper"
storekeeper_scratch = "/var/tmp"

# The directory of cron files, the user that they run the program as, and whether pyinfra needs sudo for all of this.
storekeeper_cron = "/etc/cron.d"
storekeeper_units = "/etc/systemd/system"  # of stacks that declare scheduler: {by: systemd}
storekeeper_user = "root"
storekeeper_sudo = False

# How long, in seconds, a host may take to say how it is before the report goes on without it.
storekeeper_patience = 60

# Secrets that site.py puts on the host below storekeeper_config/secrets, mode 0600: name -> {"file": PATH} or {"env": NAME} of the
# control machine. Stack files refer to them there: {file: /etc/storekeeper/secrets/NAME}.
storekeeper_secrets = {}

# What provision.py makes of a bare server. docs/provisioning.md explains each.
storekeeper_users = {}  # name -> {"home": PATH, "shell": PATH, "groups": [...]}
storekeeper_directories = {}  # path -> {"user": NAME, "mode": "750"}
storekeeper_logs = {}  # name -> {"files": [...], "user": NAME, "every": "daily", "keep": 14}
# storekeeper_postgresql = {"version": 17, "roles": {...}, "databases": {...}}

# The stacks of the host: name -> path of a stack file on the control machine, or the text of one.
storekeeper_stacks = {}

# What the operating deploys work on: pass these with --data.
#   stack=NAME    one stack of the host; all of its stacks when not given
#   set=SET       a set: latest, an id, a time, or the start of an id
#   within=26h    backup: only where no usable set is that young
#   only=A,B      restore: these stores
#   nobody_uses=A,B   restore: stores whose files no other program has open, where the host cannot see that by itself
#   no_owners=A,B     restore: stores to restore without the owners of their files
#   accept_unreadable=A,B   restore: stores that cannot be read, of which a raw copy is kept
#   stage_dir=DIR     restore: where to stage, instead of beside the live data
#   stop=JOB      jobs: ask this run to end
#   report=FILE   status: where to write the report on this machine
#   plan=yes      prune: say which sets would go
#   plan=yes      restore: say what would happen and change nothing
#   back=yes      restore: return to what was live before the last restore
#   confirm=STACK@HOST   restore: needed, HOST is the host's own name (uname -n)
