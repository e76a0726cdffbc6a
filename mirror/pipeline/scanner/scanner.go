// Package scanner runs a program of the operator, such as a vulnerability scanner, on an image.
//
// The program gets the image as an OCI layout in a temporary directory. It runs under limits and
// with an environment of its own. If this process runs as root, the program runs as another user.
// On Linux, dray also ends the processes that the program started.
//
// The exit code of the program is the result: 0 means no objections, Config.Refuses means findings,
// and any other code means no result. The output of the program has the findings, or says why there
// is no result.
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
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"dray/mirror/pipeline"
)

// Name of the stage. A scanner with a name of its own is called "exec/NAME".
const Name = "exec"

// version must increase when a change of dray's code affects what the program gets.
const version = 1

// RuleRefused is the rule of the finding that dray itself makes when the program rejects an image
// but prints no findings in JSON.
const RuleRefused = "refused"

// maxOutput bounds how many bytes of each output stream of a program are kept.
const maxOutput = 1 << 20

// Config configures the program and its limits.
type Config struct {
	// Name distinguishes several scanners. It may be empty.
	Name string
	// Command is the program and its arguments. In the arguments, dray replaces {layout} by the
	// directory of the OCI layout, and {repository}, {tag} and {digest} by those of the push. No shell
	// expands the arguments.
	Command []string
	// Environment returns variables, as NAME=value, for the next run of the program, in addition to
	// PATH, HOME and TMPDIR. It may be nil.
	Environment func() []string
	// Refuses is the exit code that means findings. If the field is 0, the code is 1.
	Refuses int
	// Timeout bounds one run, including the time to write the layout. When the timeout ends, dray
	// kills the program and the processes that it started. 0 means 20 s.
	Timeout time.Duration
	// MaxImageBytes is the maximum size of an image that is written out. 0 means 10 GB.
	MaxImageBytes int64
	// MemoryBytes bounds the address space of each process; 0 means no bound. Programs in Go and Java
	// reserve more address space than they use, so they need a higher bound.
	MemoryBytes int64
	// AtOnce bounds the number of concurrent runs. 0 means 1.
	AtOnce int
	// Directory holds the layouts. Empty means the system's directory for temporary files, or /tmp if
	// the user of the program may not enter that directory.
	Directory string
	// UID and GID are the user and the group of the program. If this process runs as root, 0 means
	// Nobody. Otherwise 0 means the ID of this process, and no other ID is allowed.
	UID, GID int
}

// Nobody is the number of the user and group that own no files (Linux, Documentation/admin-guide/
// sysctl/fs.rst, "overflowgid & overflowuid").
const Nobody = 65534

// Stage runs the program for each image.
type Stage struct {
	config Config
	path   string // the path of the program, as New found it
	slots  chan struct{}
}

var _ pipeline.ImageStage = (*Stage)(nil)

// New makes a stage. It returns an error if the program does not exist.
func New(c Config) (*Stage, error) {
	if len(c.Command) == 0 {
		return nil, errors.New("exec: command is missing")
	}
	name, err := exec.LookPath(c.Command[0])
	if err != nil {
		return nil, fmt.Errorf("exec: %w", err)
	}
	if err := c.setUser(); err != nil {
		return nil, err
	}
	c.Directory = absolute(c.Directory)
	c.Refuses = cmp.Or(c.Refuses, 1)
	c.Timeout = cmp.Or(c.Timeout, 20*time.Second)
	c.MaxImageBytes = cmp.Or(c.MaxImageBytes, 10_000_000_000)
	return &Stage{config: c, path: absolute(name), slots: make(chan struct{}, max(1, c.AtOnce))}, nil
}

// absolute makes a path absolute, because the program runs in another working directory than dray.
// If dray's working directory is unknown, the path stays the same.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil && !filepath.IsAbs(path) {
		return abs
	}
	return path
}

// setUser sets the defaults of UID, GID and Directory. It returns an error if dray cannot run the
// program as the user UID, or if that user cannot enter the directory.
func (c *Config) setUser() error {
	if os.Geteuid() != 0 {
		uid, gid := cmp.Or(c.UID, os.Geteuid()), cmp.Or(c.GID, os.Getegid())
		if uid != os.Geteuid() || gid != os.Getegid() {
			return errors.New("exec: uid and gid need dray to run as root")
		}
		c.UID, c.GID, c.Directory = uid, gid, cmp.Or(c.Directory, os.TempDir())
		return nil
	}
	c.UID, c.GID = cmp.Or(c.UID, Nobody), cmp.Or(c.GID, Nobody)
	choices := []string{c.Directory}
	if c.Directory == "" {
		choices = []string{os.TempDir(), "/tmp"} // root's directory for temporary files may be closed to other users
	}
	closed := ""
	for _, dir := range choices {
		if c.Directory, closed = dir, c.closed(dir); closed == "" {
			return nil
		}
	}
	return fmt.Errorf("exec: the user %d cannot enter %s, which is on the way to the images; set directory to another one, or uid to another user", c.UID, closed)
}

// closed returns the first directory, from path upwards, that the user of the program may not
// enter. It returns "" if there is none.
func (c *Config) closed(path string) string {
	at, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	for {
		info, err := os.Stat(at) // ignores an error, because it occurs again when dray writes an image
		if err == nil && !c.mayEnter(info) {
			return at
		}
		if at == filepath.Dir(at) {
			return ""
		}
		at = filepath.Dir(at)
	}
}

// mayEnter reports whether the user of the program may enter a directory.
func (c *Config) mayEnter(dir os.FileInfo) bool {
	mode, owner := dir.Mode(), dir.Sys().(*syscall.Stat_t)
	switch {
	case int(owner.Uid) == c.UID:
		return mode&0o100 != 0
	case int(owner.Gid) == c.GID:
		return mode&0o010 != 0
	}
	return mode&0o001 != 0
}

// Name implements pipeline.Stage.
func (s *Stage) Name() string {
	if s.config.Name == "" {
		return Name
	}
	return Name + "/" + s.config.Name
}

// Revision implements pipeline.Stage. It depends only on the name of the program and on the exit
// code that means findings. Reports show the revision, and a hash of arguments or variables would
// help attackers to guess the secrets in them.
func (s *Stage) Revision() string {
	return pipeline.Revision(version, []any{s.config.Command[0], s.config.Refuses})
}

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

// prepare makes the directory of the layout, which the program may read, and the program's home
// directory, which the program may write. Only the user of dray and the group of the program may
// enter dir, which holds both.
func (s *Stage) prepare(dir string) (layout, home string, err error) {
	layout, home = filepath.Join(dir, "layout"), filepath.Join(dir, "home")
	err = errors.Join(os.Chmod(dir, 0o750), makeReadable(layout), os.Mkdir(home, 0o700))
	if err == nil && os.Geteuid() == 0 {
		err = errors.Join(os.Chown(dir, 0, s.config.GID), os.Chown(home, s.config.UID, s.config.GID))
	}
	return layout, home, err
}

func (s *Stage) run(ctx context.Context, layout, home string, img *pipeline.Image) ([]pipeline.Finding, error) {
	var stdout, stderr boundedBuffer
	p := s.program(layout, home, img)
	p.stdout, p.stderr = &stdout, &stderr
	code, err := p.run(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	switch {
	case err != nil:
	case code == 0:
		return nil, nil
	case code == s.config.Refuses:
		return findings(stdout.Bytes(), stderr.Bytes()), nil
	default:
		err = fmt.Errorf("exit status %d", code)
	}
	return nil, fmt.Errorf("%s: %w: %s", s.Name(), err, tail(stderr.Bytes(), 300))
}

// program is a command with its environment, working directory, user and outputs.
type program struct {
	args, env      []string
	dir            string
	uid, gid       int
	stdout, stderr io.Writer
}

// program returns the command that checks an image. The command is a shell that sets limits and
// then executes the operator's program, because os/exec cannot set limits. The shell gets the
// arguments as parameters, and does not parse them.
func (s *Stage) program(layout, home string, img *pipeline.Image) program {
	// ulimit -t bounds the processor time of all threads of a process together (setrlimit(2),
	// RLIMIT_CPU). With this bound, the threads can use all processors until the timeout ends.
	seconds := (int(s.config.Timeout/time.Second) + 1) * runtime.NumCPU()
	limits := "ulimit -c 0; ulimit -t " + strconv.Itoa(seconds) + "; "
	if s.config.MemoryBytes > 0 {
		limits += "ulimit -v " + strconv.FormatInt(s.config.MemoryBytes>>10, 10) + "; "
	}
	fill := strings.NewReplacer("{layout}", layout, "{repository}", img.Repository, "{tag}", img.Tag, "{digest}", img.Digest.String())
	args := []string{"/bin/sh", "-c", limits + `exec "$@"`, "sh", s.path}
	for _, a := range s.config.Command[1:] {
		args = append(args, fill.Replace(a))
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home}
	if s.config.Environment != nil {
		env = append(env, s.config.Environment()...)
	}
	return program{args: args, env: env, dir: home, uid: s.config.UID, gid: s.config.GID}
}

// boundedBuffer keeps the first bytes that are written, and discards the rest.
type boundedBuffer struct{ bytes.Buffer }

// Write implements io.Writer.
func (b *boundedBuffer) Write(p []byte) (int, error) {
	if room := maxOutput - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// ReadFrom hides the ReadFrom of bytes.Buffer, which reads without a bound.
func (b *boundedBuffer) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

// findings parses {"findings": [...]} in stdout. If stdout has no findings, it appends stderr to
// stdout, and returns one finding with the end of this text.
func findings(stdout, stderr []byte) []pipeline.Finding {
	var wire struct {
		Findings []pipeline.ExternalFinding `json:"findings"`
	}
	if json.Unmarshal(stdout, &wire) == nil && len(wire.Findings) > 0 {
		return pipeline.FindingsOf(wire.Findings, "")
	}
	text := tail(slices.Concat(stdout, stderr), 400)
	return []pipeline.Finding{{Rule: RuleRefused, What: cmp.Or(text, "the program gave no reason")}}
}

// tail returns the last n bytes of a text.
func tail(p []byte, n int) string {
	p = bytes.TrimSpace(p)
	return strings.ToValidUTF8(string(p[max(0, len(p)-n):]), "")
}
