package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/meta/metatest"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// pushers are several drays in processes of their own before one ECR and one Redis. Each request
// goes to the next of them.
type pushers struct {
	*fleetOf
	ecr  *ecrtest.Running
	turn int
}

func startPushers(t *testing.T, n int) *pushers {
	t.Helper()
	p := &pushers{fleetOf: &fleetOf{T: t, redis: metatest.StartRedis(t)}, ecr: ecrtest.Start(t, ecrtest.Options{})}
	p.ecr.CreateRepository("team/app")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("secret of the fleet ", 2)), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		p.members = append(p.members, p.member(fmt.Sprint("127.0.1.", i+1), secret))
	}
	return p
}

// member starts a dray.
func (p *pushers) member(host, secret string) *drayProcess {
	p.Helper()
	dir, address := p.TempDir(), freeOn(p, host)
	path := filepath.Join(dir, "dray.yaml")
	text := fmt.Sprintf(`
listeners: [{address: %q}]
upstreams: [{name: ecr, url: "http://%s", address: %q, kind: ecr, push: true, keep_alive: 0s}]
metadata: {url: "redis://%s"}
fleet: {address: %q, secret_file: %q}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: off}
`, address, p.ecr.RegistryHost, p.ecr.RegistryAddr, p.redis.Addr, freeOn(p, host), secret, filepath.Join(dir, "cache"))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.Fatal(err)
	}
	d := &drayProcess{Cmd: exec.Command(os.Args[0]), url: "http://" + address, done: make(chan struct{})}
	d.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), asDray + "=serve --config " + path, asPatient + "=" + patient,
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret", "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR=" + p.ecr.APIURL}
	d.Stdout, d.Stderr = p.Output(), p.Output()
	if err := d.Start(); err != nil {
		p.Fatal(err)
	}
	go func() { defer close(d.done); _ = d.Wait() }()
	p.Cleanup(func() { _ = d.Process.Kill(); <-d.done })
	p.eventually("start", func() bool {
		resp, err := http.Get(d.url + "/v2/")
		if err == nil {
			resp.Body.Close()
		}
		return err == nil
	})
	return d
}

// next sends a request to the next member.
func (p *pushers) next(method, path string, body []byte, mediaType string) (*http.Response, error) {
	p.turn++
	req, err := http.NewRequestWithContext(p.Context(), method, p.members[p.turn%len(p.members)].url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode >= 400 {
		err = fmt.Errorf("%s %s: %s\n%s", method, path, resp.Status, text)
	}
	return resp, err
}

// push pushes an image of one layer. between is called when half of the layer is sent.
func (p *pushers) push(repo, tag string, layer []byte, between func()) (*oci.Manifest, error) {
	for _, blob := range [][]byte{imageConfig, layer} {
		resp, err := p.next("POST", "/v2/"+repo+"/blobs/uploads/", nil, "")
		if err != nil {
			return nil, err
		}
		at := resp.Header.Get("Location")
		half := len(blob) / 2
		if _, err := p.next("PATCH", at, blob[:half], "application/octet-stream"); err != nil {
			return nil, err
		}
		if len(blob) == len(layer) && between != nil {
			between()
		}
		if _, err := p.next("PUT", at+"?digest="+digest.FromBytes(blob).String(), blob[half:], "application/octet-stream"); err != nil {
			return nil, err
		}
	}
	m := imageOf(p, layer)
	_, err := p.next("PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, m.MediaType)
	return m, err
}

// has checks what ECR has under a tag.
func (p *pushers) has(repo, tag string, m *oci.Manifest) {
	p.Helper()
	if img, ok := p.ecr.Image(repo, tag); !ok || !bytes.Equal(img.Raw, m.Raw) {
		p.Errorf("ECR has %s under %s:%s", img.Raw, repo, tag)
	}
}

// TestFleetPushes sends each request of pushes to another member. The member that works on them is
// killed, and so is Redis.
func TestFleetPushes(t *testing.T) {
	p := startPushers(t, 3)
	layer := func(i int) []byte { return bytes.Repeat([]byte(fmt.Sprint("layer ", i, " ")), 100_000) }
	must := func(repo, tag string, i int) *oci.Manifest {
		t.Helper()
		m, err := p.push(repo, tag, layer(i), nil)
		if err != nil {
			t.Fatal(err)
		}
		p.has(repo, tag, m)
		return m
	}
	p.turn = -1 // so the first member is asked first, and works on all
	first := must("team/app", "v1", 1)
	_, err := p.push("team/app", "v2", layer(2), func() {
		dead := p.members[0]
		_ = dead.Process.Kill()
		<-dead.done
		p.members = p.members[1:]
	})
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a push whose writer was killed ended with %v", err)
	}
	must("team/app", "v2", 2)
	p.has("team/app", "v1", first)
	if m, err := p.push("team/app", "v3", layer(3), p.redis.Kill); err != nil {
		t.Errorf("a push while Redis was killed: %v", err)
	} else {
		p.has("team/app", "v3", m)
	}
}
