package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stopGrace bounds the wait for the end of a process after SIGTERM.
const stopGrace = 10 * time.Second

// process is a running binary. Its standard error goes to a file.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string
	stdout *bufio.Reader
	done   chan struct{} // closed when the process has ended
	err    error         // how the process ended; read it after done is closed
}

// start starts a binary with exactly the given environment. It takes no context: Ctrl-C ends the
// context of the caller, but the process must run until the caller calls stop.
func start(dir, path string, environ []string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(path), done: make(chan struct{})}
	p.log = filepath.Join(dir, p.name+".log")
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own handle
	p.cmd = exec.Command(path, args...)
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = environ, dir, log
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p.cmd.Stdout, p.stdout = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
		out.Close()
	}()
	return p, nil
}

// line waits for the first line of standard output and returns it. It discards all later output.
func (p *process) line(ctx context.Context) (string, error) {
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		line, err := p.stdout.ReadString('\n')
		got <- read{line, err}
		_, _ = io.Copy(io.Discard, p.stdout) // ends with the process
	}()
	select {
	case r := <-got:
		if r.err != nil {
			return "", fmt.Errorf("%s said nothing: %w\n%s", p.name, r.err, p.tail())
		}
		return r.line, nil
	case <-ctx.Done():
		return "", fmt.Errorf("wait for %s: %w", p.name, ctx.Err())
	}
}

// stop ends the process with SIGTERM, or with SIGKILL after stopGrace.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// tail returns the last lines of standard error.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// build builds a binary of this module without cgo, so that it runs in an otherwise empty image. It
// writes to bin/playtest, so it does not overwrite the bin/dray of `make build`. That one knows its
// version, and this one does not.
func build(ctx context.Context, name string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the source of dray: %w", err)
	}
	root := strings.TrimSpace(string(out))
	path := filepath.Join(root, "bin", "playtest", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-tags=grpcnotrace", "-trimpath", "-ldflags=-s -w", "-o", path, "./cmd/"+name)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, text)
	}
	return path, nil
}
