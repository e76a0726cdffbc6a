package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"dray/cmd/dray/config"
	"dray/upstream/ecrtest"
)

// process is a dray in a process of its own that answers one upload at the moment.
type process struct {
	*testing.T
	cmd        *exec.Cmd
	ended      chan error
	url, admin string
	client     *http.Client
	body       *io.PipeWriter // of the upload
	uploaded   chan error     // an error unless it was answered with 202
}

// startProcess starts dray with times for its end, and an upload that goes on until its body ends.
func startProcess(t *testing.T, times string) *process {
	ecr := ecrtest.Start(t, ecrtest.Options{})
	p := &process{
		T: t, ended: make(chan error, 1), url: "http://127.0.0.1:" + freePort(t), admin: "http://127.0.0.1:" + freePort(t), uploaded: make(chan error, 1),
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute},
	}
	path := write(t, "dray.yaml", fmt.Sprintf(`
listeners: [{address: %q}]
upstreams: [{name: ecr, url: "http://%s", address: %q, kind: ecr, push: true, prefetch: {enabled: false}}]
cache: {directory: %q, min_free_bytes: 0}
admin: {address: %q}
limits: %s
`, strings.TrimPrefix(p.url, "http://"), ecr.RegistryHost, ecr.RegistryAddr, filepath.Join(t.TempDir(), "cache"), strings.TrimPrefix(p.admin, "http://"), times))
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir(), asDray + "=serve --config " + path,
		"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret", "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR=" + ecr.APIURL,
	}
	p.cmd.Stdout, p.cmd.Stderr = t.Output(), t.Output()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() }) // fails if it has ended
	go func() { p.ended <- p.cmd.Wait() }()
	until(p, "dray serves", func() bool { return p.get(p.url+"/v2/", 200, "") })
	until(p, "dray is ready", func() bool { return p.get(p.admin+"/readyz", 200, `"running"`) })
	p.upload()
	return p
}

// upload begins an upload, and returns when dray has some of its bytes.
func (p *process) upload() {
	resp, err := p.client.Post(p.url+"/v2/team/app/blobs/uploads/", "", nil)
	if err != nil {
		p.Fatal(err)
	}
	resp.Body.Close()
	at := p.url + resp.Header.Get("Location")
	body, w := io.Pipe()
	p.body = w
	req, err := http.NewRequest("PATCH", at, body)
	if err != nil {
		p.Fatal(err)
	}
	go func() {
		resp, err := p.client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 202 {
				err = fmt.Errorf("the upload is answered with %s", resp.Status)
			}
		}
		p.uploaded <- err
	}()
	if _, err := w.Write(make([]byte, 1<<20)); err != nil { // more than the buffers on the way
		p.Fatal(err)
	}
}

// get reports whether an address answers with a status and a text.
func (p *process) get(url string, status int, text string) bool {
	resp, err := p.client.Get(url)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode == status && bytes.Contains(body, []byte(text))
}

func (p *process) signal() {
	p.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.Fatal(err)
	}
}

// ends waits until the process has ended without an error.
func (p *process) ends() {
	p.Helper()
	select {
	case err := <-p.ended:
		if err != nil {
			p.Errorf("dray ended: %v", err)
		}
	case <-time.After(time.Minute):
		p.Fatal("dray has not ended within a minute")
	}
}

// TestStopLetsRequestsEnd: when dray is stopped, it takes no new connections, /readyz says why, and
// an upload that is under way goes on until it ends. Only then does dray end.
func TestStopLetsRequestsEnd(t *testing.T) {
	p := startProcess(t, "{shutdown_pause: 1ms, shutdown_grace: 1h, read_header_timeout: 1m}")
	p.signal()
	until(p, "the listener closes", func() bool { return !p.get(p.url+"/v2/", 200, "") })
	if !p.get(p.admin+"/readyz", 503, "dray is stopping") {
		t.Error("while requests end, /readyz does not say that dray is stopping")
	}
	if _, err := p.body.Write([]byte("the end")); err != nil {
		t.Error(err)
	}
	p.body.Close()
	if err := <-p.uploaded; err != nil {
		t.Error(err)
	}
	p.ends()
}

// TestStopTwice: during the pause dray serves new connections, and is not ready. A second signal
// ends the pause, and the upload.
func TestStopTwice(t *testing.T) {
	p := startProcess(t, "{shutdown_pause: 1h, shutdown_grace: 1h, read_header_timeout: 1m}")
	p.signal()
	until(p, "dray is not ready", func() bool { return p.get(p.admin+"/readyz", 503, "dray is stopping") })
	if !p.get(p.url+"/v2/", 200, "") {
		t.Error("in the pause, dray does not serve")
	}
	p.signal()
	p.ends()
	p.body.Close() // until then, net/http waits for it
	if err := <-p.uploaded; err == nil {
		t.Error("the upload ended well")
	}
}

// TestStopTimes: the systemd unit, and what the documents advise, wait longer than dray takes.
func TestStopTimes(t *testing.T) {
	limits := config.Default(nil).Limits
	takes := limits.ShutdownPause.Std() + limits.ShutdownGrace.Std()
	for file, pattern := range map[string]string{
		"../../deploy/systemd/dray.service": `(?m)^TimeoutStopSec=(\d+)$`,
		"../../docs/install.md":             `--stop-timeout (\d+)`,
		"../../Makefile":                    `--stop-timeout (\d+)`,
		"../../docs/operating.md":           "(?:TimeoutStopSec|--stop-timeout|stop_grace_period:|terminationGracePeriodSeconds:) (\\d+)",
	} {
		all := regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, file), -1)
		if len(all) == 0 {
			t.Errorf("%s does not say how long to wait", file)
		}
		for _, m := range all {
			if n, _ := strconv.Atoi(m[1]); time.Duration(n)*time.Second < takes+10*time.Second {
				t.Errorf("%s: %s is too short for %v", file, m[0], takes)
			}
		}
	}
}
