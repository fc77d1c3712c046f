#!/bin/sh
# Install every foreign program that tests/interop runs bittern against.
#
# Usage: tests/interop/setup.sh [--core]
#
#   --core   only what the default suite needs (aria2, opentracker, iproute2); no npm
#
# Safe to repeat and quick when nothing is missing. System packages come from Debian or Ubuntu and
# need root (or sudo without a password); npm packages go to .cache/interop/node_modules in the
# checkout, without running their install scripts. libtorrent is in the dev dependency group.
# Transmission 4 comes from a newer Debian than most machines have: its packages and all libraries
# they need go to .cache/interop/transmission4, beside the system, and are not installed.
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${BITTERN_INTEROP_CACHE:-$root/.cache/interop}

core_programs='aria2c:aria2 opentracker:opentracker ip:iproute2'
all_programs="$core_programs transmission-daemon:transmission-daemon
    qbittorrent-nox:qbittorrent-nox rtorrent:rtorrent
    mktorrent:mktorrent nginx:nginx setpriv:util-linux node:nodejs npm:npm"
npm_packages='webtorrent@1.9.7 bittorrent-tracker@11.2.3 bittorrent-dht@11.0.12
    webtorrent-fixtures@2.0.3'

programs=$all_programs
wants_transmission4=yes
case ${1-} in
    '') ;;
    --core) programs=$core_programs npm_packages='' wants_transmission4='' ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac

# /usr/sbin holds ip on Debian and is not on every user's PATH.
PATH=$PATH:/usr/sbin:/sbin
missing=''
for entry in $programs; do
    command -v "${entry%%:*}" >/dev/null 2>&1 || missing="$missing ${entry#*:}"
done
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup.sh: install these with the system's package manager:$missing" >&2
        exit 1
    fi
    as_root=''
    [ "$(id -u)" -eq 0 ] || as_root='sudo -n'
    export DEBIAN_FRONTEND=noninteractive
    $as_root apt-get update -qq
    # shellcheck disable=SC2086 # one word for each package
    $as_root apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=600 $missing
fi

wanted=''
for package in $npm_packages; do
    manifest=$cache/node_modules/${package%@*}/package.json
    grep -q "\"version\": *\"${package##*@}\"" "$manifest" 2>/dev/null || wanted="$wanted $package"
done
if [ -n "$wanted" ]; then
    mkdir -p "$cache"
    # Interop: webtorrent's native parts cannot be fetched everywhere; it runs on TCP without them.
    # All packages are named each time, because npm prunes what is not.
    # shellcheck disable=SC2086
    npm install --prefix "$cache" --ignore-scripts --no-save --no-audit --no-fund --silent \
        $npm_packages
fi

fetch_transmission4() {
    release=trixie
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    for needed in apt-get dpkg-deb; do
        command -v "$needed" >/dev/null 2>&1 || { echo "no $needed" >&2; return 1; }
    done
    [ -r "$keyring" ] || { echo "no $keyring" >&2; return 1; }
    work=$cache/transmission4.part
    rm -rf "$work"
    mkdir -p "$work/none" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root"
    : >"$work/status"
    echo "deb [signed-by=$keyring] http://deb.debian.org/debian $release main" >"$work/sources.list"
    # An apt of its own: it knows this one source and a machine on which nothing is installed, so
    # it fetches the C library as well, and changes nothing outside.
    cat >"$work/apt.conf" <<EOF
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$work/none";
Dir::Etc::preferencesparts "$work/none";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/none";
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Acquire::Languages "none";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
EOF
    APT_CONFIG=$work/apt.conf apt-get update -qq || return 1
    APT_CONFIG=$work/apt.conf apt-get install -y -qq --download-only transmission-daemon \
        >/dev/null || return 1
    for package in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$package" "$work/root" || return 1
    done
    rm -rf "$work/state" "$work/cache"
    # Its own dynamic linker, so that it meets none of the system's libraries.
    linker=$(cd "$work/root" && ls usr/lib*/ld-linux* | head -n 1)
    libraries=$(cd "$work/root" && ls -d usr/lib/*-linux-gnu* | head -n 1)
    cat >"$work/transmission-daemon" <<EOF
#!/bin/sh
root=\$(dirname -- "\$0")/root
exec "\$root/$linker" --library-path "\$root/$libraries" "\$root/usr/bin/transmission-daemon" "\$@"
EOF
    chmod +x "$work/transmission-daemon"
    "$work/transmission-daemon" --version >/dev/null 2>&1 || { echo "it does not run" >&2; return 1; }
    rm -rf "$cache/transmission4"
    mv "$work" "$cache/transmission4"
}

if [ -n "$wants_transmission4" ] && [ ! -x "$cache/transmission4/transmission-daemon" ]; then
    mkdir -p "$cache"
    fetch_transmission4 || echo "setup.sh: transmission 4 cannot be had; it is left out" >&2
    rm -rf "$cache/transmission4.part"
fi
echo "interop: everything is installed"
