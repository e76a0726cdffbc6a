// Package scanner has an image looked at by a program of the operator's, such as a vulnerability
// scanner.
//
// The program finds the image as an OCI layout in a directory of its own, which is removed
// afterwards. It runs with an environment of its own, without the credentials of this process,
// under limits, and, where that is configured, as another user.
//
// What it says is in its exit code: 0 means that it has nothing against the image, Config.Refuses
// that it has, anything else that it could not tell. Its output is the reason.
package scanner

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage; several scanners have names of their own below it.
const Name = "exec"

// version goes up with every change of what the program is given.
const version = 1

// Rule of what the program says in plain text.
const RuleRefused = "refused"

// maxOutput bounds what is read of the output of a program.
const maxOutput = 1 << 20

// Config says what is run.
type Config struct {
	// Name tells several scanners apart. It may be empty.
	Name string
	// Command is the program and its arguments. In each of them {layout}, {repository}, {tag} and
	// {digest} are replaced: the directory of the OCI layout, and what was pushed. No shell reads
	// them.
	Command []string
	// Environment has NAME=value for the program, beside PATH, HOME and TMPDIR.
	Environment []string
	// Refuses is the exit code that means findings. 0 means 1.
	Refuses int
	// Timeout of one run. 0 means 20 s. The program and all that it started in its process group
	// are then killed.
	Timeout time.Duration
	// MaxImageBytes is the largest image that is written out. 0 means 10 GB.
	MaxImageBytes int64
	// MemoryBytes bounds the address space of each process; 0 is no bound. Programs in Go and Java
	// reserve more than they use.
	MemoryBytes int64
	// AtOnce bounds the runs at a time. 0 means 1.
	AtOnce int
	// Directory in which layouts are written. Empty is the system's directory for temporary files.
	Directory string
	// UID and GID that the program runs as; 0 is those of this process. Changing them needs root.
	UID, GID int
}

// Stage runs the program for each image.
type Stage struct {
	config Config
	slots  chan struct{}
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. The program must be there.
func New(c Config) (*Stage, error) {
	if len(c.Command) == 0 {
		return nil, errors.New("exec: there is no command")
	}
	if _, err := exec.LookPath(c.Command[0]); err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if (c.UID != 0 || c.GID != 0) && os.Geteuid() != 0 {
		return nil, errors.New("exec: only root can run the program as another user")
	}
	c.Refuses = cmp.Or(c.Refuses, 1)
	c.Timeout = cmp.Or(c.Timeout, 20*time.Second)
	c.MaxImageBytes = cmp.Or(c.MaxImageBytes, 10_000_000_000)
	return &Stage{config: c, slots: make(chan struct{}, max(1, c.AtOnce))}, nil
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string {
	if s.config.Name == "" {
		return Name
	}
	return Name + "/" + s.config.Name
}

// Revision implements pipeline.Stage.
func (s *Stage) Revision() string { return pipeline.Revision(version, s.config) }

// CheckImage implements pipeline.ImageStage.
func (s *Stage) CheckImage(ctx context.Context, img *pipeline.Image) ([]pipeline.Finding, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-s.slots }()
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("%s: no answer within %s", s.Name(), s.config.Timeout))
	defer cancel()
	dir, err := os.MkdirTemp(s.config.Directory, "dray-scan-")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	defer os.RemoveAll(dir)
	layout, home, err := s.prepare(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	if err := writeLayout(ctx, layout, img, s.config.MaxImageBytes); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name(), err)
	}
	return s.run(ctx, layout, home, img)
}

// prepare makes the directory of the layout, which the program may read, and one that it may write.
func (s *Stage) prepare(dir string) (layout, home string, err error) {
	layout, home = filepath.Join(dir, "layout"), filepath.Join(dir, "home")
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(layout, 0o755), os.Mkdir(home, 0o700))
	if err == nil && (s.config.UID != 0 || s.config.GID != 0) {
		err = os.Chown(home, s.config.UID, s.config.GID)
	}
	return layout, home, err
}

func (s *Stage) run(ctx context.Context, layout, home string, img *pipeline.Image) ([]pipeline.Finding, error) {
	cmd := s.command(ctx, layout, home, img)
	var out, complaints bounded
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return nil, nil
	case exited && exit.ExitCode() == s.config.Refuses:
		return reasons(out.Bytes(), complaints.Bytes()), nil
	}
	return nil, fmt.Errorf("%s: %w: %s", s.Name(), err, tail(complaints.Bytes(), 300))
}

// command runs the program through a shell that only sets limits, as nothing else can before the
// program begins. The arguments are no part of what the shell reads.
func (s *Stage) command(ctx context.Context, layout, home string, img *pipeline.Image) *exec.Cmd {
	limits := "ulimit -c 0; ulimit -t " + strconv.Itoa(int(s.config.Timeout/time.Second)+1) + "; "
	if s.config.MemoryBytes > 0 {
		limits += "ulimit -v " + strconv.FormatInt(s.config.MemoryBytes>>10, 10) + "; "
	}
	fill := strings.NewReplacer("{layout}", layout, "{repository}", img.Repository, "{tag}", img.Tag, "{digest}", img.Digest.String())
	args := []string{"-c", limits + `exec "$@"`, "sh"}
	for _, a := range s.config.Command {
		args = append(args, fill.Replace(a))
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", args...)
	cmd.Dir = home
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}, s.config.Environment...)
	cmd.SysProcAttr = apart()
	if s.config.UID != 0 || s.config.GID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(s.config.UID), Gid: uint32(s.config.GID)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // for pipes that a process which left the group holds open
	return cmd
}

// bounded keeps the first bytes that are written, and takes the rest.
type bounded struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// ReadFrom hides that of bytes.Buffer, which has no bound.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) { return io.Copy(struct{ io.Writer }{b}, r) }

// reasons reads {"findings": [...]}, or else takes the end of what was written as it is.
func reasons(out, complaints []byte) []pipeline.Finding {
	var wire struct {
		Findings []pipeline.ExternalFinding `json:"findings"`
	}
	if json.Unmarshal(out, &wire) == nil && len(wire.Findings) > 0 {
		return pipeline.FindingsOf(wire.Findings, "")
	}
	text := tail(slices.Concat(out, complaints), 400)
	return []pipeline.Finding{{Rule: RuleRefused, What: cmp.Or(text, "the program gave no reason")}}
}

// tail is the last bytes of a text.
func tail(p []byte, n int) string {
	p = bytes.TrimSpace(p)
	return strings.ToValidUTF8(string(p[max(0, len(p)-n):]), "")
}
