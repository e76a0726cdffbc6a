package redis_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"dray/cache/fleet/fleettest"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/cache/meta/redis"
)

// rights returns the words of the command in docs/fleet.md that gives a user of Redis the rights
// that dray needs.
func rights(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`ACL SETUSER dray (?:[^\n]*\\\n)*[^\n]*`).Find(text)
	if command == nil {
		t.Fatal("docs/fleet.md does not say which rights dray needs")
	}
	words := strings.Fields(strings.NewReplacer("\\\n", " ", "'", "").Replace(string(command)))
	return slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, ">") })
}

// allow makes a user of a Redis with these rights, and returns how to log in.
func allow(t *testing.T, server *metatest.RedisServer, words []string) redis.Options {
	t.Helper()
	server.Do("ACL", "DELUSER", "dray")
	if answer := server.Do(append(slices.Clone(words), ">secret")...); !strings.HasPrefix(answer, "+OK") {
		t.Fatalf("%q: %s", words, answer)
	}
	return redis.Options{URL: "redis://dray:secret@" + server.Addr, Timeout: 10 * time.Second}
}

// TestRights: the rights in docs/fleet.md are enough for everything, and Try notices if one of them
// is missing.
func TestRights(t *testing.T) {
	server := metatest.StartRedis(t)
	all := rights(t)
	o := allow(t, server, all)
	for _, member := range []bool{false, true} {
		if err := open(t, o).Try(t.Context(), member); err != nil {
			t.Errorf("member %v: %v", member, err)
		}
	}
	if keys := server.Do("KEYS", "*"); !strings.HasPrefix(keys, "*0") {
		t.Errorf("Try leaves behind %s", keys)
	}
	if _, _, err := open(t, o).Server(t.Context()); err != nil {
		t.Error(err)
	}
	metatest.Suite{RealTime: true, Open: func(t *testing.T) meta.Store {
		server.Do("FLUSHALL")
		return open(t, o)
	}}.Run(t)
	for name, suite := range map[string]func(t *testing.T){
		"leases": func(t *testing.T) {
			fleettest.Suite(t, func(t *testing.T) fleettest.Store { return leasesIn(t, o.URL, server) })
		},
		"claims": func(t *testing.T) { fleettest.Claims(t, open(t, o).Claims()) },
		"shares": func(t *testing.T) {
			fleettest.ShareSuite(t, func(t *testing.T) fleettest.ShareStore { return sharesIn(t, server, o) })
		},
	} {
		server.Do("FLUSHALL")
		t.Run(name, suite)
	}

	for _, word := range all {
		command, ok := strings.CutPrefix(word, "+")
		if !ok || command == "info" { // which says nothing that dray needs
			continue
		}
		server.Do("SCRIPT", "FLUSH") // so that eval is needed
		fewer := slices.DeleteFunc(slices.Clone(all), func(w string) bool { return w == word })
		if err := open(t, allow(t, server, fewer)).Try(t.Context(), true); err == nil {
			t.Errorf("nobody misses %s", word)
		}
	}
	node := metatest.StartRedis(t, clusterArgs(t)...)
	node.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	node.Eventually("whole cluster", func() bool { return strings.Contains(node.Do("CLUSTER", "INFO"), "cluster_state:ok") })
	o = allow(t, node, append(slices.Clone(all), "+command", "+cluster|slots"))
	o.URL = strings.Replace(o.URL, "redis:", "redis+cluster:", 1)
	if err := open(t, o).Try(t.Context(), true); err != nil {
		t.Errorf("in a cluster: %v", err)
	}

	elsewhere := slices.Clone(all)
	elsewhere[slices.Index(all, "~dray:*")] = "~other:*"
	if err := open(t, allow(t, server, elsewhere)).Try(t.Context(), false); err == nil || !strings.Contains(err.Error(), "write a fact: NOPERM") {
		t.Errorf("without a right to its keys: %v", err)
	}
}
