package metatest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a real redis-server of one test, which the test may kill.
type RedisServer struct {
	Addr string // host:port on the loopback

	t    testing.TB
	dir  string
	args []string
	cmd  *exec.Cmd
}

// StartRedis starts a redis-server on a free port of 127.0.0.1, and stops it when the test ends. It
// skips the test if the program is not installed. The program gets args, of which the first may be
// a configuration file. Without such a file, it has no persistence.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed (Debian: apt-get install redis-server)")
	}
	r := &RedisServer{Addr: FreeAddr(t), t: t, dir: t.TempDir(), args: args}
	t.Cleanup(r.Kill)
	r.Start()
	return r
}

// FreeAddr returns an address of 127.0.0.1 on which nothing listened a moment ago.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Start starts the server and waits until it answers. After a Kill, the server gets the same port
// again.
func (r *RedisServer) Start() {
	r.t.Helper()
	host, port, _ := net.SplitHostPort(r.Addr)
	args := append(r.args[:len(r.args):len(r.args)],
		"--bind", host, "--port", port, "--dir", r.dir, "--logfile", "redis.log", "--daemonize", "no")
	if len(r.args) == 0 || strings.HasPrefix(r.args[0], "--") {
		args = append(args, "--save", "", "--appendonly", "no")
	}
	r.cmd = exec.Command("redis-server", args...)
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.Eventually("answer to PING", func() bool { return strings.HasPrefix(r.Do("PING"), "+PONG") })
}

// Kill ends the server at once.
func (r *RedisServer) Kill() {
	if r.cmd == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
	r.cmd = nil
}

// Pause makes the server hang. The kernel still accepts connections, but the server never answers.
func (r *RedisServer) Pause() { r.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (r *RedisServer) Resume() { r.signal(syscall.SIGCONT) }

func (r *RedisServer) signal(s os.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(s); err != nil {
		r.t.Fatal(err)
	}
}

// Do sends one command on a connection of its own. It returns the beginning of the raw answer, or
// the error as text.
func (r *RedisServer) Do(words ...string) string {
	conn, err := net.DialTimeout("tcp", r.Addr, time.Second)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		b.WriteString("$" + strconv.Itoa(len(w)) + "\r\n" + w + "\r\n")
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return err.Error()
	}
	answer := make([]byte, 64<<10)
	n, err := conn.Read(answer)
	if err != nil {
		return err.Error()
	}
	return string(answer[:n])
}

// Eventually waits until condition returns true, and fails the test after 20 seconds. It uses real
// time, because a test cannot control the clock of a server.
func (r *RedisServer) Eventually(what string, condition func() bool) {
	r.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if condition() {
			return
		}
	}
	log, _ := os.ReadFile(filepath.Join(r.dir, "redis.log"))
	r.t.Fatalf("no %s from %s; its log:\n%s", what, r.Addr, log)
}
