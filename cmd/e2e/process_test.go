package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shortDir is a directory for a test whose path leaves room for the names of unix sockets, which
// are at most 107 bytes long.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dray-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove what the test left: %v", err)
		}
	})
	return dir
}

// environment is that of the test without what would lead a process to the real world, and with the
// variables given.
func environment(more ...string) []string {
	keep := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "DRAY_") || strings.HasPrefix(name, "DOCKER_") ||
			strings.HasPrefix(name, "ECS_") || strings.HasPrefix(name, "OTEL_") || strings.HasSuffix(strings.ToLower(name), "_proxy") ||
			slices.Contains([]string{"PORT", "REGION", "REGISTRY", "ECR_REGISTRY", "TLS_CERTIFICATE", "TLS_PRIVATE_KEY", "SSL_CERT_FILE", "SSL_CERT_DIR"}, name)
	})
	// No test looks for the metadata of an instance, or asks AWS, but at a stand-in.
	return slices.Concat(keep, []string{"AWS_EC2_METADATA_DISABLED=true", "AWS_ENDPOINT_URL=http://127.0.0.1:1"}, more)
}

// process is a program that runs beside the test.
type process struct {
	t       testing.TB
	name    string
	cmd     *exec.Cmd
	logFile string
	ended   chan struct{} // closed when the process has ended; err may be read then
	err     error
}

// start runs a program until the test ends, and shows the end of its log when the test has failed.
// A program that outlives a killed test is told to stop.
func start(t testing.TB, name string, env []string, command string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, cmd: exec.Command(command, args...), ended: make(chan struct{})}
	out, err := os.CreateTemp("", "dray-e2e-"+name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	p.logFile = out.Name()
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = out.Close()
		close(p.ended)
	}()
	t.Cleanup(p.finish)
	return p
}

// finish stops the process and judges what it left.
func (p *process) finish() {
	p.stop()
	log, err := os.ReadFile(p.logFile)
	_ = os.Remove(p.logFile)
	if err != nil {
		p.t.Errorf("read the log of %s: %v", p.name, err)
	}
	if bytes.Contains(log, []byte("WARNING: DATA RACE")) {
		p.t.Errorf("%s has a data race", p.name)
	}
	if bytes.Contains(log, []byte("\npanic: ")) || bytes.Contains(log, []byte("\nfatal error: ")) {
		p.t.Errorf("%s has panicked", p.name)
	}
	if p.t.Failed() {
		p.t.Logf("the end of the log of %s:\n%s", p.name, tail(log, 16<<10))
	}
}

func tail(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	return append([]byte("…"), b[len(b)-n:]...)
}

// stop asks the process to end, and makes it after half a minute.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Errorf("%s did not stop within 30 s of SIGTERM", p.name)
		p.kill()
	}
}

// kill ends the process as a power cut would: it learns nothing of it.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// awaitHTTP waits until an address answers 200, and fails the test when the process ends before or
// a minute has passed.
func (p *process) awaitHTTP(url string) {
	p.t.Helper()
	p.await(url, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", resp.Status, body)
		}
		return nil
	})
}

// await tries ready, ten times a second, until it succeeds.
func (p *process) await(what string, ready func(context.Context) error) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-p.ended:
			p.t.Fatalf("%s ended before it was ready: %v", p.name, p.err)
		case <-ctx.Done():
			p.t.Fatalf("%s is not ready: %s: %v", p.name, what, err)
		}
	}
}

// errTimeout says that a command was given up.
var errTimeout = errors.New("did not end within five minutes")

// try runs a command and returns all it wrote.
func try(t testing.TB, env []string, command ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, errTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = env
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return strings.TrimSpace(string(out)), err
}

// run is try for a command that must succeed.
func run(t testing.TB, env []string, command ...string) string {
	t.Helper()
	out, err := try(t, env, command...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return out
}

// write makes a file with its directories.
func write(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
