package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"dray/cache/meta/metatest"
	"dray/upstream/ecrtest"
)

// sentinelFailure has the primary of a Redis killed. The sentinels make its replica the primary.
// Clients of another image begin meanwhile.
func sentinelFailure() failure {
	var servers [2]*metatest.RedisServer
	return failure{
		name: "Redis fails over", pause: 5 * time.Second, bytes: 4.01, held: true,
		removed: mutation{fleetFile, "if err == nil {\n\t\tf.storeAt = time.Time{}\n\t} else {\n\t\tf.storeAt = time.Now().Add(storePause)\n\t}",
			"if err != nil {\n\t\tf.storeAt = time.Now().Add(time.Hour)\n\t}"},
		prepare: func(t testing.TB, o *fleetOptions) {
			primary, replica, url := startSentinels(t)
			servers = [2]*metatest.RedisServer{primary, replica}
			o.redis = func(*fleetMember) string { return url }
		},
		event: func(r *round) {
			servers[0].Kill()
			img := r.seed()
			for _, m := range r.members {
				r.clients = append(r.clients, m.pull(img))
			}
		},
		after: func(r *round) {
			servers[1].Eventually("new primary", func() bool { return strings.Contains(servers[1].Do("ROLE"), "master") })
			servers[0].Start()
			servers[0].Eventually("second replica", func() bool {
				return strings.Contains(servers[0].Do("INFO", "replication"), "master_link_status:up")
			})
			servers[0], servers[1] = servers[1], servers[0]
			r.together()
		},
	}
}

// together waits until the members work together again.
func (r *round) together() {
	if !r.eventually("one fetch for all members", r.oneFetch) {
		r.wrong("the members do not work together again")
	}
}

// oneFetch pulls another image from all members, and reports whether the registry has sent it once.
func (r *round) oneFetch() bool {
	img := r.seed()
	before, _ := r.sent()
	release := r.hold(img, -1)
	var clients []*pulling
	for _, m := range r.members {
		clients = append(clients, m.pull(img))
	}
	for _, c := range clients {
		r.eventually("progress", func() bool { got, _ := c.got(); return got > 0 || c.ended() })
	}
	release()
	for _, c := range clients {
		if <-c.done; c.err != nil {
			r.wrong("%v", c.err)
		}
	}
	<-r.hub.Idle()
	now, _ := r.sent()
	r.beside += now - before
	return now-before < img.size*101/100
}

// bucketFailure has a bucket fail. The members fetch from the registry, once for all. TestBucket
// has buckets fail that have what is pulled.
func bucketFailure(name string, fault func(http.ResponseWriter, *http.Request) bool, removed mutation) failure {
	return failure{
		name: name, bytes: 1.01, held: true, removed: removed,
		prepare: func(t testing.TB, o *fleetOptions) {
			bucket := startBucket(t, nextIP())
			o.more = fmt.Sprintf("bucket: {url: \"s3://shared/e2e\", endpoint: %q, path_style: true, region: eu-west-1, timeout: 1s}\n", bucket.endpoint)
			bucket.fault.Store(&fault)
		},
	}
}

// stopAll stops all members. Clients that come then are refused at once, so they can ask the
// registry itself. Those that are there end well.
func (r *round) stopAll() {
	began := time.Now()
	for _, m := range r.members {
		m.signal(syscall.SIGTERM)
	}
	for _, m := range r.members {
		refused := r.refuses(m.ip + ":5000")
		if took := time.Since(began); !refused || r.strict && took > time.Second {
			r.wrong("a member that stops refuses clients after %v", took)
		}
	}
}

// refuses waits until a member that stops has closed a listener.
func (r *round) refuses(address string) bool {
	return r.eventually("refusal", func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

func (r *round) seedOther() {
	if _, err := r.hub.Seed(ecrtest.SeedImage{Repository: "library/other", Tag: "v1"}); err != nil {
		r.Fatal(err)
	}
}

// steal asks every member for the layer in a repository that does not have it.
func (r *round) steal() {
	for _, m := range r.members {
		for _, ask := range []struct{ method, byteRange string }{{"GET", ""}, {"HEAD", ""}, {"GET", "bytes=0-9"}, {"GET", "bytes=1000000-"}} {
			req, err := http.NewRequestWithContext(r.Context(), ask.method, "http://"+m.ip+":5000/v2/library/other/blobs/"+r.image.layer.String(), nil)
			if err != nil {
				r.Fatal(err)
			}
			if ask.byteRange != "" {
				req.Header.Set("Range", ask.byteRange)
			}
			resp, err := r.client.Do(req)
			if err != nil {
				r.wrong("%v", err)
				continue
			}
			n, _ := io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			if r.more++; resp.StatusCode != http.StatusNotFound {
				r.wrong("%s %s of a layer that the repository lacks: %s, %d bytes", ask.method, ask.byteRange, resp.Status, n)
			}
		}
	}
}

// retag gives the tag that all members have just asked for to another image. Each member serves
// that image as soon as the answer from before is not fresh any more.
func (r *round) retag() {
	want, err := r.hub.Seed(ecrtest.SeedImage{Repository: "library/app", Tag: r.image.tag, LayerBytes: 1 << 10, Seed: uint64(r.seeded) << 32})
	if err != nil {
		r.Fatal(err)
	}
	for _, m := range r.members {
		c := &pulling{w: r.fleetWorld, at: m.ip + ":5000", ctx: r.Context()}
		if !r.eventually("new image of the tag", func() bool {
			got, err := c.get("manifests/"+r.image.tag, io.Discard)
			return err == nil && got == want
		}) {
			r.wrong("%s serves the image that the tag had before", m.name)
		}
	}
}

// swap has the holder of a finished layer and another member start again, each with the other's
// address. A member is known by its ID, which it keeps, so the third one finds the layer at the
// holder's new address.
func (r *round) swap() {
	img := r.seed()
	if c := r.holder.pull(img); !done(c) {
		r.wrong("%v", c.err)
	}
	a, b, third := r.holder, r.others[0], r.others[1]
	addresses := func() map[string]string {
		all := map[string]string{}
		for _, m := range r.report(third.i).Members {
			all[m.ID] = m.Address
		}
		return all
	}
	before, was := addresses(), map[string]string{a.door.addr: b.door.addr, b.door.addr: a.door.addr}
	a.kill()
	b.kill()
	a.address, b.address, a.door, b.door = b.address, a.address, b.door, a.door
	a.start()
	b.start()
	if len(before) != 3 || !r.eventually("members at their new addresses", func() bool {
		now := addresses()
		for id, address := range before {
			if now[id] != cmp.Or(was[address], address) {
				return false
			}
		}
		return true
	}) {
		r.wrong("the members were %v, and are %v", before, addresses())
	}
	if c := third.pull(img); !done(c) {
		r.wrong("%v", c.err)
	}
	r.more += 2
}

// done waits for the end of a pull, and reports whether it went well.
func done(c *pulling) bool {
	<-c.done
	return c.err == nil
}

// poison alters the layer on the disk of the member that has fetched it. Clients of another member
// may be cut off while that notices, and never get a whole layer that is wrong. Then they get it
// from the registry, and the first member is not asked any more.
func (r *round) poison(each int) {
	if c := r.holder.pull(r.image); !done(c) {
		r.wrong("%v", c.err)
	}
	corrupt(r, filepath.Join(r.holder.dir, "cache"), r.image.layer.Encoded())
	victim := r.others[0]
	var clients []*pulling
	for range each {
		clients = append(clients, victim.pull(r.image))
	}
	for _, c := range clients {
		if !done(c) && errors.Is(c.err, errWrongBytes) {
			r.wrong("%v", c.err)
		}
	}
	if !r.eventually("right layer", func() bool { return done(victim.pull(r.image)) }) {
		r.wrong("no client gets the layer after wrong bytes")
	}
	for range each {
		if c := victim.pull(r.image); !done(c) {
			r.wrong("%v", c.err)
		}
		r.more++
	}
	if bans := victim.metric("dray_fleet_bans_total"); bans != 1 {
		r.wrong("%v bans", bans)
	}
	for _, m := range r.members { // which forget the ban
		m.stop()
	}
}

// corrupt inverts a byte in the middle of the file of a blob.
func corrupt(t testing.TB, dir, name string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, name) {
			return nil // files come and go
		}
		content, err := os.ReadFile(path)
		if err != nil || len(content) == 0 {
			return err
		}
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		found = true
		_, err = f.WriteAt([]byte{^content[len(content)/2]}, int64(len(content)/2))
		return err
	})
	if err != nil || !found {
		t.Errorf("alter a blob on disk: found %v, %v", found, err)
	}
}
