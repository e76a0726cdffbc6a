package redis_test

import (
	"strings"
	"testing"
	"time"

	"dray/cache/fleet"
	"dray/cache/fleet/fleettest"
	"dray/cache/meta/metatest"
	"dray/cache/meta/redis"
)

func sharesIn(t *testing.T, server *metatest.RedisServer, o redis.Options) fleettest.ShareStore {
	t.Helper()
	server.Do("FLUSHALL")
	return fleettest.ShareStore{
		Shares: open(t, o).Shares(),
		Expire: func(rate string) {
			for line := range strings.Lines(server.Do("HKEYS", "dray:{fleet}:share:"+rate)) {
				if by := strings.TrimRight(line, "\r\n"); !strings.HasPrefix(by, "*") && !strings.HasPrefix(by, "$") {
					server.Do("HSET", "dray:{fleet}:share:"+rate, by, "1000 100 1")
				}
			}
		},
	}
}

func TestShares(t *testing.T) {
	server := metatest.StartRedis(t)
	fleettest.ShareSuite(t, func(t *testing.T) fleettest.ShareStore {
		return sharesIn(t, server, redis.Options{URL: "redis://" + server.Addr, Timeout: 10 * time.Second})
	})
}

// TestSharesInRedis counts the commands of one call, has all that is stored expire by itself, and
// has Redis away, and somebody write what is no share.
func TestSharesInRedis(t *testing.T) {
	server := metatest.StartRedis(t)
	s := sharesIn(t, server, redis.Options{URL: "redis://" + server.Addr, Timeout: 10 * time.Second})
	wants := []fleet.Need{{Rate: "rate", By: "hub", Total: 10, PerSecond: 10}}
	ask := func() (float64, error) {
		got, err := s.Share(t.Context(), "a", time.Hour, wants)
		if err != nil {
			return 0, err
		}
		return got[0], nil
	}
	if _, err := ask(); err != nil { // loads the script
		t.Fatal(err)
	}
	server.Do("CONFIG", "RESETSTAT")
	if _, err := ask(); err != nil {
		t.Fatal(err)
	}
	stats := server.Do("INFO", "commandstats")
	for _, c := range []string{"evalsha", "time", "hgetall", "hset", "pexpire"} {
		if !strings.Contains(stats, "cmdstat_"+c+":calls=1,") {
			t.Errorf("one call does not send %s once: %s", c, stats)
		}
	}
	if n := strings.Count(stats, "cmdstat_") - strings.Count(stats, "cmdstat_config|resetstat"); n != 5 {
		t.Errorf("one call sends %d kinds of commands: %s", n, stats)
	}
	if ttl := server.Do("PTTL", "dray:{fleet}:share:rate"); strings.HasPrefix(ttl, ":-") {
		t.Errorf("the shares stay: %s", ttl)
	}
	for _, odd := range []string{"x", "nan nan 99999999999999", "-1 -1000 99999999999999", "1 -1000 99999999999999", "1e9 inf 99999999999999"} {
		server.Do("HSET", "dray:{fleet}:share:rate", "somebody", odd)
		if got, err := ask(); err != nil || got != 10 {
			t.Errorf("beside %q: %v, %v", odd, got, err)
		}
	}
	server.Do("HSET", "dray:{fleet}:share:rate", "newer", "4 4 99999999999999 of another version")
	if got, err := ask(); err != nil || got != 6 {
		t.Errorf("beside a member of a newer version: %v, %v", got, err)
	}
	server.Do("HDEL", "dray:{fleet}:share:rate", "newer")
	server.Kill()
	if _, err := ask(); err == nil {
		t.Error("Share succeeded without Redis")
	}
	server.Start()
	server.Eventually("share", func() bool { got, err := ask(); return err == nil && got == 10 })
}
