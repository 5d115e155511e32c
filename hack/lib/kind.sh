# shellcheck shell=bash
# A kind cluster of two nodes on whichever engine this machine offers. The choice is kept in .cluster/engine:
# "host" (the machine's Docker, upstream node image) or "own" (see engine.sh, our node image).
: "${root:?common.sh comes first}" "${state:?}" "${engine_name:?engine.sh}" "${engine_socket:?}" "${kubernetes_minor:?node-image.sh}"

cluster_name=$engine_name
cluster_nodes=("$cluster_name-control-plane" "$cluster_name-worker")
kubeconfig=$state/kubeconfig
audit_log=/var/log/kubernetes/audit.log
# Upstream's images are made for one release of kind: these are v0.33.0's, the one in hack/kind-node/programs.
declare -A upstream_images=(
    [1.34]=kindest/node:v1.34.11@sha256:44e222ee2132dab25ff87301682f89eb82c7880ea3a1bf543bfe9708fd08d67d
    [1.35]=kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0
    [1.36]=kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed
    [1.37]=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5
)

# === which engine

# choose_engine: take the machine's engine only with the upstream image at hand; PODWITNESS_ENGINE=own|host decides.
choose_engine() {
    mkdir -p "$state"
    [[ ! -e $state/engine ]] || return 0
    case ${PODWITNESS_ENGINE:-} in
    own | host) echo "$PODWITNESS_ENGINE" >"$state/engine" ;;
    '') if host_engine_usable; then echo host; else echo own; fi >"$state/engine" ;;
    *) die "PODWITNESS_ENGINE is own or host, not $PODWITNESS_ENGINE" ;;
    esac
}

host_engine_usable() {
    local image=${upstream_images[$kubernetes_minor]:-}
    [[ -n $image ]] && command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1 || return 1
    docker image inspect "$image" >/dev/null 2>&1 || timeout 600 docker pull --quiet "$image" >/dev/null 2>&1
}

engine_is() {
    [[ -e $state/engine && $(cat "$state/engine") == "$1" ]]
}

docker_here() {
    if engine_is own; then engine_docker "$@"; else docker "$@"; fi
}

# kind asks the operating system for a free port where it runs: that has to be where Docker publishes it.
kind_here() {
    local kind
    kind=$(tools)/kind
    if engine_is own; then
        DOCKER_HOST=unix://$engine_socket in_engine "$kind" "$@"
    else
        KIND_EXPERIMENTAL_DOCKER_NETWORK=$cluster_name "$kind" "$@"
    fi
}

# === the cluster

# import_node_image: the root file system becomes an image of our engine, once per content.
node_image_tag() {
    if engine_is own; then
        echo "podwitness-node:$(basename "$1")"
    else
        echo "${upstream_images[$kubernetes_minor]:?no upstream image for this minor}"
    fi
}

import_node_image() {
    local tag
    tag=$(node_image_tag "$1")
    engine_docker image inspect "$tag" >/dev/null 2>&1 && return
    engine_docker import --change 'ENTRYPOINT ["/kind/init"]' --change 'ENV container=docker' \
        --change "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" "$1/node.tar" "$tag"
}

create_cluster() {
    write_cluster_config
    kind_here create cluster --name "$cluster_name" --image "$1" --config "$state/kind.yaml" \
        --kubeconfig "$kubeconfig" --wait 180s
    chmod 0600 "$kubeconfig"
    echo "$kubernetes_minor" >"$state/kubernetes"
}

delete_cluster() {
    kind_here delete cluster --name "$cluster_name" --kubeconfig "$kubeconfig"
    engine_is own || docker network rm "$cluster_name" >/dev/null 2>&1 || true
}

cluster_exists() {
    [[ -n $(docker_here ps --all --quiet --filter "label=io.x-k8s.kind.cluster=$cluster_name" 2>/dev/null) ]]
}

write_cluster_config() {
    mkdir -p "$state/audit"
    cp "$root/hack/kind-node/audit-policy.yaml" "$state/audit/policy.yaml"
    cluster_config >"$state/kind.yaml"
}

cluster_config() {
    local address=127.0.0.1
    ! engine_is own || address=$(engine_address)
    cat <<YAML
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
networking:
  apiServerAddress: "$address"
kubeadmConfigPatches:
  - |
    kind: ClusterConfiguration
    etcd:
      local:
        extraArgs:
$(extra_args unsafe-no-fsync true)
    apiServer:
      extraArgs:
$(extra_args audit-policy-file /etc/kubernetes/audit/policy.yaml audit-log-path "$audit_log" audit-log-maxsize 200 \
        audit-log-maxbackup 2)
      extraVolumes:
        - {name: audit-policy, hostPath: /etc/kubernetes/audit, mountPath: /etc/kubernetes/audit, readOnly: true}
        - {name: audit-log, hostPath: "${audit_log%/*}", mountPath: "${audit_log%/*}", pathType: DirectoryOrCreate}
nodes:
  - role: control-plane
    extraMounts:
      - {hostPath: "$state/audit", containerPath: /etc/kubernetes/audit, readOnly: true}
$(parts_mount)
  - role: worker
    extraMounts:
$(parts_mount)
YAML
}

# kind writes kubeadm's v1beta4 configuration from 1.36 on, where extraArgs is a list and no longer a map.
extra_args() {
    while (($#)); do
        if version_at_least "$kubernetes_minor" 1.36; then
            printf '          - {name: "%s", value: "%s"}\n' "$1" "$2"
        else
            printf '          "%s": "%s"\n' "$1" "$2"
        fi
        shift 2
    done
}

parts_mount() {
    if engine_is own; then
        printf '      - {hostPath: "%s", containerPath: /kind/parts, readOnly: true}\n' "$(node_parts)"
    fi
}

# Where udev makes no tunnel device for everybody, do it in the nodes; pods take it from there.
open_tunnel_device() {
    local node
    for node in "${cluster_nodes[@]}"; do
        docker_here exec "$node" sh -c \
            'mkdir -p /dev/net; [ -c /dev/net/tun ] || mknod /dev/net/tun c 10 200; chmod 0666 /dev/net/tun'
    done
}

kubectl_here() {
    "$(tools)/kubectl" --kubeconfig "$kubeconfig" "$@"
}

api_ready() {
    kubectl_here get --raw /readyz --request-timeout 5s >/dev/null
}

wait_until_ready() {
    eventually 60 api_ready
    kubectl_here wait --for=condition=Ready node --all --timeout=120s
    kubectl_here -n kube-system rollout status deployment/coredns --timeout=120s
    kubectl_here -n kube-system rollout status daemonset/kube-proxy --timeout=120s
    eventually 30 kubectl_here -n default get serviceaccount default
}
