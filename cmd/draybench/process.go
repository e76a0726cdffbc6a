package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHz is the number of clock ticks a second in /proc: USER_HZ is 100 on every architecture that
// Go supports (proc_pid_stat(5)).
const userHz = 100

// process is a server under measurement, with its children.
type process struct {
	cmd    *exec.Cmd
	output string        // the file with its output
	exited chan struct{} // closed when the process has ended
}

// startProcess starts a program. Its environment is the PATH of this process, dir as HOME, and env.
// Its output goes to a file in dir, so that logging costs the server as much as usual, and costs no
// other process anything.
func startProcess(dir string, env []string, path string, args ...string) (*process, error) {
	output, err := os.CreateTemp(dir, "output")
	if err != nil {
		return nil, err
	}
	defer output.Close() // the process has its own handle
	p := &process{cmd: exec.Command(path, args...), output: output.Name(), exited: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, output, output
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends when the process has ended; [process.stop] waits for that
		defer close(p.exited)
		_ = p.cmd.Wait() // if the process has ended early, [process.ready] reports its output
	}()
	return p, nil
}

// ready waits until an address accepts connections.
func (p *process) ready(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.exited:
			text, _ := os.ReadFile(p.output) // if the output cannot be read, the error only says that the process ended
			return fmt.Errorf("%s ended: %s", p.cmd.Path, bytes.TrimSpace(text))
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w", p.cmd.Path, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop ends the process with SIGTERM, or with SIGKILL after 5 s.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-p.exited:
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// tree returns the IDs of the process and its descendants.
func (p *process) tree() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	pids := []int{p.cmd.Process.Pid}
	for i := 0; i < len(pids); i++ {
		pids = append(pids, children[pids[i]]...)
	}
	return pids, nil
}

// cpu returns the CPU time of the process and its descendants, in steps of 10 ms.
func (p *process) cpu() (time.Duration, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	return cpuOf(pids)
}

// cpuOf returns the CPU time of processes. It leaves out processes that have ended since their IDs
// were read.
func cpuOf(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil && !gone(err) {
			return 0, err
		}
		ticks += s.ticks
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}

// peak returns the largest resident set so far, in bytes (VmHWM, proc_pid_status(5)). If the
// process has descendants, peak returns a sum, which counts shared pages several times. The sum
// leaves out descendants that have ended.
func (p *process) peak() (int64, error) {
	pids, err := p.tree()
	if err != nil {
		return 0, err
	}
	return peakOf(pids)
}

func peakOf(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil && !gone(err) {
			return 0, err
		}
		_, after, ok := strings.Cut(string(status), "VmHWM:")
		if !ok { // the process has ended, and its parent may not know yet
			continue
		}
		line, _, _ := strings.Cut(after, "kB")
		kib, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("VmHWM of %d: %w", pid, err)
		}
		sum += kib << 10
	}
	if sum == 0 {
		return 0, fmt.Errorf("no peak of memory: the processes %v have ended", pids)
	}
	return sum, nil
}

// gone reports whether a file of /proc could not be read because its process has ended.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

type stat struct {
	parent int
	ticks  int64 // user and system
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	return parseStat(string(b))
}

// parseStat parses fields 4, 14 and 15 of /proc/PID/stat. Field 2 is the name of the program in
// parentheses. The name can itself contain spaces and parentheses.
func parseStat(s string) (stat, error) {
	end := strings.LastIndexByte(s, ')')
	fields := strings.Fields(s[end+1:])
	if end < 0 || len(fields) < 13 {
		return stat{}, fmt.Errorf("no process status: %q", s)
	}
	parent, err1 := strconv.Atoi(fields[1])
	user, err2 := strconv.ParseInt(fields[11], 10, 64)
	system, err3 := strconv.ParseInt(fields[12], 10, 64)
	return stat{parent, user + system}, errors.Join(err1, err2, err3)
}
