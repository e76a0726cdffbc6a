package doctor

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"

	"dray/cmd/dray/setup"
	"dray/cmd/dray/usage"
)

// client is a client on this machine that the doctor checks.
type client struct {
	setup.Client
	prefix string // the prefix that selects the registry in paths
	image  reference.Named

	once sync.Once
	base answered // the answer to GET /v2/
	id   string   // X-Request-Id of all requests

	transport *http.Transport
}

// clientFlags are the flags that describe a client.
type clientFlags struct{ name, version, root string }

// checks returns the checks of a client that should pull an image through the mirror at an address.
// closeAll closes the connections that the checks opened.
func (f clientFlags) checks(ctx context.Context, address, image string) (all []Check, closeAll func(), err error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: not the name of an image: %w; %w", image, err, usage.Err)
	}
	registry := reference.Domain(named)
	c := &client{
		Client: setup.Client{Name: f.name, Version: f.version, URL: strings.TrimSuffix(address, "/"), Registry: registry, Root: f.root},
		prefix: registry, image: named, id: "doctor-" + rand.Text(),
	}
	files, authorities, err := c.Look(ctx)
	if err != nil {
		return nil, nil, err
	}
	c.transport = &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: trusting(authorities)}}
	if len(files) == 0 {
		all = append(all, Check{"client", "client.files", func(context.Context) Finding {
			return failed("put the name of the mirror before that of the image", "this version of %s uses no mirror for %s", f.name, registry)
		}})
	}
	for i, file := range files {
		all = append(all, Check{"client", "client.file." + file.Path, func(context.Context) Finding { return c.file(file, i == 0) }})
	}
	return append(all,
		Check{"mirror", "mirror.trusted", c.greeting(c.trusted)},
		Check{"mirror", "mirror.reached", c.greeting(c.reached)},
		Check{"mirror", "mirror.used", c.greeting(c.used)},
		Check{"image", "image.manifest", c.manifest},
	), c.transport.CloseIdleConnections, nil
}

// trusting returns the authorities of the system and of the given files. It ignores files that do
// not exist or have no certificates.
func trusting(files []string) *x509.CertPool {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil {
			pool.AppendCertsFromPEM(text)
		}
	}
	return pool
}

// setupHint returns the command that corrects the files of the client.
func (c *client) setupHint() string {
	return fmt.Sprintf("run dray setup %s --url %s --registry %s --write", c.Name, c.URL, c.Registry)
}

// file says whether a file makes the client use the mirror. required is true if the client does not
// use the mirror at all without this file.
func (c *client) file(f setup.File, required bool) Finding {
	switch {
	case f.Right:
		return ok("%s sends pulls from %s to the mirror", f.Path, c.Registry)
	case f.Err != nil && (f.Names || !f.There):
		return warning("compare the file with what "+c.setupHint()+" prints without --write", "%s is not as dray setup would write it: %v", f.Path, f.Err)
	case f.Err != nil:
		return failed("mend the file, then "+c.setupHint(), "%s does not send pulls to the mirror: %v", f.Path, f.Err)
	case !required:
		return warning(c.setupHint(), "%s does not mention the mirror, so some programs go to %s itself", f.Path, c.Registry)
	case !f.There:
		return failed(c.setupHint(), "%s does not exist, so %s goes to %s itself", f.Path, c.Name, c.Registry)
	}
	return failed(c.setupHint(), "%s does not send pulls from %s to the mirror", f.Path, c.Registry)
}

// greeting returns a check of the answer to GET /v2/, by which clients find out whether they may
// use a registry. All checks from greeting share one request.
func (c *client) greeting(look func(answered) Finding) func(context.Context) Finding {
	return func(ctx context.Context) Finding {
		c.once.Do(func() {
			began := time.Now()
			c.base.Response, c.base.err = c.send(ctx, http.MethodGet, c.URL+"/v2/")
			c.base.took = time.Since(began)
		})
		return look(c.base)
	}
}

// send sends a request with the ID, and follows no redirect. The body of the response is closed.
func (c *client) send(ctx context.Context, method, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Request-Id", c.id)
	req.Header.Set("User-Agent", "dray-doctor")
	req.Header.Set("Accept", strings.Join([]string{
		"application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json",
		"application/vnd.docker.distribution.manifest.list.v2+json", "application/vnd.docker.distribution.manifest.v2+json",
	}, ", "))
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp, resp.Body.Close()
}

func (c *client) trusted(a answered) Finding {
	_, unverified := errors.AsType[*tls.CertificateVerificationError](a.err)
	_, plain := errors.AsType[tls.RecordHeaderError](a.err)
	switch {
	case unverified:
		return failed(c.setupHint()+" with --ca FILE, the certificate of the listener or its authority", "the certificate of %s is not trusted: %v", c.URL, a.err)
	case plain:
		return failed("write http:// in the URL of the mirror, or let the listener use TLS", "%s does not speak TLS: %v", c.URL, a.err)
	case a.err != nil:
		return unknown("", "whether %s is trusted is not known, because it cannot be reached", c.URL)
	case a.TLS != nil:
		return ok("the certificate of %s is trusted", c.URL)
	case onThisMachine(c.URL):
		return ok("%s is on this machine and needs no certificate", c.URL)
	}
	return warning("let the listener use TLS", "%s is plain HTTP: whoever can change packets on the way can give this client another image", c.URL)
}

func onThisMachine(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *client) reached(a answered) Finding {
	switch {
	case a.err != nil:
		return failed("look at the name in the URL, at firewalls and at the listener of dray; pulls go to "+c.Registry+" itself meanwhile", "%s cannot be reached: %v", c.URL, a.err)
	case a.StatusCode == http.StatusUnauthorized && c.Name == "docker":
		return failed("let the listener have no auth; Docker has no credentials for mirrors", "%s wants credentials, so docker goes to %s itself", c.URL, c.Registry)
	case a.StatusCode == http.StatusUnauthorized:
		return warning("docs/clients.md says how this client gets credentials for a mirror", "%s wants credentials", c.URL)
	case a.StatusCode != http.StatusOK:
		return failed("look at the log of dray", "%s answers %s", c.URL, a.Status)
	}
	return ok("%s answers within %s", c.URL, a.took.Round(time.Millisecond))
}

// used says whether a dray has answered. A dray sends the ID of a request back.
func (c *client) used(a answered) Finding {
	switch {
	case a.err != nil:
		return unknown("", "whether dray answers at %s is not known, because it cannot be reached", c.URL)
	case a.Header.Get("X-Request-Id") != c.id:
		return failed("look whether a proxy, or another registry, answers at this address", "something answers at %s that is not dray: it does not confirm the request", c.URL)
	}
	return ok("dray confirms the request %s, which is in its log", c.id)
}

// manifest requests the manifest of the image from the mirror, as the client would.
func (c *client) manifest(ctx context.Context) Finding {
	address := c.manifestURL()
	resp, err := c.send(ctx, http.MethodHead, address)
	switch {
	case err != nil:
		return unknown("", "what would become of %s is not known: %v", c.image, err)
	case resp.StatusCode == http.StatusUnauthorized:
		return unknown("docs/clients.md says how this client gets credentials for a mirror", "what would become of %s is not known: the mirror wants credentials", c.image)
	case resp.StatusCode == http.StatusNotFound:
		return failed("dray explain says why, on the machine of dray; "+c.Name+" asks "+c.Registry+" itself next", "the mirror does not find %s (%s)", c.image, address)
	case resp.StatusCode != http.StatusOK:
		return failed("dray explain says why, on the machine of dray", "the mirror answers %s for %s", resp.Status, c.image)
	case resp.Header.Get("X-Cache") == "":
		return failed("look whether a proxy, or another registry, answers at this address", "the answer for %s does not come from dray, because it has no X-Cache", c.image)
	case resp.Header.Get("Warning") != "":
		return warning("dray explain says more, on the machine of dray", "the mirror would answer for %s with %s, and warns: %s", c.image, resp.Header.Get("Docker-Content-Digest"), resp.Header.Get("Warning"))
	}
	return ok("a pull of %s gets %s from the mirror (X-Cache: %s)", c.image, resp.Header.Get("Docker-Content-Digest"), resp.Header.Get("X-Cache"))
}

// manifestURL returns the URL at which the client requests the manifest from the mirror. Podman and
// BuildKit name the registry in the path, and other clients in the parameter ns. For images
// of Docker Hub, Docker does not name the registry at all.
func (c *client) manifestURL() string {
	path, tag := reference.Path(c.image), "latest"
	switch n := c.image.(type) {
	case reference.Digested:
		tag = n.Digest().String()
	case reference.Tagged:
		tag = n.Tag()
	}
	switch {
	case c.Name == "podman" || c.Name == "buildkit":
		return c.URL + "/v2/" + c.prefix + "/" + path + "/manifests/" + tag
	case c.Name == "docker" && c.Registry == "docker.io":
		return c.URL + "/v2/" + path + "/manifests/" + tag
	}
	return c.URL + "/v2/" + path + "/manifests/" + tag + "?ns=" + url.QueryEscape(c.Registry)
}
