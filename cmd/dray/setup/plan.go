package setup

import (
	"bytes"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"dray/cmd/dray/setup/install"
)

// setting has the parameters of a plan.
type setting struct {
	mirror      mirror
	version     version // the version of the client
	dialTimeout time.Duration
	// hostsOnly leaves out the main configuration file of containerd.
	hostsOnly bool
	// read returns the content of a file of the client's machine. If dray setup only prints the plan,
	// read finds no file. If dray setup writes the plan, read leaves out what an earlier dray setup
	// wrote, unless somebody has edited the file since. For Look, read returns the file as it is.
	read func(path string) ([]byte, error)
	// glob returns the paths of the files on that machine that match a pattern. If dray setup only
	// prints the plan, it returns none.
	glob func(pattern string) []string
}

// plan has the changes that make a client use a mirror.
type plan struct {
	changes []install.Change
	// apply maps the path of a file to the command that makes the client read the file. If a file is
	// not in apply, the client reads it at the next pull.
	apply map[string]string
	// notes are the limits of the client, and the steps that people have to take themselves.
	notes []string
}

// client is a program that pulls images.
type client struct {
	name, about string
	// program is the name of the program that prints the client's version.
	program string
	plan    func(s setting) (plan, error)
	// flags adds flags that only this client has. It may be nil.
	flags func(cmd *cobra.Command, f *flags)
}

var clients = []client{
	{"docker", "Docker: daemon.json, and hosts.toml for the containerd image store", "dockerd", docker, nil},
	{"containerd", "containerd and Kubernetes: hosts.toml for each registry", "containerd", containerd, containerdFlags},
	{"k3s", "k3s: registries.yaml", "k3s", k3s, nil},
	{"buildkit", "BuildKit and buildx: buildkitd.toml", "buildkitd", buildkit, nil},
	{"podman", "Podman, Buildah, Skopeo and CRI-O: a file of registries.conf.d", "podman", podman, nil},
}

// certificate returns the change that makes a client trust the mirror. If no authority is known or
// needed, it returns nil.
func (m mirror) certificate(path string) []install.Change {
	if m.authority == nil {
		return nil
	}
	return []install.Change{{Path: path, Merge: func(old []byte) ([]byte, error) {
		if bytes.Contains(old, m.authority) {
			return old, nil
		}
		if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
			old = append(slices.Clone(old), '\n')
		}
		return slices.Concat(old, m.authority), nil
	}}}
}

// byPrefix returns the registries that have a prefix, and a note about each registry without a
// prefix.
func (m mirror) byPrefix(client string) (found []registry, notes []string) {
	for _, r := range m.registries {
		if r.prefix != "" {
			found = append(found, r)
		} else {
			notes = append(notes, client+" chooses a registry by a prefix, and the upstream of "+r.name+" has none; give it one in the configuration of dray (prefixes)")
		}
	}
	return found, notes
}

// login returns a note about how a client gets its credentials, if the mirror demands credentials.
// Clients send credentials only in answer to a challenge. If the mirror sends none, the note says
// how to change that.
func (m mirror) login(how string) []string {
	switch {
	case !m.auth:
		return nil
	case !m.challenge:
		how += "; clients send them only if they are asked, so also set challenge: true, and keep Docker away from this listener, because it answers with the password of Docker Hub"
	}
	return []string{"this listener wants credentials: " + how}
}

// loopback reports whether the mirror is on the client's own machine.
func (m mirror) loopback() bool {
	host := (&url.URL{Host: m.host}).Hostname()
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// plainHTTP returns a note if the mirror is on another machine and does not use TLS.
func (m mirror) plainHTTP() []string {
	if m.scheme == "https" || m.loopback() {
		return nil
	}
	return []string{m.url() + " is plain HTTP: whoever can change packets on the way can give clients another image for a tag; let the listener use TLS"}
}
