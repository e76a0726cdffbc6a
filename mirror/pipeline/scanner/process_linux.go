package scanner

import "syscall"

// processGroup makes a program run in its own process group, and die when dray does.
func processGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
