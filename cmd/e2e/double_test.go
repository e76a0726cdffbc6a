package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"dray/upstream/ecrtest"
)

// double plays a registry under its real name; it is also how a test looks at that registry, past
// dray.
type double struct {
	*ecrtest.Running
	host string // the name it is known by
	ca   string // file with its certificate
	// storage is the address to which it redirects for blobs.
	storage string
	aws     bool // whether it is ECR, with its API
	pool    *x509.CertPool
}

// newDouble starts a registry with the manners of quirks, and a certificate for its real name.
func newDouble(t testing.TB, quirks ecrtest.Quirks, host string, alter func(*ecrtest.Options)) *double {
	t.Helper()
	dir := shortDir(t)
	cert, key := makeCertificate(t, dir, host, "localhost")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	certificates := &tls.Config{Certificates: []tls.Certificate{pair}}
	// A registry that speaks TLS redirects to storage that does, and not to a bare address: clients
	// refuse anything else.
	objects, err := tls.Listen("tcp", "127.0.0.1:0", certificates)
	if err != nil {
		t.Fatal(err)
	}
	switches := ecrtest.DefaultSwitches()
	options := ecrtest.Options{Quirks: quirks, Switches: &switches, TLS: certificates, Dir: filepath.Join(dir, "blobs"),
		ObjectsURL: fmt.Sprintf("https://localhost:%d", objects.Addr().(*net.TCPAddr).Port)}
	if alter != nil {
		alter(&options)
	}
	running := ecrtest.Start(t, options)
	storage := &http.Server{Handler: running.Objects(), ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	ended := make(chan error, 1)
	go func() { ended <- storage.Serve(objects) }()
	t.Cleanup(func() { _ = storage.Close(); <-ended })
	return &double{Running: running, host: host, ca: cert, storage: objects.Addr().String(), aws: quirks.Auth == ecrtest.AuthBasic, pool: pool(t, cert)}
}

// upstream is what dray's configuration must say to find the double under the name of the registry
// it plays.
func (d *double) upstream() map[string]any {
	return map[string]any{"address": d.RegistryAddr, "tls": map[string]any{"ca_file": d.ca}}
}

// awsEnvironment leads the AWS SDK to the double.
func (d *double) awsEnvironment() []string {
	return []string{"AWS_ENDPOINT_URL=" + d.APIURL, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=example",
		"AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null"}
}

// reference names something in the registry.
func (d *double) reference(t testing.TB, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(d.host + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// remote are the options to talk to the double itself.
func (d *double) remote(t testing.TB) []remote.Option {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: d.pool},
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, _, _ := net.SplitHostPort(addr); host == d.host {
				addr = d.RegistryAddr
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	auth := authn.Anonymous
	if d.aws {
		auth = &authn.Basic{Username: "AWS", Password: d.Token("")}
	}
	return []remote.Option{remote.WithTransport(transport), remote.WithAuth(auth), remote.WithContext(t.Context())}
}

func (d *double) push(t testing.TB, ref string, img v1.Image) {
	t.Helper()
	d.prepare(t, ref)
	if err := remote.Write(d.reference(t, ref), img, d.remote(t)...); err != nil {
		t.Fatalf("push %s to the double: %v", ref, err)
	}
}

func (d *double) pushIndex(t testing.TB, ref string, index v1.ImageIndex) {
	t.Helper()
	d.prepare(t, ref)
	if err := remote.WriteIndex(d.reference(t, ref), index, d.remote(t)...); err != nil {
		t.Fatalf("push %s to the double: %v", ref, err)
	}
}

// prepare creates the repository, which ECR wants to be done before a push.
func (d *double) prepare(t testing.TB, ref string) {
	t.Helper()
	if d.aws {
		d.CreateRepository(d.reference(t, ref).Context().RepositoryStr())
	}
}

// digest is what the registry says it has under a name.
func (d *double) digest(t testing.TB, ref string) string {
	t.Helper()
	r := d.reference(t, ref)
	img, ok := d.Image(r.Context().RepositoryStr(), r.Identifier())
	if !ok {
		t.Errorf("the registry has no %s", ref)
	}
	return img.Digest.String()
}

// counts is a moment in the life of a double.
type counts struct {
	d      *double
	before map[ecrtest.Kind]ecrtest.Count
	seq    int64
}

// asked remembers what the registry was asked so far.
func (d *double) asked() counts {
	c := counts{d: d, before: d.Counters()}
	if log := d.Log(); len(log) > 0 {
		c.seq = log[len(log)-1].Seq
	}
	return c
}

// since is how many requests of the kinds came since.
func (c counts) since(kinds ...ecrtest.Kind) int64 {
	now, n := c.d.Counters(), int64(0)
	for _, k := range kinds {
		n += now[k].Requests - c.before[k].Requests
	}
	return n
}

// bytesSince is how much content left the registry since.
func (c counts) bytesSince() int64 {
	now, n := c.d.Counters(), int64(0)
	for _, k := range []ecrtest.Kind{ecrtest.KindBlobGet, ecrtest.KindObjectGet} {
		n += now[k].BytesOut - c.before[k].BytesOut
	}
	return n
}

// none fails the test if there was any request of the kinds, and shows all that came.
func (c counts) none(t testing.TB, kinds ...ecrtest.Kind) {
	t.Helper()
	if n := c.since(kinds...); n > 0 {
		t.Errorf("%s was asked %d times for %v:\n%s", c.d.host, n, kinds, c.log())
	}
}

func (c counts) log() string {
	var out []byte
	for _, e := range c.d.Log() {
		if e.Seq > c.seq {
			out = append(out, e.Method+" "+e.Path+" "+http.StatusText(e.Status)+"\n"...)
		}
	}
	return string(out)
}

// quiet waits until the registry answers no request any more.
func (d *double) quiet(t testing.TB) {
	t.Helper()
	select {
	case <-d.Idle():
	case <-time.After(30 * time.Second):
		t.Errorf("%s is still being asked", d.host)
	}
}

// blobs fetches an image with all its blobs; go-containerregistry checks each digest.
func blobs(t testing.TB, ref name.Reference, options []remote.Option) (manifest []byte, content map[string]int64) {
	t.Helper()
	img, err := remote.Image(ref, options...)
	if err != nil {
		t.Fatalf("get %s: %v", ref, err)
	}
	if manifest, err = img.RawManifest(); err != nil {
		t.Fatal(err)
	}
	if _, err := img.RawConfigFile(); err != nil {
		t.Fatalf("get the configuration of %s: %v", ref, err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	content = map[string]int64{}
	for _, layer := range layers {
		digest, err := layer.Digest()
		if err != nil {
			t.Fatal(err)
		}
		body, err := layer.Compressed()
		if err != nil {
			t.Fatalf("get %s of %s: %v", digest, ref, err)
		}
		n, err := io.Copy(io.Discard, body)
		_ = body.Close()
		if err != nil {
			t.Fatalf("get %s of %s: %v", digest, ref, err)
		}
		content[digest.String()] = n
	}
	return manifest, content
}
