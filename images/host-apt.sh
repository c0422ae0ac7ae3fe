# Functions for scripts that make trees of Debian: the host's own mirrors and proxies, so that none is named in this
# repository. Sourced; the caller has say and die.
# shellcheck shell=bash

# Prints apt's sources for a suite of Debian 12 or 13.
debian_sources() { # SUITE
  local uri security targets
  targets=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 'Component: main')
  uri=$(awk '$2 ~ /^(bookworm|trixie|oldstable|stable)$/ {print $1; exit}' <<<"$targets")
  [ -n "$uri" ] || die "apt knows no 'main' of Debian 12 or 13; run apt-get update, and check: apt-get indextargets"
  security=$(awk '$2 ~ /^(bookworm|trixie|oldstable|stable)-security$/ {print $1; exit}' <<<"$targets")
  stanza() {
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n\n' \
      "$1" "$2" /usr/share/keyrings/debian-archive-keyring.gpg
  }
  stanza "$uri" "$1"
  if [ -n "$security" ]; then
    stanza "$security" "$1-security"
  else
    say "this host's apt has no security suite: trees of $1 are made without Debian's security updates" >&2
  fi
}

# What apt on this host was told about proxies and the like holds for the tree's apt too.
apt_settings() {
  apt-config dump --format '%F "%v";%n' | grep -E '^Acquire::(http|https)::(Proxy|Timeout|No-Cache)' || true
}
