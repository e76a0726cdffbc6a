package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"dray/upstream/ecrtest"
)

// prepare checks that the program of a command exists. If there is no --tls-cert, it sets --tls and
// a default of --ca-file. The registry then serves HTTPS, as ECR does, and the command can verify
// its certificate, so that configurations for ECR work unchanged. The caller removes the directory
// dir, which prepare makes for the certificate's authority.
func (f *flags) prepare(command []string) (dir string, err error) {
	if f.hub || f.public {
		return "", errors.New("a command gets the variables of a stand-in for ECR: leave out --hub and --public")
	}
	if _, err = exec.LookPath(command[0]); err != nil {
		return "", fmt.Errorf("run a command in front of the stand-in: %w", err)
	}
	if dir, err = os.MkdirTemp("", "fakeecr-"); err != nil {
		return "", err
	}
	if f.certFile == "" {
		f.tls, f.caFile = true, cmp.Or(f.caFile, filepath.Join(dir, "ca.pem"))
	}
	return dir, nil
}

// runCommand runs the command with the variables of the stand-in, and returns when the command has
// ended. If ctx ends first, it sends SIGTERM to the command. The command has a process group of its
// own, so that Ctrl-C does not send it a second signal.
func runCommand(ctx context.Context, srv *ecrtest.Running, environ []variable, command []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = os.Environ()
	for _, v := range environ {
		cmd.Env = append(cmd.Env, v.name+"="+v.value)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives the command
	served := make(chan error, 1)
	go func() { served <- srv.Run(serving) }()
	err := cmd.Run()
	stop()
	exit, ok := errors.AsType[*exec.ExitError](err)
	killed := ok && ctx.Err() != nil && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGTERM
	if killed || errors.Is(err, context.Canceled) {
		err = nil // SIGTERM has ended the command, which has no handler for it or has exited with 0
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", command[0], err)
	}
	return errors.Join(err, <-served)
}
