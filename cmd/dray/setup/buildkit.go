package setup

import (
	"dray/cmd/dray/setup/edit"
	"dray/cmd/dray/setup/install"
)

const (
	buildkitConfig      = "/etc/buildkit/buildkitd.toml"
	buildkitCertificate = "/etc/buildkit/dray.pem"
)

// buildkit plans buildkitd.toml. BuildKit puts the path of a mirror's URL after /v2/ in requests.
// There, dray reads the path as the prefix of an upstream.
func buildkit(s setting) (plan, error) {
	found, notes := s.mirror.byPrefix("BuildKit")
	p := plan{apply: map[string]string{buildkitConfig: "systemctl restart buildkit, or: docker buildx create --use --buildkitd-config " + buildkitConfig}}
	p.notes = append(s.mirror.plainHTTP(), notes...)
	p.changes = append(s.mirror.certificate(buildkitCertificate), install.Change{Path: buildkitConfig, Merge: func(old []byte) ([]byte, error) {
		return s.buildkitMerge(old, found)
	}})
	p.notes = append(p.notes, "the builder inside the Docker daemon does not read this file; it uses registry-mirrors, which dray setup docker writes")
	p.notes = append(p.notes, s.mirror.login("BuildKit sends a mirror those of whoever builds, so run docker login "+s.mirror.host)...)
	return p, nil
}

func (s setting) buildkitMerge(old []byte, registries []registry) ([]byte, error) {
	f, err := edit.ParseTOML(old)
	if err != nil {
		return nil, err
	}
	for _, r := range registries {
		if err := f.Prepend([]string{"registry", r.name}, "mirrors", s.mirror.host+"/"+r.prefix); err != nil {
			return nil, err
		}
	}
	host := []string{"registry", s.mirror.host}
	plain := s.mirror.scheme == "http"
	// Without a setting, BuildKit speaks plain HTTP to the loopback interface, and TLS elsewhere.
	speaks, set := f.Get(append(host, "http")...).(bool)
	if !set {
		speaks = s.mirror.loopback()
	}
	if speaks != plain {
		err = f.Set(host, "http", plain)
	}
	if err == nil && s.mirror.authority != nil {
		err = f.Prepend(host, "ca", buildkitCertificate)
	}
	if err != nil {
		return nil, err
	}
	return f.Text(), nil
}
