package setup

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"dray/cmd/dray/setup/edit"
	"dray/cmd/dray/setup/install"
)

const (
	containerdConfig = "/etc/containerd/config.toml"
	containerdCerts  = "/etc/containerd/certs.d/"
)

func containerdFlags(cmd *cobra.Command, f *flags) {
	cmd.Flags().BoolVar(&f.hostsOnly, "hosts-only", false, "leave config.toml alone, so that containerd need not restart")
}

// containerd plans a hosts.toml for each registry, and a config.toml that names the directory of
// these files.
func containerd(s setting) (plan, error) {
	if s.version.before(1, 5) {
		return plan{}, fmt.Errorf("containerd %s does not read hosts.toml; install 1.5 or later", s.version)
	}
	p := plan{apply: map[string]string{containerdConfig: "systemctl restart containerd"}, notes: s.mirror.plainHTTP()}
	const certificate = containerdCerts + "dray.pem"
	p.changes = s.mirror.certificate(certificate)
	for _, r := range s.mirror.registries {
		p.changes = append(p.changes, s.hostsFile(containerdCerts, r, certificate, s.version.from(2, 2)))
	}
	if s.hostsOnly {
		p.notes = append(p.notes, "Kubernetes reads these files only if the CRI plugin of containerd has config_path = "+strconv.Quote(strings.TrimSuffix(containerdCerts, "/"))+" in "+containerdConfig+", or if containerd is 2.3 or later")
	} else {
		p.changes = append(p.changes, install.Change{Path: containerdConfig, Merge: s.criConfig})
	}
	if !s.version.from(2, 2) {
		p.notes = append(p.notes, "the files let dray answer pulls but no questions about referrers, because containerd before 2.2 refuses a file with that word; if all nodes have 2.2 or later, set --client-version 2.2")
	}
	if s.mirror.auth {
		p.notes = append(p.notes, "containerd has no credentials for mirrors, and this listener wants some: use a listener without auth, or add a header of your own to each hosts.toml: [host."+strconv.Quote(s.mirror.url())+".header] and below it Authorization = \"Basic …\"")
	}
	return p, nil
}

// hostsFile returns the change of one registry's hosts.toml below the directory dir. containerd's
// docs/hosts.md describes the format. containerd before 2.1 ignores dial_timeout. The capability
// referrers exists since containerd 2.2.
func (s setting) hostsFile(dir string, r registry, certificate string, referrers bool) install.Change {
	host := s.mirror.url()
	if r.byPath {
		host += "/" + r.prefix
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"", host)
	if referrers {
		b.WriteString(`, "referrers"`)
	}
	fmt.Fprintf(&b, "]\n  dial_timeout = %q\n", s.dialTimeout)
	if s.mirror.authority != nil {
		fmt.Fprintf(&b, "  ca = %q\n", certificate)
	}
	section := b.String()
	return install.Change{Path: dir + r.name + "/hosts.toml", Merge: func(old []byte) ([]byte, error) {
		return mergeHosts(old, host, section, r.origin())
	}}
}

// mergeHosts puts the section of a mirror before the sections of other hosts, because containerd
// asks the hosts in the order of the file.
func mergeHosts(old []byte, host, section, origin string) ([]byte, error) {
	f, err := edit.ParseTOML(old)
	if err != nil {
		return nil, err
	}
	if has := f.Get("host", host); has != nil {
		wants, err := edit.ParseTOML([]byte(section))
		if err != nil {
			return nil, err
		}
		if !contains(has, wants.Get("host", host)) {
			return nil, fmt.Errorf("it has a section for %s with other values; remove the section, or give it these:\n%s", host, section)
		}
	} else if err := f.Insert(section, "host"); err != nil {
		return nil, err
	}
	if f.Get("server") == nil {
		if err := f.Set(nil, "server", origin); err != nil {
			return nil, err
		}
	}
	return f.Text(), nil
}

// contains reports whether a table has all keys of another table, with the same values.
func contains(table, keys any) bool {
	has, ok := table.(map[string]any)
	wants, ok2 := keys.(map[string]any)
	if !ok || !ok2 {
		return false
	}
	for key, value := range wants {
		if !reflect.DeepEqual(has[key], value) {
			return false
		}
	}
	return true
}

// criConfig sets the directory of the hosts.toml files for the CRI plugin, which serves Kubernetes.
// It changes nothing if the directory is set already, or if the plugin is disabled. Since
// containerd 2.3, this directory is the default.
func (s setting) criConfig(old []byte) ([]byte, error) {
	if len(bytes.TrimSpace(old)) == 0 {
		switch {
		case s.version.from(2, 3):
			return nil, nil
		case s.version.from(2, 0):
			old = []byte("version = 3\n")
		default:
			old = []byte("version = 2\n") // every containerd reads this version
		}
	}
	f, err := edit.ParseTOML(old)
	if err != nil {
		return nil, err
	}
	disabled, _ := f.Get("disabled_plugins").([]any)
	for _, plugin := range []any{"cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"} {
		if slices.Contains(disabled, plugin) {
			return nil, nil
		}
	}
	// The name of the plugin depends on the version of the file. containerd 2.4 writes version 4.
	table := []string{"plugins", "io.containerd.grpc.v1.cri", "registry"}
	switch version, _ := f.Get("version").(int64); {
	case version > 2:
		table[1] = "io.containerd.cri.v1.images"
	case version < 2:
		return nil, errors.New("it has no version, or one before 2; migrate it by containerd config migrate")
	}
	settings, _ := f.Get(table...).(map[string]any)
	if path, _ := settings["config_path"].(string); path != "" {
		if slices.Contains(strings.Split(path, ":"), strings.TrimSuffix(containerdCerts, "/")) {
			return nil, nil
		}
		return nil, fmt.Errorf("its config_path is %s, so Kubernetes does not read the files below %s; put this directory there", path, containerdCerts)
	}
	for _, former := range []string{"mirrors", "configs"} {
		if has, _ := settings[former].(map[string]any); len(has) > 0 {
			return nil, fmt.Errorf("it has registry.%s for %s, and containerd takes either these or config_path; move these settings to files below %s",
				former, strings.Join(slices.Sorted(maps.Keys(has)), ", "), containerdCerts)
		}
	}
	if s.version.from(2, 3) {
		return nil, nil
	}
	if err := f.Set(table, "config_path", strings.TrimSuffix(containerdCerts, "/")); err != nil {
		return nil, err
	}
	return f.Text(), nil
}
