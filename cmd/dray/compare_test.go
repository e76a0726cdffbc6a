package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// intended are the texts of the program that DRAY_OLD names which this one has changed, in the
// exchanges whose play and title begin with a text, and why.
var intended = []struct{ title, old, now, why string }{
	{"checks: ", "b71720a95a997aaf", "fa7ad9b77bc94e89", "names has another meaning of semantic versions, and with it another revision"},
	{"checks: ", "b0c419c149e5abfe", "7f63caf7bcfec3a7", "metadata has the same meaning of semantic versions as names"},
	{"checks: ", "841a9c79c1eb5ac9", "283b62ab3404f153", "the revision of checks changes with that of their stages"},
}

// TestSameAsOld sends the same requests to the program that DRAY_OLD names and to this one, each
// before registries of its own, and compares answers and the counts of requests at the registries.
func TestSameAsOld(t *testing.T) {
	if oldBinary() == "" {
		t.Skip("DRAY_OLD names no binary to compare with")
	}
	built := filepath.Join(t.TempDir(), "dray")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", built, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	total := 0
	for _, p := range plays {
		t.Run(p.name, func(t *testing.T) {
			old, now := p.record(t, oldBinary()), p.record(t, built)
			total += len(now)
			for i := range max(len(old), len(now)) {
				if i >= len(old) || i >= len(now) || old[i].title != now[i].title {
					t.Fatalf("the requests part after %d", i)
				}
				was := old[i].text
				for _, d := range intended {
					if strings.HasPrefix(p.name+": "+now[i].title, d.title) {
						was = strings.ReplaceAll(was, d.old, d.now)
					}
				}
				if diff := cmp.Diff(strings.Split(was, "\n"), strings.Split(now[i].text, "\n")); diff != "" {
					t.Errorf("%s (-old +new):\n%s", now[i].title, diff)
				}
			}
		})
	}
	t.Logf("%d exchanges were compared", total)
}

// play is a dray as it is configured, and what is asked of it.
type play struct {
	name  string
	edits func(t *testing.T) []string
	ask   func(r *recorder)
}

// unfinished are the requests of which chance decides how many there are for an upload that ends
// without success: it is on its way by then, or not.
var unfinished = []ecrtest.Kind{ecrtest.KindUploadStart, ecrtest.KindUploadPatch}

// exchange is a request with all that can be seen of its answer.
type exchange struct{ title, text string }

// recorder asks a dray and writes down its answers.
type recorder struct {
	*stack
	seen []exchange
	// waitForwarded waits until the pushes are forwarded, if dray acknowledges them before that.
	waitForwarded func()
	hide          *strings.Replacer
	chance        []ecrtest.Kind // how many of these requests there are, chance decides
	image         seeded         // team/app:v1 at ECR
	base          seeded         // library/base:12 at the hub
}

// changing is what is another each time: times, durations, names of uploads and of reports.
var changing = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b[A-Z2-7]{26}\b`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`last=eyJ[A-Za-z0-9%]+`), "last=TOKEN"}, // of ECR
	{regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d`), "TIME"},
	{regexp.MustCompile(`"open":(true|false)`), `"open":B`}, // until a response has been sent to its end
	{regexp.MustCompile(`"(seconds|attempts)": [0-9.e-]+`), `"$1": N`},
	{regexp.MustCompile(`"state": "(waiting|forwarding)"`), `"state": "waiting"`},
	{regexp.MustCompile(`(?m)^.*"(error|next)": ".*",?\n`), ""}, // of a push that is tried again and again
	{regexp.MustCompile(`Go struct field \w+\.`), "Go struct field TYPE."},
	{regexp.MustCompile(`arn:aws:sts::[^ "]+`), "ARN"},
}

func (p play) record(t *testing.T, binary string) []exchange {
	t.Helper()
	ecr, hub := ecrtest.Start(t, ecrtest.Options{BlobMounting: true}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	var edits []string
	if p.edits != nil {
		edits = p.edits(t)
	}
	r := &recorder{waitForwarded: func() {}, image: seed(t, ecr, "team/app", "v1", 40_000), base: seed(t, hub, "library/base", "12", 10_000)}
	for _, name := range []string{"team/other", "team/push", "team/idle"} {
		ecr.CreateRepository(name)
	}
	r.stack = startBinary(t, binary, ecr, hub, t.TempDir(), edits...)
	r.hide = strings.NewReplacer(strings.TrimPrefix(r.url, "http://"), "DRAY", strings.TrimPrefix(r.adminURL, "http://"), "ADMIN", ecr.RegistryHost, "ECR", ecr.RegistryAddr, "ECR", hub.RegistryAddr, "HUB",
		strings.TrimPrefix(ecr.APIURL, "http://"), "API")
	p.ask(r)
	r.counts("at the end", r.chance...)
	r.series()
	r.stop()
	return r.seen
}

func (r *recorder) note(title, text string) {
	plain := func(text string) string {
		text = r.hide.Replace(text)
		for _, c := range changing {
			text = c.pattern.ReplaceAllString(text, c.by)
		}
		return text
	}
	r.seen = append(r.seen, exchange{fmt.Sprintf("%d. %s", len(r.seen)+1, plain(title)), plain(text)})
}

// ask sends a request and writes down the answer, which it returns.
func (r *recorder) ask(method, path string, body []byte, headers ...string) got {
	title := strings.TrimSpace(fmt.Sprintf("%s %.120s %s", method, path, strings.Join(headers, " ")))
	a, err := r.try(method, path, body, headers...)
	if err != nil {
		r.note(title, "no answer")
		return got{Response: &http.Response{Header: http.Header{}}}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d\n", a.StatusCode)
	// Such an answer has times and durations, which are not all of one length.
	fresh := r.url == r.adminURL || strings.HasPrefix(path, "/dray/reports/")
	for _, k := range slices.Sorted(maps.Keys(a.Header)) {
		if k != "Date" && k != "X-Request-Id" && (k != "Content-Length" || !fresh) {
			fmt.Fprintf(&b, "%s: %s\n", k, strings.Join(a.Header[k], " | "))
		}
	}
	if !fresh {
		fmt.Fprintf(&b, "length %d\n", a.ContentLength)
	}
	if strings.HasPrefix(path, "/api/v1/blobs") {
		a.body = sortedLines(a.body)
	}
	if len(a.body) > 4000 && !fresh {
		fmt.Fprintf(&b, "%d bytes, %s\n", len(a.body), digest.FromBytes(a.body))
	} else {
		b.Write(a.body)
	}
	r.note(title, b.String())
	return a
}

// sortedLines are lines whose order depends on what came at the same moment.
func sortedLines(text []byte) []byte {
	lines := strings.Split(strings.ReplaceAll(string(text), "},\n", "}\n"), "\n")
	slices.SortFunc(lines, func(a, b string) int {
		return strings.Compare(digestPattern.FindString(a)+a, digestPattern.FindString(b)+b)
	})
	return []byte(strings.Join(lines, "\n"))
}

var digestPattern = regexp.MustCompile(`sha256:[0-9a-f]+`)

// counts writes down what the registries were asked since the last time, without what chance
// decides.
func (r *recorder) counts(when string, but ...ecrtest.Kind) {
	var last string
	for still := 0; still < 5; time.Sleep(30 * time.Millisecond) { // what goes on in the background has ended
		now := ""
		for _, up := range []*ecrtest.Running{r.ecr, r.hub} {
			<-up.Idle()
			have := map[ecrtest.Kind]int64{}
			for k, c := range up.Counters() {
				if c.Requests > 0 && k != "GetAuthorizationToken" && !slices.Contains(but, k) {
					have[k] = c.Requests
				}
			}
			now += fmt.Sprintln(have)
		}
		if still++; now != last {
			last, still = now, 0
		}
	}
	r.note("requests to ECR and to the hub "+when, last)
	r.ecr.ResetCounters()
	r.hub.ResetCounters()
}

var seriesPattern = regexp.MustCompile(`(?m)^(dray_\w+(?:\{.*\})?) `)

// series writes down the names of all series.
func (r *recorder) series() {
	resp, err := lone.Get("http://" + r.admin() + "/metrics")
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	var found []string
	for _, m := range seriesPattern.FindAllStringSubmatch(string(text), -1) {
		// Whether a request was broken off, and what a store had by then, is chance.
		if !regexp.MustCompile(`_bucket|dray_ecr_token|dray_meta_operation|status="0"`).MatchString(m[1]) {
			found = append(found, m[1])
		}
	}
	r.note("series at /metrics", strings.Join(found, "\n"))
}

// api asks the admin listener.
func (r *recorder) api(method, path, body string, headers ...string) got {
	front := r.url
	defer func() { r.url = front }()
	r.url = r.adminURL
	return r.ask(method, path, []byte(body), headers...)
}

// sent uploads a blob in two requests, and pushed an image with its manifest.
func (r *recorder) sent(repo string, blob []byte) {
	at := r.ask("POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
	r.ask("PUT", at+"?digest="+digest.FromBytes(blob).String(), blob)
}

func (r *recorder) pushed(repo, tag string, layers ...[]byte) *oci.Manifest {
	for _, l := range append(layers, imageConfig) {
		r.sent(repo, l)
	}
	m := imageOf(r.TB, layers...)
	r.ask("PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, "Content-Type", m.MediaType)
	return m
}

var plays = []play{
	{"plain", func(*testing.T) []string {
		return append(hosting(""), "push: true", "push: true\n  build_cache: {to: own}")
	}, func(r *recorder) {
		r.routes()
		r.counts("after all routes")
		r.pulls()
		r.counts("after pulls")
		r.lists()
		r.counts("after lists")
		r.uploads()
		r.counts("after uploads")
		r.hostedAndCaches()
		r.counts("after hosted repositories")
		r.administration()
	}},
	{"deletes", func(*testing.T) []string { return append(hosting(""), "push: true", "push: true\n  delete: true") }, func(r *recorder) {
		r.routes()
		r.counts("after all routes")
		r.deletes()
	}},
	{"mirror", func(*testing.T) []string { return []string{"{name: main,", "{name: main, role: mirror,"} }, func(r *recorder) {
		r.routes()
		r.counts("after all routes")
		r.pulls()
	}},
	{"users", func(t *testing.T) []string {
		return withAuth(usersOf(t, "{users: [alice], repositories: ['team/*'], actions: [pull, push]}, {users: [bob], repositories: ['*'], actions: [pull]}, {anonymous: true, repositories: ['hub/*'], actions: [pull]}"), "")
	}, func(r *recorder) { r.users() }},
	{"acknowledged here", func(*testing.T) []string { return acknowledging }, func(r *recorder) {
		r.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestPut}, Status: 503, Count: -1})
		r.uploads()
		r.api("GET", "/api/v1/queue", "")
		r.ecr.ClearFaults()
		r.flush()
		r.counts("after the pushes have been forwarded", ecrtest.KindManifestPut) // of which some were tried again
		r.waitForwarded = r.flush
		r.deletes()
		r.api("GET", "/api/v1/queue", "")
	}},
	{"checks", func(*testing.T) []string {
		return checked("  names: {mode: enforce, forbidden_tags: [latest], immutable_tags: [r*]}\n  secrets: {mode: enforce}\n  metadata: {mode: warn, required: [{key: owner}]}")
	}, func(r *recorder) { r.judged() }},
	{"outage", nil, func(r *recorder) { r.failures() }},
}

// routes sends every method to every kind of path, and to paths that are none.
func (r *recorder) routes() {
	absent := digest.FromString("absent").String()
	paths := []string{
		"/", "/v1/", "/v2", "/v2/", "/v2//", "/v2/_catalog", "/v2/_catalog?n=1", "/v2/_catalog?n=x", "/healthz", "/metrics", "/robots.txt", "/aws/v2/", "/hub/v2/", "/none/v2/", "/v2/?ns=docker.io", "/v2/?ns=none",
		"/v2/team/idle/manifests/none", "/v2/team/app/manifests/" + absent, "/v2/team/app/manifests/v1", "/v2/team/app/manifests/.bad", "/v2/team/app/manifests/sha256:123", "/v2/team/app/manifests/", "/v2/team/app/manifests/v1/",
		"/v2/team/app/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", "/v2/aws/team/app/manifests/v1", "/aws/v2/team/app/manifests/v1", "/v2/hub/base/manifests/12", "/hub/v2/library/base/manifests/12",
		"/v2/library/base/manifests/12?ns=docker.io", "/v2/team/app/manifests/v1?ns=none.example.com", "/v2/Team/App/manifests/v1", "/v2/team/../app/manifests/v1", "/v2/team//app/manifests/v1", "/v2/team%2Fapp/manifests/v1",
		"/v2/" + strings.Repeat("a", 300) + "/manifests/v1", "/v2/team/app/manifests/" + strings.Repeat("t", 129), "/v2/-team/app/manifests/v1",
		"/v2/team/app/blobs/" + r.image.layer.String(), "/v2/team/other/blobs/" + r.image.layer.String(), "/v2/team/app/blobs/" + absent, "/v2/team/app/blobs/nonsense", "/v2/team/app/blobs/sha256:", "/v2/team/app/blobs/",
		"/v2/team/push/blobs/uploads/", "/v2/team/push/blobs/uploads", "/v2/team/push/blobs/uploads/none", "/v2/team/push/blobs/uploads/none?digest=" + absent, "/v2/team/push/blobs/uploads/?digest=nonsense",
		"/v2/team/push/blobs/uploads/?mount=" + absent + "&from=team/app", "/v2/team/push/blobs/uploads/?mount=nonsense", "/v2/team/app/tags/list", "/v2/team/app/tags/list?n=0", "/v2/team/app/tags/list?n=-1", "/v2/none/tags/list",
		"/v2/team/app/tags", "/v2/team/app/referrers/" + r.image.manifest.Digest.String(), "/v2/team/app/referrers/nonsense", "/v2/team/app/referrers/" + absent, "/v2/team/app/unknown/x", "/dray/reports/none", "/v2/%zz", "/v2/team/app/manifests/v1%00",
	}
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
			var body []byte
			if method == "POST" || method == "PUT" || method == "PATCH" {
				body = []byte("{}")
			}
			r.ask(method, path, body)
		}
	}
}

// pulls asks for manifests and blobs in all forms.
func (r *recorder) pulls() {
	m := r.image.manifest
	accepts := []string{"", oci.MediaTypeOCIManifest, oci.MediaTypeOCIIndex, "application/vnd.docker.distribution.manifest.v2+json", "text/html", "*/*", oci.MediaTypeOCIManifest + ";q=0.5, */*;q=0.1"}
	for _, at := range []string{"/v2/team/app/manifests/v1", "/v2/team/app/manifests/" + m.Digest.String(), "/v2/hub/base/manifests/12"} {
		for _, accept := range accepts {
			for _, tag := range []string{"", `"` + m.Digest.String() + `"`, `W/"` + m.Digest.String() + `"`, "*", `"other"`} {
				for _, method := range []string{"GET", "HEAD"} {
					var headers []string
					if accept != "" {
						headers = append(headers, "Accept", accept)
					}
					if tag != "" {
						headers = append(headers, "If-None-Match", tag)
					}
					r.ask(method, at, nil, headers...)
				}
			}
		}
	}
	blob := "/v2/team/app/blobs/" + r.image.layer.String()
	for _, at := range []string{blob, "/v2/team/app/blobs/" + m.Config.Digest.String(), "/v2/hub/base/blobs/" + r.base.layer.String()} {
		for _, span := range []string{"", "bytes=0-99", "bytes=100-", "bytes=-50", "bytes=0-0", "bytes=0-0,5-9", "bytes=99999999-", "bytes=5-4", "bytes=x", "lines=1-2", "bytes=0-99999999"} {
			for _, headers := range [][]string{nil, {"If-Range", `"` + r.image.layer.String() + `"`}, {"If-Range", `"other"`}, {"If-None-Match", `"` + r.image.layer.String() + `"`}, {"If-Match", `"other"`}, {"If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"}} {
				if span != "" {
					headers = append(slices.Clone(headers), "Range", span)
				}
				r.ask("GET", at, nil, headers...)
			}
		}
		r.ask("HEAD", at, nil)
		r.ask("HEAD", at, nil, "Range", "bytes=0-9")
	}
}

// lists asks for tags, referrers and the catalogue.
func (r *recorder) lists() {
	for i := range 5 {
		seed(r.TB, r.ecr, "team/app", fmt.Sprintf("t%d", i), int64(2000+i))
	}
	for _, query := range []string{"", "?n=2", "?n=2&last=t1", "?last=t3", "?n=100000", "?n=99999999999999999999", "?n=1&n=2", "?last=%00"} {
		for _, at := range []string{"/v2/team/app/tags/list", "/v2/hub/base/tags/list", "/v2/own/none/tags/list", "/v2/_catalog", "/v2/team/none/tags/list"} {
			r.ask("GET", at+query, nil)
		}
	}
	for _, query := range []string{"", "?artifactType=application/x", "?artifactType=", "?n=1"} {
		r.ask("GET", "/v2/team/app/referrers/"+r.image.manifest.Digest.String()+query, nil)
		r.ask("GET", "/v2/hub/base/referrers/"+r.base.manifest.Digest.String()+query, nil)
	}
}

// uploads pushes blobs and manifests in all forms, right and wrong.
func (r *recorder) uploads() {
	const repo = "/v2/team/push"
	blob := layerOf(1, 30_000)
	d := digest.FromBytes(blob).String()
	r.ask("POST", repo+"/blobs/uploads/?digest="+d, blob)
	r.ask("HEAD", repo+"/blobs/"+d, nil)
	r.ask("POST", repo+"/blobs/uploads/?digest="+d, blob[1:])
	r.ask("POST", repo+"/blobs/uploads/?digest-algorithm=sha512", nil)
	r.ask("POST", repo+"/blobs/uploads/?digest-algorithm=md5", nil)
	at := r.ask("POST", repo+"/blobs/uploads/", nil).Header.Get("Location")
	r.ask("GET", at, nil)
	for _, span := range []string{"0-999", "0-999", "1000-1999", "1999-2999", "2000-2000", "x", "5-", "2001-2000"} {
		r.ask("PATCH", at, blob[:1000], "Content-Range", span)
		r.ask("GET", at, nil)
	}
	r.ask("PUT", at+"?digest=nonsense", nil)
	r.ask("PUT", at, nil)
	r.ask("PUT", at+"?digest="+d, blob[1:])
	r.ask("GET", at, nil)
	at = r.ask("POST", repo+"/blobs/uploads/", nil).Header.Get("Location")
	r.ask("PATCH", at, blob[:9000])
	r.ask("PATCH", at, blob[9000:20_000])
	r.ask("PUT", at+"?digest="+d, blob[20_000:])
	r.ask("PATCH", at, blob)
	at = r.ask("POST", repo+"/blobs/uploads/", nil).Header.Get("Location")
	r.ask("PATCH", at, blob)
	r.ask("DELETE", at, nil)
	r.ask("DELETE", at, nil)
	r.ask("GET", at, nil)
	r.ask("PUT", strings.Replace(at, "team/push", "team/other", 1)+"?digest="+d, blob)
	r.counts("after blobs", unfinished...)

	m := r.pushed("team/push", "v1", blob, layerOf(2, 100))
	for _, ref := range []string{"v1", m.Digest.String(), "V_2.x-y", "-bad", digest.FromString("other").String()} {
		r.ask("PUT", repo+"/manifests/"+ref, m.Raw, "Content-Type", m.MediaType)
		r.ask("GET", repo+"/manifests/"+ref, nil)
		r.ask("HEAD", repo+"/manifests/"+ref, nil)
	}
	for _, wrong := range []struct{ body, kind string }{
		{"", m.MediaType}, {"{", m.MediaType}, {"null", m.MediaType}, {"[]", m.MediaType}, {"{}", m.MediaType}, {string(m.Raw), oci.MediaTypeOCIIndex}, {string(m.Raw), "text/plain"}, {string(m.Raw), ""},
		{`{"schemaVersion":1}`, "application/vnd.docker.distribution.manifest.v1+prettyjws"}, {strings.Replace(string(m.Raw), "sha256:", "sha256:0", 1), m.MediaType}, {string(m.Raw) + "x", m.MediaType},
		{strings.ReplaceAll(string(m.Raw), digest.FromBytes(layerOf(2, 100)).Encoded(), digest.FromString("nowhere").Encoded()), m.MediaType},
		{strings.Replace(string(m.Raw), `"size":100`, `"size":101`, 1), m.MediaType}, {strings.Replace(string(m.Raw), `"size":100`, `"size":-1`, 1), m.MediaType}, {strings.Repeat(" ", 5<<20), m.MediaType},
		{string(indexOf(r.TB, m, imageOf(r.TB, layerOf(77, 10))).Raw), oci.MediaTypeOCIIndex},
	} {
		r.ask("PUT", repo+"/manifests/wrong", []byte(wrong.body), "Content-Type", wrong.kind)
	}
	child := r.pushed("team/push", imageOf(r.TB, layerOf(3, 500)).Digest.String(), layerOf(3, 500))
	index := indexOf(r.TB, m, child)
	r.ask("PUT", repo+"/manifests/all", index.Raw, "Content-Type", index.MediaType)
	r.ask("GET", repo+"/manifests/all", nil)
	about := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%[1]q,"artifactType":"application/x","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%[2]q,"size":%[3]d},"layers":[{"mediaType":"application/x","digest":%[2]q,"size":%[3]d}],"subject":{"mediaType":%[4]q,"digest":%[5]q,"size":%[6]d}}`,
		oci.MediaTypeOCIManifest, digest.FromBytes(imageConfig), len(imageConfig), m.MediaType, m.Digest, len(m.Raw))
	r.ask("PUT", repo+"/manifests/"+digest.FromBytes(about).String(), about, "Content-Type", oci.MediaTypeOCIManifest)
	for _, query := range []string{"", "?artifactType=application/x", "?artifactType=application/y"} {
		r.ask("GET", repo+"/referrers/"+m.Digest.String()+query, nil)
	}
	r.ask("GET", repo+"/tags/list", nil)
	for _, from := range []string{"team/push", "team/none", "own/x", "", "Bad Name"} {
		r.ask("POST", "/v2/team/other/blobs/uploads/?mount="+d+"&from="+strings.ReplaceAll(from, " ", "%20"), nil)
	}
	r.ask("HEAD", "/v2/team/other/blobs/"+d, nil)
	r.pushed("hub/library/none", "v1", layerOf(4, 10))
}

// hostedAndCaches pushes what stays here.
func (r *recorder) hostedAndCaches() {
	m := r.pushed("own/team/app", "v1", layerOf(5, 3000))
	for _, at := range []string{"/manifests/v1", "/manifests/" + m.Digest.String(), "/manifests/none", "/blobs/" + m.Layers[0].Digest.String(), "/tags/list", "/referrers/" + m.Digest.String()} {
		r.ask("GET", "/v2/own/team/app"+at, nil)
		r.ask("HEAD", "/v2/own/team/app"+at, nil)
	}
	cache := cacheOf(r.TB, false, layerOf(6, 4000))
	r.sent("team/push", layerOf(6, 4000))
	r.ask("PUT", "/v2/team/push/manifests/cache", cache.Raw, "Content-Type", cache.MediaType)
	for _, repo := range []string{"team/push", "own/ecr/team/push", "team/other"} {
		r.ask("GET", "/v2/"+repo+"/manifests/cache", nil)
		r.ask("GET", "/v2/"+repo+"/blobs/"+digest.FromBytes(layerOf(6, 4000)).String(), nil)
		r.ask("GET", "/v2/"+repo+"/tags/list", nil)
	}
	r.ask("POST", "/v2/own/ecr/team/app/blobs/uploads/", nil)
	r.ask("PUT", "/v2/own/ecr/team/app/manifests/v1", m.Raw, "Content-Type", m.MediaType)
	r.ask("DELETE", "/v2/own/team/app/blobs/"+m.Layers[0].Digest.String(), nil)
	r.ask("DELETE", "/v2/own/team/app/manifests/v1", nil)
	r.ask("DELETE", "/v2/own/team/app/manifests/"+m.Digest.String(), nil)
	r.ask("DELETE", "/v2/own/team/app/manifests/v1", nil)
	r.ask("GET", "/v2/own/team/app/tags/list", nil)
}

// deletes removes what was pushed.
func (r *recorder) deletes() {
	m := r.pushed("team/other", "d1", layerOf(7, 2000))
	r.ask("PUT", "/v2/team/other/manifests/d2", m.Raw, "Content-Type", m.MediaType)
	r.waitForwarded()
	for _, ref := range []string{"d1", "d1", "none", m.Digest.String(), m.Digest.String(), digest.FromString("absent").String()} {
		r.ask("DELETE", "/v2/team/other/manifests/"+ref, nil)
		r.ask("GET", "/v2/team/other/manifests/d1", nil)
		r.ask("GET", "/v2/team/other/manifests/d2", nil)
		r.ask("GET", "/v2/team/other/tags/list", nil)
	}
	for _, d := range []string{m.Layers[0].Digest.String(), digest.FromString("absent").String(), "nonsense"} {
		r.ask("DELETE", "/v2/team/other/blobs/"+d, nil)
	}
	r.ask("DELETE", "/v2/hub/base/manifests/12", nil)
}

// users asks as several of them.
func (r *recorder) users() {
	r.chance = unfinished
	for _, as := range []string{"", basic("alice", "wonderland"), basic("alice", "wrong"), basic("bob", "builder"), basic("carol", "christmas"), basic("nobody", ""), "Bearer nonsense", "Basic nonsense", "Digest x"} {
		var headers []string
		if as != "" {
			headers = []string{"Authorization", as}
		}
		for _, at := range []string{"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/blobs/" + r.image.layer.String(), "/v2/team/app/tags/list", "/v2/hub/base/manifests/12", "/v2/_catalog", "/v2/other/x/manifests/v1", "/nothing"} {
			r.ask("GET", at, nil, headers...)
			r.ask("HEAD", at, nil, headers...)
		}
		at := r.ask("POST", "/v2/team/push/blobs/uploads/", nil, headers...).Header.Get("Location")
		if at != "" {
			r.ask("PATCH", at, []byte("bytes"), headers...)
			r.ask("GET", at, nil, "Authorization", basic("bob", "builder"))
			r.ask("GET", at, nil)
			r.ask("DELETE", at, nil, headers...)
		}
		r.ask("POST", "/v2/hub/base/blobs/uploads/", nil, headers...)
		r.ask("PUT", "/v2/team/app/manifests/x", []byte("{}"), append(headers, "Content-Type", oci.MediaTypeOCIManifest)...)
		r.ask("DELETE", "/v2/team/app/manifests/v1", nil, headers...)
		r.ask("POST", "/v2/team/push/blobs/uploads/?mount="+r.image.layer.String()+"&from=team/app", nil, headers...)
	}
}

// judged pushes what checks let pass and what they reject.
func (r *recorder) judged() {
	for i, files := range [][]string{{"etc/motd", "hello"}, {"app/env", "aws_access_key_id = AKIAQ3EGUZZSOCGV5KL2\naws_secret_access_key = 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"}, {"root/.ssh/id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA"}} {
		layer := gzipOf(r.TB, tarOf(r.TB, files...))
		img := newImage(r.TB, plainConfig, layer)
		for _, b := range [][]byte{layer, []byte(plainConfig)} {
			r.sent("team/push", b)
		}
		for _, tag := range []string{fmt.Sprintf("v%d", i), "latest", "r1", img.man.Digest.String()} {
			report := regexp.MustCompile(`/dray/reports/\w+|http://\S+/reports/\w+`).FindString(string(r.ask("PUT", "/v2/team/push/manifests/"+tag, img.man.Raw, "Content-Type", img.man.MediaType).body))
			if _, path, ok := strings.Cut(strings.TrimPrefix(report, "http://"), "/"); ok {
				r.ask("GET", "/"+path, nil)
				r.ask("GET", "/"+path, nil, "Accept", "application/json")
				r.ask("HEAD", "/"+path, nil)
			}
			r.ask("HEAD", "/v2/team/push/manifests/"+tag, nil)
		}
	}
	r.pushed("team/push", "plain", layerOf(8, 900)) // a layer that is no archive
	r.ask("GET", "/v2/team/push/tags/list", nil)
}

// failures asks while registries fail, each in a way that costs no waiting.
func (r *recorder) failures() {
	r.ask("GET", "/v2/team/app/manifests/v1", nil)
	for _, fault := range []ecrtest.Fault{
		{Status: 400, Count: -1}, {Status: 401, Count: -1}, {Status: 403, Count: -1}, {Status: 404, Count: -1}, {Status: 405, Count: -1}, {Status: 410, Count: -1}, {Status: 418, Count: -1},
	} {
		fault.Kinds = []ecrtest.Kind{
			ecrtest.KindManifestGet, ecrtest.KindManifestHead, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindTags,
			ecrtest.KindUploadStart, ecrtest.KindManifestPut,
		}
		r.ecr.AddFault(fault)
		r.hub.AddFault(fault)
		for _, at := range []string{"/v2/team/app", "/v2/hub/base"} {
			for _, path := range []string{"/manifests/v1", "/manifests/new" + fmt.Sprint(fault.Status), "/manifests/" + digest.FromString(fmt.Sprint(fault.Status)).String(), "/blobs/" + digest.FromString(fmt.Sprint(fault.Status)).String(), "/tags/list"} {
				r.ask("GET", at+path, nil)
				r.ask("HEAD", at+path, nil)
			}
		}
		r.pushed("team/push", "f"+fmt.Sprint(fault.Status), layerOf(uint64(fault.Status), 100))
		r.ecr.ClearFaults()
		r.hub.ClearFaults()
		// An upload asks for its repository to be created, or finds that another one has just done so.
		r.counts(fmt.Sprintf("after %d", fault.Status), append(slices.Clip(unfinished), "CreateRepository")...)
	}
}

// administration asks the admin listener for everything, right and wrong.
func (r *recorder) administration() {
	j := []string{"Content-Type", "application/json"}
	for _, path := range []string{"/", "/healthz", "/readyz", "/none", "/api/v1/", "/api/v1/none", "/debug/pprof/cmdline/none"} {
		for _, method := range []string{"GET", "HEAD", "POST", "DELETE"} {
			r.api(method, path, "")
		}
	}
	for _, path := range []string{"images", "images?repository=team/*", "images?repository=none", "images?wrong=1", "pins", "queue", "eviction?bytes=1000", "eviction?most=1", "eviction?bytes=x", "stats", "blobs"} {
		r.api("GET", "/api/v1/"+path, "")
		r.api("POST", "/api/v1/"+path, "{}", j...)
	}
	for _, change := range [][2]string{
		{"pin", `{"name":"team/app:v1"}`}, {"pin", `{"name":"none:1"}`}, {"pin", `{"name":""}`}, {"pin", `{"nam":"x"}`}, {"pin", `[]`}, {"pin", ``}, {"pin", `{}{}`},
		{"purge", `{"name":"team/app:v1"}`}, {"purge", `{"name":"team/app:v1","dry_run":true,"force":true}`}, {"purge", `{"repository":"none/*"}`}, {"purge", `{}`},
		{"unpin", `{"name":"team/app:v1"}`}, {"unpin", `{"name":"team/app:v1"}`}, {"purge", `{"repository":"team/*","dry_run":true}`}, {"purge", `{"repository":"team/app"}`},
		{"evict", `{"bytes":0}`}, {"evict", `{"bytes":-1}`}, {"evict", `{"bytes":"x"}`}, {"queue/retry", `{"id":99}`}, {"queue/drop", `{"id":99}`}, {"queue/retry", `{"id":"x"}`},
	} {
		r.api("POST", "/api/v1/"+change[0], change[1], j...)
	}
	r.api("POST", "/api/v1/pin", "{}")
	r.api("POST", "/api/v1/pin", "{}", append(j, "Origin", "http://evil.example", "Sec-Fetch-Site", "cross-site")...)
	for _, args := range [][]string{{"ls"}, {"ls", "--json"}, {"ls", "--blobs"}, {"pin"}, {"queue"}, {"stats"}, {"evict", "--dry-run"}} {
		code, out, stderr := r.operator(args...)
		r.note("dray "+strings.Join(args, " "), fmt.Sprintf("%d\n%s\n%s", code, sortedLines([]byte(out)), stderr))
	}
}
