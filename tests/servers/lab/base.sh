#!/bin/bash
# base.sh FLAVOUR DIR [PACKAGE...]   build (once) DIR/base-FLAVOUR: a Debian that boots under systemd-nspawn. Needs root.
# FLAVOUR is a suite (bookworm, trixie) or SUITE-WORD (trixie-pg): the suite's base, copied, with the packages added.
# DIR must be on a real disk (not overlay, not a container layer). DIR/min-SUITE is the bare root file system that bases are made from.
# Uses this machine's own Debian mirror and apt transport settings; a second call with the same packages returns at once.
set -euo pipefail
flavour=${1:?flavour} suite=${1%%-*} dir=$(realpath -m "${2:?dir}"); shift 2
[ "$(id -u)" = 0 ] || { echo "SKIP: base.sh needs root" >&2; exit 77; }
for t in debootstrap systemd-nspawn ip iptables ssh-keygen flock; do command -v $t >/dev/null || { echo "SKIP: $t is missing (apt-get install debootstrap systemd-container iproute2 iptables openssh-client)" >&2; exit 77; }; done
base=$dir/base-$flavour; mkdir -p "$dir/debs-$suite"; chmod 755 "$dir"
exec 9>"$dir/.base-$flavour.lock"; flock 9
pkgs="systemd systemd-sysv dbus libpam-systemd openssh-server cron python3 sudo iproute2 iputils-ping procps ca-certificates $*"
want=$(printf '%s\n' "2 $flavour $pkgs" | sha256sum | cut -c1-16)
[ -f "$dir/id_ed25519" ] || ( flock 8; [ -f "$dir/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -C lab -f "$dir/id_ed25519" ) 8>"$dir/.key.lock"
if [ "$(cat "$base.done" 2>/dev/null)" = "$want" ]; then echo "$base"; exit 0; fi
rm -rf --one-file-system "$base" "$base.done"
inside() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive chroot "$base" "$@" 9>&-; }
trap 'umount "$base/var/cache/apt/archives" 2>/dev/null || true' EXIT
add() { # packages, the .deb files kept beside the bases; nothing starts inside a chroot
  printf '#!/bin/sh\nexit 101\n' >"$base/usr/sbin/policy-rc.d"; chmod 755 "$base/usr/sbin/policy-rc.d"
  mkdir -p "$base/var/cache/apt/archives"; exec 7>"$dir/.debs-$suite.lock"; flock 7; mount --bind "$dir/debs-$suite" "$base/var/cache/apt/archives"
  { inside apt-get -y update && inside apt-get -y -o APT::Keep-Downloaded-Packages=true -o Binary::apt-get::APT::Keep-Downloaded-Packages=true install "$@"; } >>"$base.log" 2>&1 </dev/null 7>&- || { tail -20 "$base.log" >&2; exit 1; }
  umount "$base/var/cache/apt/archives"; exec 7>&-; rm -f "$base/usr/sbin/policy-rc.d"
}
if [ "$flavour" != "$suite" ]; then
  bash "$0" "$suite" "$dir" >/dev/null 9>&-; cp -a --reflink=auto "$dir/base-$suite" "$base"; : >"$base.log"
  add $*; echo "$want" >"$base.done"; echo "$base"; exit 0
fi
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 -E '/debian/?$' || true)
security=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m1 -E 'debian-security/?$' || true)
[ -n "$mirror" ] && [ -n "$security" ] || { echo "SKIP: apt has no Debian mirror configured" >&2; exit 77; }
min=$dir/min-$suite    # debootstrap's own result with a working apt: also the root file system for container images
if [ ! -f "$min.done" ]; then
  rm -rf --one-file-system "$min"
  # debootstrap reads http_proxy but not apt.conf: hand it over
  p=$(apt-config dump Acquire::http::Proxy | sed -n 's/.*"\(.*\)";/\1/p'); [ -z "$p" ] || export http_proxy=$p
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg; [ -f $keyring ] || keyring=
  debootstrap --variant=minbase --include=ca-certificates --cache-dir="$dir/debs-$suite" ${keyring:+--keyring=$keyring} "$suite" "$min" "$mirror" >"$min.log" 2>&1 9>&- </dev/null || { tail -20 "$min.log" >&2; exit 1; }
  printf 'deb %s %s main\ndeb %s %s-updates main\ndeb %s %s-security main\n' "$mirror" "$suite" "$mirror" "$suite" "$security" "$suite" >"$min/etc/apt/sources.list"
  # the host's transport settings (proxy, TLS, validity) and the certificates it trusts (a company CA), so that apt, pip and curl work inside
  apt-config dump | grep -E '^Acquire::(http|https|Check-Valid-Until|Check-Date|Retries)' >"$min/etc/apt/apt.conf.d/99lab" || true
  printf 'APT::Install-Recommends "false";\nAcquire::Languages "none";\n' >>"$min/etc/apt/apt.conf.d/99lab"
  cp -r /etc/apt/auth.conf.d/. "$min/etc/apt/auth.conf.d/" 2>/dev/null || true
  [ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$min/etc/ssl/certs/ca-certificates.crt"
  [ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$min/etc/pip.conf"
  cp -L /etc/resolv.conf "$min/etc/resolv.conf"; touch "$min.done"
fi
cp -a --reflink=auto "$min" "$base"; : >"$base.log"
echo force-unsafe-io >"$base/etc/dpkg/dpkg.cfg.d/lab"    # a throw-away server need not flush each unpacked file
add $pkgs
# update-ca-certificates may have run: put the host's bundle back
[ ! -f "$min/etc/ssl/certs/ca-certificates.crt" ] || cp "$min/etc/ssl/certs/ca-certificates.crt" "$base/etc/ssl/certs/ca-certificates.crt"
# what a booted server does not need here: each of these costs boot time or waits for hardware
for u in systemd-networkd.service systemd-networkd.socket systemd-networkd-wait-online.service systemd-resolved.service systemd-timesyncd.service systemd-udevd.service \
  apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer console-getty.service getty@tty1.service systemd-firstboot.service systemd-homed.service systemd-modules-load.service systemd-update-utmp.service; do ln -sf /dev/null "$base/etc/systemd/system/$u"; done
ln -sf /lib/systemd/system/multi-user.target "$base/etc/systemd/system/default.target"
# keys, users: root and `ops` (sudo without a password); host keys are part of the base, so known_hosts can be made from it
rm -f "$base"/etc/ssh/ssh_host_*; ssh-keygen -q -t ed25519 -N '' -f "$base/etc/ssh/ssh_host_ed25519_key"
printf 'UseDNS no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nMaxStartups 200:30:400\n' >"$base/etc/ssh/sshd_config.d/lab.conf"
inside useradd -m -s /bin/bash ops; echo 'ops ALL=(ALL) NOPASSWD: ALL' >"$base/etc/sudoers.d/ops"; chmod 440 "$base/etc/sudoers.d/ops"
for h in root home/ops; do install -d -m 700 "$base/$h/.ssh"; install -m 600 "$dir/id_ed25519.pub" "$base/$h/.ssh/authorized_keys"; done; inside chown -R ops:ops /home/ops
rm -f "$base/etc/machine-id"; : >"$base/etc/machine-id"
echo "$want" >"$base.done"; echo "$base"
