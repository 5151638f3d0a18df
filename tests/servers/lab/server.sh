#!/bin/bash
# server.sh up   NAME N SUITE   boot a throw-away server from the cached base; it answers ssh at $LAB_NET.N.2 when this returns
# server.sh down NAME           power off hard and remove everything it left (idempotent); poweroff NAME: the same after an orderly shutdown
# server.sh off|on NAME         power switch, disk and address stay
# server.sh ssh  NAME [CMD...]  run a command on it     server.sh cut|mend NAME, lossy NAME 0.1: network faults
# Environment: LAB_DIR (where base.sh was told to build), LAB_NET=10.77, LAB_TMPFS=1 (disk in memory)
set -euo pipefail
verb=${1:?verb} name=${2:?name}; dir=$(realpath -m "${LAB_DIR:?set LAB_DIR}"); net=${LAB_NET:-10.77}
[ "$(id -u)" = 0 ] || { echo "SKIP: server.sh needs root" >&2; exit 77; }
case $name in *[!a-z0-9-]*|-*) echo "bad name: $name" >&2; exit 2;; esac
[ ${#name} -le 12 ] || { echo "name too long (12, the interface is vl-NAME): $name" >&2; exit 2; }
s=$dir/servers/$name; ns=lab-$name; veth=vl-$name
iptables() { command iptables -w 60 "$@"; }    # another server may be coming up or going down just now
cgroups() { find /sys/fs/cgroup -depth -type d \( -path "*/lab-$name" -o -path "*/lab-$name/*" \) 2>/dev/null; }
resolv() { if grep -q '^nameserver 127\.' /etc/resolv.conf && [ -f /run/systemd/resolve/resolv.conf ]; then cat /run/systemd/resolve/resolv.conf; else cat /etc/resolv.conf; fi; }
unlose() { iptables-save -t filter 2>/dev/null | { grep -E -- "-A (INPUT|OUTPUT) .*--comment \"?lab-$name\"? " || true; } | sed 's/^-A/-D/' | while read -r l; do eval "iptables $l"; done || true; }
power_off() {
  local pid n
  if [ -f "$s/pid" ] && pid=$(cat "$s/pid") && kill -0 "$pid" 2>/dev/null && grep -qa -- "lab-$name" "/proc/$pid/cmdline"; then
    # nspawn's child is the guest's PID 1: SIGKILL there is the power going off (disk writes the kernel already has survive), and nspawn then tidies up and ends
    if [ "${1:-}" = poweroff ]; then kill -TERM "$pid" 2>/dev/null || true; n=600; else pgrep -P "$pid" | xargs -r kill -KILL 2>/dev/null || true; n=100; fi
    for n in $(seq $n); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    if kill -0 "$pid" 2>/dev/null; then
      for h in /sys/fs/cgroup /sys/fs/cgroup/unified; do [ ! -f "$h/lab-$name/cgroup.kill" ] || echo 1 >"$h/lab-$name/cgroup.kill"; done
      kill -KILL "$pid" 2>/dev/null || true; sleep 0.2
    fi
  fi
}
down() {
  local n n4
  power_off "${1:-}"
  unlose; ip netns del "$ns" 2>/dev/null || true; ip link del "$veth" 2>/dev/null || true
  if [ -f "$s/net" ]; then
    read -r n4 <"$s/net"
    while iptables -t nat -D POSTROUTING -s "$n4" ! -d "$net.0.0/16" -m comment --comment "lab-$name" -j MASQUERADE 2>/dev/null; do :; done
    while iptables -D FORWARD -s "$n4" -m comment --comment "lab-$name" -j ACCEPT 2>/dev/null; do :; done
    while iptables -D FORWARD -d "$n4" -m comment --comment "lab-$name" -j ACCEPT 2>/dev/null; do :; done
  fi
  for n in $(seq 100); do mountpoint -q "$s/root" || break; umount "$s/root" 2>/dev/null || sleep 0.05; done
  ! mountpoint -q "$s/root" || umount -l "$s/root"; ! mountpoint -q "$s/disk" || umount -l "$s/disk"
  for n in $(seq 20); do cgroups | xargs -r rmdir 2>/dev/null && break || sleep 0.05; done
  rmdir "/run/systemd/nspawn/propagate/lab-$name" 2>/dev/null || true
  rm -rf --one-file-system "$s"
}
ssh_files() {
  local ip4; ip4=$(cat "$s/ip")
  printf '%s %s\n' "$ip4" "$(cut -d' ' -f1,2 "$base/etc/ssh/ssh_host_ed25519_key.pub")" >"$s/known_hosts"
  cat >"$s/ssh_config" <<X
Host $name $ip4
  HostName $ip4
  User root
  IdentityFile $dir/id_ed25519
  IdentitiesOnly yes
  UserKnownHostsFile $s/known_hosts
  StrictHostKeyChecking yes
  ConnectTimeout 5
  LogLevel ERROR
X
}
boot() {
  local extra env h i
  extra=(); env=(SYSTEMD_LOG_LEVEL=warning SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1)   # the guest sees cgroup v2 only, as real Debian 12/13 do
  [ -d /run/systemd/system ] || extra+=(--keep-unit)      # with a systemd host nspawn asks it for a scope of its own
  (
    # without a systemd host every guest gets a cgroup of its own here: guests that share one break each other's sessions
    if [ ! -d /run/systemd/system ]; then
      for h in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd /sys/fs/cgroup/memory /sys/fs/cgroup/pids; do
        [ -f $h/cgroup.procs ] || continue
        mkdir -p "$h/lab-$name"; echo $BASHPID >"$h/lab-$name/cgroup.procs"
      done
    fi
    exec env "${env[@]}" setsid systemd-nspawn -q -D "$s/root" -M "lab-$name" --boot --network-namespace-path="/run/netns/$ns" --register=no --kill-signal=SIGRTMIN+3 \
      --resolv-conf=off --timezone=off --link-journal=no --console=read-only "${extra[@]}"
  ) </dev/null >>"$s/console" 2>&1 &
  echo $! >"$s/pid"
  for i in $(seq 300); do
    kill -0 "$(cat "$s/pid")" 2>/dev/null || { cat "$s/console" >&2; return 1; }
    # pam_nologin refuses logins until systemd-user-sessions has run: a port that answers is not a server that answers
    ssh -F "$s/ssh_config" -o BatchMode=yes "$name" true 2>/dev/null </dev/null && { cat "$s/ip"; return 0; }
    sleep 0.1
  done
  tail -20 "$s/console" >&2; return 1
}
case $verb in
up)
  n=${3:?N (1..254)} suite=${4:?suite}; base=$dir/base-$suite
  [ -f "$base.done" ] || { echo "no base: run base.sh $suite $dir" >&2; exit 2; }
  down; mkdir -p "$s/disk" "$s/root"; chmod 755 "$s"
  [ -z "${LAB_TMPFS:-}" ] || mount -t tmpfs -o mode=755 "lab-$name" "$s/disk"
  mkdir -p "$s/disk/upper" "$s/disk/work"
  echo "$net.$n.0/24" >"$s/net"; echo "$net.$n.2" >"$s/ip"
  mount -t overlay "lab-$name" -o "lowerdir=$base,upperdir=$s/disk/upper,workdir=$s/disk/work" "$s/root"
  echo "$name" >"$s/root/etc/hostname"; printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >"$s/root/etc/hosts"; resolv >"$s/root/etc/resolv.conf.lab"; mv "$s/root/etc/resolv.conf.lab" "$s/root/etc/resolv.conf"
  ip netns add "$ns"; ip link add "$veth" type veth peer name host0 netns "$ns"
  ip addr add "$net.$n.1/24" dev "$veth"; ip link set "$veth" up
  ip -n "$ns" link set lo up; ip -n "$ns" addr add "$net.$n.2/24" dev host0; ip -n "$ns" link set host0 up; ip -n "$ns" route add default via "$net.$n.1"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  iptables -t nat -I POSTROUTING -s "$net.$n.0/24" ! -d "$net.0.0/16" -m comment --comment "lab-$name" -j MASQUERADE
  iptables -I FORWARD -s "$net.$n.0/24" -m comment --comment "lab-$name" -j ACCEPT; iptables -I FORWARD -d "$net.$n.0/24" -m comment --comment "lab-$name" -j ACCEPT
  ssh_files; boot || { down; exit 1; };;
off) power_off;;                                                   # the power goes: PID 1 is killed, the disk stays (pages the kernel has are not lost: see the loop method)
on) [ ! -f "$s/pid" ] || ! kill -0 "$(cat "$s/pid")" 2>/dev/null || { echo "$name is running" >&2; exit 2; }; boot;;   # also after `reboot` inside, which only switches off
down) down;;
poweroff) down poweroff;;
ssh) shift 2; exec ssh -F "$s/ssh_config" -o BatchMode=yes "$name" "$@";;
cut) ip link set "$veth" down;;                                    # silence: no RST, no FIN
lossy) n4=$(cat "$s/ip"); iptables -I INPUT -s "$n4" -m statistic --mode random --probability "${3:?0..1}" -m comment --comment "lab-$name" -j DROP
  iptables -I OUTPUT -d "$n4" -m statistic --mode random --probability "$3" -m comment --comment "lab-$name" -j DROP;;                     # between this machine and the guest
mend) ip link set "$veth" up; tc qdisc del dev "$veth" root 2>/dev/null || true; unlose;;
*) echo "unknown verb: $verb" >&2; exit 2;;
esac
