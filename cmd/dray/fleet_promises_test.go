package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"dray/cache/s3/s3test"
	"dray/upstream/ecrtest"
)

// TestFleetPromises has clients of three drays pull an image that none of them has, all at once.
// Then a client of a fourth dray with an empty disk does so. Each row of docs/fleet.md is a case.
func TestFleetPromises(t *testing.T) {
	for _, c := range []struct {
		name                 string
		redis, fleet, bucket bool
		herd, late           float64 // what the registry sends to the three, and to the fourth, in layers
		manifests, most      int64   // requests for the manifest, for all four, and the most where a slow store may refuse facts
	}{
		{name: "neither", herd: 3, late: 1, manifests: 4, most: 8},
		{name: "Redis", redis: true, herd: 3, late: 1, manifests: 4, most: 8},
		{name: "bucket", bucket: true, herd: 3, manifests: 1, most: 2},
		{name: "Redis and fleet", redis: true, fleet: true, herd: 1, manifests: 1, most: 2},
		{name: "all", redis: true, fleet: true, bucket: true, herd: 1, manifests: 1, most: 2},
		{name: "fleet without Redis", fleet: true, herd: 3, late: 1, manifests: 4, most: 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startFleet(t, 0, "whole", patient)
			f.env = []string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret"}
			store, more := s3test.New(t), ""
			if c.redis {
				more += fmt.Sprintf("metadata: {url: \"redis://%s?dial_timeout=2m&read_timeout=2m&write_timeout=2m&pool_timeout=2m\"}\n", f.redis.Addr)
			}
			if c.bucket {
				more += fmt.Sprintf("bucket: {url: s3://shared/team, endpoint: %q, path_style: true, region: eu-west-1, timeout: 10s}\n", store.URL)
			}
			secret := f.secret()
			add := func(i int) {
				if host := fmt.Sprint("127.0.1.", i); c.fleet {
					f.members = append(f.members, f.alone(host, more+fmt.Sprintf("fleet: {address: %q, secret_file: %q}\n", freeOn(t, host), secret)))
				} else {
					f.members = append(f.members, f.alone(host, more))
				}
			}
			for i := range 3 {
				add(i + 1)
			}
			if c.fleet && c.redis {
				f.know(3)
			}
			manifest := func(p *drayProcess) {
				if status, text := f.ask("GET", p.url+"/v2/library/cold/manifests/v1"); status != 200 {
					t.Fatalf("%d: %s", status, text)
				}
			}
			for _, p := range f.members {
				manifest(p)
				if c.bucket {
					awaitInBucket(t, store, f.image.manifest.Digest)
				}
			}
			answers := -1 // each dray has one, and none ends before all have begun
			if c.fleet && c.redis {
				answers = 1
			}
			f.atOnce(f.size/2, answers)
			herd, _ := f.sent()
			if c.bucket {
				awaitInBucket(t, store, f.image.layer)
			}
			add(4)
			if c.fleet && c.redis {
				f.know(4)
			}
			manifest(f.members[3])
			f.pull(f.members[3]).ends()
			all, _ := f.sent()
			if got := f.hub.Counters()[ecrtest.KindManifestGet].Requests; herd > c.herd+0.01 || herd < c.herd || all-herd > c.late+0.01 || all-herd < c.late || got < c.manifests || got > max(c.manifests, c.most) {
				t.Errorf("the registry sent %.3f layers to three drays, then %.3f to another one, and %d manifests; want %v, %v and %d", herd, all-herd, got, c.herd, c.late, c.manifests)
			}
		})
	}
}

// alone starts a dray before the registry, with further lines of configuration.
func (f *fleetOf) alone(host, more string) *drayProcess {
	f.Helper()
	return f.run(fmt.Sprintf(`
listeners: [{address: %q}]
upstreams: [{name: hub, url: "http://%s", default_namespace: library, prefetch: {enabled: false}}]
cache: {directory: %q, min_free_bytes: 0}
log: {level: info, access: false}
%sadmin: {address: %q}
`, freeOn(f, host), f.hub.RegistryAddr, filepath.Join(f.TempDir(), "cache"), more, freeOn(f, host)), patient)
}

// know waits until each member knows n of them.
func (f *fleetOf) know(n int) {
	f.Helper()
	for _, p := range f.members {
		f.eventually(fmt.Sprint("knowledge of ", n, " members"), func() bool { return p.value(f.T, "dray_fleet_members") == float64(n) })
	}
}

// TestFleetPage: the tests that docs/fleet.md names exist.
func TestFleetPage(t *testing.T) {
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(read(t, "../../docs/fleet.md"), -1) {
		named[m[1]] = true
	}
	if len(named) < 10 {
		t.Errorf("docs/fleet.md names %d tests", len(named))
	}
	for _, dir := range []string{"../../cmd", "../../cache", "../../mirror"} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range regexp.MustCompile(`(?m)^func (Test[A-Za-z]+)\(`).FindAllSubmatch(text, -1) {
				delete(named, string(m[1]))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name := range named {
		t.Errorf("docs/fleet.md names %s, and there is no such test", name)
	}
}
