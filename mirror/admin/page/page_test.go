package page_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/mirror/admin/api"
	"dray/mirror/admin/page"
)

// hostile is a text that would be a script, leave an attribute, or end a comment, if it were not
// escaped.
const hostile = `"'><script>alert(1)</script><img src=x onerror=alert(1)>--><!--`

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// all returns sources with everything that the page can show, in which every text that a client or
// a registry could have made is the given one.
func all(text string) page.Sources {
	entry := api.LiveEntry{ID: 7, Client: text, User: text, Agent: text, Upstream: "hub", Repository: text, Reference: text, State: api.LiveActive, Last: now, Rate: 5, Failures: 1, Error: text, RequestID: text}
	image := api.Image{Upstream: text, Repository: text, Tags: []string{text, text + "2"}, Digest: digest.Digest(text), Parts: 3, HeldParts: 2, Bytes: 10, HeldBytes: 9, LastUse: now, Pinned: true, Queued: true}
	state := &api.ExplainedUpstream{
		Down: text, Until: now, Failures: 3, Last: text + "!", Operations: []api.ExplainedOperation{{Name: text, PerSecond: 5, Ceiling: 10, Waiting: 2, Paused: now, Last: text}},
		Quota: &api.ExplainedQuota{Limit: 200, Remaining: 3, Seconds: 21600, Source: text, Asked: now, Reserved: true},
	}
	bad, good := false, true
	return page.Sources{
		Version: text,
		Ready: func(context.Context) api.Readiness {
			return api.Readiness{Status: api.Degraded, Checks: []api.Result{{Name: text, OK: &bad, Error: text}, {Name: "cache", OK: &good}, {Name: "unused"}}}
		},
		Stats: func() (api.Stats, error) {
			return api.Stats{Started: now, SentBytes: 5e9, FetchedBytes: 1e9, SavedBytes: 4e9, SavedRatio: 0.8, Requests: 1234, HitRatio: 0.9}, nil
		},
		Live: func() api.Live {
			return api.Live{
				At: now, Displaced: 1,
				Pulls:  []api.LivePull{{LiveEntry: entry, Layers: api.LiveLayers{Asked: 2, Of: 3}, Bytes: 100, Sources: map[string]int64{"disk": 60, "flight": 30, text: 10}}},
				Pushes: []api.LivePush{{LiveEntry: entry, Blobs: 3, Received: 10, Forwarded: 5, Checks: api.LiveChecks(text)}},
			}
		},
		Upstreams: func() []page.Upstream {
			return []page.Upstream{{Name: text, Registry: text, Push: true, State: state}, {Name: "stored", Registry: "here"}}
		},
		Disk: func(context.Context) (page.Disk, error) {
			return page.Disk{Used: 5e9, Pinned: 1e9, Reserved: 1e8, Max: 1e10, Free: 1e12, Blobs: 99, Unverified: 1, Next: &api.Victim{Blob: api.Blob{Digest: digest.Digest(text), Size: 5}}}, nil
		},
		Images: func(context.Context) iter.Seq2[api.Image, error] {
			return func(yield func(api.Image, error) bool) {
				_ = yield(image, nil) && yield(api.Image{Digest: digest.Digest(text), Tags: []string{}}, nil)
			}
		},
		Explain: func(_ context.Context, name string) (api.Explanation, error) {
			return api.Explanation{
				Name: name, Time: now, Route: api.ExplainedRoute{Upstream: text, Registry: text, Remote: text}, Tag: &api.ExplainedTag{State: api.Freshness(text), Asked: now, Reason: text},
				Digest: digest.Digest(text), Pull: api.ExplainedPull{Serves: api.Serving(text), Why: text, Count: 2, Bytes: 50, Open: true},
				Parts: []api.ExplainedPart{
					{Kind: text, Platform: text, Digest: digest.Digest(text), Size: -1, Absent: text},
					{Kind: "layer", Size: 5, Where: []string{text}, Shared: true, Blob: &api.Blob{LastUse: now, Pinned: true, Open: true, Unverified: true}},
				},
			}, nil
		},
		Tell: func(w io.Writer, e api.Explanation) error { _, err := io.WriteString(w, "told of "+e.Name); return err },
		Queue: func() api.Queued {
			return api.Queued{Pushes: []api.QueuedPush{{ID: 5, State: "failed", Upstream: text, Repository: text, Reference: text, User: text, Error: text, Accepted: now}, {State: text, Overtaken: true}}}
		},
		Uploads: func() []page.Upload {
			return []page.Upload{{Upstream: text, Repository: text, User: text, Bytes: 5}, {Last: now}}
		},
		Savings: func() (api.Savings, error) {
			price := 0.045
			return api.Savings{
				From: now, To: now, Days: 30, Region: text, PricesOf: text, AvoidedUSD: 1, CostUSD: 3, NetUSD: -2, Unknown: []string{text},
				Upstreams: []api.UpstreamSavings{{Upstream: text, Path: text, PriceUSD: &price, AvoidedUSD: 1, SavedSeconds: &price}, {Upstream: "hub"}},
				Costs:     []api.SavingsCost{{Name: text, Unit: text, Quantity: 1, PriceUSD: 3, USD: 3}},
			}, nil
		},
		Fleet: func(context.Context) (api.Fleet, error) {
			return api.Fleet{Failure: text, Members: []api.FleetMember{
				{ID: "a", Address: text, Zone: text, Version: text, Asked: true, Drift: []string{text}, State: &api.FleetState{Started: now, Bytes: api.FleetBytes{Upstreams: 5, Bucket: 6}, Reading: []api.FleetStream{{Digest: digest.Digest(text), From: "b", Bytes: 5, Hop: 1}}}},
				{ID: "b", Address: "10.0.0.2:7000", Failure: text},
			}}, nil
		},
		History: func(from, to time.Time, _ int) api.History {
			return api.History{Step: 3600, Points: []api.HistoryPoint{
				{At: from, Seconds: 3600, Hits: 3, Misses: 1, Sent: map[string]int64{"disk": 5e9, "flight": 1e9, "origin": 2e9, text: 1e9}, Stored: 1e9}, {At: from.Add(time.Hour)},
				{At: to.Add(-time.Hour), Seconds: 3600, Hits: 3, Stored: 5e9, Sent: map[string]int64{}},
			}}
		},
		Configuration: func() (string, error) { return text, nil },
	}
}

// paths are those of all pages of [all].
func paths() []string {
	return []string{"/", "/ui/live", "/ui/images?parts=1", "/ui/images?q=nothing<script>", "/ui/image?name=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", "/ui/pushes", "/ui/savings", "/ui/fleet", "/ui/configuration", "/ui/<script>"}
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(target, "?") // not parsed, so that it may be wrong
	h.ServeHTTP(w, r)
	return w
}

// TestHostileTexts: no text that a client, a registry or an address has made becomes an element or
// an attribute.
func TestHostileTexts(t *testing.T) {
	harmless, h := page.New(all("harmless")), page.New(all(hostile))
	for _, path := range paths() {
		plain, w := get(harmless, path), get(h, path)
		if w.Code != plain.Code {
			t.Errorf("%s: status %d with hostile texts, and %d with others", path, w.Code, plain.Code)
		}
		if want, got := tags(plain.Body.String()), tags(w.Body.String()); !slices.Equal(want, got) {
			t.Errorf("%s: other elements with hostile texts:\n%v\nwithout:\n%v", path, got, want)
		}
	}
}

// tags are the names of the elements of a page in their order, and of their attributes.
func tags(text string) (all []string) {
	for _, m := range regexp.MustCompile(`<(/?[a-zA-Z!][^\s>]*)((?:\s+[a-zA-Z-]+(?:="[^"]*")?)*)\s*/?>|<.`).FindAllStringSubmatch(text, -1) {
		all = append(all, m[1]+" "+strings.Join(regexp.MustCompile(`\s[a-zA-Z-]+`).FindAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(m[2], ""), -1), ""))
	}
	return all
}

// TestNothingInline: the pages need nothing that the content security policy forbids, and no link
// leads elsewhere.
func TestNothingInline(t *testing.T) {
	h := page.New(all("text"))
	for _, path := range paths() {
		w := get(h, path)
		for _, p := range []string{`style=`, `<style`, ` on[a-z]+=`, `<script>`, `<script [^>]*>[^<]`, `javascript:`, `(?:src|href|action)="(?:[a-z]+:|//)`, `http-equiv`} {
			if found := regexp.MustCompile(p).FindString(strings.ReplaceAll(w.Body.String(), "style-src", "")); found != "" {
				t.Errorf("%s has %q", path, found)
			}
		}
		policy := w.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(policy, want) {
				t.Errorf("%s: the policy lacks %s: %s", path, want, policy)
			}
		}
		if strings.Contains(policy, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Referrer-Policy") != "no-referrer" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
}

// TestAssets: the files beside the pages are there under the names that the pages have, with their
// types, and may be kept.
func TestAssets(t *testing.T) {
	h := page.New(page.Sources{})
	names := regexp.MustCompile(`(?:src|href)="(/ui/assets/[^"]+)"`).FindAllStringSubmatch(get(h, "/").Body.String(), -1)
	if len(names) != 4 { // the icon is there twice
		t.Fatalf("files: %v", names)
	}
	for _, m := range names {
		w := get(h, m[1])
		kind := map[string]string{".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}[m[1][len(m[1])-4:]]
		if strings.HasSuffix(m[1], ".js") {
			kind = "text/javascript; charset=utf-8"
		}
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") || w.Body.Len() > 16<<10 {
			t.Errorf("%s: %d, %v, %d bytes", m[1], w.Code, w.Header(), w.Body.Len())
		}
	}
	if w := get(h, "/ui/assets/page-old.css"); w.Code != http.StatusNotFound || w.Header().Get("Cache-Control") != "" {
		t.Errorf("a former name: %d, %v", w.Code, w.Header())
	}
}

// TestLessThanAll: without sources, their parts are missing, and their pages are not found.
func TestLessThanAll(t *testing.T) {
	h := page.New(page.Sources{})
	for path, want := range map[string]int{"/": 200, "/ui/pushes": 200, "/ui/live": 404, "/ui/images": 404, "/ui/image?name=x": 404, "/ui/savings": 404, "/ui/fleet": 404, "/ui/configuration": 404, "/ui/other": 404} {
		w := get(h, path)
		if w.Code != want || !strings.Contains(w.Body.String(), "<h1>") {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
		if strings.Contains(w.Body.String(), `href="/ui/savings"`) {
			t.Errorf("%s has a link to a page that is not there", path)
		}
	}
}

// TestErrors: an error of a source becomes a page with the status of its code.
func TestErrors(t *testing.T) {
	failing := errors.New("the disk <fails>")
	for _, c := range []struct {
		path   string
		s      page.Sources
		status int
	}{
		{"/", page.Sources{Stats: func() (api.Stats, error) { return api.Stats{}, failing }}, 200},
		{"/", page.Sources{Savings: func() (api.Savings, error) { return api.Savings{}, failing }}, 200},
		{"/", page.Sources{Disk: func(context.Context) (page.Disk, error) { return page.Disk{}, failing }}, 200},
		{"/ui/image?name=x", page.Sources{Explain: func(context.Context, string) (api.Explanation, error) {
			return api.Explanation{}, api.Errorf(api.CodeInvalid, "the disk <fails>")
		}}, 400},
		{"/ui/images", page.Sources{Images: func(context.Context) iter.Seq2[api.Image, error] {
			return func(yield func(api.Image, error) bool) { yield(api.Image{}, failing) }
		}}, 500},
	} {
		if w := get(page.New(c.s), c.path); w.Code != c.status || !strings.Contains(w.Body.String(), "the disk &lt;fails&gt;") {
			t.Errorf("%s: %d, want %d\n%s", c.path, w.Code, c.status, w.Body)
		}
	}
}

// TestListing: whoever looks at the images gets the last list at once, and has it read anew. An old
// list, or one that could not be read, is waited for.
func TestListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, fault := 0, error(nil)
		s := page.Sources{Images: func(context.Context) iter.Seq2[api.Image, error] {
			return func(yield func(api.Image, error) bool) {
				time.Sleep(time.Second)
				n++
				yield(api.Image{Upstream: "ecr", Repository: "a", Tags: []string{fmt.Sprint("read-", n)}}, fault)
			}
		}}
		h := page.New(s)
		shows := func(when, path, want string, took time.Duration) {
			t.Helper()
			began := time.Now()
			if text := get(h, path).Body.String(); !strings.Contains(text, want) || time.Since(began) != took {
				t.Errorf("%s: after %v, want %q after %v:\n%s", when, time.Since(began), want, took, text)
			}
		}
		shows("the overview", "/", "Overview", 0)
		time.Sleep(time.Minute)
		shows("after the overview", "/ui/images", "a:read-1", 0)
		time.Sleep(time.Minute)
		shows("after a minute", "/ui/images", "a:read-2", 0)
		time.Sleep(6 * time.Minute)
		shows("an old list", "/ui/images", "a:read-4", time.Second)
		time.Sleep(time.Minute)
		fault = errors.New("the facts cannot be read")
		shows("before the failure is known", "/ui/images", "a:read-4", 0)
		time.Sleep(time.Minute)
		shows("a recent list, when the failure is known", "/ui/images", "a:read-4", 0)
		time.Sleep(6 * time.Minute)
		shows("a failure", "/ui/images", "the facts cannot be read", time.Second)
		synctest.Wait()
		tries := n
		time.Sleep(5 * time.Second)
		if shows("a failure a moment ago", "/ui/images", "the facts cannot be read", 0); n != tries {
			t.Error("the list is read again at once after a failure")
		}
		fault = nil
		time.Sleep(20 * time.Second)
		shows("after the failure", "/ui/images", fmt.Sprint("a:read-", tries+1), time.Second)
	})
}

// TestForecast: the page says when the cache will be full, unless it is full.
func TestForecast(t *testing.T) {
	for _, test := range []struct {
		disk page.Disk
		full bool
	}{
		{page.Disk{Used: 50e9, Max: 100e9, Free: 1e12}, false},
		{page.Disk{Used: 98e9, Max: 100e9, Free: 1e12}, true},
		{page.Disk{Used: 110e9, Max: 100e9, Free: 1e12}, true},
		{page.Disk{Used: 50e9, Max: 100e9}, true}, // others have filled the disk
		{page.Disk{Used: 50e9, Free: 1e12}, false},
		{page.Disk{Used: 50e9}, true},
	} {
		text := get(page.New(page.Sources{
			Disk: func(context.Context) (page.Disk, error) { return test.disk, nil },
			History: func(from, to time.Time, _ int) api.History {
				return api.History{Points: []api.HistoryPoint{{At: from, Seconds: 1, Stored: 1e9}, {At: to, Seconds: 1, Stored: 9e9}}}
			},
		}), "/").Body.String()
		if !strings.Contains(text, "it grew by") || strings.Contains(text, "it is full in") == test.full {
			t.Errorf("%+v: %s", test.disk, text)
		}
	}
}

// many returns sources with n images, and counts how often they are listed.
func many(n int, listed *int) page.Sources {
	return page.Sources{Images: func(context.Context) iter.Seq2[api.Image, error] {
		*listed++
		return func(yield func(api.Image, error) bool) {
			for i := range n {
				name := fmt.Sprintf("team-%02d/service-%04d", i%20, i)
				image := api.Image{
					Upstream: "ecr", Repository: name, Tags: []string{"v1.2", "latest"}, Digest: digest.FromString(name), Parts: 9, HeldParts: 9,
					Bytes: int64(i), HeldBytes: int64(i), LastUse: now.Add(time.Duration(i) * time.Second), Part: i%10 == 9,
				}
				if image.Part {
					image.Tags = nil
				}
				if !yield(image, nil) {
					return
				}
			}
		}
	}}
}

// TestImages: search, order and pages, without a part of them twice or not at all.
func TestImages(t *testing.T) {
	synctest.Test(t, testImages) // the list is kept for a time
}

func testImages(t *testing.T) {
	listed := 0
	h := page.New(many(1000, &listed))
	rows := regexp.MustCompile(`<a class="name" href="/ui/image\?name=([^"]+)"`)
	next := regexp.MustCompile(`rel="next" href="([^"]+)"`)
	for path, want := range map[string]int{"/ui/images": 900, "/ui/images?parts=1": 1000, "/ui/images?q=TEAM-03": 50, "/ui/images?q=service-0042:v1": 1, "/ui/images?q=none": 0, "/ui/images?sort=size": 900} {
		seen := map[string]bool{}
		for at := path; at != ""; {
			text := get(h, at).Body.String()
			found := rows.FindAllStringSubmatch(text, -1)
			if len(found) > 50 {
				t.Errorf("%s has %d images", at, len(found))
			}
			for _, m := range found {
				seen[m[1]] = true
			}
			at = ""
			if m := next.FindStringSubmatch(text); m != nil {
				at = strings.ReplaceAll(m[1], "&amp;", "&")
			}
		}
		if len(seen) != want {
			t.Errorf("%s: %d images, want %d", path, len(seen), want)
		}
	}
	if listed != 1 {
		t.Errorf("the images were listed %d times within 10 seconds", listed)
	}
	for path, first := range map[string]string{"/ui/images?sort=size": "service-0998", "/ui/images?sort=used&page=18": "service-0054", "/ui/images?sort=used&page=99": "service-0054", "/ui/images?page=0": "service-0000"} {
		if m := rows.FindStringSubmatch(get(h, path).Body.String()); m == nil || !strings.Contains(m[1], first) {
			t.Errorf("%s begins with %v, want %s", path, m, first)
		}
	}
}

// BenchmarkImages measures a page of 10,000 images: as it is asked for again, and when the list is
// searched and sorted.
func BenchmarkImages(b *testing.B) {
	listed := 0
	h := page.New(many(10_000, &listed))
	for _, path := range []string{"/ui/images", "/ui/images?q=service-00&sort=used"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				if w := get(h, path); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
