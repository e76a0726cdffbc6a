package scanner

import "syscall"

// apart is a program in a group of its own, which ends with dray however that ends.
func apart() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
