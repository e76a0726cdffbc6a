package e2e

import (
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"dray/cache/meta/metatest"
)

// soakFleet is what the members of a soak share, and what goes wrong between them.
type soakFleet struct {
	redis  *metatest.RedisServer
	bucket *sharedBucket
	gates  map[*stack]soakGates
}

// soakGates are the ways of a member to the others, and to Redis.
type soakGates struct{ door, store *gate }

// newFleet starts members before the registries of the soak.
func (k *soak) newFleet(t *testing.T, members int, configure func(map[string]any)) *soakFleet {
	t.Helper()
	f := &soakFleet{redis: metatest.StartRedis(t), bucket: startBucket(t, k.ip), gates: map[*stack]soakGates{}}
	secret := filepath.Join(shortDir(t), "secret")
	write(t, secret, []byte("0123456789abcdef0123456789abcdef"))
	for range members {
		s := k.sibling(t)
		g := soakGates{newGate(t, net.JoinHostPort(s.ip, "5444"), net.JoinHostPort(s.ip, "5445")), newGate(t, net.JoinHostPort(s.ip, "6379"), f.redis.Addr)}
		s.configure(stackOptions{configure: func(c map[string]any) {
			configure(c)
			f.bucket.configure(c)
			c["bucket"].(map[string]any)["timeout"] = "1s"
			c["metadata"] = map[string]any{"url": "redis://" + g.store.addr}
			c["fleet"] = map[string]any{"address": g.door.to, "advertise": g.door.addr, "secret_file": secret}
		}})
		s.start()
		f.gates[s] = g
		k.add(t, s)
	}
	return f
}

// trouble has something go wrong for some seconds.
func (f *soakFleet) trouble(r *rand.Rand, m *soakMember) {
	g, length := f.gates[m.stack], time.Duration(500+r.IntN(6000))*time.Millisecond
	switch r.IntN(7) {
	case 0, 1: // it hangs
		_ = m.dray.cmd.Process.Signal(syscall.SIGSTOP)
		time.Sleep(length)
		_ = m.dray.cmd.Process.Signal(syscall.SIGCONT)
	case 2: // others do not reach it
		g.door.swallow(true)
		time.Sleep(length)
		g.door.swallow(false)
	case 3: // it does not reach Redis
		g.store.swallow(true)
		time.Sleep(length)
		g.store.swallow(false)
	case 4: // neither
		g.door.swallow(true)
		g.store.swallow(true)
		time.Sleep(length)
		g.door.swallow(false)
		g.store.swallow(false)
	case 5:
		f.redis.Do("FLUSHALL")
	case 6: // the bucket fails
		fault := func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code></Error>")
			return true
		}
		f.bucket.fault.Store(&fault)
		time.Sleep(length)
		f.bucket.fault.Store(nil)
	}
}
