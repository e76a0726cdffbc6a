package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/google/go-containerregistry/pkg/authn"
)

// lineRate bounds the speed of each answer of the stand-in for ECR, in bytes per second. Without
// this limit, the stand-in would be as fast as dray, and printTable would show no difference.
const lineRate = 25_000_000

// readyTimeout bounds how long dray takes to answer its first request.
const readyTimeout = 30 * time.Second

// lookupTimeout bounds the DNS lookup of the host in the variable REGISTRY.
const lookupTimeout = 3 * time.Second

// testbed has everything that runs during the scenario.
type testbed struct {
	dir           string // temporary directory with logs, cache and certificate
	drayBinary    string
	fakeecrBinary string
	vars          map[string]string // the environment of dray
	registry      string            // host:port of dray, as clients write it
	admin         string            // host:port of dray's admin listener
	ecrHost       string
	// ecrAddress is the host:port to connect to; empty means ecrHost. It is set only for a stand-in:
	// the testbed's own, or one that the user names in ECR_REGISTRY, by a URL with http://.
	ecrAddress    string
	roots         *x509.CertPool
	control       string // URL of the control API of the stand-in; empty if ECR_REGISTRY names the registry
	fakeecr, dray *process
}

// newTestbed builds the binaries that o does not name, and starts the processes. The testbed must
// be closed even if there is an error.
func newTestbed(ctx context.Context, o options, environ []string, stdout io.Writer) (*testbed, error) {
	s := &testbed{vars: env.ToMap(environ)}
	steps := []struct {
		what string
		do   func(context.Context) error
	}{
		{"build dray and its stand-in for ECR", func(ctx context.Context) error { return s.binaries(ctx, o) }},
		{"make a certificate", s.certificate},
		{"start the stand-in for ECR", s.startECR},
		{"start dray", s.startDray},
	}
	for _, step := range steps {
		fmt.Fprintf(stdout, "%s …\n", step.what)
		if err := step.do(ctx); err != nil {
			return s, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return s, nil
}

// close stops the processes, dray before the registry, and removes the files.
func (s *testbed) close() error {
	for _, p := range []*process{s.dray, s.fakeecr} {
		if p != nil {
			p.stop()
		}
	}
	if s.dir == "" {
		return nil
	}
	return os.RemoveAll(s.dir)
}

func (s *testbed) binaries(ctx context.Context, o options) (err error) {
	if s.dir, err = os.MkdirTemp("", "dray-playtest-"); err != nil {
		return err
	}
	s.drayBinary, s.fakeecrBinary = o.dray, o.fakeecr
	for name, path := range map[string]*string{"dray": &s.drayBinary, "fakeecr": &s.fakeecrBinary} {
		if *path == "" {
			*path, err = build(ctx, name)
		} else {
			*path, err = filepath.Abs(*path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// certificate chooses the name and port of dray, and makes a certificate if the environment
// names none.
func (s *testbed) certificate(ctx context.Context) error {
	port := cmp.Or(s.vars["PORT"], "5000")
	if port == "0" {
		free, err := freePort()
		if err != nil {
			return err
		}
		port = free
	}
	s.vars["PORT"] = port
	s.registry = cmp.Or(s.vars["REGISTRY"], "localhost:"+port)
	if !strings.Contains(s.registry, ":") && port != "443" {
		s.registry += ":" + port
	}
	s.vars["REGISTRY"] = s.registry
	if s.vars["TLS_CERTIFICATE"] == "" {
		s.vars["TLS_CERTIFICATE"], s.vars["TLS_PRIVATE_KEY"] = filepath.Join(s.dir, "cert.pem"), filepath.Join(s.dir, "privkey.pem")
		host, _, _ := net.SplitHostPort(s.registry)
		out, err := exec.CommandContext(ctx, s.drayBinary, "cert", "--host", cmp.Or(host, s.registry), "--host", "localhost", "--host", "127.0.0.1",
			"--out-cert", s.vars["TLS_CERTIFICATE"], "--out-key", s.vars["TLS_PRIVATE_KEY"]).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	for _, file := range []string{"TLS_CERTIFICATE", "TLS_PRIVATE_KEY"} { // dray runs in another directory
		path, err := filepath.Abs(s.vars[file])
		if err != nil {
			return err
		}
		s.vars[file] = path
	}
	pem, err := os.ReadFile(s.vars["TLS_CERTIFICATE"])
	if err != nil {
		return err
	}
	if s.roots, err = x509.SystemCertPool(); err != nil {
		s.roots = x509.NewCertPool()
	}
	s.roots.AppendCertsFromPEM(pem)
	return nil
}

// startECR starts the stand-in, unless ECR_REGISTRY names a registry.
func (s *testbed) startECR(ctx context.Context) error {
	if registry := s.vars["ECR_REGISTRY"]; registry != "" {
		s.ecrHost = strings.TrimPrefix(registry, "https://")
		if host, standIn := strings.CutPrefix(registry, "http://"); standIn {
			s.ecrHost, s.ecrAddress = host, s.vars["DRAY_ECR_ADDRESS"]
		}
		return nil
	}
	p, err := start(s.dir, s.fakeecrBinary, environment(s.vars), "--rate", strconv.Itoa(lineRate))
	if err != nil {
		return err
	}
	s.fakeecr = p
	line, err := p.line(ctx)
	if err != nil {
		return err
	}
	var ready struct{ Registry, RegistryHost, API, Control string }
	if err := json.Unmarshal([]byte(line), &ready); err != nil {
		return fmt.Errorf("read its addresses: %w", err)
	}
	at, err := url.Parse(ready.Registry)
	if err != nil {
		return fmt.Errorf("read its addresses: %w", err)
	}
	s.ecrHost, _, _ = strings.Cut(ready.RegistryHost, ":")
	s.ecrAddress, s.control = at.Host, ready.Control
	for name, value := range map[string]string{
		"ECR_REGISTRY": "http://" + s.ecrHost, "DRAY_ECR_ADDRESS": s.ecrAddress, "REGION": "eu-west-1",
		"AWS_ENDPOINT_URL_ECR": ready.API, "AWS_ENDPOINT_URL_CLOUDWATCH": ready.API, "AWS_REGION": "eu-west-1",
		"AWS_ACCESS_KEY_ID": "AKIAPLAYTESTPLAYTEST", "AWS_SECRET_ACCESS_KEY": "playtest", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": os.DevNull, "AWS_SHARED_CREDENTIALS_FILE": os.DevNull, "AWS_EC2_METADATA_DISABLED": "true",
	} {
		if s.vars[name] = value; value == "" {
			delete(s.vars, name)
		}
	}
	return nil
}

func (s *testbed) startDray(ctx context.Context) error {
	s.vars["DRAY_CACHE_DIRECTORY"] = filepath.Join(s.dir, "cache")
	if s.vars["DRAY_ADMIN_ADDRESS"] == "" {
		s.vars["DRAY_ADMIN_ADDRESS"] = "localhost:6060"
		if !isFree("localhost:6060") {
			port, err := freePort()
			if err != nil {
				return err
			}
			s.vars["DRAY_ADMIN_ADDRESS"] = "localhost:" + port
		}
	}
	s.admin = s.vars["DRAY_ADMIN_ADDRESS"]
	s.vars["DRAY_ADDRESS"] = net.JoinHostPort(s.listenAt(ctx), s.vars["PORT"])
	if !isFree(s.vars["DRAY_ADDRESS"]) {
		return fmt.Errorf("port %s is in use, on macOS often by AirPlay Receiver; try another: make -e PORT=5001 playtest", s.vars["PORT"])
	}
	p, err := start(s.dir, s.drayBinary, environment(s.vars), "serve")
	if err != nil {
		return err
	}
	s.dray = p
	return s.waitForDray(ctx)
}

// listenAt returns the host on which dray listens; "" means all interfaces. If DRAY_ADDRESS is set,
// listenAt returns its host. Without DRAY_ADDRESS, dray listens on all interfaces if the name that
// clients use resolves to an address that is not a loopback address. Otherwise dray listens on the
// loopback interface, because dray asks clients for no password and may use someone's AWS
// credentials.
func (s *testbed) listenAt(ctx context.Context) string {
	if given := s.vars["DRAY_ADDRESS"]; given != "" {
		host, _, _ := net.SplitHostPort(given)
		return host
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	host, _, _ := net.SplitHostPort(s.registry)
	// If the lookup fails, dray listens on the loopback interface. Clients on this machine find dray
	// there if the user adds the name to the hosts file.
	addresses, _ := net.DefaultResolver.LookupIPAddr(ctx, cmp.Or(host, s.registry))
	if slices.ContainsFunc(addresses, func(a net.IPAddr) bool { return !a.IP.IsLoopback() }) {
		return ""
	}
	return "127.0.0.1"
}

// isOpen reports whether other machines can connect to dray.
func (s *testbed) isOpen() bool { return !isLoopback(s.vars["DRAY_ADDRESS"]) }

// isLoopback reports whether an address, with or without a port, is localhost or an IP address of
// the loopback interface.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

// waitForDray sends requests until dray answers.
func (s *testbed) waitForDray(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	c := s.client()
	defer c.close()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+s.registry+"/v2/", nil)
		if err != nil {
			return err
		}
		resp, err := c.transport.base.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-s.dray.done:
			return fmt.Errorf("it ended: %v\n%s", s.dray.err, s.dray.tail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("no answer at https://%s/v2/: %w", s.registry, err), errors.New(s.dray.tail()))
		case <-again.C:
		}
	}
}

// dialAt returns the address at which a client on this machine reaches dray.
func (s *testbed) dialAt() string {
	host, port, _ := net.SplitHostPort(s.vars["DRAY_ADDRESS"])
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// client returns a client of dray, with new connections.
func (s *testbed) client() *client {
	t := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.roots}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) { // dray is here, whatever its name resolves to
			return new(net.Dialer).DialContext(ctx, network, s.dialAt())
		},
	}
	return &client{transport: &countingTransport{base: t}, auth: authn.Anonymous, registry: s.registry}
}

// direct returns a client of ECR itself, with new connections. A stand-in redirects to blobs on the
// loopback interface. The client addresses a stand-in by its IP address, because
// go-containerregistry refuses a redirect from a public name to that interface.
func (s *testbed) direct(auth authn.Authenticator) *client {
	t := &http.Transport{MaxIdleConnsPerHost: 16, Proxy: http.ProxyFromEnvironment}
	return &client{transport: &countingTransport{base: t}, auth: auth, registry: cmp.Or(s.ecrAddress, s.ecrHost)}
}

// environment returns the variables as a list.
func environment(vars map[string]string) []string {
	environ := make([]string, 0, len(vars))
	for name, value := range vars {
		environ = append(environ, name+"="+value)
	}
	return environ
}

func isFree(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}
