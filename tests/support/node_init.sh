#!/bin/sh
# The first process of a node: makes its file system, says so in STATE/ready, and reaps until it is killed.
# Usage, inside new mount, pid, network, ipc and uts namespaces: node_init.sh NAME STATE
set -eu
name=$1 state=$2
hostname "$name"
mount --make-rprivate /
mount --make-rshared / # kubelet wants shared propagation

# Every path inside is the default one; what is written to it lands in STATE.
for place in var/lib etc var/log; do
  layers="$state/layers/$place"
  mkdir -p "$layers/upper" "$layers/work"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$layers/upper,workdir=$layers/work" "/$place"
done
mount -t tmpfs tmpfs /run
for place in kubelet containerd; do # containers' layers cannot lie on an overlay
  mkdir -p "$state/$place" "/var/lib/$place"
  mount --bind "$state/$place" "/var/lib/$place"
done

# kubelet would change these for the whole machine; it finds its values there already.
mkdir -p "$state/sysctl"
for each in vm/overcommit_memory=1 kernel/panic=10 kernel/panic_on_oops=1; do
  file="$state/sysctl/$(basename "${each%=*}")"
  echo "${each#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${each%=*}"
done

trap 'exit 0' TERM
touch "$state/ready"
while :; do
  sleep 3600 &
  wait $! || true
done
