package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// commands returns how many commands about facts and leases of blobs Redis got since the last call.
// A script that takes a lease counts once, by the HMGET in it. Questions that members repeat every
// few seconds do not count: who is alive, and the time.
func (f *tagFleet) commands() (n int) {
	f.Helper()
	for _, m := range regexp.MustCompile(`cmdstat_(get|mget|set|setex|psetex|del|hmget):calls=(\d+)`).FindAllStringSubmatch(f.redis.Do("INFO", "commandstats"), -1) {
		calls, _ := strconv.Atoi(m[2])
		n += calls
	}
	f.redis.Do("CONFIG", "RESETSTAT")
	return n
}

// TestFleetRedisBudget counts the commands that Redis gets for cold blobs, and for many hits.
func TestFleetRedisBudget(t *testing.T) {
	f := startTagFleet(t, 3, patient)
	const images = 10
	var layers []string
	for i := range images {
		tag := fmt.Sprint("b", i)
		img := seed(t, f.hub, "library/cold", tag, 1000+int64(i))
		f.all(fmt.Sprintf(manifestPath, "cold", tag), img.manifest.Raw)
		layers = append(layers, img.layer.String())
	}
	f.commands()
	for _, layer := range layers {
		for _, p := range f.members {
			if status, _ := f.ask("GET", p.url+"/v2/library/cold/blobs/"+layer); status != 200 {
				t.Fatalf("%s: %d", layer, status)
			}
		}
	}
	each := float64(f.commands()) / float64(images*len(f.members))
	t.Logf("%.1f commands per cold blob and member", each)
	if each > 6 {
		t.Errorf("%.1f commands per cold blob and member, want at most 6", each)
	}

	// Hits: each fact is read again at most once a second.
	for what, path := range map[string]string{"tag": "/v2/library/cold/manifests/b0", "blob": "/v2/library/cold/blobs/" + layers[0]} {
		time.Sleep(1100 * time.Millisecond) // what is in memory is then read again
		f.commands()
		began := time.Now()
		for range 1000 {
			if status, _ := f.ask("GET", f.members[0].url+path); status != 200 {
				t.Fatalf("%s: %d", path, status)
			}
		}
		n, seconds := f.commands(), int(math.Ceil(time.Since(began).Seconds()))
		t.Logf("%d commands for 1000 hits of a %s in %d seconds", n, what, seconds)
		if n == 0 || n > 4*seconds {
			t.Errorf("%d commands for 1000 hits of a %s in %d seconds", n, what, seconds)
		}
	}
}
