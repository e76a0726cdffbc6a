package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/stats"
	"dray/mirror/pipeline"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// checked are the edits that put checks before ECR.
func checked(checks string) []string {
	return []string{"  push: true\n", "  push: true\n  checks: [gate]\n", "upstreams:\n", "checks:\n- name: gate\n" + checks + "\nupstreams:\n"}
}

// tarOf makes a layer of files: pairs of path and content.
func tarOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1])), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, files[i+1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipOf(t testing.TB, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(p)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// image is what a test pushes: a configuration and layers.
type image struct {
	config string
	layers [][]byte
	man    *oci.Manifest
}

const plainConfig = `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`

func newImage(t testing.TB, config string, layers ...[]byte) image {
	t.Helper()
	descs := make([]string, len(layers))
	for i, l := range layers {
		descs[i] = fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}`, digest.FromBytes(l), len(l))
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		oci.MediaTypeOCIManifest, digest.FromString(config), len(config), strings.Join(descs, ","))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return image{config, layers, m}
}

// pushImage pushes an image under a tag or, with an empty one, by its digest, and returns the
// answer to its manifest.
func (s *stack) pushImage(repo, tag string, img image, headers ...string) got {
	s.Helper()
	for _, l := range img.layers {
		s.upload(repo, l)
	}
	s.upload(repo, []byte(img.config))
	return s.putManifest(repo, tag, img.man, headers...)
}

func (s *stack) putManifest(repo, tag string, man *oci.Manifest, headers ...string) got {
	s.Helper()
	if tag == "" {
		tag = man.Digest.String()
	}
	return s.do("PUT", "/v2/"+repo+"/manifests/"+tag, man.Raw, append([]string{"Content-Type", man.MediaType}, headers...)...)
}

func indexOf(t testing.TB, children ...*oci.Manifest) *oci.Manifest {
	t.Helper()
	descs := make([]string, len(children))
	for i, c := range children {
		descs[i] = fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d,"platform":{"os":"linux","architecture":"arch%d"}}`, c.MediaType, c.Digest, len(c.Raw), i)
	}
	m, err := oci.ParseManifest(oci.MediaTypeOCIIndex, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeOCIIndex, strings.Join(descs, ",")))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// message is the text of a rejection, which is one error of the code DENIED.
func (s *stack) message(r got) string {
	s.Helper()
	var body struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(r.body, &body); err != nil || r.StatusCode != 403 || len(body.Errors) != 1 || body.Errors[0].Code != "DENIED" {
		s.Fatalf("%s: %s, want one DENIED", r.Status, r.body)
	}
	if n := len(body.Errors[0].Message); n > pipeline.MaxMessage {
		s.Errorf("the message has %d bytes", n)
	}
	return body.Errors[0].Message
}

// nothingStored holds ECR to having no manifest, and no layer that could be downloaded.
func (s *stack) nothingStored(repo string, img image) {
	s.Helper()
	<-s.ecr.Idle()
	if n := s.ecr.Count(ecrtest.KindManifestPut); n != 0 {
		s.Errorf("ECR got %d manifests\n%s", n, strings.Join(s.ecr.Sequence(), "\n"))
	}
	if images := s.ecr.Images(); len(images) != 0 {
		s.Errorf("ECR has %v", images)
	}
}

// A layer that grows without bound is rejected, in words, with a report; its clean twin passes.
func TestChecksRejectABomb(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("")...)
	s.ecr.CreateRepository("team/app")
	bomb := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "small")), gzipOf(t, tarOf(t, "zeros", string(make([]byte, 80<<20)))))
	msg := s.message(s.pushImage("team/app", "v1", bomb))
	head, url, ok := strings.Cut(msg, "\nreport: ")
	if want := "1 check of team/app failed, so the image was not stored\n- [archive/ratio] layer 2 of 2, /zeros: the layer grows to more than 200 times its size; build a layer that stays within the limit, or ask the operator of dray to raise it"; head != want || !ok {
		t.Errorf("the message is\n%s\nwant\n%s", msg, want)
	}
	s.nothingStored("team/app", bomb)
	for i, l := range bomb.layers {
		if has := s.ecr.HasBlob("team/app", digest.FromBytes(l)); has != (i == 0) {
			t.Errorf("layer %d is completed at ECR: %v", i+1, has)
		}
	}
	var report pipeline.Report
	r := s.want(200, "GET", strings.TrimPrefix(url, s.url), nil)
	if err := json.Unmarshal(r.body, &report); err != nil || report.Pass || len(report.Findings) != 1 || report.Findings[0].Where.Number != 2 || report.Digest != bomb.man.Digest {
		t.Errorf("the report is %s, %v", r.body, err)
	}
	s.want(404, "GET", strings.TrimPrefix(url, s.url)+"x", nil)

	clean := newImage(t, plainConfig, bomb.layers[0], gzipOf(t, tarOf(t, "zeros", string(make([]byte, 1<<20)))))
	if r := s.pushImage("team/app", "v1", clean); r.StatusCode != 201 {
		t.Errorf("the clean twin: %s %s", r.Status, r.body)
	}
	if _, ok := s.ecr.Image("team/app", "v1"); !ok {
		t.Error("the clean twin is not in ECR")
	}
}

// walked is how many layers were walked, and for how many memory was enough.
func (s *stack) walked() (walks, remembered float64) {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch {
			case f.GetName() != "dray_check_layers_total":
			case stats.Labels(m)["source"] == "walk":
				walks = m.GetCounter().GetValue()
			default:
				remembered = m.GetCounter().GetValue()
			}
		}
	}
	return walks, remembered
}

// dray remembers the findings of a layer: an image whose layers the registry already has costs no
// walk, not even in another process. A layer that no stage has seen is fetched and examined, or
// trusted, as configured.
func TestChecksRememberLayers(t *testing.T) {
	dir := t.TempDir()
	s := startStack(t, dir, checked("")...)
	s.ecr.CreateRepository("team/app")
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "small")))
	if r := s.pushImage("team/app", "v1", img); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	if walks, _ := s.walked(); walks != 2 { // the layer, and the configuration, of which nobody knew what it is
		t.Errorf("%v walks", walks)
	}
	s.stop()
	for _, tc := range []struct {
		checks            string
		walks, remembered float64
		status            int
	}{{"", 0, 1, 201}, {"  archive: {max_ratio: 199}", 1, 0, 201}, {"  unseen_layers: trust\n  archive: {max_ratio: 198}", 0, 0, 201}, {"  archive: {max_entries: 1, max_depth: 1}", 1, 0, 403}} {
		again := newImage(t, plainConfig, img.layers...)
		s := startBefore(t, s.ecr, s.hub, dir, checked(tc.checks)...)
		if tc.status == 403 {
			again = newImage(t, plainConfig, gzipOf(t, tarOf(t, "a/b", "small", "c", "more")))
			s.upload("team/app", again.layers[0])
		}
		if r := s.putManifest("team/app", "v2", again.man); r.StatusCode != tc.status {
			t.Errorf("%q: %s %s", tc.checks, r.Status, r.body)
		}
		if walks, remembered := s.walked(); walks != tc.walks || remembered != tc.remembered {
			t.Errorf("%q: %v walks, %v remembered, want %v and %v", tc.checks, walks, remembered, tc.walks, tc.remembered)
		}
		s.stop()
	}
}

// The children of an index wait: when it is rejected, nothing is left behind. When it passes, they
// are forwarded before it.
func TestChecksHoldChildrenBack(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("")...)
	s.ecr.CreateRepository("team/app")
	good := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "good")))
	fine := newImage(t, plainConfig+" ", gzipOf(t, tarOf(t, "a", "fine")))
	bad := newImage(t, plainConfig+"  ", gzipOf(t, tarOf(t, "zeros", string(make([]byte, 80<<20)))))
	for _, img := range []image{good, fine} {
		r := s.pushImage("team/app", "", img)
		if r.StatusCode != 201 || r.Header.Get("Docker-Content-Digest") != img.man.Digest.String() {
			t.Fatalf("a child: %s %s", r.Status, r.body)
		}
		if r := s.want(200, "GET", "/v2/team/app/manifests/"+img.man.Digest.String(), nil); !bytes.Equal(r.body, img.man.Raw) {
			t.Error("the waiting child is not served to who pushes")
		}
	}
	s.nothingStored("team/app", good)
	if msg := s.message(s.pushImage("team/app", "", bad)); !strings.Contains(msg, "[archive/ratio]") {
		t.Errorf("the bad child: %s", msg)
	}
	s.nothingStored("team/app", good)
	// An index with a child that was never accepted.
	if r := s.putManifest("team/app", "v1", indexOf(t, good.man, bad.man)); r.StatusCode/100 != 4 {
		t.Errorf("an index with a rejected child: %s %s", r.Status, r.body)
	}
	s.nothingStored("team/app", good)
	if r := s.putManifest("team/app", "v1", indexOf(t, good.man, fine.man)); r.StatusCode != 201 {
		t.Fatalf("the index: %s %s", r.Status, r.body)
	}
	<-s.ecr.Idle()
	if n := s.ecr.Count(ecrtest.KindManifestPut); n != 3 {
		t.Errorf("%d manifests were put, want 3", n)
	}
	for _, ref := range []string{"v1", good.man.Digest.String(), fine.man.Digest.String()} {
		if _, ok := s.ecr.Image("team/app", ref); !ok {
			t.Errorf("ECR lacks %s", ref)
		}
	}
}

// A referrer that is pushed before its subject, as BuildKit does, waits for it: if the subject is
// rejected, nothing is left behind. A referrer of an image that is in ECR, from whatever source, is
// forwarded at once.
func TestChecksHoldDescriptionsBack(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("")...)
	s.ecr.CreateRepository("team/app")
	describe := func(img image) (*oci.Manifest, got) {
		t.Helper()
		s.upload("team/app", imageConfig)
		about := referrer(t, img.man, "application/vnd.example.sbom")
		return about, s.putManifest("team/app", "", about)
	}
	bad := newImage(t, plainConfig, gzipOf(t, tarOf(t, "zeros", string(make([]byte, 80<<20)))))
	if _, r := describe(bad); r.StatusCode != 201 {
		t.Fatalf("what describes the bad image: %s %s", r.Status, r.body)
	}
	s.message(s.pushImage("team/app", "", bad))
	s.nothingStored("team/app", bad)

	good := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "good")))
	before, r := describe(good)
	if r.StatusCode != 201 {
		t.Fatalf("what describes the good image: %s %s", r.Status, r.body)
	}
	s.nothingStored("team/app", good)
	if r := s.pushImage("team/app", "v1", good); r.StatusCode != 201 {
		t.Fatalf("the good image: %s %s", r.Status, r.body)
	}
	if _, ok := s.ecr.Image("team/app", before.Digest.String()); !ok {
		t.Error("what describes the image has not landed with it")
	}

	foreign, err := s.ecr.Seed(ecrtest.SeedImage{Repository: "team/app", Tag: "seeded"})
	if err != nil {
		t.Fatal(err)
	}
	seeded, _ := s.ecr.Image("team/app", foreign.String())
	subject, err := oci.ParseManifest(seeded.MediaType, seeded.Raw)
	if err != nil {
		t.Fatal(err)
	}
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestHead, ecrtest.KindManifestGet}, Count: -1, Status: http.StatusForbidden})
	if _, r := describe(image{man: subject}); r.StatusCode == 201 {
		t.Error("ECR could not be asked whether the image is there, and what describes it was accepted")
	}
	s.ecr.ClearFaults()
	after, r := describe(image{man: subject})
	if _, ok := s.ecr.Image("team/app", after.Digest.String()); r.StatusCode != 201 || !ok {
		t.Errorf("what describes an image that ECR has: %s %s, in ECR: %v", r.Status, r.body, ok)
	}
}

// With forward: hold not a byte leaves before the verdict.
func TestChecksHoldUploads(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  forward: hold")...)
	s.ecr.CreateRepository("team/app")
	bomb := newImage(t, plainConfig, gzipOf(t, tarOf(t, "zeros", string(make([]byte, 80<<20)))))
	nothingSent := func() {
		t.Helper()
		<-s.ecr.Idle()
		if u := s.ecr.Uploads(); u.Started != 0 {
			t.Errorf("ECR got uploads: %+v", u)
		}
	}
	s.message(s.pushImage("team/app", "v1", bomb))
	nothingSent()
	clean := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "good")))
	for _, blob := range [][]byte{clean.layers[0], []byte(clean.config)} {
		s.upload("team/app", blob)
	}
	nothingSent()
	if r := s.putManifest("team/app", "v1", clean.man); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	if _, ok := s.ecr.Image("team/app", "v1"); !ok {
		t.Error("the image is not in ECR")
	}
}

// Names are refused at the start of an upload, before a byte, and tags with the manifest. A tag
// that must not move is compared with what the registry has.
func TestChecksOfNames(t *testing.T) {
	s := startStack(t, t.TempDir(), checked(`  names: {mode: enforce, repositories: ["team/.+"], forbidden_tags: [latest], immutable_tags: ["v*"]}`)...)
	s.ecr.CreateRepository("team/app")
	msg := s.message(s.do("POST", "/v2/other/app/blobs/uploads/", nil))
	if !strings.HasPrefix(msg, "1 check of other/app failed, so the image was not stored\n- [names/repository] the repository name other/app is not allowed; push to a name that matches team/.+\nreport: http") {
		t.Errorf("the repository: %s", msg)
	}
	if u := s.ecr.Uploads(); u.Started != 0 {
		t.Errorf("ECR got uploads: %+v", u)
	}
	one := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "1")))
	if msg := s.message(s.pushImage("team/app", "latest", one)); !strings.Contains(msg, "[names/forbidden-tag] the tag latest is forbidden") {
		t.Errorf("latest: %s", msg)
	}
	s.nothingStored("team/app", one)
	two := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "2")))
	for i, tc := range []struct {
		img    image
		status int
	}{{one, 201}, {one, 201}, {two, 403}} {
		if r := s.pushImage("team/app", "v1", tc.img); r.StatusCode != tc.status {
			t.Errorf("push %d of v1: %s %s", i, r.Status, r.body)
		}
	}
}

// One message has all findings that reject a push, the worst first. The headers of a push that
// passes have its warnings. A waiver lets the findings pass that it names.
func TestChecksTellEverythingAtOnce(t *testing.T) {
	const stages = `  shape: {mode: enforce, max_layers: 1, max_layer_bytes: 400}
  metadata: {mode: enforce, required: [{key: team, in: label, pattern: "core|web"}]}
  runtime: {mode: enforce, non_root: true, secret_variables: true, setuid: true, ports: ["8080"]}`
	bad := `{"architecture":"amd64","os":"linux","config":{"User":"app","Env":["DB_PASSWORD=hunter2"],"ExposedPorts":{"22/tcp":{}},"Labels":{"team":"none"}},"rootfs":{"type":"layers","diff_ids":[]}}`
	img := newImage(t, bad, gzipOf(t, tarOf(t, "etc/passwd", "app:x:0:0::/:/bin/sh\n")), gzipOf(t, tarOf(t, "a", string(layerOf(1, 500)))))
	s := startStack(t, t.TempDir(), checked(stages)...)
	s.ecr.CreateRepository("team/app")
	msg, _, _ := strings.Cut(s.message(s.pushImage("team/app", "v1", img)), "report: ")
	golden(t, "testdata/rejection.golden", msg)
	if strings.Contains(msg, "hunter2") {
		t.Error("the message holds the secret")
	}
	s.nothingStored("team/app", img)

	s = startStack(t, t.TempDir(), checked(strings.ReplaceAll(stages, "mode: enforce", "mode: warn"))...)
	s.ecr.CreateRepository("team/app")
	r := s.pushImage("team/app", "v1", img)
	if warnings := r.Header.Values("Warning"); r.StatusCode != 201 || len(warnings) != 6 || !strings.HasPrefix(warnings[0], `299 - "[metadata/required] `) {
		t.Errorf("warned: %s %q", r.Status, r.Header.Values("Warning"))
	}

	good := newImage(t, strings.NewReplacer(`"app"`, `"1000"`, "DB_PASSWORD", "DB_HOST", "22/tcp", "8080/tcp", `"none"`, `"core"`).Replace(bad), gzipOf(t, tarOf(t, "a", "small")))
	s = startStack(t, t.TempDir(), checked(stages)...)
	s.ecr.CreateRepository("team/app")
	if r := s.pushImage("team/app", "v1", good); r.StatusCode != 201 {
		t.Errorf("the clean twin: %s %s", r.Status, r.body)
	}
	waived := stages + "\n  waivers: [{stage: shape, reason: r}, {stage: metadata, rule: required, reason: r}, {stage: runtime, repositories: [team/*], reason: r}]"
	s = startStack(t, t.TempDir(), checked(waived)...)
	s.ecr.CreateRepository("team/app")
	if r := s.pushImage("team/app", "v1", img); r.StatusCode != 201 {
		t.Errorf("waived: %s %s", r.Status, r.body)
	}
}

// A verdict that takes longer than the client waits is not given up: the client is told to push
// again, and its next push joins the same work. With on_timeout: warn the image is forwarded.
func TestChecksThatTakeTooLong(t *testing.T) {
	var asked atomic.Int32
	release := make(chan struct{})
	policy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		<-release
		_, _ = io.WriteString(w, `{"result":{"allowed":true}}`)
	}))
	defer policy.Close()
	const containerd = "containerd/2.1"
	checks := "  within: 1s\n  webhooks: [{mode: enforce, form: opa, timeout: 9s, url: '" + policy.URL + "'}]"
	img := newImage(t, plainConfig, gzipOf(t, tarOf(t, "a", "small")))

	trusting := startStack(t, t.TempDir(), checked(checks+"\n  on_timeout: warn")...)
	trusting.ecr.CreateRepository("team/app")
	if r := trusting.pushImage("team/app", "v1", img, "User-Agent", containerd); r.StatusCode != 201 {
		t.Errorf("on_timeout: warn: %s %s", r.Status, r.body)
	}

	s := startStack(t, t.TempDir(), checked(checks)...)
	s.ecr.CreateRepository("team/app")
	before := asked.Load()
	msg := s.message(s.pushImage("team/app", "v1", img, "User-Agent", containerd))
	if !strings.Contains(msg, "did not finish within 1s") || !strings.Contains(msg, "push again") {
		t.Errorf("the message: %s", msg)
	}
	s.nothingStored("team/app", img)
	close(release)
	if r := s.putManifest("team/app", "v1", img.man, "User-Agent", containerd); r.StatusCode != 201 {
		t.Errorf("the second push: %s %s", r.Status, r.body)
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("the image was judged %d times", n)
	}
}

// A layer that finds no place to be looked at while it comes is looked at with its manifest, and is
// not sent on before.
func TestChecksHoldWhatNobodyLooksAt(t *testing.T) {
	s := startStack(t, t.TempDir(), append(checked(""), "cache: {", "limits: {max_uploads_per_client: 0}\ncache: {")...)
	s.ecr.CreateRepository("team/app")
	for range 64 {
		at := s.want(202, "POST", "/v2/team/app/blobs/uploads/", nil).Header.Get("Location")
		s.want(202, "PATCH", at, []byte{0x1f}, "Content-Type", "application/octet-stream")
	}
	bomb := newImage(t, plainConfig, gzipOf(t, tarOf(t, "zeros", string(make([]byte, 80<<20)))))
	if msg := s.message(s.pushImage("team/app", "v1", bomb)); !strings.Contains(msg, "[archive/ratio]") {
		t.Errorf("the bomb: %s", msg)
	}
	if s.ecr.HasBlob("team/app", digest.FromBytes(bomb.layers[0])) {
		t.Error("its layer is completed at ECR")
	}
	clean := newImage(t, plainConfig+" ", gzipOf(t, tarOf(t, "a", "good")))
	if r := s.pushImage("team/app", "v1", clean); r.StatusCode != 201 {
		t.Errorf("the clean twin: %s %s", r.Status, r.body)
	}
	if _, ok := s.ecr.Image("team/app", "v1"); !ok {
		t.Error("the clean twin is not in ECR")
	}
}

// Of pushes that want one immutable tag at the same time, one gets it.
func TestChecksLetOneTakeATag(t *testing.T) {
	s := startStack(t, t.TempDir(), checked("  names: {mode: enforce, immutable_tags: ['*']}")...)
	s.ecr.CreateRepository("team/app")
	images := make([]image, 6)
	for i := range images {
		images[i] = newImage(t, plainConfig, gzipOf(t, tarOf(t, "name", fmt.Sprint(i))))
		for _, l := range images[i].layers {
			s.upload("team/app", l)
		}
	}
	s.upload("team/app", []byte(plainConfig))
	var taken, refused atomic.Int32
	var wg sync.WaitGroup
	for _, img := range images {
		wg.Go(func() {
			switch r := s.putManifest("team/app", "v1", img.man); r.StatusCode {
			case 201:
				taken.Add(1)
			case 403:
				refused.Add(1)
			default:
				t.Errorf("%s: %s", r.Status, r.body)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || int(refused.Load()) != len(images)-1 {
		t.Errorf("%d pushes took the tag, %d were refused", taken.Load(), refused.Load())
	}
}
