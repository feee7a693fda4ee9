#!/usr/bin/env bash
# Installs Debian packages: debian.sh PACKAGE… Fails on other systems and for users other than root.
set -euo pipefail
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 1

printf '\033[1m[set-up]\033[0m %s\n' "installing $* (about a minute) …"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
