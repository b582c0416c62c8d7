#!/bin/sh
# Make .venv hold what requirements/$1.txt lists, at exactly these hashes, and Moonpool itself.
#
# Does nothing, at once, when that is done already: the stamp in .venv names the lock, the place and the Python.
# Written for any POSIX shell, because it must also run where Python is too old, to say so.
set -eu

set_name=${1:?run or test}
cd "$(dirname "$0")/.."
lock=requirements/$set_name.txt
venv=.venv

stop() {
    printf 'moonpool: %s\n' "$*" >&2
    exit 1
}

# The full list holds the short one, so a stamp of `test` is also good for `run`.
wanted() { printf '%s %s' "$(cat "requirements/$1.txt" pyproject.toml requirements/install.sh | cksum)" "$(pwd -P)"; }
holds() { [ -x "$venv/bin/python" ] && [ -f "$venv/.$1" ] && [ "$(cat "$venv/.$1")" = "$(wanted "$1")" ]; }

if holds "$set_name" || holds test; then
    exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null; }

if [ -x "$venv/bin/python" ] && new_enough "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    # Scripts in an environment name its place; one that was moved is made again.
    home=$("$venv/bin/python" -c 'import sys; print(sys.prefix)')
    [ "$home" = "$(pwd -P)/$venv" ] && [ -f "$venv/bin/pip" ] && head -n 2 "$venv/bin/pip" | grep -qF "$(pwd -P)" || rm -rf "$venv"
else
    rm -rf "$venv"
fi

if [ ! -d "$venv" ]; then
    python=
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null 2>&1 && new_enough "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || stop "Python 3.11 or newer is needed; python3 here is $(python3 --version 2>/dev/null || echo 'not installed'). Name another one with: make PYTHON=/path/to/python3 ..."
    echo "making $venv with $($python --version)"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian ships Python without ensurepip; pip itself or virtualenv may still be there.
        rm -rf "$venv"
        if "$python" -m virtualenv --version >/dev/null 2>&1; then
            "$python" -m virtualenv -q "$venv"
        else
            rm -rf "$venv"
            stop "$python cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"
        fi
    fi
fi

echo "installing $lock (versions and hashes are fixed there)"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
"$venv/bin/python" -m pip install -q --require-hashes --only-binary=:all: -r "$lock" ||
    stop "the packages could not be installed; the reason stands above. With a package mirror, set PIP_INDEX_URL or pip.conf and try again"
"$venv/bin/python" -m pip install -q --no-deps --no-build-isolation -e .

for name in run test; do rm -f "$venv/.$name"; done
wanted "$set_name" >"$venv/.$set_name"
