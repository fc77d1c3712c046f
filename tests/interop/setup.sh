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
set -eu

root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
cache=${BITTERN_INTEROP_CACHE:-$root/.cache/interop}

core_programs='aria2c:aria2 opentracker:opentracker ip:iproute2'
all_programs="$core_programs transmission-daemon:transmission-daemon
    qbittorrent-nox:qbittorrent-nox rtorrent:rtorrent
    mktorrent:mktorrent setpriv:util-linux node:nodejs npm:npm"
npm_packages='webtorrent@1.9.7 bittorrent-tracker@11.2.3 bittorrent-dht@11.0.12
    webtorrent-fixtures@2.0.3'

programs=$all_programs
case ${1-} in
    '') ;;
    --core) programs=$core_programs npm_packages='' ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
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
echo "interop: everything is installed"
