package scanner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// supervisorName is argument 0 of a supervisor. A supervisor is this executable, started once more
// to run one program. It ends all processes that the program started, even those that left the
// program's process group. It finds them among its own children: when the parent of such a process
// ends, the kernel makes the supervisor the new parent. If dray may make a PID namespace
// (pid_namespaces(7)), the supervisor is the first process of that namespace. When the supervisor
// ends, the kernel ends all other processes there.
const supervisorName = "dray-exec-supervisor"

// outcomeFD is the descriptor to which a supervisor writes the outcome of its program.
const outcomeFD = 3

// maxSweep is how long [sweep] tries to end processes, and sweepGap is its pause between two
// attempts.
const (
	maxSweep = 2 * time.Second
	sweepGap = 2 * time.Millisecond
)

// run runs the program and returns its exit code. The error says why there is no exit code.
func (p program) run(ctx context.Context) (code int, err error) {
	err = errUnstarted
	// If the supervisor cannot start in a PID namespace, start it without one: only root may make a
	// PID namespace, and in most containers not even root.
	for _, flags := range []uintptr{unix.CLONE_NEWPID, 0} {
		if flags == 0 || os.Geteuid() == 0 {
			code, err = p.supervised(ctx, flags)
		}
		if !errors.Is(err, errUnstarted) {
			break
		}
	}
	return code, err
}

// errUnstarted means that there is no supervisor, because the system refused to start it.
var errUnstarted = errors.New("the program was not started")

// supervised runs the program below a supervisor. It starts the supervisor with the given flags of
// clone(2).
func (p program) supervised(ctx context.Context, flags uintptr) (code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = append([]string{supervisorName, strconv.Itoa(p.uid), strconv.Itoa(p.gid)}, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, p.stdout, p.stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: flags}
	cmd.WaitDelay = maxSweep + time.Second
	// The supervisor ends the program when the supervisor's own standard input ends. That also happens
	// if dray is killed.
	alive, err := cmd.StdinPipe()
	if err == nil {
		cmd.Cancel = alive.Close
		err = cmd.Start()
	}
	_ = w.Close()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errUnstarted, err)
	}
	// The outcome can be read after Wait: it is written before the supervisor ends, and it fits into
	// the buffer of the pipe.
	err = cmd.Wait()
	text, rerr := io.ReadAll(r)
	if err = errors.Join(err, rerr); err != nil {
		return 0, err
	}
	exit, why, _ := strings.Cut(string(text), " ")
	if code, err = strconv.Atoi(exit); err != nil || why != "" {
		return 0, errors.New(why)
	}
	return code, nil
}

// Supervise does the work of a supervisor, if args are the arguments of a supervisor. It returns
// the exit code of this process, and true if the process was a supervisor. Every program that runs
// scanners must call Supervise first, and exit with the code if the result is true.
func Supervise(args []string) (code int, was bool) {
	if len(args) < 4 || args[0] != supervisorName {
		return 0, false
	}
	outcome := os.NewFile(outcomeFD, "outcome")
	unix.CloseOnExec(outcomeFD)
	_ = unix.CloseRange(outcomeFD, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC) // the program does not get descriptors that dray inherited; needs Linux 5.11
	exit, err := supervise(args[1], args[2], args[3:])
	text := strconv.Itoa(exit)
	if err != nil {
		text += " " + err.Error()
	}
	if _, err := outcome.WriteString(text); err != nil {
		return 1, true
	}
	return 0, true
}

// supervise runs a program, and then ends all processes that the program started.
func supervise(uid, gid string, command []string) (exit int, err error) {
	HideProcess()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("prctl: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if cmd.SysProcAttr.Credential, err = credential(uid, gid); err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		if cmd.SysProcAttr.Credential != nil && errors.Is(err, unix.EPERM) {
			return 0, fmt.Errorf("dray may not start programs as the user %s: %w; let it have CAP_SETUID and CAP_SETGID", uid, err)
		}
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // an error counts as the end of the input
		select {
		case <-ended:
		default:
			_ = cmd.Process.Kill() // fails only if the program has ended
		}
	}()
	err = cmd.Wait()
	close(ended)
	if os.Getpid() != 1 { // for process 1, the kernel ends the other processes of its PID namespace
		sweep()
	}
	if exit, exited := errors.AsType[*exec.ExitError](err); exited && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// credential returns the user and group of a program. If this process already has them, the result
// is nil, because setting them needs a privilege that this process may lack.
func credential(uid, gid string) (*syscall.Credential, error) {
	u, err1 := strconv.ParseUint(uid, 10, 32)
	g, err2 := strconv.ParseUint(gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	if int(u) == os.Geteuid() && int(g) == os.Getegid() {
		return nil, nil
	}
	return &syscall.Credential{Uid: uint32(u), Gid: uint32(g)}, nil
}

// sweep ends the children of this process, and processes that become its children meanwhile. It
// gives up after maxSweep, because a process can start processes faster than [sweep] ends them.
func sweep() {
	for end := time.Now().Add(maxSweep); time.Now().Before(end); time.Sleep(sweepGap) {
		for _, pid := range children() {
			_ = unix.Kill(pid, unix.SIGKILL) // pid belongs to this child until Wait4 returns pid
		}
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if errors.Is(err, unix.ECHILD) {
				return
			}
			if pid <= 0 {
				break
			}
		}
	}
}

// children returns the IDs of the processes whose parent is this process (proc_pid_stat(5)).
func children() (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	parent := strconv.Itoa(os.Getpid())
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		// The name of the executable stands in parentheses, and may itself have parentheses. So the
		// fields after it begin at the last parenthesis.
		_, rest, _ := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
		fields := strings.Fields(rest)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil && len(fields) > 1 && fields[1] == parent {
			pids = append(pids, pid)
		}
	}
	return pids
}

// HideProcess keeps other processes of the same user from reading the environment and the memory of
// this process. As a consequence, there are no core dumps (PR_SET_DUMPABLE in prctl(2)).
func HideProcess() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // fails only for values other than 0 and 1
}
