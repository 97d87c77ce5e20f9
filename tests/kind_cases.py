"""Configurations for kind, and what kind v0.30.0 says of each: nothing, or its reason; chapter 06's tests use them."""

# ruff: noqa: E501 - a row of these tables is a line

HEAD = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"


def _mapped(*mappings: str) -> str:
    return f"{HEAD}nodes: [{{role: control-plane, extraPortMappings: [{', '.join(mappings)}]}}]\n"


def _net(text: str) -> str:
    return f"{HEAD}networking: {{{text}}}\n"


ACCEPTED = {
    "nothing but the head": HEAD,
    "an empty name": f"{HEAD}name: ''\n",
    "a null name": f"{HEAD}name:\n",
    "a number as a name": f"{HEAD}name: 1.10\n",
    "a truth value as a name": f"{HEAD}name: on\n",
    "a name with dots and dashes": f"{HEAD}name: -a.b-1\n",
    "no nodes": f"{HEAD}name: t\nnodes: []\n",
    "null nodes": f"{HEAD}name: t\nnodes:\n",
    "a node without a role": f"{HEAD}nodes:\n- image: x\n- role: worker\n",
    "an empty entry of nodes": f"{HEAD}nodes:\n-\n- role: control-plane\n",
    "null mappings": f"{HEAD}nodes:\n- role: control-plane\n  extraPortMappings:\n",
    "an empty mapping": _mapped("~", "{containerPort: 80}"),
    "several control planes": f"{HEAD}nodes:\n- role: worker\n- role: control-plane\n- role: control-plane\n",
    "no hostPort": _mapped("{containerPort: 8080}", "{containerPort: 8443}"),
    "hostPort 0 and -1, twice each": _mapped(*(f"{{containerPort: 1, hostPort: {p}}}" for p in (0, 0, -1, -1))),
    "a port for three protocols": _mapped(*(f"{{containerPort: 53, hostPort: 53, protocol: {p}}}" for p in ("TCP", "udp", "Sctp"))),
    "a port on two addresses": _mapped(*(f"{{containerPort: 80, hostPort: 80, listenAddress: {a}}}" for a in ("127.0.0.1", "10.0.0.1"))),
    "a port on IPv6": _mapped('{containerPort: 80, hostPort: 80, listenAddress: "::1"}'),
    "a port by name and by default protocol": _mapped("{containerPort: 80, hostPort: 80}", "{containerPort: 80, hostPort: 80, protocol: TCP}"),
    "a port of two nodes": f"{HEAD}nodes:\n- extraPortMappings: [{{hostPort: 80}}]\n- extraPortMappings: [{{hostPort: 80}}]\n",
    "a port in other ways of writing": _mapped("{containerPort: 0x50, hostPort: 8e1}", "{containerPort: 0o120, hostPort: 81.0}"),
    "networking": _net("ipFamily: dual, apiServerAddress: 0.0.0.0, apiServerPort: 6443, disableDefaultCNI: yes, kubeProxyMode: nftables"),
    "no proxy of Kubernetes": _net("kubeProxyMode: none, dnsSearch: [], apiServerPort: -1"),
    "subnets of IPv6": _net('ipFamily: ipv6, podSubnet: "fd00:10:244::/56", serviceSubnet: "fd00:10:96::/112"'),
    "subnets of both": _net('ipFamily: dual, podSubnet: "10.244.0.0/16,fd00:10:244::/56", serviceSubnet: 10.96.0.0/16'),
    "gates and runtime": f"{HEAD}featureGates: {{A: true, B: off}}\nruntimeConfig: {{api/alpha: false, api/beta: 1}}\n",
    "patches": f"{HEAD}kubeadmConfigPatches:\n- |\n  kind: X\ncontainerdConfigPatches:\n- |-\n  [plugins]\n"
    "kubeadmConfigPatchesJSON6902:\n- {group: g, version: v, kind: k, patch: '[]'}\ncontainerdConfigPatchesJSON6902: ['[]']\n",
    "labels, mounts, an image": f"{HEAD}nodes:\n- image: kindest/node:v1.33.0\n  labels: {{tier: 1, zone: on}}\n  extraMounts:\n"
    "  - {hostPath: ., containerPath: /x, readOnly: true, selinuxRelabel: no, propagation: HostToContainer}\n  - {}\n",
    "JSON": '{"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4", "name": "t", "nodes": [{"role": "control-plane"}]}',
    "anchors": f"{HEAD}nodes:\n- &n {{role: control-plane, labels: {{a: b}}}}\n- {{<<: *n, role: worker}}\n- *n\n",
    "several documents": f"{HEAD}name: t\n---\nname: [\n",
    "a document's marks": f"---\n{HEAD}...\n",
    "a tab behind a colon": f"{HEAD}name:\tt\n",
    "a BOM": f"\ufeff{HEAD}name: t\n",
}  # fmt: skip

# What is refused: the configuration, a part of kind's reason, and the place that we name.
REFUSED = {
    "text ports": (_mapped('{containerPort: 80, hostPort: "80"}'), "cannot unmarshal !!str `80` into int32", "nodes[0].extraPortMappings[0].hostPort"),
    "a placeholder": (_mapped("{containerPort: 80}", '{containerPort: "${PORT}"}'), "cannot unmarshal !!str", "nodes[0].extraPortMappings[1].containerPort"),
    "a time as a port": (_mapped("{containerPort: 22:22}"), "cannot unmarshal !!str `22:22`", "containerPort"),
    "a truth value as a port": (_mapped("{hostPort: true}"), "cannot unmarshal !!bool `true` into int32", "hostPort"),
    "a port of 33 bits": (_mapped("{hostPort: 4294967376}"), "cannot unmarshal !!int", "hostPort"),
    "a port above": (_mapped("{hostPort: 65536}"), "invalid port number: 65536", "nodes[0].extraPortMappings[0].hostPort"),
    "a port below": (_mapped("{containerPort: -2}"), "invalid port number: -2", "nodes[0].extraPortMappings[0].containerPort"),
    "a role among the mappings": (_mapped("{containerPort: 1}", "{role: worker}"), "field role not found", "nodes[0].extraPortMappings[1].role"),
    "an unknown field": (f"{HEAD}workers: 3\n", "field workers not found", "workers"),
    "a field of another case": (f"{HEAD}Name: t\n", "field Name not found", "Name"),
    "an unknown field of a node": (f"{HEAD}nodes:\n- role: control-plane\n  taints: []\n", "field taints not found", "nodes[0].taints"),
    "an unknown field of the network": (_net("podCIDR: 10.0.0.0/8"), "field podCIDR not found", "networking.podCIDR"),
    "an unknown field of a mount": (f"{HEAD}nodes: [{{extraMounts: [{{readonly: true}}]}}]\n", "field readonly not found", "nodes[0].extraMounts[0].readonly"),
    "an unknown role": (f"{HEAD}nodes:\n- role: control-plane\n- role: master\n", '"master" is not a valid node role', "nodes[1].role"),
    "a role of another case": (f"{HEAD}nodes:\n- role: Control-Plane\n", "is not a valid node role", "nodes[0].role"),
    "workers alone": (f"{HEAD}nodes:\n- role: worker\n", "must have at least one control-plane node", "nodes"),
    "an unknown protocol": (_mapped("{hostPort: 80, protocol: HTTP}"), 'Unknown PortMappingProtocol: "HTTP"', "nodes[0].extraPortMappings[0].protocol"),
    "a port twice": (_mapped("{hostPort: 80}", "{hostPort: 80}"), "already configured", "nodes[0].extraPortMappings[1].hostPort"),
    "a port everywhere and on one address": (_mapped("{hostPort: 80, listenAddress: 0.0.0.0}", "{hostPort: 80, listenAddress: 127.0.0.1}"), "already configured", "nodes[0].extraPortMappings[1].hostPort"),
    "a port on all addresses of both families": (_mapped("{hostPort: 80, listenAddress: 10.0.0.1}", '{hostPort: 80, listenAddress: "::"}'), "already configured", "nodes[0].extraPortMappings[1].hostPort"),
    "an unknown propagation": (f"{HEAD}nodes: [{{extraMounts: [{{propagation: none}}]}}]\n", 'Unknown MountPropagation: "none"', "nodes[0].extraMounts[0].propagation"),
    "an unknown family": (_net("ipFamily: IPv4"), "invalid ipFamily: IPv4", "networking.ipFamily"),
    "an unknown proxy": (_net("kubeProxyMode: ebpf"), "invalid kubeProxyMode: ebpf", "networking.kubeProxyMode"),
    "a bad port of the API": (_net("apiServerPort: 66000"), "invalid apiServerPort", "networking.apiServerPort"),
    "no subnet": (_net("podSubnet: 10.244.0.0"), "invalid pod subnet", "networking.podSubnet"),
    "a subnet with a mask": (_net("serviceSubnet: 10.96.0.0/255.255.0.0"), "invalid service subnet", "networking.serviceSubnet"),
    "a subnet of the other family": (_net('podSubnet: "fd00::/56"'), "expected IPv4 CIDR", "networking.podSubnet"),
    "two subnets of one family": (_net("ipFamily: dual, podSubnet: '10.1.0.0/16,10.2.0.0/16'"), "invalid pod subnet", "networking.podSubnet"),
    "two subnets for one family": (_net("podSubnet: '10.1.0.0/16,fd00::/56'"), "only one CIDR allowed", "networking.podSubnet"),
    "capitals in the name": (f"{HEAD}name: Course\n", "'Course' is not a valid cluster name", "name"),
    "an underscore in the name": (f"{HEAD}name: my_cluster\n", "is not a valid cluster name", "name"),
    "a list as a name": (f"{HEAD}name: [a]\n", "cannot unmarshal !!seq into string", "name"),
    "a mapping of nodes": (f"{HEAD}nodes: {{role: control-plane}}\n", "cannot unmarshal !!map", "nodes"),
    "a number of nodes": (f"{HEAD}nodes: 3\n", "cannot unmarshal !!int `3`", "nodes"),
    "a name as a node": (f"{HEAD}nodes: [control-plane]\n", "cannot unmarshal !!str", "nodes[0]"),
    "a patch that is not a text": (f"{HEAD}kubeadmConfigPatches:\n- kind: X\n", "cannot unmarshal !!map into string", "kubeadmConfigPatches[0]"),
    "a text as a gate": (f"{HEAD}featureGates: {{A: enabled}}\n", "cannot unmarshal !!str `enabled` into bool", "featureGates.A"),
    "a quoted truth value": (_net('disableDefaultCNI: "true"'), "cannot unmarshal !!str `true` into bool", "networking.disableDefaultCNI"),
    "a field twice": (f"{HEAD}name: a\nname: b\n", 'mapping key "name" already defined', "line 4"),
    "an old version": ("kind: Cluster\napiVersion: kind.sigs.k8s.io/v1alpha3\n", "unknown apiVersion: kind.sigs.k8s.io/v1alpha3", "kind.sigs.k8s.io/v1alpha3"),
    "no version": ("kind: Cluster\n", "unknown apiVersion", "apiVersion"),
    "another kind": ("kind: Config\napiVersion: kind.x-k8s.io/v1alpha4\n", "unknown kind Config", "Config"),
    "no kind": ("apiVersion: kind.x-k8s.io/v1alpha4\n", "unknown kind", "kind"),
    "nothing": ("", "", "apiVersion"),
    "a subnet of a zone": (_net('ipFamily: ipv6, podSubnet: "fe80::1%eth0/64"'), "invalid CIDR address", "networking.podSubnet"),
    "a mapped subnet": (_net('ipFamily: ipv6, podSubnet: "::ffff:10.0.0.0/104"'), "expected IPv6 CIDR", "networking.podSubnet"),
    "a tab below other ends of lines": ("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\x85\x85\nnodes:\n\t- role: worker\n", "cannot start any token", "line"),
    "tabs": (f"{HEAD}nodes:\n\t- role: worker\n", "cannot start any token", "line 4"),
    "bad indentation": (f"{HEAD}nodes:\n  - role: worker\n - role: worker\n", "did not find expected", "line 5"),
    "an anchor at the top": (f"{HEAD}x-node: &n {{role: control-plane}}\nnodes: [*n]\n", "field x-node not found", "x-node"),
}  # fmt: skip

# What kind's check lets pass, and what makes a cluster fail in every case: Docker takes no such address or name.
DOCKER_REFUSES = {
    "a name as an address": (_mapped("{hostPort: 80, listenAddress: localhost}"), "nodes[0].extraPortMappings[0].listenAddress"),
    "a bad address": (_mapped("{hostPort: 80, listenAddress: 127.0.0.256}"), "nodes[0].extraPortMappings[0].listenAddress"),
    "a bad address of the API": (_net("apiServerAddress: here"), "networking.apiServerAddress"),
    "a name that is too long": (f"{HEAD}name: {'a' * 51}\n", "name"),
}  # fmt: skip
