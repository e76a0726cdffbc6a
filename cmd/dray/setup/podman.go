package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"dray/cmd/dray/setup/edit"
	"dray/cmd/dray/setup/install"
)

const (
	podmanConfig = "/etc/containers/registries.conf.d/50-dray.conf"
	podmanCerts  = "/etc/containers/certs.d/"
)

// podman plans a separate file in registries.conf.d, with an entry for each registry. An entry in
// this file would replace another file's entry for the same registry, including the mirrors of that
// entry. So if another file has an entry for one of the registries, setup does not write the
// separate file.
// containers-registries.conf(5) describes the format.
func podman(s setting) (plan, error) {
	found, notes := s.mirror.byPrefix("Podman")
	p := plan{notes: append(s.mirror.plainHTTP(), notes...)}
	p.changes = append(s.mirror.certificate(podmanCerts+s.mirror.host+"/ca.crt"), install.Change{Path: podmanConfig, Merge: func(old []byte) ([]byte, error) {
		return s.podmanMerge(old, found)
	}})
	p.notes = append(p.notes, "Podman goes to the registry itself if the mirror fails before Podman has the manifest; if the mirror answers with errors later, Podman 4 ends the pull")
	p.notes = append(p.notes, s.mirror.login("run podman login "+s.mirror.host+" (a password for one pull, by --creds or by a pull secret of Kubernetes, is not sent to a mirror)")...)
	return p, nil
}

func (s setting) podmanMerge(old []byte, registries []registry) ([]byte, error) {
	f, err := edit.ParseTOML(old)
	if err != nil {
		return nil, err
	}
	for _, r := range registries {
		section := s.podmanRegistry(r)
		wants, err := edit.ParseTOML([]byte(section))
		if err != nil {
			return nil, err
		}
		if has := podmanEntry(f, r.name); has != nil {
			if !contains(has, podmanEntry(wants, r.name)) {
				return nil, fmt.Errorf("it has a [[registry]] for %s with other values; remove it, or give it these:\n%s", r.name, section)
			}
			continue
		}
		if err := s.podmanElsewhere(r, section); err != nil {
			return nil, err
		}
		if err := f.Insert(section, ""); err != nil {
			return nil, err
		}
	}
	return f.Text(), nil
}

// podmanElsewhere returns an error if another file has an entry for a registry. It also returns an
// error if another file has version 1 of the format: beside such a file, Podman refuses files of
// version 2, which setup writes.
func (s setting) podmanElsewhere(r registry, section string) error {
	for _, path := range append([]string{"/etc/containers/registries.conf"}, s.glob("/etc/containers/registries.conf.d/*.conf")...) {
		if path == podmanConfig {
			continue
		}
		text, err := s.read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := edit.ParseTOML(text)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		case f.Get("registries") != nil:
			return fmt.Errorf("%s has the form of version 1, and Podman does not read files of version 2 beside it; write its settings as [[registry]]", path)
		case podmanEntry(f, r.name) != nil:
			return fmt.Errorf("%s has a [[registry]] for %s, which one here would replace; add the mirror there:\n%s", path, r.name, section[strings.Index(section, "[[registry.mirror]]"):])
		}
	}
	return nil
}

func (s setting) podmanRegistry(r registry) string {
	insecure := ""
	if s.mirror.scheme == "http" {
		insecure = "insecure = true\n"
	}
	return fmt.Sprintf("[[registry]]\nprefix = %q\nlocation = %q\n\n[[registry.mirror]]\nlocation = %q\n%s", r.name, r.name, s.mirror.host+"/"+r.prefix, insecure)
}

// podmanEntry returns the entry of a registry, or nil. If an entry has no prefix, its location
// names the registry.
func podmanEntry(f *edit.TOML, name string) any {
	entries, _ := f.Get("registry").([]any)
	for _, e := range entries {
		entry, _ := e.(map[string]any)
		prefix := entry["prefix"]
		if prefix == nil || prefix == "" {
			prefix = entry["location"]
		}
		if prefix == name {
			return entry
		}
	}
	return nil
}
