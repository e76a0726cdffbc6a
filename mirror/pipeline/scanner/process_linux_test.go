package scanner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A program can read neither the environment nor the memory of dray or of its supervisor.
func TestNothingOfDray(t *testing.T) {
	found, err := check(t, Config{Command: script(fmt.Sprintf(
		`for pid in $PPID %d; do for file in environ mem; do head -c 1 /proc/$pid/$file 2>/dev/null; done; ls /proc/$pid/fd 2>/dev/null; done; ls /proc/self/fd | grep -c .; exit 1`, os.Getpid()))})
	if err != nil || len(found) != 1 || found[0].What != "4" { // of ls: standard streams and the directory
		t.Errorf("read: %q, %v", found, err)
	}
}

// Whatever a program starts ends with it, if it ends by itself and if it is ended, with a PID
// namespace and without.
func TestNoProcessOutlivesTheProgram(t *testing.T) {
	const leaves = `(setsid sh -c 'trap "" HUP TERM INT; (setsid sleep 1000 &) ; echo begun; sleep 1000' &) ; sleep 1000 & `
	for name, tc := range map[string]struct {
		end   string
		stops bool // dray ends it
		code  int
		fails bool
	}{
		"by itself":     {end: "read line <$1; exit 7", code: 7},
		"by a signal":   {end: "read line <$1; kill -9 $$", fails: true},
		"by dray":       {end: "sleep 1000", stops: true, fails: true},
		"with children": {end: "(while :; do sleep 0.01 & done) & read line <$1; exit 7", code: 7},
	} {
		for _, flags := range []uintptr{0, unix.CLONE_NEWPID} {
			t.Run(fmt.Sprintf("%s, %x", name, flags), func(t *testing.T) {
				if flags != 0 && os.Geteuid() != 0 {
					t.Skip("only root may make a namespace")
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				dir := t.TempDir()
				begun := filepath.Join(dir, "begun")
				if err := unix.Mkfifo(begun, 0o600); err != nil {
					t.Fatal(err)
				}
				mark := fmt.Sprintf("MARK=%s", dir)
				p := program{
					args: append([]string{"/bin/sh", "-c", leaves + tc.end, "sh"}, begun), env: []string{mark, "PATH=" + os.Getenv("PATH")},
					dir: dir, uid: os.Geteuid(), gid: os.Getegid(), stdout: &signalling{at: "begun", call: func() {
						if tc.stops {
							cancel()
							return
						}
						if err := os.WriteFile(begun, []byte("\n"), 0); err != nil {
							t.Error(err)
						}
					}},
				}
				code, err := p.supervised(ctx, flags)
				if errors.Is(err, errUnstarted) {
					t.Skip(err)
				}
				if (err != nil) != tc.fails || code != tc.code {
					t.Errorf("exit code %d, %v", code, err)
				}
				if left := marked(t, mark); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

// signalling calls a function once, when a text is written.
type signalling struct {
	at   string
	call func()
}

func (s *signalling) Write(p []byte) (int, error) {
	if s.call != nil && bytes.Contains(p, []byte(s.at)) {
		s.call()
		s.call = nil
	}
	return len(p), nil
}

// marked returns the processes that have a variable in their environment, without zombies.
func marked(t *testing.T, variable string) (found []string) {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/environ") // the pattern is well-formed
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		found = nil
		for _, file := range files {
			if env, err := os.ReadFile(file); err == nil && bytes.Contains(env, []byte(variable+"\x00")) {
				found = append(found, file)
			}
		}
		if len(found) == 0 || time.Now().After(end) { // the kernel may still be about to end them
			return found
		}
	}
}
