package main

import (
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

// prepare looks for the program of a command, and lets the registry speak HTTPS with a
// certificate that the command trusts, as ECR does: configurations that name ECR then work as they
// are. It returns a directory to remove, which has the authority of the certificate.
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
	if f.certFile == "" && f.caFile == "" {
		f.tls, f.caFile = true, filepath.Join(dir, "ca.pem")
	}
	return dir, nil
}

// runCommand runs the command with the variables of the stand-in until it ends, or until ctx ends
// and the command has followed. Only this process passes a Ctrl-C on, so that the command gets one
// signal and not two.
func runCommand(ctx context.Context, srv *ecrtest.Running, environ []variable, command []string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = os.Environ()
	for _, v := range environ {
		cmd.Env = append(cmd.Env, v.name+"="+v.value)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // longer than the command runs
	served := make(chan error, 1)
	go func() { served <- srv.Run(serving) }()
	err := cmd.Run()
	stop()
	if errors.Is(err, context.Canceled) {
		err = nil // the command has ended as it was told
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", command[0], err)
	}
	return errors.Join(err, <-served)
}
