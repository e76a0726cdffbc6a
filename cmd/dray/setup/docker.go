package setup

import (
	"errors"
	"slices"
	"strings"

	"dray/cmd/dray/setup/edit"
	"dray/cmd/dray/setup/install"
)

const (
	dockerConfig = "/etc/docker/daemon.json"
	dockerCerts  = "/etc/docker/certs.d/"
)

// docker plans the files of both image stores of Docker, so that the user can switch to the other
// store later. The classic store reads daemon.json and the certificate. The containerd store reads
// hosts.toml, which names the certificate.
func docker(s setting) (plan, error) {
	p := plan{apply: map[string]string{dockerConfig: "systemctl reload docker"}, notes: s.mirror.plainHTTP()}
	certificate := dockerCerts + s.mirror.host + "/ca.crt"
	p.changes = s.mirror.certificate(certificate)
	for _, r := range s.mirror.registries {
		if r.name == dockerHub {
			mirror, err := s.dockerMirror(r)
			if err != nil {
				return plan{}, err
			}
			p.changes = append(p.changes, install.Change{Path: dockerConfig, Merge: func(old []byte) ([]byte, error) {
				return edit.PrependJSON(old, "registry-mirrors", mirror, sameURL)
			}})
		}
		// Docker before 29 does not read hosts.toml, and the classic store never does.
		if !s.version.before(29, 0) {
			p.changes = append(p.changes, s.hostsFile(dockerCerts, r, certificate, true))
		}
	}
	others := slices.ContainsFunc(s.mirror.registries, func(r registry) bool { return r.name != dockerHub })
	if others && s.version.before(29, 0) {
		p.notes = append(p.notes, "this version of Docker uses a mirror for Docker Hub alone; for other registries put the name of the mirror before that of the image: docker pull "+s.mirror.host+"/PREFIX/IMAGE")
	} else if others {
		p.notes = append(p.notes, "with the classic image store, Docker uses a mirror for Docker Hub alone; only the containerd image store, the default of new installations of Docker 29, reads hosts.toml for other registries")
	}
	if s.mirror.auth {
		p.notes = append(p.notes, "Docker has no credentials for mirrors, and this listener wants some, so Docker will pull from the registries themselves; use a listener without auth, or pull by the name of dray: docker login "+s.mirror.host)
	}
	return p, nil
}

// dockerMirror returns the URL of the mirror for the key registry-mirrors.
func (s setting) dockerMirror(hub registry) (string, error) {
	if s.mirror.plain && !hub.byPath {
		return s.mirror.url(), nil
	}
	if hub.prefix == "" {
		return "", errors.New("plain names at this listener are not those of Docker Hub, and the upstream of Docker Hub has no prefix; give it one in the configuration of dray (prefixes)")
	}
	if s.version.before(24, 0) {
		return "", errors.New("plain names at this listener are not those of Docker Hub, so the URL of the mirror needs a path, and Docker before 24 does not start with one; let Docker Hub be the first upstream of the listener")
	}
	return s.mirror.url() + "/" + hub.prefix, nil
}

func sameURL(a, b string) bool { return strings.TrimRight(a, "/") == strings.TrimRight(b, "/") }
