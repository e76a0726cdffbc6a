package setup

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"dray/cmd/dray/setup/install"
	"dray/cmd/dray/usage"
)

// Client is a client on this machine, and the mirror that it should use.
type Client struct {
	// Name is the name of the client, such as docker. Version is its version. An empty Version means
	// the version of the program on this machine if Root is "/", and an unknown version otherwise.
	Name, Version string
	// URL is the URL of the mirror. Registry is the registry that it mirrors, as NAME or NAME=PREFIX.
	URL, Registry string
	// Root is the directory that stands for / when files are read. DialTimeout is the value of the
	// flag --dial-timeout of setup; 0 means its default.
	Root        string
	DialTimeout time.Duration
}

// File describes a file that setup would write for a client, as it is now.
type File struct {
	Path string
	// The field There says that the file exists. Right says that setup would not change the file.
	// Names says that the file contains the name of the mirror's host.
	There, Right, Names bool
	// Err says why setup would not write its settings into the file, or is nil.
	Err error
}

// Look returns the files that setup would write for the client, the most important one first.
// authorities are the paths where the client looks for the certificate of the mirror's authority.
func (c Client) Look(ctx context.Context) (files []File, authorities []string, err error) {
	i := slices.IndexFunc(clients, func(known client) bool { return known.name == c.Name })
	if i < 0 {
		return nil, nil, fmt.Errorf("--client %s: not a client that setup knows; it knows docker, containerd, k3s, buildkit and podman; %w", c.Name, usage.Err)
	}
	m, err := parseURL(c.URL)
	if err != nil {
		return nil, nil, err
	}
	if m.registries, err = parseRegistries([]string{c.Registry}); err != nil {
		return nil, nil, err
	}
	m.plain = m.registries[0].name == dockerHub
	s := setting{mirror: m, dialTimeout: cmp.Or(c.DialTimeout, defaultDialTimeout), glob: install.Place{Root: c.Root}.Glob}
	s.read = func(path string) ([]byte, error) { return os.ReadFile(filepath.Join(c.Root, path)) }
	if filepath.Clean(c.Root) == "/" && c.Version == "" {
		s.version = ask(ctx, clients[i].program)
	} else {
		s.version, _ = parseVersion(c.Version)
	}
	p, err := clients[i].plan(s)
	if err != nil {
		return nil, nil, err
	}
	for _, change := range p.changes {
		files = append(files, s.look(change))
	}
	for _, path := range map[string][]string{
		"docker": {dockerCerts + m.host + "/ca.crt"}, "containerd": {containerdCerts + "dray.pem"}, "k3s": {k3sCertificate}, "buildkit": {buildkitCertificate},
		"podman": {podmanCerts + m.host + "/ca.crt", dockerCerts + m.host + "/ca.crt"}, // Podman also reads Docker's directory
	}[c.Name] {
		authorities = append(authorities, filepath.Join(c.Root, path))
	}
	return files, authorities, nil
}

// look describes the file that a change would write, as it is now.
func (s setting) look(c install.Change) File {
	f := File{Path: c.Path}
	text, err := s.read(c.Path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.Err = err
		return f
	}
	f.There, f.Names = err == nil, bytes.Contains(text, []byte(s.mirror.host))
	wants, err := c.Merge(text)
	f.Right, f.Err = err == nil && (wants == nil || bytes.Equal(wants, text)), err
	return f
}
