package ecrtest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"

	"dray/upstream/ecrtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	ecrName        = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
)

// rig is a server with a plain client that follows no redirects and sends what it is told.
type rig struct {
	*ecrtest.Running
	t     *testing.T
	http  *http.Client
	basic string // password for user AWS; empty: none is sent
	host  string // Host header; empty: the ECR-shaped name
}

func start(t *testing.T, opts ecrtest.Options) *rig {
	t.Helper()
	s := ecrtest.Start(t, opts)
	return &rig{Running: s, t: t, basic: s.Token(""), http: plainClient(t, s)}
}

// with starts a server whose default switches were changed.
func with(t *testing.T, change func(*ecrtest.Switches)) *rig {
	t.Helper()
	sw := ecrtest.DefaultSwitches()
	change(&sw)
	return start(t, ecrtest.Options{Switches: &sw})
}

// answer is a response with its body read.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
	Err    error // of the exchange or the body
}

// code is the code of an error answer.
func (a answer) code() string { return a.oneError()[0] }

// message is the message of an error answer.
func (a answer) message() string { return a.oneError()[1] }

func (a answer) oneError() [2]string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(a.Body, &e) != nil || len(e.Errors) != 1 {
		return [2]string{"", string(a.Body)}
	}
	return [2]string{e.Errors[0].Code, e.Errors[0].Message}
}

// do sends a request to the registry. url is a path, or a whole URL. Headers come in pairs.
func (r *rig) do(method, url string, body io.Reader, headers ...string) answer {
	r.t.Helper()
	absolute := strings.HasPrefix(url, "http")
	if !absolute {
		url = r.RegistryURL + url
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, url, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if !absolute {
		req.Host = r.host
		if req.Host == "" {
			req.Host = r.RegistryHost
		}
	}
	if r.basic != "" && (!absolute || strings.Contains(url, "/v2/")) {
		req.SetBasicAuth("AWS", r.basic)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
		if headers[i] == "Content-Length" {
			fmt.Sscan(headers[i+1], &req.ContentLength)
		}
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return answer{Err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{Status: resp.StatusCode, Header: resp.Header, Body: b, Err: err}
}

func (r *rig) get(url string, headers ...string) answer {
	r.t.Helper()
	return r.do(http.MethodGet, url, nil, headers...)
}

func (r *rig) head(url string, headers ...string) answer {
	r.t.Helper()
	return r.do(http.MethodHead, url, nil, headers...)
}

// want fails unless the answer is as given; an empty code or message is not compared.
func (a answer) want(t *testing.T, status int, code, message string) answer {
	t.Helper()
	if a.Err != nil {
		t.Fatalf("got error %v, want status %d", a.Err, status)
	}
	if a.Status != status || code != "" && a.code() != code || message != "" && a.message() != message {
		t.Fatalf("got %d %s %q, want %d %s %q", a.Status, a.code(), a.message(), status, code, message)
	}
	return a
}

// hungUp fails unless the connection was closed without an answer.
func (a answer) hungUp(t *testing.T) {
	t.Helper()
	if a.Err == nil || a.Status != 0 {
		t.Fatalf("got %d %q, want a closed connection", a.Status, a.Body)
	}
}

// begin starts an upload and returns its location.
func (r *rig) begin(repo string) string {
	r.t.Helper()
	return r.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil).want(r.t, http.StatusAccepted, "", "").Header.Get("Location")
}

// push uploads a blob with one PUT.
func (r *rig) push(repo string, content []byte) digest.Digest {
	r.t.Helper()
	d := digest.FromBytes(content)
	r.do(http.MethodPut, r.begin(repo)+"?digest="+d.String(), bytes.NewReader(content)).want(r.t, http.StatusCreated, "", "")
	return d
}

// manifest builds an OCI manifest over blobs that it pushes.
func (r *rig) manifest(repo string, layers ...string) []byte {
	r.t.Helper()
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: r.push(repo, config), Size: int64(len(config))}
	for _, l := range layers {
		m.Layers = append(m.Layers, v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: r.push(repo, []byte(l)), Size: int64(len(l))})
	}
	return marshal(r.t, m)
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// putManifest pushes manifest bytes under a reference.
func (r *rig) putManifest(repo, ref string, raw []byte, media string) answer {
	r.t.Helper()
	return r.do(http.MethodPut, "/v2/"+repo+"/manifests/"+ref, bytes.NewReader(raw), "Content-Type", media)
}

// image pushes an image of one layer and returns the layer's digest and the manifest.
func (r *rig) image(repo, tag, layer string) (digest.Digest, []byte) {
	r.t.Helper()
	r.CreateRepository(repo)
	raw := r.manifest(repo, layer)
	r.putManifest(repo, tag, raw, v1.MediaTypeImageManifest).want(r.t, http.StatusCreated, "", "")
	return digest.FromString(layer), raw
}

// follow gets the signed URL of a blob.
func (r *rig) follow(repo string, d digest.Digest) string {
	r.t.Helper()
	return r.get("/v2/"+repo+"/blobs/"+d.String()).want(r.t, http.StatusTemporaryRedirect, "", "").Header.Get("Location")
}

// api calls an operation of the JSON API with a signature of the right shape.
func (r *rig) api(op string, in any) answer {
	r.t.Helper()
	return r.do(http.MethodPost, r.APIURL+"/", bytes.NewReader(marshal(r.t, in)), "X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921."+op,
		"Content-Type", "application/x-amz-json-1.1", "Authorization", signed("ecr"))
}

func signed(service string) string {
	return "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260301/eu-west-1/" + service + "/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64)
}

func unmarshal(t *testing.T, raw []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// plainClient follows no redirects and finds the registry by its name.
func plainClient(t *testing.T, s *ecrtest.Running) *http.Client {
	t.Helper()
	tr := s.Transport()
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
