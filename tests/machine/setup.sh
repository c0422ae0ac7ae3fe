#!/bin/bash
# Installs what the machine tests need on a Debian 12 or 13 host: QEMU with its UEFI firmware, a DNS
# server that signs (knot), iproute2, and the pinned Python peers in build/venv. Does nothing that is
# already done. On Debian 12 QEMU comes from bookworm-backports, reached with the host's own mirror
# through a private apt configuration under build/: the host's sources are left as they are.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
venv=$top/build/venv
here=$top/tests/machine
packages=(qemu-system-x86 qemu-utils ovmf knot knot-dnsutils iproute2 nftables openssl python3-venv
    erofs-utils)
lock=(-o DPkg::Lock::Timeout=900)
export DEBIAN_FRONTEND=noninteractive

missing() {
    local package
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${db:Status-Abbrev}\n' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done
}

install() { # install APT-OPTION... -- PACKAGE...: nothing starts by itself while we install
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
        made=yes
    fi
    apt-get "${lock[@]}" -qq install -y --no-install-recommends "$@" || {
        [ -z "$made" ] || rm -f "$policy"
        echo "setup: apt-get could not install: $*; see its messages above" >&2
        exit 1
    }
    [ -z "$made" ] || rm -f "$policy"
}

backports() { # prints the options that make apt-get see bookworm-backports on the host's own mirror
    local dir=$top/build/apt-backports uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' 'Created-By: Packages' | head -n1)
    [ -n "$uri" ] || {
        echo "setup: this host's apt has no 'bookworm main' source to take the mirror from" >&2
        exit 1
    }
    mkdir -p "$dir/sources" "$dir/lists/partial"
    cp -a /etc/apt/sources.list.d/. "$dir/sources/"
    [ ! -e /etc/apt/sources.list ] || cp -a /etc/apt/sources.list "$dir/sources/host.list"
    printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' \
        "$uri" /usr/share/keyrings/debian-archive-keyring.gpg >"$dir/sources/postern-backports.sources"
    echo "-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$dir/sources -o Dir::State::Lists=$dir/lists"
}

mapfile -t wanted < <(missing)
if [ ${#wanted[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || {
        echo "setup: run as root: these packages are missing: ${wanted[*]}" >&2
        exit 1
    }
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    # Without lists apt knows no mirror either, and a new host has none.
    apt-get "${lock[@]}" -qq update
    if [ "$codename" = bookworm ]; then
        # shellcheck disable=SC2207
        options=($(backports))
        apt-get "${lock[@]}" "${options[@]}" -qq update
        newer=() plain=()
        for package in "${wanted[@]}"; do
            case $package in
            qemu-* | ovmf | erofs-utils) newer+=("$package") ;;
            *) plain+=("$package") ;;
            esac
        done
        [ ${#newer[@]} = 0 ] || install "${options[@]}" -t bookworm-backports "${newer[@]}"
        [ ${#plain[@]} = 0 ] || install "${options[@]}" "${plain[@]}"
    else
        install "${wanted[@]}"
    fi
fi

if ! cmp -s "$here/requirements.txt" "$venv/requirements.installed"; then
    [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/requirements.installed"
fi
