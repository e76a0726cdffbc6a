package setup

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"dray/cmd/dray/config"
	"dray/cmd/dray/usage"
)

const dockerHub = "docker.io"

// mirror is a listener of dray as clients see it.
type mirror struct {
	scheme, host string // host may have a port
	// authority has the PEM certificates that clients have to trust, or is nil.
	authority  []byte
	registries []registry
	// plain says that, at this mirror, an image name without a prefix means Docker Hub.
	plain bool
	// auth says that clients need credentials. challenge says that the mirror demands them by a
	// challenge.
	auth, challenge bool
}

// registry is a registry from which clients pull through the mirror.
type registry struct {
	name string // the registry's name in names of images
	// prefix is the path prefix that selects the registry, or "" if there is none.
	prefix string
	// byPath says that clients have to send the prefix, because the query parameter ns that they send
	// may select another registry or none.
	byPath bool
}

func (m mirror) url() string { return m.scheme + "://" + m.host }

// origin is the URL of the registry itself.
func (r registry) origin() string {
	if r.name == dockerHub {
		return "https://registry-1.docker.io"
	}
	return "https://" + r.name
}

// mirrorFlags are the flags that describe the mirror.
type mirrorFlags struct {
	url, authority, listener string
	registries               []string
}

// find returns the mirror at --url or, without --url, a listener of the configuration.
func (f mirrorFlags) find(load func() (config.Config, error)) (m mirror, notes []string, err error) {
	if f.url != "" {
		m, err = parseURL(f.url)
		m.registries, m.plain = []registry{{name: dockerHub, prefix: dockerHub}}, true
	} else {
		m, notes, err = f.fromConfiguration(load)
	}
	if err != nil {
		return m, nil, err
	}
	if len(f.registries) > 0 {
		if m.registries, err = parseRegistries(f.registries); err != nil {
			return m, nil, err
		}
	}
	if f.authority == "" {
		return m, notes, nil
	}
	if m.scheme != "https" {
		return m, nil, fmt.Errorf("--ca: %s has no certificate, because it is plain HTTP; %w", m.url(), usage.Err)
	}
	m.authority, err = readAuthority(f.authority)
	return m, nil, err
}

// parseURL returns the mirror with a URL. Its errors do not contain the URL, because it may contain
// a password or a token.
func parseURL(text string) (mirror, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return mirror{}, fmt.Errorf("--url: not a URL; write one like https://dray.example.com; %w", usage.Err)
	case u.User != nil:
		return mirror{}, fmt.Errorf("--url: leave out the user and the password, which clients do not send to a mirror; %w", usage.Err)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return mirror{}, fmt.Errorf("--url: leave out what follows the host; a prefix belongs into --registry docker.io=PREFIX; %w", usage.Err)
	}
	return mirror{scheme: u.Scheme, host: strings.ToLower(u.Host)}, nil
}

// parseRegistries reads NAME and NAME=PREFIX.
func parseRegistries(flags []string) (all []registry, err error) {
	for _, flag := range flags {
		name, prefix, byPath := strings.Cut(flag, "=")
		prefix = cmp.Or(strings.Trim(prefix, "/"), name)
		if name == "" || strings.ContainsAny(name+prefix, " \"'\\?#") || strings.Contains(name, "/") {
			flag = flag[strings.LastIndexByte(flag, '@')+1:] // leaves out a password
			return nil, fmt.Errorf("--registry %s: not the name of a registry; write one like quay.io, or quay.io=PREFIX; %w", flag, usage.Err)
		}
		if slices.ContainsFunc(all, func(r registry) bool { return r.name == name }) {
			return nil, fmt.Errorf("--registry %s: this registry is named twice; %w", flag, usage.Err)
		}
		all = append(all, registry{name, prefix, byPath})
	}
	return all, nil
}

func (f mirrorFlags) fromConfiguration(load func() (config.Config, error)) (mirror, []string, error) {
	cfg, err := load()
	if err != nil {
		return mirror{}, nil, fmt.Errorf("%w\nno configuration is needed if you set --url", err)
	}
	l, err := f.choose(cfg.Listeners)
	if err != nil {
		return mirror{}, nil, err
	}
	m, err := parseListener(l)
	if err != nil {
		return mirror{}, nil, err
	}
	m.auth, m.challenge = l.Auth != "none", l.Challenge || l.Role == config.RoleRegistry
	for i, name := range l.Upstreams {
		for _, u := range cfg.Upstreams {
			if u.Name == name && u.Kind != config.KindLocal {
				found := registriesOf(u)
				m.registries = append(m.registries, found...)
				m.plain = m.plain || i == 0 && len(found) > 0 && found[0].name == dockerHub
			}
		}
	}
	if len(m.registries)+len(f.registries) == 0 {
		return mirror{}, nil, fmt.Errorf("listener %s: no upstream has a host name by which clients know it; set --registry", l.Name)
	}
	if l.TLS.Certificate == "" || f.authority != "" {
		return m, nil, nil
	}
	authority, note, err := authorityOf(l.TLS.Certificate)
	m.authority = authority
	if note == "" {
		return m, nil, err
	}
	return m, []string{note}, err
}

// choose returns the listener that the flag names. Without the flag, it returns the first listener
// with the role mirror, or the first listener if none has this role.
func (f mirrorFlags) choose(listeners []config.Listener) (config.Listener, error) {
	for _, l := range listeners {
		if f.listener == l.Name || f.listener == "" && l.Role == config.RoleMirror {
			return l, nil
		}
	}
	if f.listener != "" {
		return config.Listener{}, fmt.Errorf("--listener %s: the configuration has no such listener; %w", f.listener, usage.Err)
	}
	return listeners[0], nil
}

// parseListener returns the mirror with the URL by which clients reach a listener.
func parseListener(l config.Listener) (mirror, error) {
	if l.ExternalURL != "" {
		return parseURL(l.ExternalURL)
	}
	host, _, err := net.SplitHostPort(l.Address)
	if err != nil || !config.NamesHost(host) {
		return mirror{}, fmt.Errorf("listener %s: %s is not an address that clients can use; set external_url in the configuration, or --url", l.Name, l.Address)
	}
	m := mirror{scheme: "http", host: l.Address}
	if l.TLS.Certificate != "" {
		m.scheme = "https"
	}
	return m, nil
}

// registriesOf returns the registries of an upstream, one for each of its hosts. All hosts of
// Docker Hub are one registry.
func registriesOf(u config.Upstream) (all []registry) {
	prefix := ""
	if len(u.Prefixes) > 0 {
		prefix = u.Prefixes[0]
	}
	if u.DockerHub() {
		return []registry{{name: dockerHub, prefix: cmp.Or(prefix, dockerHub)}}
	}
	for _, host := range u.Hosts {
		own := prefix
		if own == "" && strings.Contains(host, ".") && !strings.Contains(host, ":") {
			own = host // dray also accepts a host name with a dot as a prefix
		}
		all = append(all, registry{name: host, prefix: own})
	}
	return all
}

// authorityOf returns the authority that clients have to trust to accept a listener's certificate.
// If this system trusts the certificate, authorityOf returns nil. If the certificate is
// self-signed, authorityOf returns the certificates in the file. For any other certificate, it
// returns a note.
func authorityOf(file string) (authority []byte, note string, err error) {
	text, err := readAuthority(file)
	if err != nil {
		return nil, "", err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", file, err)
		}
		chain = append(chain, cert)
	}
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Intermediates: intermediates}); err == nil {
		return nil, "", nil
	}
	if bytes.Equal(chain[0].RawSubject, chain[0].RawIssuer) {
		return text, "", nil
	}
	return nil, "the system here does not know the authority " + chain[0].Issuer.String() + ", which signed the certificate of the listener; if clients do not know it either, set --ca", nil
}

// readAuthority returns the certificates in a file, without any other content of the file.
func readAuthority(file string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		block.Headers = nil
		if err := pem.Encode(&out, block); err != nil {
			return nil, err
		}
	}
	if out.Len() == 0 {
		return nil, errors.New(file + " contains no PEM certificate")
	}
	return out.Bytes(), nil
}
