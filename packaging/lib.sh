# Shared by demo, install and test: find a Python, get what is missing, make a virtual environment.
# POSIX sh, sourced; "$checkout" is the folder that holds pyproject.toml. Guesses nothing: what it
# cannot get, it names, with the command that would.

unset PYTHONDONTWRITEBYTECODE PYTHONHOME PYTHONPATH # the first would make every start compile again

say() {
    printf '%s\n' "$*"
}

# fail WHAT HINT
fail() {
    printf 'Error: %s\nHint:  %s\n' "$1" "$2" >&2
    exit 1
}

is_root() {
    [ "$(id -u)" -eq 0 ]
}

# Run a command as root, where we may.
as_root() {
    if is_root; then "$@"; else sudo "$@"; fi
}

may_be_root() {
    is_root && return 0
    command -v sudo >/dev/null || return 1
    sudo -n true 2>/dev/null || [ -t 0 ]
}

# Run a command quietly; where it fails, show what it said.
quietly() {
    if quiet_output=$("$@" 2>&1 </dev/null); then return 0; fi
    printf '%s\n' "$quiet_output" | tail -n 30 >&2
    return 1
}

# -- apt ------------------------------------------------------------------------------------------

# Ask apt for its lists once.
update_apt() {
    [ -z "${apt_is_updated:-}" ] || return 0
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update ||
        fail "apt-get update failed" "is the network up, and does /etc/apt name a mirror that answers?"
    apt_is_updated=1
}

has_candidate() {
    apt-cache policy "$1" 2>/dev/null | grep 'Candidate:' | grep -qv '(none)'
}

# Install packages; say which. With nothing to install it does nothing.
apt_install() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null ||
        fail "this machine lacks what these Debian packages hold: $*" "install them its own way, then run this again"
    may_be_root ||
        fail "these packages are missing: $*" "ask root to run 'apt-get install $*', then run this again"
    update_apt
    say "apt-get install $*"
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@" ||
        fail "apt-get install $* failed" "the lines above say why; Ubuntu may need 'add-apt-repository universe'"
}

# need_tools TOOL[:PACKAGE]...: install the packages of those tools that are not there.
need_tools() {
    missing=
    for tool in "$@"; do
        command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
    done
    # pip of Debian trusts no certificate without this file
    if command -v apt-get >/dev/null && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then
        missing="$missing ca-certificates"
    fi
    # shellcheck disable=SC2086
    apt_install $missing
}

# -- Python ---------------------------------------------------------------------------------------

VERSIONS="3.14 3.13 3.12 3.11" # newest first
OLD_PYTHON="agentctl needs Python 3.11 or newer, and there is none"

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

# Root's own Python may lie where the agent's user cannot reach it: then only the machine's counts.
python_path() {
    if is_root; then printf '%s' "${AGENTCTL_PYTHON_PATH:-/usr/local/bin:/usr/bin:/bin}"; else printf '%s' "$PATH"; fi
}

# Print the newest Python that passes the test "$1".
newest_python() {
    for name in $(printf 'python%s ' $VERSIONS) python3; do
        found=$(PATH=$(python_path) command -v "$name") || continue
        if is_new_enough "$found" && "$1" "$found"; then
            printf '%s' "$found"
            return 0
        fi
    done
    return 1
}

# Set $python to a Python that can make virtual environments, installing it where need be.
need_python() {
    python=$(newest_python can_make_venv) && return 0
    if python=$(newest_python true); then
        apt_install $(venv_package "$python")
    else
        command -v apt-get >/dev/null || fail "$OLD_PYTHON" "install one, then run this again"
        may_be_root || fail "$OLD_PYTHON" "ask root to install python3.11 and python3.11-venv, or run this as root"
        update_apt
        # shellcheck disable=SC2046
        apt_install $(python_packages || fail "$OLD_PYTHON" "on Ubuntu 22.04, python3.11 is in 'universe': run add-apt-repository universe")
    fi
    python=$(newest_python can_make_venv) ||
        fail "no Python here can make a virtual environment" "see whether 'python3 -m venv /tmp/x' says why"
}

venv_package() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $1 in
    */python3) echo python3-venv ;;
    *) if has_candidate "python$version-venv"; then echo "python$version-venv"; else echo python3-venv; fi ;;
    esac
}

# Print the packages of the distribution's Python, or of a newer one beside it (Ubuntu 22.04).
python_packages() {
    for version in $VERSIONS; do
        if apt-cache policy python3 2>/dev/null | grep -q "Candidate: $version[.-]"; then
            echo "python3 python3-venv"
            return 0
        fi
    done
    for version in $VERSIONS; do
        if has_candidate "python$version"; then
            echo "python$version python$version-venv"
            return 0
        fi
    done
    return 1
}

# -- installing -----------------------------------------------------------------------------------

# install_agentctl VENV: make the environment and put this checkout in, byte code and all.
install_agentctl() {
    copy=$(mktemp -d "${TMPDIR:-/tmp}/agentctl-source.XXXXXX")
    for name in pyproject.toml README.md LICENSE watchdog systemd; do
        [ ! -e "$checkout/$name" ] || cp -R "$checkout/$name" "$copy/"
    done
    mkdir "$copy/packaging" && cp -R "$checkout/packaging/docker" "$copy/packaging/"
    touch "$copy/README.md" # building fails without one
    # From a copy: setuptools leaves folders behind in the tree that it builds.
    if ! quietly "$python" -m venv --prompt agentctl "$1" ||
        ! quietly "$1/bin/python" -m pip install --disable-pip-version-check "$copy"; then
        rm -rf "$copy"
        fail "agentctl could not be installed into $1" "the lines above say why; pip needs a package index it can reach"
    fi
    rm -rf "$copy"
    "$1/bin/python" -m compileall -q "$1/lib" >/dev/null || true # some packages ship files that never compile
}
