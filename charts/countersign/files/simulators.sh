#!/bin/sh
# For trials: one TPM simulator (swtpm) a slot, each with an endorsement certificate of this node's own little CA, whose two
# certificates are printed: they are the ekRoots of a DevicePool of assurance Virtual. A simulator that ends is started again.
# COUNTERSIGN_SOCKET_DIR: where slots are. COUNTERSIGN_SLOTS: how many. COUNTERSIGN_NODE: in the certificates' subject.
set -eu
umask 027
dir=$COUNTERSIGN_SOCKET_DIR
state=$dir/.state
ca=$state/ca
mkdir -p "$ca"
chmod 700 "$state"
chmod 755 "$dir"

cat >"$ca/options" <<END
--platform-manufacturer Countersign
--platform-version 1
--platform-model Trial
END
cat >"$ca/localca.conf" <<END
statedir = $ca
signingkey = $ca/signkey.pem
issuercert = $ca/issuercert.pem
certserial = $ca/certserial
END
cat >"$ca/setup.conf" <<END
create_certs_tool = $(command -v swtpm_localca)
create_certs_tool_config = $ca/localca.conf
create_certs_tool_options = $ca/options
active_pcr_banks = sha256
END

serve() {
  name=$1
  while true; do
    rm -f "$dir/$name/tpm.sock" "$dir/$name/tpm.sock.ctrl"
    swtpm socket --tpm2 --tpmstate "dir=$state/$name" --flags not-need-init,startup-clear \
      --server "type=unixio,path=$dir/$name/tpm.sock,mode=0660" --ctrl "type=unixio,path=$dir/$name/tpm.sock.ctrl,mode=0660" 2>/dev/null || true
    echo "the simulator of $name ended and is started again"
    sleep 1
  done
}

number=0
while [ "$number" -lt "$COUNTERSIGN_SLOTS" ]; do
  name=slot-$number
  if [ ! -e "$state/$name/made" ]; then
    rm -rf "${state:?}/$name"
    mkdir -m 700 "$state/$name"
    swtpm_setup --tpm2 --tpm-state "$state/$name" --create-ek-cert --create-platform-cert --lock-nvram \
      --config "$ca/setup.conf" --vmid "$COUNTERSIGN_NODE-$name" --runas "$(id -u)" >/dev/null
    touch "$state/$name/made"
  fi
  mkdir -p "$dir/$name"
  serve "$name" &
  number=$((number + 1))
done
cat "$ca/swtpm-localca-rootca-cert.pem" "$ca/issuercert.pem"
trap 'kill 0; exit 0' TERM INT
wait
