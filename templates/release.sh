# Makes one release below ROOT from what lies beside this script, and proves that it starts. Its name is complete when it is written down.
#   sh release.sh ROOT NAME PYTHON
set -eu
root=$1 name=$2 python=$3
here=$(dirname "$0")
release=$root/releases/$name
umask 022
exec 9>"$root/.lock"
flock -n 9 || { echo "another run makes a release below $root" >&2; exit 75; }
for each in "$root"/releases/*-????????????; do  # what an interrupted run left
    if [ ! -e "$each/.complete" ]; then rm -rf "$each"; fi
done
"$python" -m venv "$release"
set -- --quiet --disable-pip-version-check --no-input --no-deps
where=
if [ -d "$here/wheels" ]; then where="--no-index --find-links=$here/wheels"; fi
for lock in "$here"/locks/*.txt; do
    # shellcheck disable=SC2086 # `where` is two words or none
    "$release/bin/python" -m pip install "$@" $where --require-hashes --requirement "$lock"
done
"$release/bin/python" -m pip install "$@" --no-index "$here"/storekeeper-*.whl
"$release/bin/python" -m compileall -q "$release/lib"
"$release/bin/storekeeper" --version >/dev/null
sync -f "$release"
touch "$release/.complete"
sync -f "$release"
