package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"dray/upstream/ecrtest"
)

const (
	drayName = "dray.example.com"
	ecrName  = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	pusher   = "ci"
	password = "correct horse"
)

// stacks counts, so that each stack gets a loopback address of its own and fixed ports collide with
// nobody's.
var stacks atomic.Int32

func nextIP() string {
	n := int(stacks.Add(1))
	return fmt.Sprintf("127.%d.%d.%d", 64+os.Getpid()%64, (os.Getpid()/64+n/250)%256, 1+n%250)
}

// stack is a dray as deploy/dray.yaml describes it, between clients and three registries that are
// doubles.
type stack struct {
	t   testing.TB
	ip  string // of dray's listeners
	dir string

	ecr, hub, quay *double

	certificate string // file; dray's, which also is its own authority
	key         string // file
	configFile  string
	cache       string // directory
	dray        *process
	trust       *x509.CertPool
}

// stackOptions alter the deployed configuration.
type stackOptions struct {
	byAddress bool                        // clients call dray by its addresses, not by the name in the file
	configure func(config map[string]any) // last, on the decoded file
	doubles   func(*ecrtest.Options)      // manners of the doubles
	stopped   bool                        // the test itself starts dray
}

// newStack starts the doubles, and dray unless the options say otherwise.
func newStack(t testing.TB, opts stackOptions) *stack {
	t.Helper()
	s := &stack{t: t, dir: shortDir(t), ip: nextIP()}
	s.cache = filepath.Join(s.dir, "cache")
	s.certificate, s.key = makeCertificate(t, s.dir, drayName, s.ip)
	s.trust = pool(t, s.certificate)
	s.ecr = newDouble(t, ecrtest.ECR(), ecrName, opts.doubles)
	s.hub = newDouble(t, ecrtest.Hub(), "registry-1.docker.io", opts.doubles)
	s.quay = newDouble(t, ecrtest.Hub(), "quay.io", opts.doubles)
	s.configure(opts)
	if !opts.stopped {
		s.start()
	}
	return s
}

// configure writes deploy/dray.yaml with the addresses of this stack.
func (s *stack) configure(opts stackOptions) {
	s.t.Helper()
	deployed := read(s.t, "../../deploy/dray.yaml")
	var config map[string]any
	if err := yaml.Unmarshal(deployed, &config); err != nil {
		s.t.Fatal(err)
	}
	ports := map[string]string{":443": s.mirrorAddress(), ":5000": s.registryAddress()}
	for _, l := range config["listeners"].([]any) {
		listener := l.(map[string]any)
		listener["address"] = ports[listener["address"].(string)]
		if opts.byAddress {
			listener["external_url"] = "https://" + listener["address"].(string)
		}
		listener["tls"] = map[string]any{"certificate": s.certificate, "private_key": s.key}
	}
	doubles := map[string]*double{"ecr": s.ecr, "docker.io": s.hub, "quay.io": s.quay}
	upstreams := config["upstreams"].([]any)
	for i, u := range upstreams {
		if registry, short := u.(string); short {
			upstreams[i] = map[string]any{"name": registry, "url": registry}
		}
		upstream := upstreams[i].(map[string]any)
		maps.Copy(upstream, doubles[upstream["name"].(string)].upstream())
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		s.t.Fatal(err)
	}
	htpasswd := filepath.Join(s.dir, "htpasswd")
	write(s.t, htpasswd, fmt.Appendf(nil, "%s:%s\n", pusher, hash))
	config["auth"].([]any)[0].(map[string]any)["htpasswd"] = map[string]any{"file": htpasswd}
	config["cache"] = map[string]any{"directory": s.cache, "max_bytes": "8GiB", "min_free_bytes": "64MiB"}
	config["state"] = map[string]any{"directory": filepath.Join(s.dir, "state")}
	config["admin"] = map[string]any{"address": s.adminAddress()}
	config["log"] = map[string]any{"level": "debug"}
	if opts.configure != nil {
		opts.configure(config)
	}
	out, err := yaml.Marshal(config)
	if err != nil {
		s.t.Fatal(err)
	}
	s.configFile = filepath.Join(s.dir, "dray.yaml")
	write(s.t, s.configFile, out)
}

// The names that clients use lead to the standard port. Without root, dray cannot listen there, and
// clients use addresses only.
func (s *stack) mirrorAddress() string {
	if os.Geteuid() == 0 {
		return net.JoinHostPort(s.ip, "443")
	}
	return net.JoinHostPort(s.ip, "5443")
}

func (s *stack) registryAddress() string { return net.JoinHostPort(s.ip, "5000") }
func (s *stack) adminAddress() string    { return net.JoinHostPort(s.ip, "6060") }

// start runs dray, again after stop or kill, on the same cache.
func (s *stack) start() {
	s.t.Helper()
	s.startWith(s.ecr.awsEnvironment())
}

// startWith is start with other variables for the AWS SDK.
func (s *stack) startWith(aws []string) {
	s.t.Helper()
	s.dray = start(s.t, "dray", environment(append(aws, "HOME="+s.dir, "GOTRACEBACK=all")...),
		built.dray, "serve", "--config", s.configFile)
	s.dray.awaitHTTP("http://" + s.adminAddress() + "/readyz")
}

// transport finds dray under its name, and trusts it: on the standard port the mirror, on port 5000
// the registry.
func (s *stack) transport(t testing.TB) *http.Transport {
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: s.trust},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			switch addr {
			case drayName + ":443":
				addr = s.mirrorAddress()
			case drayName + ":5000":
				addr = s.registryAddress()
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// mirror and registry name something behind one of dray's listeners, and how to get there.
func (s *stack) mirror(t testing.TB, ref string) (name.Reference, []remote.Option) {
	t.Helper()
	return s.remote(t, drayName+"/"+ref, authn.Anonymous)
}

func (s *stack) registry(t testing.TB, ref string) (name.Reference, []remote.Option) {
	t.Helper()
	return s.remote(t, drayName+":5000/"+ref, &authn.Basic{Username: pusher, Password: password})
}

func (s *stack) remote(t testing.TB, ref string, auth authn.Authenticator) (name.Reference, []remote.Option) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r, []remote.Option{remote.WithTransport(s.transport(t)), remote.WithAuth(auth), remote.WithContext(t.Context())}
}

// sameBytes compares an image in ECR with what dray has of it: the manifest, and every blob by its
// digest.
func (s *stack) sameBytes(t testing.TB, ref string) {
	t.Helper()
	direct, directBlobs := blobs(t, s.ecr.reference(t, ref), s.ecr.remote(t))
	there, options := s.registry(t, ref)
	through, throughBlobs := blobs(t, there, options)
	if !bytes.Equal(direct, through) {
		t.Errorf("%s: ECR has the manifest\n%s\nand dray\n%s", ref, direct, through)
	}
	if diff := cmp.Diff(directBlobs, throughBlobs); diff != "" {
		t.Errorf("%s: blobs in ECR (-) and through dray (+):\n%s", ref, diff)
	}
}

// dockerAuth is a config.json with the password for the registry listener.
func dockerAuth() []byte {
	return fmt.Appendf(nil, `{"auths":{"%s:5000":{"auth":"%s"}}}`, drayName, base64.StdEncoding.EncodeToString([]byte(pusher+":"+password)))
}

// makeCertificate has dray cert make a certificate for hosts in a directory, and returns the files
// of the certificate and its key.
func makeCertificate(t testing.TB, dir string, hosts ...string) (certificate, key string) {
	t.Helper()
	certificate, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "privkey.pem")
	command := []string{built.dray, "cert", "--out-cert", certificate, "--out-key", key}
	for _, host := range hosts {
		command = append(command, "--host", host)
	}
	run(t, environment(), command...)
	return certificate, key
}

func pool(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	pem := read(t, file)
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", file)
	}
	return p
}
