package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// layerOf makes n bytes that are like no others of another seed.
func layerOf(seed uint64, n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(p)
	return p
}

// header holds one header of an answer to its value.
func (s *stack) header(r got, name, want string) {
	s.Helper()
	if v := r.Header.Get(name); v != want {
		s.Errorf("%s %s: %s is %q, want %q", r.Request.Method, r.Request.URL, name, v, want)
	}
}

// The answers to a push, in each of the forms in which clients address an upstream: locations are
// paths in the same form, Range tells what is here, and the digest comes last.
func TestUploadAnswers(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	for i, form := range []struct{ base, query string }{
		{"/v2/team/app", ""}, {"/aws/v2/team/app", ""}, {"/v2/aws/team/app", ""},
		{"/v2/team/app", "?ns=" + strings.ReplaceAll(s.ecr.RegistryHost, ":", "%3A")},
	} {
		blob := layerOf(uint64(i), 3000)
		d := digest.FromBytes(blob)
		and := func(path, query string) string {
			if form.query == "" || strings.Contains(path, "?") {
				return path + strings.Replace(query, "?", map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")], 1)
			}
			return path + form.query + strings.Replace(query, "?", "&", 1)
		}
		r := s.want(202, "POST", and(form.base+"/blobs/uploads/", ""), nil)
		id := r.Header.Get("Docker-Upload-UUID")
		at := form.base + "/blobs/uploads/" + id + form.query
		s.header(r, "Location", at)
		s.header(r, "Range", "0-0")
		s.header(r, "Content-Length", "0")
		if len(id) < 20 {
			t.Errorf("the id %q can be guessed", id)
		}
		for n := 1000; n <= 3000; n += 1000 {
			r = s.want(202, "PATCH", at, blob[n-1000:n], "Content-Range", fmt.Sprintf("%d-%d", n-1000, n-1))
			s.header(r, "Location", at)
			s.header(r, "Docker-Upload-UUID", id)
			s.header(r, "Range", fmt.Sprintf("0-%d", n-1))
			r = s.want(204, "GET", at, nil)
			s.header(r, "Location", at)
			s.header(r, "Range", fmt.Sprintf("0-%d", n-1))
		}
		r = s.want(201, "PUT", and(at, "?digest="+d.String()), nil)
		s.header(r, "Location", form.base+"/blobs/"+d.String()+form.query)
		s.header(r, "Docker-Content-Digest", d.String())
		s.want(200, "HEAD", and(form.base+"/blobs/"+d.String(), ""), nil)
		s.refused(404, "BLOB_UPLOAD_UNKNOWN", "GET", at, nil)

		s.want(201, "POST", and(form.base+"/blobs/uploads/", "?digest="+digest.FromBytes(imageConfig).String()), imageConfig)
		m := imageOf(t, blob)
		r = s.want(201, "PUT", and(form.base+"/manifests/v1", ""), m.Raw, "Content-Type", m.MediaType)
		s.header(r, "Location", form.base+"/manifests/"+m.Digest.String()+form.query)
		s.header(r, "Docker-Content-Digest", m.Digest.String())
		if img, ok := s.ecr.Image("team/app", "v1"); !ok || img.Digest != m.Digest {
			t.Errorf("%s: the image did not arrive", form.base+form.query)
		}
	}
}

// Chunks of 1 MiB, which ECR does not take, reach it as one upload.
func TestUploadManyChunksBecomeOneUpload(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	const mib = 1 << 20
	blob := layerOf(1, 12*mib+17)
	at := s.start("team/app")
	for from := 0; from < len(blob); from += mib {
		to := min(from+mib, len(blob))
		chunk := blob[from:to]
		if from == 5*mib {
			for _, wrong := range []struct {
				first, last, status int
				code                string
			}{{from - 1, to - 2, 416, "RANGE_INVALID"}, {from + 1, to, 416, "RANGE_INVALID"}, {0, mib - 1, 416, "RANGE_INVALID"},
				{from, to, 400, "SIZE_INVALID"}, {from, to - 2, 400, "SIZE_INVALID"}} {
				r, _ := s.refused(wrong.status, wrong.code, "PATCH", at, chunk, "Content-Range", fmt.Sprintf("%d-%d", wrong.first, wrong.last))
				if wrong.status == 416 {
					s.header(r, "Range", fmt.Sprintf("0-%d", from-1))
					s.header(r, "Location", at)
				}
			}
			for _, wrong := range []string{"5-", "-5", "a-b", "5-4", "+0-5", "99999999999999999999-99999999999999999999"} {
				s.refused(400, "BLOB_UPLOAD_INVALID", "PATCH", at, chunk, "Content-Range", wrong)
			}
		}
		r := s.want(202, "PATCH", at, chunk, "Content-Range", fmt.Sprintf("%d-%d", from, to-1))
		s.header(r, "Range", fmt.Sprintf("0-%d", to-1))
	}
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	s.upload("team/app", imageConfig)
	m := imageOf(t, blob)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "upload-start": 2, "upload-patch": 2, "upload-put": 2, "manifest-put": 1})
	if up := s.ecr.Uploads(); up.Finished != 2 || up.Open != 0 {
		t.Errorf("uploads at the upstream: %+v", up)
	}
	s.holds("team/app", "v1", m, blob)
}

// holds checks that the fake ECR has an image with all its bytes, read by a client that knows only
// ECR.
func (s *stack) holds(repo, tag string, m *oci.Manifest, layers ...[]byte) {
	s.Helper()
	img, ok := s.ecr.Image(repo, tag)
	if !ok || !bytes.Equal(img.Raw, m.Raw) {
		s.Errorf("the upstream lacks %s:%s or has another", repo, tag)
	}
	clean := startBefore(s.TB, s.ecr, s.hub, s.TempDir())
	defer clean.stop()
	for _, l := range append(layers, imageConfig) {
		if r := clean.do("GET", "/v2/"+repo+"/blobs/"+digest.FromBytes(l).String(), nil); r.StatusCode != 200 || !bytes.Equal(r.body, l) {
			s.Errorf("a layer of %d bytes is at the upstream with %s and %d bytes", len(l), r.Status, len(r.body))
		}
	}
}

// The ways to send a blob that clients have: all at the end, all at once, or in one body without a
// length.
func TestUploadForms(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	blobs := [][]byte{layerOf(1, 70_000), layerOf(2, 70_000), layerOf(3, 70_000), layerOf(4, 70_000), layerOf(5, 1)}
	d := func(i int) string { return "?digest=" + digest.FromBytes(blobs[i]).String() }
	s.want(201, "PUT", s.start("team/app")+d(0), blobs[0])
	s.want(201, "POST", "/v2/team/app/blobs/uploads/"+d(1), blobs[1])

	send := func(method, at string, body []byte) {
		// A reader of unknown length makes net/http send chunks, as docker does.
		req, err := http.NewRequestWithContext(t.Context(), method, s.url+at, struct{ *bytes.Reader }{bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = -1
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Errorf("%s %s: %s", method, at, resp.Status)
		}
	}
	at := s.start("team/app")
	send("PATCH", at, blobs[2])
	s.want(201, "PUT", at+d(2), nil)
	at = s.start("team/app") // some in a PATCH, the rest in the PUT
	send("PATCH", at, blobs[3][:30_000])
	send("PUT", at+d(3), blobs[3][30_000:])
	s.want(201, "PUT", s.start("team/app")+d(4), blobs[4])
	s.upload("team/app", imageConfig)
	m := imageOf(t, blobs...)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.holds("team/app", "v1", m, blobs...)
}

func TestUploadCancelled(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	blob := layerOf(1, 100_000)
	at := s.start("team/app")
	s.want(202, "PATCH", at, blob)
	s.want(204, "DELETE", at, nil)
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		path := at
		if method == "PUT" {
			path += "?digest=" + digest.FromBytes(blob).String()
		}
		s.refused(404, "BLOB_UPLOAD_UNKNOWN", method, path, blob)
	}
	s.stop()
	if s.ecr.HasBlob("team/app", digest.FromBytes(blob)) {
		t.Error("the cancelled blob is at the upstream")
	}
}

func TestUploadSameBlobTwiceAtOnce(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	blob := layerOf(1, 3<<20)
	m := imageOf(t, blob)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s.upload("team/app", blob)
			s.upload("team/app", imageConfig)
			s.want(201, "PUT", fmt.Sprintf("/v2/team/app/manifests/v%d", i%3), m.Raw, "Content-Type", m.MediaType)
		})
	}
	wg.Wait()
	for i := range 3 {
		s.holds("team/app", fmt.Sprintf("v%d", i), m, blob)
	}
}

// ECR knows sha256 only: dray takes and verifies a sha512 blob, and passes on that the registry
// does not.
func TestUploadSHA512(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	blob := layerOf(1, 50_000)
	sum := sha512.Sum512(blob)
	d := "sha512:" + hex.EncodeToString(sum[:])
	s.refused(400, "DIGEST_INVALID", "PUT", s.start("team/app")+"?digest="+d, blob[1:])
	r := s.want(201, "PUT", s.start("team/app")+"?digest="+d, blob)
	s.header(r, "Docker-Content-Digest", d)
	if r := s.want(200, "GET", "/v2/team/app/blobs/"+d, nil); !bytes.Equal(r.body, blob) {
		t.Error("other bytes")
	}
	s.upload("team/app", imageConfig)
	raw := bytes.Replace(imageOf(t, blob).Raw, []byte(digest.FromBytes(blob)), []byte(d), 1)
	if _, msg := s.refused(400, "DIGEST_INVALID", "PUT", "/v2/team/app/manifests/v1", raw, "Content-Type", oci.MediaTypeOCIManifest); msg == "" {
		t.Error("no reason is given")
	}
}

// ECR answers 500 to a blob of zero bytes. dray says what is wrong instead.
func TestUploadEmptyBlob(t *testing.T) {
	for _, how := range []string{"POST and PUT", "POST in one", "PATCH of nothing"} {
		t.Run(how, func(t *testing.T) {
			s := startStack(t, t.TempDir())
			s.ecr.CreateRepository("team/app")
			empty := "?digest=" + digest.FromBytes(nil).String()
			switch how {
			case "POST and PUT":
				s.want(201, "PUT", s.start("team/app")+empty, nil)
			case "POST in one":
				s.want(201, "POST", "/v2/team/app/blobs/uploads/"+empty, nil)
			default:
				at := s.start("team/app")
				s.raw("PATCH "+at+" HTTP/1.1\r\nHost: dray\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false)
				s.want(201, "PUT", at+empty, nil)
			}
			s.upload("team/app", imageConfig)
			m := imageOf(t, nil)
			_, msg := s.refused(400, "SIZE_INVALID", "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
			if !strings.Contains(msg, "empty layers") {
				t.Errorf("the message is %q", msg)
			}
		})
	}
}

// A client whose PATCH broke off asks how far it got, and goes on from there.
func TestUploadResumed(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	blob := layerOf(1, 7<<20)
	at := s.start("team/app")
	n := 0
	for _, send := range []int{2 << 20, 3 << 20, 100} { // each announces the rest and breaks off
		head := fmt.Sprintf("PATCH %s HTTP/1.1\r\nHost: dray\r\nContent-Range: %d-%d\r\nContent-Length: %d\r\n\r\n", at, n, len(blob)-1, len(blob)-n)
		if r := s.raw(head+string(blob[n:n+send]), false); r != nil {
			s.checkError(*r, "PATCH", 400, "BLOB_UPLOAD_INVALID")
		}
		n += send
		s.header(s.want(204, "GET", at, nil), "Range", fmt.Sprintf("0-%d", n-1))
	}
	s.want(202, "PATCH", at, blob[n:], "Content-Range", fmt.Sprintf("%d-%d", n, len(blob)-1))
	s.want(201, "PUT", at+"?digest="+digest.FromBytes(blob).String(), nil)
	s.upload("team/app", imageConfig)
	m := imageOf(t, blob)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.holds("team/app", "v1", m, blob)
}

func TestUploadLimitPerClient(t *testing.T) {
	s := startStack(t, t.TempDir(), withAuth(usersOf(t, "")+"\nlimits: {max_uploads_per_client: 2}", "")...)
	s.ecr.CreateRepository("team/app")
	alice, bob := []string{"Authorization", basic("alice", "wonderland")}, []string{"Authorization", basic("bob", "builder")}
	const start = "/v2/team/app/blobs/uploads/"
	first := s.want(202, "POST", start, nil, alice...).Header.Get("Location")
	second := s.want(202, "POST", start, nil, alice...).Header.Get("Location")
	s.refused(429, "TOOMANYREQUESTS", "POST", start, nil, alice...)
	s.want(202, "POST", start, nil, bob...)
	// A place is free again after an upload, whether it ended well or not.
	s.want(204, "DELETE", first, nil, alice...)
	s.want(202, "POST", start, nil, alice...)
	s.refused(429, "TOOMANYREQUESTS", "POST", start, nil, alice...)
	s.want(201, "PUT", second+"?digest="+digest.FromBytes(imageConfig).String(), imageConfig, alice...)
	third := s.want(202, "POST", start, nil, alice...).Header.Get("Location")
	s.want(400, "PUT", third+"?digest="+digest.FromString("x").String(), imageConfig, alice...)
	s.want(400, "POST", start+"?digest="+digest.FromString("x").String(), imageConfig, alice...)
	s.want(202, "POST", start, nil, alice...)
}

// A mount is answered 201 only when the blob is in the target, and else leaves the client to upload
// it.
func TestUploadMount(t *testing.T) {
	layer := layerOf(1, 40_000)
	d := digest.FromBytes(layer)
	mount := func(to, from string) string {
		p := "/v2/" + to + "/blobs/uploads/?mount=" + d.String()
		if from != "" {
			p += "&from=" + strings.ReplaceAll(from, "/", "%2F")
		}
		return p
	}
	for _, mounting := range []bool{false, true} {
		t.Run(fmt.Sprintf("account setting %t", mounting), func(t *testing.T) {
			s := startBefore(t, ecrtest.Start(t, ecrtest.Options{BlobMounting: mounting}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
			s.ecr.CreateRepository("team/b")
			s.push("team/a", "v1", layer)
			s.ecr.ResetCounters()
			r := s.do("POST", mount("team/b", "team/a"), nil)
			if !mounting {
				if r.StatusCode != 202 || !strings.HasPrefix(r.Header.Get("Location"), "/v2/team/b/blobs/uploads/") {
					t.Errorf("%s %v", r.Status, r.Header)
				}
				s.want(404, "HEAD", "/v2/team/b/blobs/"+d.String(), nil)
				s.want(201, "PUT", r.Header.Get("Location")+"?digest="+d.String(), layer)
			} else {
				if r.StatusCode != 201 {
					t.Fatal(r.Status)
				}
				s.header(r, "Location", "/v2/team/b/blobs/"+d.String())
				s.header(r, "Docker-Content-Digest", d.String())
				if !s.ecr.HasBlob("team/b", d) {
					t.Error("the blob is not in the target")
				}
				s.want(200, "HEAD", "/v2/team/b/blobs/"+d.String(), nil)
			}
			s.upload("team/b", imageConfig)
			m := imageOf(t, layer)
			s.want(201, "PUT", "/v2/team/b/manifests/v1", m.Raw, "Content-Type", m.MediaType)
			s.holds("team/b", "v1", m, layer)
			// A blob that is known to be at the target needs no request, whatever the source.
			s.ecr.ResetCounters()
			for _, from := range []string{"team/a", "team/nowhere", "hub/library/alpine", ""} {
				s.want(201, "POST", mount("team/b", from), nil)
			}
			spent(t, s.ecr, kinds{})
		})
	}
	t.Run("from another upstream", func(t *testing.T) {
		s := startBefore(t, ecrtest.Start(t, ecrtest.Options{BlobMounting: true}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
		s.ecr.CreateRepository("team/b")
		img := seed(t, s.hub, "library/alpine", "3", 1<<10)
		s.want(200, "GET", "/v2/hub/alpine/manifests/3", nil)
		s.want(200, "GET", "/v2/hub/alpine/blobs/"+img.layer.String(), nil)
		for _, from := range []string{"hub/library/alpine", "hub/alpine", "library/alpine", ""} {
			s.want(202, "POST", "/v2/team/b/blobs/uploads/?mount="+img.layer.String()+"&from="+from, nil)
		}
		s.want(404, "HEAD", "/v2/team/b/blobs/"+img.layer.String(), nil)
	})
}

// A repository that is missing at ECR comes to be with the first push, or the push fails with a
// reason.
func TestUploadRepositoryMissing(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		sw := ecrtest.DefaultSwitches()
		sw.MissingRepositoryHangsUp = hangsUp
		t.Run(fmt.Sprintf("created and hangs up %t", hangsUp), func(t *testing.T) {
			s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
			layer := layerOf(1, 6<<20)
			s.holds("brand/new", "v1", s.push("brand/new", "v1", layer), layer)
		})
		t.Run(fmt.Sprintf("not created and hangs up %t", hangsUp), func(t *testing.T) {
			s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
				"push: true", "push: true\n  create_repositories: {mode: off}")
			layer := layerOf(1, 100_000)
			s.upload("brand/new", layer)
			s.upload("brand/new", imageConfig)
			m := imageOf(t, layer)
			r := s.do("PUT", "/v2/brand/new/manifests/v1", m.Raw, "Content-Type", m.MediaType)
			if hangsUp { // ECR gave no answer: dray says what that most likely means
				if msg := s.checkError(r, "PUT", 403, "DENIED"); !strings.Contains(msg, "brand/new does not exist") {
					t.Errorf("the message is %q", msg)
				}
				return
			}
			if msg := s.checkError(r, "PUT", 404, "NAME_UNKNOWN"); !strings.Contains(msg, "brand/new") {
				t.Errorf("the message is %q", msg)
			}
		})
	}
}

// pushFaults are what can go wrong on the way to ECR, once or twice, at each step of a push.
func pushFaults() map[string]ecrtest.Fault {
	const expired = "Your authorization token has expired. Reauthenticate and try again."
	start, patch, put, manifest := []ecrtest.Kind{ecrtest.KindUploadStart}, []ecrtest.Kind{ecrtest.KindUploadPatch}, []ecrtest.Kind{ecrtest.KindUploadPut}, []ecrtest.Kind{ecrtest.KindManifestPut}
	return map[string]ecrtest.Fault{
		"500 at the start":            {Kinds: start, Status: 500},
		"429 at the start":            {Kinds: start, Status: 429, Count: 2},
		"closed at the start":         {Kinds: start, Close: true},
		"500 for the bytes":           {Kinds: patch, Status: 500},
		"429 for the bytes":           {Kinds: patch, Status: 429},
		"closed in the bytes":         {Kinds: patch, CutRequestAt: ecrtest.At(2 << 20)},
		"closed in the bytes twice":   {Kinds: patch, CutRequestAt: ecrtest.At(1 << 20), Count: 2},
		"answer to the bytes lost":    {Kinds: patch, DropAnswer: true},
		"416 for the bytes":           {Kinds: patch, Status: 416, Code: "BLOB_UPLOAD_INVALID"},
		"session gone":                {Kinds: put, Status: 404, Code: "BLOB_UPLOAD_UNKNOWN"},
		"500 at the end":              {Kinds: put, Status: 500},
		"429 at the end":              {Kinds: put, Status: 429},
		"closed at the end":           {Kinds: put, Close: true},
		"answer at the end lost":      {Kinds: put, DropAnswer: true},
		"token expired at the start":  {Kinds: start, Status: 403, Code: "DENIED", Message: expired},
		"token expired for the bytes": {Kinds: patch, Status: 403, Code: "DENIED", Message: expired},
		"token expired at the end":    {Kinds: put, Status: 403, Code: "DENIED", Message: expired},
		"500 for the manifest":        {Kinds: manifest, Status: 500},
		"429 for the manifest":        {Kinds: manifest, Status: 429},
		"closed for the manifest":     {Kinds: manifest, Close: true},
		"answer to the manifest lost": {Kinds: manifest, DropAnswer: true},
		"blob unknown once":           {Kinds: manifest, Status: 404, Code: "MANIFEST_BLOB_UNKNOWN"},
	}
}

// Whatever goes wrong on the way to ECR, and however late, the client sees success and ECR has the
// bytes: at once, or when the queue is through where pushes are acknowledged before.
func TestUploadHealed(t *testing.T) {
	for level, edits := range map[string][]string{"upstream": nil, "local": acknowledging} {
		for name, fault := range pushFaults() {
			t.Run(level+"/"+name, func(t *testing.T) {
				s := startStack(t, t.TempDir(), edits...)
				s.ecr.CreateRepository("team/app")
				s.ecr.AddFault(fault)
				layer := layerOf(1, 5<<20)
				m := s.push("team/app", "v1", layer)
				if s.queue.Takes() {
					s.forwarded()
				}
				s.holds("team/app", "v1", m, layer)
				if n := s.ecr.Counters()[fault.Kinds[0]].Failed; n == 0 {
					t.Error("the fault was not met")
				}
			})
		}
	}
}

// A registry that takes bytes slowly costs neither its client time nor this process memory: the
// bytes wait on disk.
func TestUploadToSlowUpstream(t *testing.T) {
	s := startStack(t, t.TempDir())
	s.ecr.CreateRepository("team/app")
	layer := layerOf(1, 48<<20)
	slow := s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, Latency: time.Hour, Count: -1})
	heap := func() int64 {
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		return int64(now.HeapAlloc)
	}
	before := heap()
	s.upload("team/app", layer)
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("a layer of %d bytes that does not get on takes %d bytes of memory", len(layer), grown)
	}
	s.ecr.RemoveFault(slow)
	s.upload("team/app", imageConfig)
	m := imageOf(t, layer)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.holds("team/app", "v1", m, layer)
}

// The client sees a permanent refusal in ECR's words. When the cause is removed, the same push
// succeeds without sending a layer again.
func TestUploadRefused(t *testing.T) {
	for _, action := range []string{"ecr:InitiateLayerUpload", "ecr:PutImage"} {
		for _, hangsUp := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s and hangs up %t", action, hangsUp), func(t *testing.T) {
				sw := ecrtest.DefaultSwitches()
				sw.DeniedUploadHangsUp = hangsUp
				s := startBefore(t, ecrtest.Start(t, ecrtest.Options{Switches: &sw}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir())
				s.ecr.CreateRepository("team/app")
				s.ecr.SetDenials(ecrtest.Denial{Action: action})
				layer := layerOf(1, 200_000)
				s.upload("team/app", layer)
				s.upload("team/app", imageConfig)
				m := imageOf(t, layer)
				put := func() got {
					return s.do("PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
				}
				r := put()
				want := "not authorized to perform: " + action
				if hangsUp && action == "ecr:InitiateLayerUpload" { // no word came from ECR that could be shown
					want = "must not push to it"
				}
				if st := s.registries[0].Breaker.State(); st.Failures != 0 {
					t.Errorf("what is forbidden in one repository counts as an outage: %+v", st)
				}
				if msg := s.checkError(r, "PUT", 403, "DENIED"); !strings.Contains(msg, want) {
					t.Errorf("the message is %q", msg)
				}
				s.ecr.SetDenials()
				s.want(200, "HEAD", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil)
				if r := put(); r.StatusCode != 201 {
					t.Fatalf("after the right was granted: %s %s", r.Status, r.body)
				}
				s.holds("team/app", "v1", m, layer)
			})
		}
	}
}

// Pushing the same image to an immutable tag again is success; moving the tag is not.
func TestUploadImmutableTag(t *testing.T) {
	s := startStack(t, t.TempDir(), "push: true", "push: true\n  create_repositories: {tag_mutability: IMMUTABLE}")
	first, second := layerOf(1, 1000), layerOf(2, 1000)
	m := s.push("team/app", "v1", first)
	s.want(201, "PUT", "/v2/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	s.upload("team/app", second)
	other := imageOf(t, second)
	_, msg := s.refused(400, "TAG_INVALID", "PUT", "/v2/team/app/manifests/v1", other.Raw, "Content-Type", other.MediaType)
	if !strings.Contains(msg, "immutable") || !strings.Contains(msg, m.Digest.String()) {
		t.Errorf("the message is %q", msg)
	}
	s.want(201, "PUT", "/v2/team/app/manifests/v2", other.Raw, "Content-Type", other.MediaType)
	s.holds("team/app", "v1", m, first)
	// The tag does not show the refused image.
	if r := s.want(200, "GET", "/v2/team/app/manifests/v1", nil); !bytes.Equal(r.body, m.Raw) {
		t.Error("the tag shows what was refused")
	}
}
