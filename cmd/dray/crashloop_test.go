package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/config"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

var (
	crashRounds = flag.Int("crash-rounds", 4, "how often dray is killed in the middle of pushes, at each level of acknowledgement")
	crashSeed   = flag.Uint64("crash-seed", 0, "what chance begins with; 0: something else each time")
)

// crashed is a dray in a process of its own, which is killed and started again.
type crashed struct {
	*testing.T
	rnd    *rand.Rand
	level  config.Acknowledge
	ecr    *ecrtest.Running
	config string
	url    string
	cmd    *exec.Cmd
	client *http.Client

	mu sync.Mutex // guards what follows
	// may has the images that each tag may be: the last one acknowledged, and those tried since.
	may    map[string][]*oci.Manifest
	layers map[digest.Digest][]byte
	known  map[string]bool // tags of which a push was acknowledged
	since  map[string]bool // of these, the tags of the round
	acked  int
}

// TestCrashLoop kills dray at random moments while clients push and ECR misbehaves. At level
// upstream, every acknowledged push is in ECR at that moment. At level local, the next process
// serves it, and it is in ECR in the end. A tag never goes back behind its last acknowledged push,
// and a push that was not acknowledged succeeds when the client tries again.
func TestCrashLoop(t *testing.T) {
	seed := *crashSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for _, level := range []config.Acknowledge{config.AcknowledgeUpstream, config.AcknowledgeLocal} {
		t.Run(string(level), func(t *testing.T) {
			t.Logf("again with -crash-seed %d -crash-rounds %d", seed, *crashRounds)
			c := newCrashed(t, level, seed)
			for round := range *crashRounds {
				c.round(round)
				if t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
			c.waitForwarded()
			if c.acked == 0 {
				t.Error("no push was acknowledged; this test shows nothing")
			}
			t.Logf("%d pushes were acknowledged", c.acked)
		})
	}
}

func newCrashed(t *testing.T, level config.Acknowledge, seed uint64) *crashed {
	c := &crashed{
		T: t, rnd: rand.New(rand.NewPCG(seed, uint64(len(level)))), level: level, ecr: ecrtest.Start(t, ecrtest.Options{}),
		may: map[string][]*oci.Manifest{}, known: map[string]bool{}, since: map[string]bool{}, layers: map[digest.Digest][]byte{digest.FromBytes(imageConfig): imageConfig},
		client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.url = "http://" + ln.Addr().String()
	text := fmt.Sprintf(`
listeners: [{address: %q}]
upstreams:
- {name: ecr, url: "http://%s", address: %q, kind: ecr, push: true, acknowledge: %s, prefetch: {enabled: false}, tags: {fresh: 1ms}}
cache: {directory: %q, min_free_bytes: 0}
admin: {address: off}
log: {level: warn, access: false}
`, ln.Addr(), c.ecr.RegistryHost, c.ecr.RegistryAddr, level, filepath.Join(t.TempDir(), "cache"))
	_ = ln.Close()
	c.config = filepath.Join(t.TempDir(), "dray.yaml")
	if err := os.WriteFile(c.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	c.start()
	return c
}

func (c *crashed) start() {
	c.cmd = exec.Command(os.Args[0])
	// Nothing of the surroundings: variables such as PORT would win over the file.
	c.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.TempDir()}, asDray+"=serve --config "+c.config, "AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret",
		"AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR="+c.ecr.APIURL)
	c.cmd.Stdout, c.cmd.Stderr = c.Output(), c.Output()
	if err := c.cmd.Start(); err != nil {
		c.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := c.do("GET", "/v2/", nil); err == nil {
			return
		}
		if time.Now().After(end) {
			c.Fatal("dray does not start")
		}
	}
}

func (c *crashed) kill() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// round lets some clients push until dray is killed, and looks at what has come of it.
func (c *crashed) round(round int) {
	c.misbehave()
	var clients sync.WaitGroup
	stop := make(chan struct{})
	unfinished := make(chan func() error, 16)
	for i := range 3 {
		rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), 0))
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				p := c.newPush(rnd, fmt.Sprintf("crash/app%d", i%2), []string{fmt.Sprintf("moving-%d", i), fmt.Sprintf("r%d-%d-%d", round, i, n)}[n%2])
				if err := p.send(); err != nil {
					unfinished <- p.send
					return
				}
			}
		})
	}
	time.Sleep(time.Duration(20+c.rnd.IntN(500)) * time.Millisecond)
	c.kill()
	close(stop)
	clients.Wait()
	close(unfinished)
	if c.level == config.AcknowledgeUpstream {
		c.inECR()
	}
	c.ecr.ClearFaults()
	c.start()
	c.served(c.since)
	clear(c.since)
	for again := range unfinished {
		if err := again(); err != nil {
			c.Errorf("a client's own second try: %v", err)
		}
	}
}

// misbehave arms some faults of ECR.
func (c *crashed) misbehave() {
	kinds := []ecrtest.Kind{ecrtest.KindUploadStart, ecrtest.KindUploadPatch, ecrtest.KindUploadPut, ecrtest.KindManifestPut}
	for range c.rnd.IntN(4) {
		f := []ecrtest.Fault{
			{Status: 500}, {Status: 429}, {Close: true}, {DropAnswer: true}, {CutRequestAt: ecrtest.At(1000)}, {Latency: 200 * time.Millisecond}, {Rate: 200_000},
			{Status: 403, Code: "DENIED", Message: "Your authorization token has expired. Reauthenticate and try again."},
		}[c.rnd.IntN(8)]
		f.Kinds = kinds[c.rnd.IntN(4):][:1]
		f.Skip, f.Count = c.rnd.IntN(6), 1+c.rnd.IntN(3)
		c.ecr.AddFault(f)
	}
}

// crashPush is a client's push of one image, which can be sent again where it stopped.
type crashPush struct {
	c         *crashed
	repo, tag string
	layers    [][]byte
	man       *oci.Manifest
	at        string // of the upload that did not end
	broken    int    // layer that it is of
}

func (c *crashed) newPush(rnd *rand.Rand, repo, tag string) *crashPush {
	p := &crashPush{c: c, repo: repo, tag: tag, broken: -1}
	for range 1 + rnd.IntN(2) {
		l := layerOf(rnd.Uint64(), 1+rnd.IntN(300_000))
		if rnd.IntN(4) == 0 {
			l = layerOf(7, 50_000) // others push it, too
		}
		p.layers = append(p.layers, l)
	}
	p.man = imageOf(c.T, p.layers...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range p.layers {
		c.layers[digest.FromBytes(l)] = l
	}
	c.may[repo+":"+tag] = append(c.may[repo+":"+tag], p.man)
	return p
}

// send pushes what is not there yet, as clients do.
func (p *crashPush) send() error {
	for i, l := range append(slices.Clone(p.layers), imageConfig) {
		if err := p.sendBlob(i, l); err != nil {
			return err
		}
	}
	r, err := p.c.do("PUT", "/v2/"+p.repo+"/manifests/"+p.tag, p.man.Raw, "Content-Type", p.man.MediaType)
	if err != nil {
		return err
	}
	if r.StatusCode != 201 {
		return fmt.Errorf("manifest of %s:%s: %s %s", p.repo, p.tag, r.Status, r.body)
	}
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.acked++
	p.c.may[p.repo+":"+p.tag] = []*oci.Manifest{p.man}
	p.c.known[p.repo+":"+p.tag], p.c.since[p.repo+":"+p.tag] = true, true
	return nil
}

func (p *crashPush) sendBlob(i int, l []byte) error {
	c, d := p.c, digest.FromBytes(l)
	if r, err := c.do("HEAD", "/v2/"+p.repo+"/blobs/"+d.String(), nil); err != nil || r.StatusCode == 200 {
		return err
	}
	from := 0
	if p.broken == i && p.at != "" { // go on where it stopped
		if r, err := c.do("GET", p.at, nil); err != nil {
			return err
		} else if r.StatusCode == 204 {
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "0-%d", &from); err != nil {
				return err
			}
			if from > 0 {
				from++
			}
		} else {
			p.at = ""
		}
	}
	if p.broken != i || p.at == "" {
		r, err := c.do("POST", "/v2/"+p.repo+"/blobs/uploads/", nil)
		if err != nil {
			return err
		}
		p.broken, p.at = i, r.Header.Get("Location")
		if r.StatusCode != 202 {
			return fmt.Errorf("start: %s %s", r.Status, r.body)
		}
	}
	for from < len(l) {
		to := min(len(l), from+100_000)
		r, err := c.do("PATCH", p.at, l[from:to], "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
		if err != nil {
			return err
		}
		if r.StatusCode == 416 && from == 1 { // "0-0" is nothing or one byte
			from = 0
			continue
		}
		if r.StatusCode != 202 {
			return fmt.Errorf("chunk: %s %s", r.Status, r.body)
		}
		from = to
	}
	r, err := c.do("PUT", p.at+"?digest="+d.String(), nil)
	if err == nil && r.StatusCode != 201 {
		err = fmt.Errorf("end of an upload: %s %s", r.Status, r.body)
	}
	return err
}

// allowed reports whether a tag may be what it is: the last image that was acknowledged, or one
// that was tried since.
func (c *crashed) allowed(name string, raw []byte) bool {
	return slices.ContainsFunc(c.may[name], func(m *oci.Manifest) bool { return bytes.Equal(m.Raw, raw) })
}

// inECR looks for every tag that was acknowledged, at ECR, with all its layers.
func (c *crashed) inECR() {
	for name, may := range c.may {
		repo, tag, _ := strings.Cut(name, ":")
		img, ok := c.ecr.Image(repo, tag)
		if !ok && !c.known[name] {
			continue
		}
		if !ok || !c.allowed(name, img.Raw) {
			c.Errorf("%s is not in ECR, or something else: %d images may be it", name, len(may))
			continue
		}
		man, err := oci.ParseManifest(img.MediaType, img.Raw)
		if err != nil {
			c.Fatal(err)
		}
		for _, child := range man.Children() {
			if !c.ecr.HasBlob(repo, child.Digest) {
				c.Errorf("%s lacks a layer in ECR", name)
			}
		}
	}
}

// served looks for tags that were acknowledged, at dray, with the bytes of all their layers.
func (c *crashed) served(names map[string]bool) {
	for name := range names {
		repo, tag, _ := strings.Cut(name, ":")
		r, err := c.do("GET", "/v2/"+repo+"/manifests/"+tag, nil, "Accept", oci.MediaTypeOCIManifest)
		if err != nil || r.StatusCode != 200 || !c.allowed(name, r.body) {
			c.Errorf("%s is not served: %v %s %.200s", name, err, r.Status, r.body)
			continue
		}
		man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, r.body)
		if err != nil {
			c.Fatal(err)
		}
		for _, child := range man.Children() {
			r, err := c.do("GET", "/v2/"+repo+"/blobs/"+child.Digest.String(), nil)
			if err != nil || r.StatusCode != 200 || !bytes.Equal(r.body, c.layers[child.Digest]) {
				c.Errorf("a layer of %s is served as %v %s, %d bytes", name, err, r.Status, len(r.body))
			}
		}
	}
}

// waitForwarded waits until every push is in ECR, as long as more arrive there: pushes of one
// repository are forwarded one after the other, and a busy machine is slow with thousands.
func (c *crashed) waitForwarded() {
	left, end := c.missing(), time.Now().Add(2*time.Minute)
	for left > 0 && time.Now().Before(end) {
		time.Sleep(50 * time.Millisecond)
		if n := c.missing(); n < left {
			left, end = n, time.Now().Add(2*time.Minute)
		}
	}
	c.inECR()
	c.served(c.known)
}

func (c *crashed) missing() (n int) {
	for name := range c.may {
		repo, tag, _ := strings.Cut(name, ":")
		if img, ok := c.ecr.Image(repo, tag); c.known[name] && (!ok || !c.allowed(name, img.Raw)) {
			n++
		}
	}
	return n
}

func (c *crashed) do(method, path string, body []byte, headers ...string) (got, error) {
	req, err := http.NewRequest(method, c.url+path, bytes.NewReader(body))
	if err != nil {
		return got{Response: &http.Response{}}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return got{Response: &http.Response{}}, err
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	return got{resp, p}, err
}
