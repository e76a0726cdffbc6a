package ecrtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

const body = "0123456789abcdef"

// linked starts a server with one blob and returns its signed URL.
func linked(t *testing.T, opts ecrtest.Options) (*rig, string) {
	t.Helper()
	r := start(t, opts)
	d, _ := r.image("team/app", "v1", body)
	link := r.follow("team/app", d)
	r.ResetCounters()
	return r, link
}

func TestFaultCut(t *testing.T) {
	for _, n := range []int64{0, 1, 10, 15} {
		r, link := linked(t, ecrtest.Options{})
		r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, CutAt: ecrtest.At(n)})
		a := r.get(link)
		if a.Status != http.StatusOK || !errors.Is(a.Err, io.ErrUnexpectedEOF) || string(a.Body) != body[:n] || a.Header.Get("Content-Length") != "16" {
			t.Errorf("cut at %d: %d %q %v", n, a.Status, a.Body, a.Err)
		}
		r.get(link).want(t, http.StatusOK, "", body) // one request is met
		<-r.Idle()
		if c := r.Counters()[ecrtest.KindObjectGet]; c.Requests != 2 || c.BytesOut != n+16 {
			t.Errorf("%+v", c)
		}
	}
}

func TestFaultCorrupt(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	r.AddFault(ecrtest.Fault{CorruptAt: ecrtest.At(3), CorruptBytes: 2})
	a := r.get(link).want(t, http.StatusOK, "", "")
	want := []byte(body)
	want[3] ^= 0xff
	want[4] ^= 0xff
	if !bytes.Equal(a.Body, want) {
		t.Errorf("%q", a.Body)
	}
	r.get(link).want(t, http.StatusOK, "", body)
}

// Bursts of errors have the shape of the API they hit.
func TestFaultStatus(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestGet}, Skip: 1, Count: 2, Status: 429, RetryAfter: 3 * time.Second})
	get := func() answer { return r.get("/v2/team/app/manifests/v1") }
	get().want(t, http.StatusOK, "", "")
	for range 2 {
		if a := get().want(t, 429, "TOOMANYREQUESTS", "Rate exceeded"); a.Header.Get("Retry-After") != "3" {
			t.Errorf("%v", a.Header)
		}
	}
	get().want(t, http.StatusOK, "", "")
	r.head("/v2/team/app/manifests/v1").want(t, http.StatusOK, "", "")

	r.AddFault(ecrtest.Fault{Status: 503, Count: -1, Path: "/"})
	get().want(t, 503, "UNKNOWN", "Service Unavailable")
	if a := r.get(link); a.Status != 503 || !strings.Contains(string(a.Body), "<Code>InternalError</Code>") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := r.api("DescribeRepositories", struct{}{}); a.Status != 503 || string(a.Body) != `{"__type":"ServerException","message":"Service Unavailable"}` {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if len(r.Faults()) != 2 {
		t.Errorf("%+v", r.Faults())
	}
	r.ClearFaults()
	get().want(t, http.StatusOK, "", "")
	r.AddFault(ecrtest.Fault{Method: http.MethodHead, Status: 400, Code: "X", Message: "y"})
	get().want(t, http.StatusOK, "", "")
	r.AddFault(ecrtest.Fault{Host: "elsewhere", Status: 400})
	get().want(t, http.StatusOK, "", "")
	if a := r.head("/v2/team/app/manifests/v1"); a.Status != 400 {
		t.Errorf("%d", a.Status)
	}
}

// The token API fails; the SDK's retries see it and report the API's own class.
func TestFaultTokenAPI(t *testing.T) {
	r := start(t, ecrtest.Options{})
	client := ecr.NewFromConfig(awsConfig(t, r.Running), func(o *ecr.Options) { o.RetryMaxAttempts = 1 })
	id := r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{"GetAuthorizationToken"}, Status: 500, Count: -1})
	_, err := client.GetAuthorizationToken(t.Context(), nil)
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ServerException" {
		t.Errorf("%v", err)
	}
	if !r.RemoveFault(id) || r.RemoveFault(id) {
		t.Error("removed never or twice")
	}
	if _, err := client.GetAuthorizationToken(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// The connection is closed without an answer; DropAnswer does the work before.
func TestFaultClose(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	d := digest.FromString(body)
	put := func() answer {
		return r.do(http.MethodPut, r.begin("team/app")+"?digest="+d.String(), strings.NewReader(body))
	}
	r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut}, Close: true})
	put().hungUp(t)
	if r.HasBlob("team/app", d) {
		t.Error("kept")
	}
	r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut}, DropAnswer: true})
	put().hungUp(t)
	<-r.Idle()
	if !r.HasBlob("team/app", d) {
		t.Error("lost")
	}
	if c := r.Counters()[ecrtest.KindUploadPut]; c.Requests != 2 || c.Failed != 2 {
		t.Errorf("%+v", c)
	}
}

// A connection that dies in the middle of an upload leaves a session that goes on where the bytes
// ended.
func TestFaultCutRequest(t *testing.T) {
	r := start(t, ecrtest.Options{})
	r.CreateRepository("team/app")
	r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, CutRequestAt: ecrtest.At(6)})
	loc := r.begin("team/app")
	patch(r, loc, []byte(body)).hungUp(t)
	<-r.Idle()
	patch(r, loc, []byte(body), "Content-Range", "0-15").want(t, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID",
		"First byte of the layer part is 0 instead of 6")
	if c := r.Counters()[ecrtest.KindUploadPatch]; c.BytesIn != 6 {
		t.Errorf("%+v", c)
	}
}

// A stall ends with the client, or with the fault.
func TestFaultStall(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	id := r.AddFault(ecrtest.Fault{StallAt: ecrtest.At(4), Count: -1})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, link, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, head); err != nil || string(head) != body[:4] {
		t.Fatalf("%q %v", head, err)
	}
	cancel()
	<-r.Idle()

	done := make(chan answer)
	go func() { done <- r.get(link) }()
	for log := r.Log(); len(log) < 2 || log[1].BytesOut < 4; log = r.Log() {
		select {
		case a := <-done:
			t.Fatalf("no stall: %+v", a)
		default:
			runtime.Gosched()
		}
	}
	r.RemoveFault(id)
	if a := <-done; !errors.Is(a.Err, io.ErrUnexpectedEOF) || string(a.Body) != body[:4] {
		t.Errorf("%+v", a)
	}
}

// Real time passes here, since the sockets are real: the bounds are generous below and loose above.
func TestFaultLatencyAndRate(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	took := func(f func()) time.Duration { t.Helper(); began := time.Now(); f(); return time.Since(began) }
	get := func() { r.get(link).want(t, http.StatusOK, "", body) }
	r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Latency: 60 * time.Millisecond})
	if d := took(get); d < 60*time.Millisecond {
		t.Errorf("latency: %v", d)
	}
	r.AddFault(ecrtest.Fault{Rate: 160})
	if d := took(get); d < 95*time.Millisecond {
		t.Errorf("16 bytes at 160/s: %v", d)
	}
	r.SetBandwidth(ecrtest.Bandwidth{Total: 320, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}})
	both := func() {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(get)
		}
		wg.Wait()
	}
	if d := took(both); d < 95*time.Millisecond {
		t.Errorf("2×16 bytes at 320/s in all: %v", d)
	}
	r.SetBandwidth(ecrtest.Bandwidth{PerConnection: 160, Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}})
	loc := r.begin("team/app")
	if d := took(func() { patch(r, loc, []byte(body)).want(t, http.StatusCreated, "", "") }); d < 95*time.Millisecond {
		t.Errorf("16 bytes sent at 160/s: %v", d)
	}
	r.SetBandwidth(ecrtest.Bandwidth{})
	get()
}

func TestJournal(t *testing.T) {
	r := start(t, ecrtest.Options{})
	d, _ := r.image("team/app", "v1", body)
	r.get(r.follow("team/app", d), "Range", "bytes=4-7").want(t, http.StatusPartialContent, "", body[4:8])
	r.get("/v2/team/app/manifests/none", "Accept", "a/b", "Accept", "c/d").want(t, http.StatusNotFound, "", "")
	<-r.Idle()
	var m struct {
		Config struct{ Digest digest.Digest }
	}
	img, _ := r.Image("team/app", "v1")
	unmarshal(t, img.Raw, &m)
	upload := func(d digest.Digest) []string {
		return []string{"POST /v2/team/app/blobs/uploads/", "PUT /v2/team/app/blobs/uploads/*?digest=" + strings.ReplaceAll(d.String(), ":", "%3A")}
	}
	want := append(append(upload(m.Config.Digest), upload(d)...), "PUT /v2/team/app/manifests/v1", "GET /v2/team/app/blobs/"+d.String(), "GET /*", "GET /v2/team/app/manifests/none")
	got := r.Sequence()
	for i, line := range got {
		if path, ok := strings.CutPrefix(line, "PUT /v2/team/app/blobs/uploads/"); ok {
			got[i] = "PUT /v2/team/app/blobs/uploads/*" + path[36:]
		}
		if r.Log()[i].Surface == "objects" {
			got[i] = "GET /*"
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := len(r.Sequence("objects")); n != 1 {
		t.Errorf("%d requests to the object store", n)
	}
	last := r.Log()[len(want)-1]
	if last.Status != 404 || last.Request["Authorization"] != "Basic [redacted]" || last.Request["Accept"] != "a/b, c/d" || last.Host != r.RegistryHost || !last.Done {
		t.Errorf("%+v", last)
	}
	ranged := r.Log()[len(want)-2]
	if ranged.Request["Range"] != "bytes=4-7" || ranged.Response["Content-Range"] != "bytes 4-7/16" || ranged.BytesOut != 4 || strings.Contains(ranged.Path, "Signature") {
		t.Errorf("%+v", ranged)
	}
	text, err := json.Marshal(r.Log())
	if err != nil || bytes.Contains(text, []byte(r.basic)) {
		t.Errorf("the log holds the token, or %v", err)
	}
	if c := r.Counters(); c[ecrtest.KindUploadPut].BytesIn != int64(len(body)+78) || c[ecrtest.KindManifestGet].Failed != 1 || c[ecrtest.KindObjectGet].BytesOut != 4 {
		t.Errorf("%+v", c)
	}
	r.ResetCounters()
	if len(r.Log()) != 0 || len(r.Counters()) != 0 {
		t.Error("not reset")
	}
	if _, ok := r.Image("team/app", "v1"); !ok {
		t.Error("reset took the images")
	}
}

// Faults, counters and switches may be changed while requests run.
func TestConcurrentUse(t *testing.T) {
	r, _ := linked(t, ecrtest.Options{})
	d := digest.FromString(body)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				r.get(r.follow("team/app", d)).want(t, http.StatusOK, "", body)
				r.push("team/app", []byte(body))
			}
		})
	}
	wg.Go(func() {
		for range 50 {
			r.RemoveFault(r.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindCatalog}, Status: 500}))
			r.SetSwitches(r.Switches())
			r.Advance(time.Millisecond)
			r.Log()
			r.Images()
		}
	})
	wg.Wait()
	if n := r.Count(ecrtest.KindObjectGet); n != 40 {
		t.Errorf("%d", n)
	}
}

// An answer that is held goes on as if nothing had been, unlike one that stalls.
func TestFaultHold(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	id := r.AddFault(ecrtest.Fault{HoldAt: ecrtest.At(4)})
	done := make(chan answer)
	go func() { done <- r.get(link) }()
	for log := r.Log(); len(log) < 1 || log[0].BytesOut < 4; log = r.Log() {
		select {
		case a := <-done:
			t.Fatalf("not held: %+v", a)
		default:
			runtime.Gosched()
		}
	}
	r.RemoveFault(id)
	if a := <-done; a.Err != nil || string(a.Body) != body {
		t.Errorf("%+v", a)
	}
}

// Answers that are too short and look whole, too long, and told of wrongly.
func TestFaultHeader(t *testing.T) {
	for name, tc := range map[string]struct {
		fault ecrtest.Fault
		want  string
	}{
		"truncated":        {ecrtest.Fault{CutAt: ecrtest.At(7), Header: map[string]string{"Content-Length": "7"}}, body[:7]},
		"overlong":         {ecrtest.Fault{Append: 3, Header: map[string]string{"Content-Length": "19"}}, body + "+++"},
		"overlong chunked": {ecrtest.Fault{Append: 3, Header: map[string]string{"Content-Length": ""}}, body + "+++"},
		"another range":    {ecrtest.Fault{Header: map[string]string{"Content-Range": "bytes 1-16/17"}}, body},
	} {
		r, link := linked(t, ecrtest.Options{})
		r.AddFault(tc.fault)
		a := r.get(link)
		if a.Err != nil || string(a.Body) != tc.want {
			t.Errorf("%s: %q, %v", name, a.Body, a.Err)
		}
		for k, v := range tc.fault.Header {
			if a.Header.Get(k) != v {
				t.Errorf("%s: %v", name, a.Header)
			}
		}
		r.get(link).want(t, http.StatusOK, "", body)
	}
}

// A reset is told apart from a connection that is closed.
func TestFaultReset(t *testing.T) {
	r, link := linked(t, ecrtest.Options{})
	r.AddFault(ecrtest.Fault{CutAt: ecrtest.At(0), Reset: true})
	if a := r.get(link); !errors.Is(a.Err, syscall.ECONNRESET) {
		t.Errorf("%d %v", a.Status, a.Err)
	}
}

// A fault for one blob meets its requests, behind the redirect as before it, and no others.
func TestFaultOfOneBlob(t *testing.T) {
	r := start(t, ecrtest.Options{})
	a, _ := r.image("team/app", "v1", body)
	b, _ := r.image("team/app", "v2", "another")
	r.AddFault(ecrtest.Fault{Blob: a, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Status: 503})
	r.AddFault(ecrtest.Fault{Blob: b, Kinds: []ecrtest.Kind{ecrtest.KindBlobHead}, Status: 500})
	r.get(r.follow("team/app", b)).want(t, http.StatusOK, "", "another")
	if x := r.get(r.follow("team/app", a)); x.Status != 503 {
		t.Errorf("%d", x.Status)
	}
	r.head("/v2/team/app/blobs/"+a.String()).want(t, http.StatusOK, "", "")
	if x := r.head("/v2/team/app/blobs/" + b.String()); x.Status != 500 {
		t.Errorf("%d", x.Status)
	}
}
