package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

const (
	soakQuota   = 48 << 20 // half of what is pulled
	soakWorkers = 8
)

// TestSoak races pulls of all kinds, pushes, evictions, purges and faults of the registries against
// restarts and kill -9, and looks at every byte. SOAKTIME says how long (10s where it is not set),
// SOAKSEED repeats the choices of a run as far as time allows. FLEET is a number of drays that form
// a fleet with a Redis and a bucket; then the members stop, hang and lose each other instead of the
// registries' faults, and no pull fails at a member that goes on.
func TestSoak(t *testing.T) {
	length, seed := 10*time.Second, uint64(time.Now().UnixNano())
	if v := os.Getenv("SOAKTIME"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("SOAKSEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	members := 1
	if v := os.Getenv("FLEET"); v != "" {
		var err error
		if members, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SOAKTIME=%v SOAKSEED=%d FLEET=%d", length, seed, members)
	k := newSoak(t, seed, members)
	k.work(t, time.Now().Add(length))
	k.judge(t)
}

// soak is a dray under stress, or a fleet of them, with what must come out of it.
type soak struct {
	*stack  // the first dray, and the registries
	members []*soakMember
	fleet   *soakFleet // nil without one
	images  []soakImage
	rnd     func(worker uint64) *rand.Rand

	right, cut, refused, pushed, aborted, purged, events atomic.Int64
	mu                                                   sync.Mutex
	landed                                               map[string][]byte // manifests that were acknowledged, by repository:tag
	wrong                                                []string
}

// soakMember is a dray with its clients.
type soakMember struct {
	*stack
	client *http.Client
	// ends counts twice how often the process has ended: before, and after its next start.
	ends atomic.Int64
}

// soakImage is an image of Docker Hub's double.
type soakImage struct {
	repo   string
	raw    []byte
	blobs  []string // digests, in the order of size
	double *double
}

func newSoak(t *testing.T, seed uint64, members int) *soak {
	t.Helper()
	k := &soak{landed: map[string][]byte{}, rnd: func(w uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, w)) }}
	stall := "2s"
	if members > 1 {
		stall = "10s" // members need some seconds to find out that one is dead
	}
	configure := func(c map[string]any) {
		maps.Copy(c["cache"].(map[string]any), map[string]any{"max_bytes": fmt.Sprint(soakQuota), "stall_timeout": stall})
		c["log"] = map[string]any{"level": "warn", "access": false}
		for _, u := range c["upstreams"].([]any) {
			u.(map[string]any)["parallel_fill"] = map[string]any{"threshold": "2MiB", "piece": "512KiB"}
		}
	}
	if members > 1 {
		k.stack = newStack(t, stackOptions{stopped: true})
		k.fleet = k.newFleet(t, members, configure)
	} else {
		k.stack = newStack(t, stackOptions{configure: configure})
		k.add(t, k.stack)
	}
	for i := range 12 {
		repo := fmt.Sprintf("library/app%d", i)
		size := int64(300<<10) << (i % 5)
		if _, err := k.hub.Seed(ecrtest.SeedImage{Repository: repo, Tag: "v1", Layers: 3, LayerBytes: size}); err != nil {
			t.Fatal(err)
		}
		img, _ := k.hub.Image(repo, "v1")
		m, err := v1.ParseManifest(bytes.NewReader(img.Raw))
		if err != nil {
			t.Fatal(err)
		}
		s := soakImage{repo: repo, raw: img.Raw, blobs: []string{m.Config.Digest.String()}, double: k.hub}
		for _, l := range m.Layers {
			s.blobs = append(s.blobs, l.Digest.String())
		}
		k.images = append(k.images, s)
	}
	return k
}

// add adds a dray that runs.
func (k *soak) add(t *testing.T, s *stack) {
	transport := s.transport(t)
	transport.MaxIdleConnsPerHost = soakWorkers
	k.members = append(k.members, &soakMember{stack: s, client: &http.Client{Transport: transport, Timeout: time.Minute}})
}

// away is how long a client waits for a dray that does not answer.
const away = 20 * time.Millisecond

// work lets the workers loose until the end, and has dray die and come back meanwhile.
func (k *soak) work(t *testing.T, end time.Time) {
	var workers sync.WaitGroup
	for w := range uint64(soakWorkers) {
		workers.Go(func() {
			r := k.rnd(w)
			for n := 0; time.Now().Before(end); n++ {
				k.step(t, r, fmt.Sprintf("w%d-%d", w, n))
			}
		})
	}
	r := k.rnd(1000)
	for time.Now().Before(end) {
		time.Sleep(min(time.Until(end), time.Duration(1500+r.IntN(2500))*time.Millisecond))
		k.events.Add(1)
		if m := k.members[r.IntN(len(k.members))]; k.fleet == nil || r.IntN(3) == 0 {
			k.restart(r, m)
		} else {
			k.fleet.trouble(r, m)
		}
	}
	workers.Wait()
}

// restart ends a dray and starts it again.
func (k *soak) restart(r *rand.Rand, m *soakMember) {
	m.ends.Add(1)
	if r.IntN(3) == 0 {
		m.dray.stop()
	} else {
		m.dray.kill()
	}
	m.start()
	m.ends.Add(1)
}

// step does one thing that a client, an operator or fate may do.
func (k *soak) step(t *testing.T, r *rand.Rand, name string) {
	ctx, m := t.Context(), k.members[r.IntN(len(k.members))]
	img := k.images[min(r.IntN(len(k.images)), r.IntN(len(k.images)))] // some are more popular
	switch n := r.IntN(100); {
	case n < 40:
		k.pull(ctx, m, img)
	case n < 60:
		k.ranges(ctx, r, m, img)
	case n < 75:
		k.abort(ctx, r, m, img)
	case n < 90:
		k.push(ctx, r, name)
	case n < 95:
		k.purge(ctx, m, img)
	case k.fleet == nil: // faults of a registry are not what a fleet protects from
		fate := []ecrtest.Fault{{CutAt: ecrtest.At(int64(r.IntN(300 << 10)))}, {CorruptAt: ecrtest.At(int64(r.IntN(300 << 10)))}, {Status: 503}, {Close: true}}
		f := fate[r.IntN(len(fate))]
		f.Kinds = []ecrtest.Kind{ecrtest.KindBlobGet, ecrtest.KindObjectGet}
		img.double.AddFault(f)
	}
}

// report notes something that must never be.
func (k *soak) report(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wrong = append(k.wrong, fmt.Sprintf(format, args...))
}

// get sends a GET to a dray. It counts answers that break off and refusals, because the test keeps
// killing dray. In a fleet, it reports them if that dray has not ended meanwhile.
func (k *soak) get(ctx context.Context, m *soakMember, path string, headers ...string) (body []byte, ok bool) {
	ends, why := m.ends.Load(), ""
	defer func() {
		if !ok && k.fleet != nil && ends%2 == 0 && m.ends.Load() == ends {
			k.report("GET %s at %s, which goes on: %s", path, m.ip, why)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+drayName+path, http.NoBody)
	if err != nil {
		k.report("%v", err)
		return nil, false
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := m.client.Do(req)
	if err != nil {
		why = err.Error()
		k.refused.Add(1)
		time.Sleep(away)
		return nil, false
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	switch {
	case err != nil:
		why = fmt.Sprintf("%d bytes, then %v", len(body), err)
		k.cut.Add(1)
		return nil, false
	case resp.StatusCode == http.StatusNotFound:
		k.report("GET %s: 404 for what is there: %s", path, body)
		return nil, false
	case resp.StatusCode > 299:
		why = fmt.Sprintf("%s: %s", resp.Status, body)
		k.refused.Add(1)
		return nil, false
	}
	return body, true
}

func sum(p []byte) string { s := sha256.Sum256(p); return "sha256:" + hex.EncodeToString(s[:]) }

func (k *soak) pull(ctx context.Context, m *soakMember, img soakImage) {
	raw, ok := k.get(ctx, m, "/v2/"+img.repo+"/manifests/v1", "Accept", "application/vnd.oci.image.manifest.v1+json")
	if !ok {
		return
	}
	if !bytes.Equal(raw, img.raw) {
		k.report("%s: another manifest: %s", img.repo, raw)
	}
	for _, d := range img.blobs {
		body, ok := k.get(ctx, m, "/v2/"+img.repo+"/blobs/"+d)
		if !ok {
			continue
		}
		if sum(body) != d {
			k.report("%s: %d bytes of %s look complete and are others", img.repo, len(body), d)
		}
		k.right.Add(1)
	}
}

// ranges reads the end of a layer from some byte on, as containerd does for its parts. Only the end
// of a blob is verified before it is sent.
func (k *soak) ranges(ctx context.Context, r *rand.Rand, m *soakMember, img soakImage) {
	d := img.blobs[1+r.IntN(len(img.blobs)-1)]
	whole, ok := img.double.Blob(digest.Digest(d))
	if !ok {
		k.report("%s is gone from the registry", d)
		return
	}
	from := r.IntN(len(whole))
	body, ok := k.get(ctx, m, "/v2/"+img.repo+"/blobs/"+d, "Range", fmt.Sprintf("bytes=%d-", from))
	if !ok {
		return
	}
	if !bytes.Equal(body, whole[from:]) {
		k.report("%s: %d bytes of %s from byte %d are not the right ones", img.repo, len(body), d, from)
	}
	k.right.Add(1)
}

// abort disconnects in the middle of a layer.
func (k *soak) abort(ctx context.Context, r *rand.Rand, m *soakMember, img soakImage) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+drayName+"/v2/"+img.repo+"/blobs/"+img.blobs[1], http.NoBody)
	if err != nil {
		k.report("%v", err)
		return
	}
	if resp, err := m.client.Do(req); err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, int64(r.IntN(200<<10)))
		_ = resp.Body.Close()
		k.aborted.Add(1)
	}
}

// push sends an image of one layer, each request to any member. Acknowledged pushes have to be at
// ECR in the end.
func (k *soak) push(ctx context.Context, r *rand.Rand, tag string) {
	layer := make([]byte, 1+r.IntN(400<<10))
	for i := range layer {
		layer[i] = byte(r.Uint32())
	}
	config := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)
	repo := fmt.Sprintf("team/app%d", r.IntN(3))
	send := func(method, path string, body []byte, mediaType string) (location string, ok bool) {
		return k.send(ctx, k.members[r.IntN(len(k.members))], method, path, body, mediaType)
	}
	for _, blob := range [][]byte{layer, config} {
		at, ok := send(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, "")
		if !ok {
			return
		}
		if r.IntN(2) == 0 {
			if at, ok = send(http.MethodPatch, at, blob, ""); !ok {
				return
			}
			blob, at = nil, at+"?digest="+sum(blob)
		} else {
			at += "?digest=" + sum(blob)
		}
		if _, ok = send(http.MethodPut, at, blob, ""); !ok {
			return
		}
	}
	const mediaType = "application/vnd.oci.image.manifest.v1+json"
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]}`, mediaType, sum(config), len(config), sum(layer), len(layer))
	if _, ok := send(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, raw, mediaType); ok {
		k.pushed.Add(1)
		k.mu.Lock()
		k.landed[repo+":"+tag] = raw
		k.mu.Unlock()
	}
}

// send makes one request of a push, and returns where the next one goes. path may also be a URL.
func (k *soak) send(ctx context.Context, m *soakMember, method, path string, body []byte, mediaType string) (location string, ok bool) {
	const at = "https://" + drayName + ":5000"
	req, err := http.NewRequestWithContext(ctx, method, at+strings.TrimPrefix(path, at), bytes.NewReader(body))
	if err != nil {
		k.report("%v", err)
		return "", false
	}
	req.SetBasicAuth(pusher, password)
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		k.refused.Add(1)
		time.Sleep(away)
		return "", false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode > 299 {
		k.refused.Add(1)
		return "", false
	}
	return resp.Header.Get("Location"), true
}

func (k *soak) purge(ctx context.Context, m *soakMember, img soakImage) {
	body := fmt.Sprintf(`{"repository": "docker.io/%s", "force": true}`, img.repo)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+m.adminAddress()+"/api/v1/purge", strings.NewReader(body))
	if err != nil {
		k.report("%v", err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := m.client.Do(req)
	if err != nil {
		return // not there now
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	if resp.StatusCode > 299 && resp.StatusCode < 500 && resp.StatusCode != http.StatusNotFound { // nothing of it may be held
		k.report("purge: %s %s", resp.Status, answer)
	}
	k.purged.Add(1)
}

// judge looks at what is left when all is quiet.
func (k *soak) judge(t *testing.T) {
	t.Logf("%d answers right, %d cut off, %d refused, %d left, %d images pushed, %d purges, %d troubles",
		k.right.Load(), k.cut.Load(), k.refused.Load(), k.aborted.Load(), k.pushed.Load(), k.purged.Load(), k.events.Load())
	if k.right.Load() < 20 || k.pushed.Load() < 1 {
		t.Error("next to nothing worked: this run shows nothing")
	}
	for ref, raw := range k.landed {
		repo, tag, _ := strings.Cut(ref, ":")
		img, ok := k.ecr.Image(repo, tag)
		if !ok || !bytes.Equal(img.Raw, raw) {
			t.Errorf("%s was acknowledged, and is not at ECR", ref)
		}
	}
	k.hub.ClearFaults()
	for _, m := range k.members {
		for _, img := range k.images { // all is as it was, with everything that was left on the disk
			for _, d := range img.blobs {
				// A fetch that fails may not have ended yet.
				ok := slices.ContainsFunc(make([]struct{}, 20), func(struct{}) bool {
					body, ok := k.get(t.Context(), m, "/v2/"+img.repo+"/blobs/"+d)
					if ok && sum(body) != d {
						t.Errorf("%s of %s is wrong in the end", d, img.repo)
					}
					return ok
				})
				if !ok {
					t.Errorf("%s of %s cannot be pulled in the end", d, img.repo)
				}
			}
		}
		m.client.CloseIdleConnections()
	}
	for _, w := range k.wrong {
		t.Error(w)
	}
	for _, m := range k.members {
		m.checkResources(t, k.fleet != nil)
	}
}

// checkResources waits until dray has released the resources of the load, and checks the disk.
func (k *soakMember) checkResources(t *testing.T, fleet bool) {
	bounds := map[string]float64{"go_goroutines": 120, "process_open_fds": 120, "dray_cache_flights": 0, "process_resident_memory_bytes": 400 << 20, "dray_disk_used_bytes": soakQuota}
	if fleet { // connections from and to the other members
		bounds["process_open_fds"], bounds["go_goroutines"] = 300, 300
	}
	if raceEnabled {
		bounds["process_resident_memory_bytes"] *= 4
	}
	end := time.Now().Add(20 * time.Second)
	for {
		var over []string
		have := k.metrics(t)
		for name, most := range bounds {
			if v, ok := have[name]; ok && v > most {
				over = append(over, fmt.Sprintf("%s is %v, over %v", name, v, most))
			}
		}
		if len(over) == 0 {
			t.Logf("%v goroutines, %v descriptors, %.0f MiB", have["go_goroutines"], have["process_open_fds"], have["process_resident_memory_bytes"]/(1<<20))
			break
		}
		if time.Now().After(end) {
			t.Errorf("dray did not come to rest: %s", strings.Join(over, "; "))
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	var used int64
	_ = filepath.WalkDir(k.cache, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // files go all the time
		}
		if info, err := e.Info(); err == nil && !strings.HasSuffix(e.Name(), ".db") {
			used += info.Size()
		}
		return nil
	})
	if used > soakQuota {
		t.Errorf("the cache has %d bytes on disk, over its quota of %d", used, soakQuota)
	}
}

// metrics are the plain values that dray exports.
func (k *soakMember) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	resp, err := http.Get("http://" + k.adminAddress() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			out[name] = v
		}
	}
	return out
}
