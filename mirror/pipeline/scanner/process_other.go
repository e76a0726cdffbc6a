//go:build !linux

package scanner

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// run runs the program and returns its exit code. The error says why there is no exit code. If ctx
// ends first, run ends the process group of the program. Unlike the version for Linux, it does not
// end processes that left this group, or that the program leaves behind.
func (p program) run(ctx context.Context) (code int, err error) {
	cmd := exec.CommandContext(ctx, p.args[0], p.args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, p.stdout, p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.uid != os.Geteuid() || p.gid != os.Getegid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(p.uid), Gid: uint32(p.gid)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a process that left the group may hold the pipes open
	err = cmd.Run()
	if exit, exited := errors.AsType[*exec.ExitError](err); exited && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// Supervise returns false, because there are supervisors only on Linux.
func Supervise([]string) (code int, was bool) { return 0, false }

// HideProcess does nothing.
func HideProcess() {}
