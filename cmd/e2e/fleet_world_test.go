package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"

	"dray/cache/meta/metatest"
	"dray/upstream/ecrtest"
)

// fleetPulls returns how many pulls a test of a fleet makes in each case, and whether it also
// bounds times and bytes as on a machine that is fast and idle. FLEETPULLS sets the number, and
// make test-fleet sets that.
func fleetPulls(t testing.TB) (n int, strict bool) {
	t.Helper()
	text := os.Getenv("FLEETPULLS")
	if text == "" {
		return 10, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n, true
}

// fleetOptions say what a fleet is made of.
type fleetOptions struct {
	members int
	layer   int64 // length of a layer in bytes; 0 means 3 MiB
	// redis returns metadata.url of a member. nil means a Redis of its own for this fleet.
	redis func(m *fleetMember) string
	// more are further lines of the configuration, and settings those of the registry's upstream.
	more, settings string
	// pushTo is an ECR that members push to, below ecr/; nil means none.
	pushTo *ecrtest.Running
	// program returns what a member runs. nil means the dray under test.
	program func(i int) string
}

// fleetWorld is a fleet of drays in processes of their own, before one registry. The members reach
// each other, and Redis, through gates that the test can close.
type fleetWorld struct {
	testing.TB
	fleetOptions
	hub     *ecrtest.Running
	redis   *metatest.RedisServer
	secret  string // file
	members []*fleetMember
	seeded  int
	client  *http.Client
}

// fleetMember is one dray of a fleet.
type fleetMember struct {
	*process
	w       *fleetWorld
	i       int
	ip, dir string
	door    *gate // other members come through it
	store   *gate // to Redis
	address string
}

func newFleet(t testing.TB, o fleetOptions) *fleetWorld {
	t.Helper()
	if o.layer == 0 {
		o.layer = 3 << 20
	}
	w := &fleetWorld{TB: t, fleetOptions: o, hub: ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub(), Dir: filepath.Join(shortDir(t), "hub")})}
	if o.redis == nil {
		w.redis = metatest.StartRedis(t)
	}
	w.secret = filepath.Join(shortDir(t), "secret")
	write(t, w.secret, []byte("0123456789abcdef0123456789abcdef"))
	// No client connection is used twice, so none is a leftover of a member that has been killed.
	w.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Minute}
	for i := range o.members {
		m := &fleetMember{w: w, i: i, ip: nextIP(), dir: shortDir(t)}
		m.address = m.ip + ":5443"
		m.door = newGate(t, m.ip+":5444", m.address)
		if w.redis != nil {
			m.store = newGate(t, m.ip+":6379", w.redis.Addr)
		}
		w.members = append(w.members, m)
		m.start()
	}
	return w
}

// start runs the member, again after it has ended, on the same directories.
func (m *fleetMember) start() {
	m.w.Helper()
	url := "redis://" + m.ip + ":6379"
	if m.w.fleetOptions.redis != nil {
		url = m.w.fleetOptions.redis(m)
	}
	file, pushTo, role, api := filepath.Join(m.dir, "dray.yaml"), "", "", ""
	if ecr := m.w.pushTo; ecr != nil {
		role, api = ", role: registry", ecr.APIURL
		pushTo = fmt.Sprintf(`, {name: ecr, url: "http://%s", address: %q, kind: ecr, prefixes: [ecr], push: true, keep_alive: 0s}`, ecr.RegistryHost, ecr.RegistryAddr)
	}
	write(m.w, file, fmt.Appendf(nil, `
listeners: [{address: "%[1]s:5000"%[10]s}]
upstreams: [{name: hub, url: "http://%[2]s", default_namespace: library, prefetch: {enabled: false}%[11]s}%[9]s]
metadata: {url: %[3]q}
fleet: {address: %[4]q, advertise: %[5]q, secret_file: %[6]q}
cache: {directory: "%[7]s/cache", min_free_bytes: 0}
admin: {address: "%[1]s:6060"}
log: {level: info, access: false}
%[8]s`, m.ip, m.w.hub.RegistryAddr, url, m.address, m.door.addr, m.w.secret, m.dir, m.w.more, pushTo, role, m.w.settings))
	program := built.dray
	if m.w.program != nil {
		program = m.w.program(m.i)
	}
	m.process = start(m.w, fmt.Sprint("dray", m.i), environment("HOME="+m.dir, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=example", "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR="+api), program, "serve", "--config", file)
	m.awaitHTTP("http://" + m.ip + ":6060/healthz")
}

func (m *fleetMember) signal(s syscall.Signal) {
	if err := m.cmd.Process.Signal(s); err != nil {
		m.w.Errorf("signal %v to a member: %v", s, err)
	}
}

// metric returns the sum of a metric over its labels.
func (m *fleetMember) metric(name string) (sum float64) {
	m.w.Helper()
	resp, err := m.w.client.Get("http://" + m.ip + ":6060/metrics")
	if err != nil {
		m.w.Error(err)
		return 0
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if labels, value, ok := strings.Cut(lines.Text(), " "); ok && (labels == name || strings.HasPrefix(labels, name+"{")) {
			v, _ := strconv.ParseFloat(value, 64)
			sum += v
		}
	}
	return sum
}

// fleetImage is an image of one layer that no member has seen yet.
type fleetImage struct {
	tag      string
	manifest []byte
	layer    digest.Digest
	size     int64
}

// seed puts a new image into the registry.
func (w *fleetWorld) seed() fleetImage {
	w.Helper()
	w.seeded++
	tag := fmt.Sprint("v", w.seeded)
	if _, err := w.hub.Seed(ecrtest.SeedImage{Repository: "library/app", Tag: tag, LayerBytes: w.layer, Seed: uint64(w.seeded)}); err != nil {
		w.Fatal(err)
	}
	img, _ := w.hub.Image("library/app", tag)
	m, err := v1.ParseManifest(bytes.NewReader(img.Raw))
	if err != nil {
		w.Fatal(err)
	}
	return fleetImage{tag, img.Raw, digest.Digest(m.Layers[0].Digest.String()), m.Layers[0].Size}
}

// hold makes the registry send no more than half of an image's layer in some answers, -1 for all.
// The result ends that.
func (w *fleetWorld) hold(img fleetImage, answers int) (release func()) {
	id := w.hub.AddFault(ecrtest.Fault{Blob: img.layer, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, HoldAt: ecrtest.At(img.size / 2), Count: answers})
	return func() { w.hub.RemoveFault(id) }
}

// sent returns the bytes of blobs that the registry has sent, and its answers.
func (w *fleetWorld) sent() (bytes, answers int64) {
	c := w.hub.Counters()[ecrtest.KindObjectGet]
	return c.BytesOut, c.Requests
}

// eventually waits for a condition. The bound is for a test that fails.
func (w *fleetWorld) eventually(what string, done func() bool) bool {
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.Logf("no %s", what)
			return false
		}
	}
	return true
}

// pulling is a client that pulls an image: the manifest, then the layer. It never asks twice, and
// compares digests.
type pulling struct {
	w      *fleetWorld
	at     string // host:port
	image  fleetImage
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // closed when err may be read
	err    error

	mu    sync.Mutex // guards the fields below
	read  int64
	last  time.Time     // of the last byte, or of mark
	worst time.Duration // the longest time without a byte since mark
}

// pull starts a client of a member.
func (m *fleetMember) pull(img fleetImage) *pulling { return m.w.pullFrom(m.ip+":5000", img) }

func (w *fleetWorld) pullFrom(at string, img fleetImage) *pulling {
	c := &pulling{w: w, at: at, image: img, done: make(chan struct{}), last: time.Now()}
	c.ctx, c.cancel = context.WithCancel(w.Context())
	go func() {
		defer close(c.done)
		defer c.cancel()
		if c.err = c.run(); c.err != nil {
			c.err = fmt.Errorf("pull of %s from %s: %w", img.tag, at, c.err)
		}
	}()
	return c
}

func (c *pulling) run() error {
	raw, err := c.get("manifests/"+c.image.tag, io.Discard)
	if err != nil {
		return err
	}
	if want := digest.FromBytes(c.image.manifest); raw != want {
		return fmt.Errorf("the manifest is %s, want %s", raw, want)
	}
	layer, err := c.get("blobs/"+c.image.layer.String(), c)
	if err == nil && layer != c.image.layer {
		err = fmt.Errorf("%w: the layer is %s", errWrongBytes, layer)
	}
	return err
}

// errWrongBytes says that a client got a whole layer that is not the right one.
var errWrongBytes = errors.New("wrong bytes")

func (c *pulling) get(path string, to io.Writer) (digest.Digest, error) {
	req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, "http://"+c.at+"/v2/library/app/"+path, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	resp, err := c.w.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return "", fmt.Errorf("GET %s: %s: %s", path, resp.Status, body)
	}
	sum := digest.Canonical.Digester()
	_, err = io.Copy(io.MultiWriter(sum.Hash(), to), resp.Body)
	return sum.Digest(), err
}

// Write counts bytes of the layer, and the time since the last ones.
func (c *pulling) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	c.worst, c.last, c.read = max(c.worst, now.Sub(c.last)), now, c.read+int64(len(p))
	return len(p), nil
}

// mark begins to measure pauses.
func (c *pulling) mark() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.worst = time.Now(), 0
}

// got returns the bytes of the layer that the client has read, and its longest pause.
func (c *pulling) got() (int64, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.read, c.worst
}

func (c *pulling) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// mutation is a change of a source file. Its name is relative to the root of the tree, or to that
// of Go if it begins with GOROOT.
type mutation struct{ file, from, to string }

// buildAltered builds a dray from this tree with changed source files, such as one in which a
// mechanism is missing, whose protocol is so many numbers ahead.
func buildAltered(t testing.TB, numbers int, changes ...mutation) string {
	t.Helper()
	dir, texts := shortDir(t), map[string]string{}
	for _, c := range changes {
		if c.file == "" {
			continue
		}
		source, err := filepath.Abs(filepath.Join("../..", c.file))
		if in, ok := strings.CutPrefix(c.file, "GOROOT"); ok {
			source, err = filepath.Join(strings.TrimSpace(run(t, environment(), "go", "env", "GOROOT")), in), nil
		}
		if err != nil {
			t.Fatal(err)
		}
		text, ok := texts[source]
		if !ok {
			text = string(read(t, source))
		}
		if n := strings.Count(text, c.from); n != 1 {
			t.Fatalf("%s has %d times, not once: %s", c.file, n, c.from)
		}
		texts[source] = strings.Replace(text, c.from, c.to, 1)
	}
	replace := map[string]string{}
	for source, text := range texts {
		replace[source] = filepath.Join(dir, fmt.Sprint(len(replace), ".go"))
		write(t, replace[source], []byte(text))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), overlay)
	program := filepath.Join(dir, "dray-altered")
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-ldflags", ahead(numbers), "-o", program, "dray/cmd/dray").CombinedOutput(); err != nil {
		t.Fatalf("build with changes: %v\n%s", err, out)
	}
	return program
}

// startSentinels starts a Redis with a replica, and three sentinels that watch them. It returns the
// primary, the replica, and a URL for dray.
func startSentinels(t testing.TB) (primary, replica *metatest.RedisServer, url string) {
	t.Helper()
	primary = metatest.StartRedis(t)
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica = metatest.StartRedis(t, "--replicaof", host+" "+port)
	replica.Eventually("copy of the primary", func() bool {
		return strings.Contains(replica.Do("INFO", "replication"), "master_link_status:up")
	})
	var sentinels []*metatest.RedisServer
	for range 3 {
		file := filepath.Join(shortDir(t), "sentinel.conf")
		write(t, file, fmt.Appendf(nil, "sentinel monitor fleet %s %s 2\nsentinel down-after-milliseconds fleet 1000\nsentinel failover-timeout fleet 5000\n", host, port))
		sentinels = append(sentinels, metatest.StartRedis(t, file, "--sentinel"))
	}
	for _, s := range sentinels {
		s.Eventually("sight of the others", func() bool {
			answer := s.Do("SENTINEL", "MASTER", "fleet")
			return strings.Contains(answer, "num-other-sentinels\r\n$1\r\n2") && strings.Contains(answer, "num-slaves\r\n$1\r\n1")
		})
	}
	return primary, replica, fmt.Sprintf("redis+sentinel://%s/0?master_name=fleet&addr=%s&addr=%s", sentinels[0].Addr, sentinels[1].Addr, sentinels[2].Addr)
}
