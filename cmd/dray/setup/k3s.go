package setup

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"dray/cmd/dray/setup/edit"
	"dray/cmd/dray/setup/install"
)

const (
	k3sRegistries  = "/etc/rancher/k3s/registries.yaml"
	k3sCertificate = "/etc/rancher/k3s/dray.pem"
)

// k3s returns the plan for registries.yaml. When the program k3s starts, it makes the hosts.toml
// files of its containerd from this file. The documentation of k3s, "Private Registry
// Configuration", describes the format.
func k3s(s setting) (plan, error) {
	p := plan{apply: map[string]string{k3sRegistries: "systemctl restart k3s (k3s-agent on agents)"}, notes: s.mirror.plainHTTP()}
	p.changes = append(s.mirror.certificate(k3sCertificate), install.Change{Path: k3sRegistries, Merge: s.k3sMerge})
	p.notes = append(p.notes, "k3s has no setting for a dial time-out: if packets to the mirror are lost without an answer, a pull waits for 30 s at a time before it goes to the registry itself")
	p.notes = append(p.notes, s.mirror.login("add auth with username and password to configs."+s.mirror.host+" yourself, and let only root read the file")...)
	return p, nil
}

func (s setting) k3sMerge(old []byte) ([]byte, error) {
	return edit.YAML(old, func(root *yaml.Node) (changed bool, err error) {
		mirrors, err := edit.Child(root, "mirrors", yaml.MappingNode)
		if err != nil {
			return false, err
		}
		for _, r := range s.mirror.registries {
			added, err := s.k3sMirror(mirrors, r)
			if err != nil {
				return false, err
			}
			changed = changed || added
		}
		if s.mirror.authority == nil {
			return changed, nil
		}
		tls := root
		for _, key := range []string{"configs", s.mirror.host, "tls"} {
			if tls, err = edit.Child(tls, key, yaml.MappingNode); err != nil {
				return false, err
			}
		}
		file, err := edit.Child(tls, "ca_file", yaml.ScalarNode)
		switch {
		case err != nil:
			return false, err
		case file.Value == k3sCertificate:
			return changed, nil
		case file.Value != "":
			return false, fmt.Errorf("line %d: it already trusts %s for %s; add the certificate to that file, and leave out --ca", file.Line, file.Value, s.mirror.host)
		}
		*file = *edit.Scalar(k3sCertificate)
		return true, nil
	})
}

// k3sMirror makes the mirror the first endpoint of a registry. A mirror that is an endpoint already
// keeps its place, because somebody has chosen it.
func (s setting) k3sMirror(mirrors *yaml.Node, r registry) (added bool, err error) {
	endpoint := s.mirror.url()
	if r.byPath {
		endpoint += "/" + r.prefix + "/v2" // k3s adds /v2 only to an endpoint without a path
	}
	of, err := edit.Child(mirrors, r.name, yaml.MappingNode)
	if err != nil {
		return false, err
	}
	endpoints, err := edit.Child(of, "endpoint", yaml.SequenceNode)
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(endpoints.Content, func(n *yaml.Node) bool { return sameURL(n.Value, endpoint) }) {
		return false, nil
	}
	endpoints.Content = append([]*yaml.Node{edit.Scalar(endpoint)}, endpoints.Content...)
	return true, nil
}
