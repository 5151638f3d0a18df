# Every target makes what it needs: the virtual environment comes from the lock file, with hashes.
# PYTHON is the interpreter to make it with (3.11 or later).
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test faults lint types docs bench lock packages clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Storekeeper needs Python 3.11 or later, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: setup
	$(BIN)/python -m demo

# Real servers first, two files at once, the longest before all others: they mostly wait. Then what kills at a moment, fills a disk or
# counts seconds, one by one, and beside it all others, two files at once; what the first of them said is shown when both have ended. It
# has a directory of its own, since a run that begins closes the common one to the users that servers run as.
ALONE := tests/faults tests/stores
test: setup
	@failed=0; own=$$(mktemp -d "$${TMPDIR:-/tmp}/sk.XXXXXX"); trap 'kill $$alone 2>/dev/null; rm -rf "$$own"' EXIT INT TERM; \
	$(BIN)/pytest tests/servers --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST) || failed=1; \
	$(BIN)/pytest $(ALONE) --basetemp="$$own/t" $(PYTEST) >"$$own/said" 2>&1 & alone=$$!; \
	$(BIN)/pytest --ignore tests/servers $(addprefix --ignore ,$(ALONE)) --numprocesses 2 --dist loadfile $(PYTEST) || failed=1; \
	wait $$alone || failed=1; alone=; \
	cat "$$own/said"; \
	exit $$failed

# Runs the parts of the fault campaign in PARTS, else all, with their full counts, and writes docs/faults.md. All of them take two hours.
faults: setup
	$(BIN)/python -m tests.campaign $(PARTS) --pytest="$(PYTEST)"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

docs: setup
	$(BIN)/python -m storekeeper.stack.schema
	$(BIN)/python -m storekeeper.stack.reference
	$(BIN)/python -m storekeeper.cli.reference

# Measures the parts in PARTS, else all, and writes docs/benchmarks.md. All of them take an hour.
bench: setup
	$(BIN)/python -m benchmarks.all $(PARTS)

# The Debian packages that the tests of real servers, power cuts and faults need. Needs root; no cluster is made and nothing is started.
packages:
	mkdir -p /etc/postgresql-common/createcluster.d
	printf 'create_main_cluster = false\n' >/etc/postgresql-common/createcluster.d/storekeeper.conf
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql zstd strace faketime libfaketime rsync attr \
		debootstrap systemd-container iproute2 iptables openssh-client gnupg sqlite3

# Writes the lock files anew: of this checkout, and of what a release holds on a host, by extra; uv is the one tool that is not in them.
LOCK := uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.11 --quiet --no-header
lock:
	$(LOCK) --all-extras -o requirements.lock
	$(LOCK) --constraint requirements.lock -o operations/locks/core.txt
	$(LOCK) --constraint requirements.lock --extra postgresql -o operations/locks/postgresql.txt

clean:
	rm -rf .venv .demo .mypy_cache .pytest_cache .ruff_cache build *.egg-info
