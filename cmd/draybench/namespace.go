package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"unsafe"
)

const congestionFile = "/proc/sys/net/ipv4/tcp_congestion_control"

func congestion() string {
	b, err := os.ReadFile(congestionFile)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// enterNamespace runs this program in a network namespace of its own, in which it may choose the
// congestion control of TCP. Without root it also uses a user namespace. enterNamespace waits until
// the program in the namespace ends, and returns its error. If the kernel refuses the namespace,
// the error is errNoNamespace.
func enterNamespace(ctx context.Context, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	attr := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		attr.AmbientCaps = []uintptr{12} // CAP_NET_ADMIN, capabilities(7)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that the child stops its servers
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %w", errNoNamespace, err)
	}
	return cmd.Wait()
}

var errNoNamespace = errors.New("no network namespace")

// prepareNamespace brings up the loopback interface and chooses a congestion control that does not
// pace segments. BBR, which the host may use, spreads segments over a round trip. On a loopback
// interface, unlike on a real network, this spreading limits the rate. The kernel lets a namespace
// choose among the algorithms that the host allows to all users. reno is always one of these, and
// on a loopback interface it behaves like cubic.
func prepareNamespace() error {
	if err := bringUp("lo"); err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	var err error
	for _, algorithm := range []string{"cubic", "reno"} {
		if err = os.WriteFile(congestionFile, []byte(algorithm), 0); err == nil {
			return nil
		}
	}
	return err
}

// bringUp sets the flag IFF_UP of an interface, netdevice(7).
func bringUp(name string) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:15], name)
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // checks that the flag gave the interface its address
	if err != nil {
		return err
	}
	return l.Close()
}
