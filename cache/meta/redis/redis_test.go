package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"dray/cache/fleet/fleettest"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/cache/meta/redis"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, o redis.Options) *redis.Store {
	t.Helper()
	s, err := redis.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// suite gives every test of the suite a prefix of its own, with characters that
// mean something in a pattern.
func suite(t *testing.T, url string, wrap func(meta.Store) meta.Store) {
	var n atomic.Int64
	metatest.Suite{RealTime: true, InSteps: strings.Contains(url, "cluster"), Open: func(t *testing.T) meta.Store {
		// The long timeout is for machines under load; the suite bounds nothing.
		return wrap(open(t, redis.Options{URL: url, Prefix: fmt.Sprintf("t*[%d]:", n.Add(1)), Timeout: 10 * time.Second}))
	}}.Run(t)
}

func TestSuite(t *testing.T) {
	server := metatest.StartRedis(t)
	// Keys of other programs are neither seen nor changed.
	server.Do("SET", "v1/tag/foreign", "x")
	server.Do("LPUSH", "list", "x")
	suite(t, "redis://"+server.Addr, func(s meta.Store) meta.Store { return s })
	if got := server.Do("GET", "v1/tag/foreign"); !strings.Contains(got, "\r\nx\r\n") {
		t.Errorf("a foreign key is now %q", got)
	}
}

func TestSuiteFronted(t *testing.T) {
	server := metatest.StartRedis(t)
	suite(t, "redis://"+server.Addr+"/3", func(s meta.Store) meta.Store {
		return meta.NewCached(meta.NewGuarded(s, meta.GuardOptions{Timeout: 10 * time.Second}), meta.CachedOptions{})
	})
}

func TestSuiteCluster(t *testing.T) {
	one := metatest.StartRedis(t, clusterArgs(t)...)
	two := metatest.StartRedis(t, clusterArgs(t)...)
	for _, answer := range []string{
		one.Do("CLUSTER", "ADDSLOTSRANGE", "0", "8191"),
		two.Do("CLUSTER", "ADDSLOTSRANGE", "8192", "16383"),
		two.Do("CLUSTER", "SET-CONFIG-EPOCH", "2"),
		one.Do("CLUSTER", "MEET", "127.0.0.1", port(two.Addr), busPort(t, two)),
	} {
		if !strings.HasPrefix(answer, "+OK") {
			t.Fatalf("cluster: %s", answer)
		}
	}
	for _, node := range []*metatest.RedisServer{one, two} {
		node.Eventually("whole cluster", func() bool {
			return strings.Contains(node.Do("CLUSTER", "INFO"), "cluster_state:ok")
		})
	}
	suite(t, "redis+cluster://"+one.Addr, func(s meta.Store) meta.Store { return s })
	fleettest.Suite(t, func(t *testing.T) fleettest.Store { return leasesIn(t, "redis+cluster://"+one.Addr, one, two) })
}

func clusterArgs(t *testing.T) []string {
	return []string{"--cluster-enabled", "yes", "--cluster-port", port(metatest.FreeAddr(t))}
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

func busPort(t *testing.T, node *metatest.RedisServer) string {
	t.Helper()
	_, rest, ok := strings.Cut(node.Do("CLUSTER", "NODES"), "@") // id host:port@busport[,hostname] myself…
	if !ok {
		t.Fatal("no bus port")
	}
	return rest[:strings.IndexAny(rest, ", ")]
}

func TestSentinel(t *testing.T) {
	master := metatest.StartRedis(t)
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	monitor := fmt.Sprintf("sentinel monitor facts 127.0.0.1 %s 1\n", port(master.Addr))
	if err := os.WriteFile(config, []byte(monitor), 0o600); err != nil {
		t.Fatal(err)
	}
	watcher := metatest.StartRedis(t, config, "--sentinel")
	s := open(t, redis.Options{URL: "redis+sentinel://" + watcher.Addr + "/1?master_name=facts", Timeout: 10 * time.Second})
	metatest.Put(t, s, "k", "v", time.Hour)
	metatest.Want(t, s, "k", "v")
	if got := metatest.Listing(t, s, ""); got["k"] != "v" {
		t.Errorf("listing %v", got)
	}
}

func TestPasswordAndSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "dray") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	server := metatest.StartRedis(t, "--unixsocket", socket, "--user", "mirror", "on", ">secret", "~dray:*", "+@all")
	for _, url := range []string{"redis://mirror:secret@" + server.Addr, "unix://mirror:secret@" + socket} {
		s := open(t, redis.Options{URL: url, Timeout: 10 * time.Second})
		metatest.Put(t, s, "k", url, 0)
		metatest.Want(t, s, "k", url)
	}
	s := open(t, redis.Options{URL: "redis://mirror:wrong@" + server.Addr})
	if _, err := s.Get(t.Context(), "k"); err == nil || errors.Is(err, meta.ErrNotFound) || strings.Contains(err.Error(), "wrong@") {
		t.Errorf("wrong password: %v", err)
	}
	// A password that is put right serves the next connection.
	password := "wrong"
	s = open(t, redis.Options{URL: "redis://mirror:former@" + server.Addr, Timeout: 10 * time.Second, Password: func() string { return password }})
	if _, err := s.Get(t.Context(), "k"); err == nil || errors.Is(err, meta.ErrNotFound) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password of a file: %v", err)
	}
	password = "secret"
	metatest.Put(t, s, "k", "v", 0)
	metatest.Want(t, s, "k", "v")
}

func TestURLs(t *testing.T) {
	for _, url := range []string{
		"", "localhost:6379", "http://localhost", "redis+http://localhost", "unix+cluster:///s",
		"redis://hunter2@localhost/notanumber", "redis://u:hunter2@local host/", "redis://u:hunter2@h?nonsense=1",
		"redis+sentinel://u:hunter2@h/0", "redis+cluster://u:hunter2@h?db=x", "redis://u:hunter2@h:port",
		"redis://u:hunter2/x@h", "redis://u:hunter2", "redis://u:6379/hunter2@h/0", "redis://u:6379?hunter2@h", "redis+sentinel://u:6379#hunter2@h",
	} {
		s, err := redis.Open(redis.Options{URL: url})
		if !errors.Is(err, redis.ErrURL) {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in %q", err)
		}
		if s != nil {
			_ = s.Close()
		}
	}
	for _, url := range []string{
		"redis://h", "rediss://u:p@h:1/2?pool_size=3", "unix:///run/redis.sock", "rediss+sentinel://h?master_name=m&addr=h2:2",
		"redis+cluster://h:1?addr=h2:2", "rediss+cluster://h:1",
	} {
		open(t, redis.Options{URL: url}) // connects to nothing
	}
}

// TestHangs checks that the context ends a request to a server that
// hangs, and that the store's own bound does when the context has none.
func TestHangs(t *testing.T) {
	server := metatest.StartRedis(t)
	s := open(t, redis.Options{URL: "redis://" + server.Addr, Timeout: 300 * time.Millisecond})
	metatest.Put(t, s, "k", "v", 0)
	server.Pause()
	defer server.Resume()
	start := time.Now()
	if _, err := s.Get(t.Context(), "k"); err == nil || errors.Is(err, meta.ErrNotFound) {
		t.Errorf("hanging server: %v", err)
	}
	if waited := time.Since(start); waited > 3*time.Second {
		t.Errorf("waited %v", waited)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Get(ctx, "k"); err == nil || errors.Is(err, meta.ErrNotFound) {
		t.Errorf("hanging server: %v", err)
	}
}

// TestOutage kills the server of a store with the wrappers that a mirror uses, and starts it again
// empty. It checks that facts in memory are still found, that no caller waits, and that the store
// is used again afterwards.
func TestOutage(t *testing.T) {
	server := metatest.StartRedis(t)
	store := open(t, redis.Options{URL: "redis://" + server.Addr})
	guard := meta.NewGuarded(store, meta.GuardOptions{Timeout: 2 * time.Second, Retry: 100 * time.Millisecond})
	front := meta.NewCached(guard, meta.CachedOptions{Staleness: time.Millisecond})
	metatest.Put(t, front, "held", "v", time.Hour)
	metatest.Want(t, front, "held", "v")
	if err := guard.Check(t.Context()); err != nil {
		t.Fatal(err)
	}

	server.Kill()
	for i := range 10 {
		if _, err := front.Get(t.Context(), fmt.Sprint("unknown ", i)); err == nil || errors.Is(err, meta.ErrNotFound) {
			t.Fatalf("down: %v", err)
		}
	}
	if isAsked(guard) || guard.Check(t.Context()) == nil {
		t.Error("the outage went unnoticed")
	}
	start := time.Now()
	for range 1000 {
		metatest.Want(t, front, "held", "v")
	}
	if waited := time.Since(start); waited > 2*time.Second {
		t.Errorf("1000 reads of what is held took %v", waited)
	}
	if err := front.Put(t.Context(), "unsaved", []byte("u"), time.Hour); err == nil {
		t.Error("a write that nobody kept was no error")
	}
	metatest.Want(t, front, "unsaved", "u")

	server.Start()
	server.Eventually("recovery", func() bool { return guard.Check(t.Context()) == nil })
	if !isAsked(guard) {
		t.Error("not healthy after recovery")
	}
	server.Eventually("end of what was written meanwhile", func() bool {
		_, err := front.Get(t.Context(), "unsaved")
		return errors.Is(err, meta.ErrNotFound)
	})
	metatest.WantAbsent(t, store, "unsaved")
	// The server came back empty, so the fact is gone: lost, not wrong.
	server.Eventually("loss of the old fact", func() bool {
		_, err := front.Get(t.Context(), "held")
		return errors.Is(err, meta.ErrNotFound)
	})
	metatest.Put(t, front, "held", "again", time.Hour)
	metatest.Want(t, store, "held", "again")
}

// isAsked reports whether the guard asks its store, as its metric says.
func isAsked(g *meta.Guarded) bool {
	for _, c := range g.Collectors() {
		if up, ok := c.(prometheus.Gauge); ok {
			return testutil.ToFloat64(up) == 1
		}
	}
	return false
}
