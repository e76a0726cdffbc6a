package redis_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/cache/meta/metatest"
	"dray/cache/meta/redis"
)

// leasesIn returns the leases in a Redis at a URL, and a way to look at them in its servers.
func leasesIn(t *testing.T, url string, servers ...*metatest.RedisServer) fleettest.Store {
	t.Helper()
	// The long timeout is for machines under load; the suite bounds nothing.
	store := open(t, redis.Options{URL: url, Timeout: 10 * time.Second})
	do := func(words ...string) (answer string) { // of the last server that does not refer to another
		for _, s := range servers {
			if a := s.Do(words...); !strings.HasPrefix(a, "-MOVED") {
				answer = a
			}
		}
		return answer
	}
	do("FLUSHALL")
	key := func(d digest.Digest) string { return "dray:{fleet}:lease:" + string(d) }
	return fleettest.Store{
		Leases: store.Leases(),
		Flush:  func() { do("FLUSHALL") },
		Expire: func(d digest.Digest) { do("PEXPIRE", key(d), "0") },
		TTL: func(d digest.Digest) int64 {
			ms, _ := strconv.ParseInt(strings.Trim(do("PTTL", key(d)), ":\r\n"), 10, 64)
			return ms
		},
	}
}

func TestLeases(t *testing.T) {
	server := metatest.StartRedis(t)
	fleettest.Suite(t, func(t *testing.T) fleettest.Store { return leasesIn(t, "redis://"+server.Addr, server) })
}

// TestClaims also has a blob whose digest is that of a claimed name.
func TestClaims(t *testing.T) {
	server := metatest.StartRedis(t)
	store := open(t, redis.Options{URL: "redis://" + server.Addr, Timeout: 10 * time.Second})
	blob := fleet.Member{ID: "fetches", Address: "127.0.0.1:1"}
	for i := range 2 {
		if _, err := store.Leases().Take(t.Context(), digest.FromString("blob "+strconv.Itoa(i)), blob, 0); err != nil {
			t.Fatal(err)
		}
	}
	fleettest.Claims(t, store.Claims())
	server.Kill()
	if _, err := store.Claims().Find(t.Context(), digest.FromString("x")); err == nil {
		t.Error("Find succeeded without Redis")
	}
}

// TestLeasesAway has Redis away: each call fails, and works again when Redis is back.
func TestLeasesAway(t *testing.T) {
	server := metatest.StartRedis(t)
	s := leasesIn(t, "redis://"+server.Addr, server)
	m := fleet.Member{ID: "one", Address: "127.0.0.1:1"}
	server.Kill()
	if _, err := s.Take(t.Context(), digest.FromString("x"), m, 0); err == nil {
		t.Error("Take succeeded without Redis")
	}
	if _, err := s.Renew(t.Context(), m, nil); err == nil {
		t.Error("Renew succeeded without Redis")
	}
	server.Start()
	server.Eventually("a lease", func() bool {
		l, err := s.Take(t.Context(), digest.FromString("x"), m, 0)
		return err == nil && l.Holder == "one"
	})
}

// TestLeasesOfNewerVersions: fields that another version has added to a lease or a member have no
// effect, and stay.
func TestLeasesOfNewerVersions(t *testing.T) {
	server := metatest.StartRedis(t)
	s := leasesIn(t, "redis://"+server.Addr, server)
	m, d := fleet.Member{ID: "one", Address: "127.0.0.1:1"}, digest.FromString("x")
	key := "dray:{fleet}:lease:" + string(d)
	newer := `99999999999999999 {"id":"two","address":"127.0.0.1:2","protocol":2,"mood":{"good":true},"upstreams":"[{\"name\":\"hub\",\"identity\":\"i\",\"more\":1}]"}`
	server.Do("HSET", "dray:{fleet}:members", "two", newer)
	server.Do("HSET", key, "m", "two", "a", "127.0.0.1:2", "g", "5", "more", "1")
	if l, err := s.Take(t.Context(), d, m, 0); err != nil || l.Holder != "two" || l.Generation != 5 {
		t.Errorf("a lease with a further field: %+v, %v", l, err)
	}
	if _, err := s.Renew(t.Context(), m, []fleet.Lease{{Digest: d, Holder: "one", Generation: 4}}); err != nil {
		t.Error(err)
	}
	if l, err := s.Take(t.Context(), d, m, 5); err != nil || l.Holder != "one" || l.Generation <= 5 {
		t.Errorf("taken from a member of another version: %+v, %v", l, err)
	}
	if answer := server.Do("HGET", key, "more"); !strings.HasSuffix(answer, "\r\n1\r\n") {
		t.Errorf("the further field of the lease is %q", answer)
	}
	all, err := s.Members(t.Context())
	if err != nil || len(all) != 2 || all[1].ID != "two" || all[1].Protocol != 2 || len(all[1].Upstreams.All()) != 1 {
		t.Errorf("got %+v, %v", all, err)
	}
	if answer := server.Do("HGET", "dray:{fleet}:members", "two"); !strings.Contains(answer, newer) {
		t.Errorf("what the other member has written is now %s", answer)
	}
}

// TestLeasesForeign finds something else under the keys of leases and members.
func TestLeasesForeign(t *testing.T) {
	server := metatest.StartRedis(t)
	s := leasesIn(t, "redis://"+server.Addr, server)
	m := fleet.Member{ID: "one", Address: "127.0.0.1:1"}
	d := digest.FromString("x")
	for _, key := range []string{"dray:{fleet}:lease:" + string(d), "dray:{fleet}:members"} {
		server.Do("SET", key, "text")
	}
	if _, err := s.Take(t.Context(), d, m, 0); err == nil {
		t.Error("took a lease that is no hash")
	}
	if _, err := s.Renew(t.Context(), m, nil); err == nil {
		t.Error("renewed among members that are no hash")
	}
	server.Do("FLUSHALL")
	server.Do("HSET", "dray:{fleet}:lease:"+string(d), "m", "two", "a", "127.0.0.1:2", "g", "later")
	if l, err := s.Take(t.Context(), d, m, 0); err == nil {
		t.Errorf("a lease without a number: %+v", l)
	}
	server.Do("HSET", "dray:{fleet}:members", "two", "no member")
	if all, err := s.Members(t.Context()); err != nil || len(all) > 0 {
		t.Errorf("got %v, %v", all, err)
	}
}
