package ecrtest_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// switchCase shows both values of one switch. show is called with a fresh server whose switch has
// the first value, and again with the second; what it returns must be the corresponding outcome.
type switchCase struct {
	values   [2]any
	outcomes [2]any
	show     func(r *rig) any
}

// Source of all of them: they are what could not be verified; each outcome is one that was seen or
// that a specification allows.
func switchCases() map[string]switchCase {
	const repo = "/v2/team/app"
	on := [2]any{false, true}
	status := func(f func(r *rig) answer) func(*rig) any { return func(r *rig) any { return f(r).Status } }
	refusals := func(likely, other string) [2]any {
		return [2]any{ecrtest.Refusal{Status: 404, Code: likely}, ecrtest.Refusal{Status: 400, Code: other}}
	}
	refusal := func(f func(r *rig) answer) func(*rig) any {
		return func(r *rig) any { a := f(r); return ecrtest.Refusal{Status: a.Status, Code: a.code()} }
	}
	image := func(r *rig) []byte { _, raw := r.image("team/app", "v1", "layer"); return raw }
	layer := repo + "/blobs/" + digest.FromString("layer").String()
	return map[string]switchCase{
		"InvalidTokenStatus": {[2]any{400, 403}, [2]any{400, 403}, func(r *rig) any {
			r.basic = "garbage"
			return r.get("/v2/").want(r.t, r.Switches().InvalidTokenStatus, "DENIED", "Your Authorization Token is invalid.").Status
		}},
		"HostUnknownStatus": {[2]any{400, 404}, [2]any{400, 404}, status(func(r *rig) answer { r.host = "localhost"; return r.get("/v2/") })},
		"DeniedMissingStatus": {[2]any{403, 404}, [2]any{403, 404}, status(func(r *rig) answer {
			r.SetDenials(ecrtest.Denial{})
			return r.get("/v2/team/none/manifests/v1")
		})},
		"MissingRepositoryHangsUp": {on, [2]any{404, 0}, status(func(r *rig) answer { return r.do("POST", "/v2/team/none/blobs/uploads/", nil) })},
		"DeniedUploadHangsUp": {on, [2]any{403, 0}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			r.SetDenials(ecrtest.Denial{Action: "ecr:InitiateLayerUpload"})
			return r.do("POST", repo+"/blobs/uploads/", nil)
		})},
		"CreationDelay": {[2]any{time.Second, time.Duration(0)}, [2]any{[2]int{404, 400}, [2]int{202, 200}}, func(r *rig) any {
			r.api("CreateRepository", map[string]string{"repositoryName": "team/app"}).want(r.t, 200, "", "")
			seen := [2]int{r.do("POST", repo+"/blobs/uploads/", nil).Status, r.api("DescribeRepositories", map[string]any{"repositoryNames": []string{"team/app"}}).Status}
			r.api("CreateRepository", map[string]string{"repositoryName": "team/app"}).want(r.t, 400, "", "")
			r.Advance(time.Second)
			r.do("POST", repo+"/blobs/uploads/", nil).want(r.t, 202, "", "")
			return seen
		}},
		"ArchivedHeadStatus": {[2]any{404, 200}, [2]any{404, 200}, status(func(r *rig) answer {
			image(r)
			r.Archive("team/app", "v1", true)
			return r.head(layer)
		})},
		"MultiRangeStatus": {[2]any{200, 416}, [2]any{200, 416}, status(func(r *rig) answer {
			image(r)
			return r.get(r.follow("team/app", digest.FromString("layer")), "Range", "bytes=0-1,3-4")
		})},
		"InlineConfigs": {on, [2]any{307, 200}, status(func(r *rig) answer {
			var m v1.Manifest
			unmarshal(r.t, image(r), &m)
			r.get(layer).want(r.t, 307, "", "")
			return r.get(repo + "/blobs/" + m.Config.Digest.String())
		})},
		"UnreferencedBlobStatus": {[2]any{404, 403}, [2]any{404, 403}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			r.push("team/app", []byte("layer"))
			return r.get(layer)
		})},
		"SinglePost": {on, [2]any{false, true}, func(r *rig) any {
			r.CreateRepository("team/app")
			d := digest.FromString("layer")
			a := r.do("POST", repo+"/blobs/uploads/?digest="+d.String(), strings.NewReader("layer"))
			return r.HasBlob("team/app", d) && a.Status == 201
		}},
		"UploadStatus": {on, [2]any{404, 204}, status(func(r *rig) answer { r.CreateRepository("team/app"); return r.get(r.begin("team/app")) })},
		"UploadCancel": {on, [2]any{[2]int{404, 201}, [2]int{204, 404}}, func(r *rig) any {
			r.CreateRepository("team/app")
			loc := r.begin("team/app")
			return [2]int{r.do("DELETE", loc, nil).Status, patch(r, loc, []byte("x")).Status}
		}},
		"UploadLife": {[2]any{12 * time.Hour, time.Hour}, [2]any{201, 404}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			loc := r.begin("team/app")
			r.Advance(2 * time.Hour)
			return patch(r, loc, []byte("x"))
		})},
		"DigestMismatchStatus": {[2]any{400, 404}, [2]any{400, 404}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			return r.do("PUT", r.begin("team/app")+"?digest="+digest.FromString("a").String(), strings.NewReader("b"))
		})},
		"SmallChunkAtOnce": {on, [2]any{201, 400}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			loc := r.begin("team/app")
			patch(r, loc, []byte("x")).want(r.t, 201, "", "")
			return patch(r, loc, []byte("y"))
		})},
		"ManifestPutDigest": {[2]any{true, false}, [2]any{true, false}, func(r *rig) any {
			raw := image(r)
			return r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).Header.Get("Docker-Content-Digest") == digest.FromBytes(raw).String()
		}},
		"MissingImages": {refusals("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"), refusals("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"), refusal(func(r *rig) answer {
			r.CreateRepository("team/app")
			return r.putManifest("team/app", "v1", []byte(`{"schemaVersion":2,"mediaType":"`+dockerList+`","manifests":[{"mediaType":"`+dockerManifest+`","digest":"`+digest.FromString("x").String()+`","size":1}]}`), dockerList)
		})},
		"MissingLayers": {refusals("BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"), refusals("BLOB_UPLOAD_UNKNOWN", "MANIFEST_BLOB_UNKNOWN"), refusal(func(r *rig) answer {
			raw := image(r)
			r.CreateRepository("team/other")
			return r.putManifest("team/other", "v1", raw, v1.MediaTypeImageManifest)
		})},
		"TooManyTags": {[2]any{ecrtest.Refusal{Status: 403, Code: "DENIED"}, ecrtest.Refusal{Status: 429, Code: "TOOMANYREQUESTS"}},
			[2]any{ecrtest.Refusal{Status: 403, Code: "DENIED"}, ecrtest.Refusal{Status: 429, Code: "TOOMANYREQUESTS"}}, refusal(func(r *rig) answer {
				raw := image(r)
				for i := range 999 {
					r.putManifest("team/app", fmt.Sprint("t", i), raw, v1.MediaTypeImageManifest).want(r.t, 201, "", "")
				}
				r.putManifest("team/app", "v1", raw, v1.MediaTypeImageManifest).want(r.t, 201, "", "")
				return r.putManifest("team/app", "more", raw, v1.MediaTypeImageManifest)
			})},
		"ManifestTooLargeStatus": {[2]any{405, 413}, [2]any{405, 413}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			return r.putManifest("team/app", "v1", make([]byte, 4194305), v1.MediaTypeImageManifest)
		})},
		"PageSizeStatus": {[2]any{405, 400}, [2]any{405, 400}, status(func(r *rig) answer { image(r); return r.get(repo + "/tags/list?n=1001") })},
		"CatalogPages": {on, [2]any{[2]any{2, false}, [2]any{1, true}}, func(r *rig) any {
			r.CreateRepository("team/a")
			r.CreateRepository("team/b")
			a := r.get("/v2/_catalog?n=1").want(r.t, 200, "", "")
			var page struct{ Repositories []string }
			unmarshal(r.t, a.Body, &page)
			return [2]any{len(page.Repositories), a.next() != ""}
		}},
		"NoReferrersStatus": {[2]any{200, 404}, [2]any{200, 404}, status(func(r *rig) answer {
			return r.get(repo + "/referrers/" + digest.FromBytes(image(r)).String())
		})},
		"SubjectHeader": {on, [2]any{false, true}, func(r *rig) any {
			raw := image(r)
			d := r.refer("team/app", raw, "application/vnd.example")
			img, _ := r.Image("team/app", d.String())
			return r.putManifest("team/app", d.String(), img.Raw, img.MediaType).Header.Get("OCI-Subject") == digest.FromBytes(raw).String()
		}},
		"FiltersReferrers": {on, [2]any{[2]any{2, ""}, [2]any{1, "artifactType"}}, func(r *rig) any {
			raw := image(r)
			r.refer("team/app", raw, "application/vnd.a")
			r.refer("team/app", raw, "application/vnd.b")
			a := r.get(repo + "/referrers/" + digest.FromBytes(raw).String() + "?artifactType=application/vnd.a")
			var idx v1.Index
			unmarshal(r.t, a.Body, &idx)
			return [2]any{len(idx.Manifests), a.Header.Get("OCI-Filters-Applied")}
		}},
		"ReferrersPageSize": {[2]any{0, 2}, [2]any{1, 2}, func(r *rig) any {
			raw := image(r)
			for _, kind := range []string{"a", "b", "c"} {
				r.refer("team/app", raw, "application/vnd."+kind)
			}
			pages, seen := 0, map[digest.Digest]bool{}
			for url := repo + "/referrers/" + digest.FromBytes(raw).String(); url != ""; pages++ {
				a := r.get(url).want(r.t, 200, "", "")
				var idx v1.Index
				unmarshal(r.t, a.Body, &idx)
				for _, d := range idx.Manifests {
					seen[d.Digest] = true
				}
				url = a.next()
			}
			if len(seen) != 3 {
				r.t.Errorf("%d referrers", len(seen))
			}
			return pages
		}},
		"ManifestDeleteStatus": {[2]any{202, 404}, [2]any{[2]any{202, false}, [2]any{404, true}}, func(r *rig) any {
			image(r)
			st := r.do("DELETE", repo+"/manifests/v1", nil).Status
			_, left := r.Image("team/app", "v1")
			return [2]any{st, left}
		}},
		"DeleteTagOnly": {[2]any{true, false}, [2]any{true, false}, func(r *rig) any {
			r.putManifest("team/app", "v2", image(r), v1.MediaTypeImageManifest)
			r.do("DELETE", repo+"/manifests/v1", nil).want(r.t, 202, "", "")
			r.get(repo+"/manifests/v1").want(r.t, 404, "", "")
			return r.get(repo+"/manifests/v2").Status == 200
		}},
		"BlobDelete": {on, [2]any{405, 202}, status(func(r *rig) answer { image(r); return r.do("DELETE", layer, nil) })},
		"RetryAfter": {[2]any{time.Duration(0), 1500 * time.Millisecond}, [2]any{"", "2"}, func(r *rig) any {
			r.SetQuotas(map[string]ecrtest.Quota{"ListImages": {}})
			return r.get(repo+"/tags/list").want(r.t, 429, "TOOMANYREQUESTS", "").Header.Get("Retry-After")
		}},
		"ManifestGetSilent": {on, [2]any{1, 0}, func(r *rig) any {
			image(r)
			r.get(repo+"/manifests/v1").want(r.t, 200, "", "")
			img, _ := r.Image("team/app", "v1")
			return img.Pulls
		}},
		"HeadRecordsPull": {on, [2]any{0, 1}, func(r *rig) any {
			image(r)
			r.head(repo+"/manifests/v1").want(r.t, 200, "", "")
			img, _ := r.Image("team/app", "v1")
			return img.Pulls
		}},
		"BlobRecordsPull": {on, [2]any{0, 1}, func(r *rig) any {
			image(r)
			r.get(layer).want(r.t, 307, "", "")
			img, _ := r.Image("team/app", "v1")
			return img.Pulls
		}},
		"ConvertIndexes": {on, [2]any{v1.MediaTypeImageIndex, dockerList}, func(r *rig) any {
			raw := image(r)
			idx := v1.Index{MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{{MediaType: v1.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}}}
			idx.SchemaVersion = 2
			r.putManifest("team/app", "multi", marshal(r.t, idx), v1.MediaTypeImageIndex).want(r.t, 201, "", "")
			return r.get(repo+"/manifests/multi", "Accept", dockerList).Header.Get("Content-Type")
		}},
		"ConvertedByDigest": {on, [2]any{404, 200}, status(func(r *rig) answer {
			image(r)
			d := r.head(repo+"/manifests/v1", "Accept", dockerManifest).Header.Get("Docker-Content-Digest")
			return r.get(repo + "/manifests/" + d)
		})},
		"RefuseUnacceptable": {on, [2]any{200, 404}, status(func(r *rig) answer { image(r); return r.get(repo+"/manifests/v1", "Accept", "text/html") })},
		"RefuseInlineData": {[2]any{true, false}, [2]any{405, 201}, status(func(r *rig) answer {
			raw := bytes.Replace(image(r), []byte(`"size":5`), []byte(`"size":5,"data":"bGF5ZXI="`), 1)
			return r.putManifest("team/app", "v2", raw, v1.MediaTypeImageManifest)
		})},
		"RefuseEmptyData": {on, [2]any{201, 405}, status(func(r *rig) answer {
			r.CreateRepository("team/app")
			r.push("team/app", []byte("{}"))
			r.push("team/app", []byte("layer"))
			raw := r.manifest("team/app", "layer")
			from := bytes.Index(raw, []byte(`"config":`))
			to := from + bytes.IndexByte(raw[from:], '}') + 1
			empty := `"config":{"mediaType":"` + v1.MediaTypeEmptyJSON + `","digest":"` + digest.FromString("{}").String() + `","size":2,"data":"e30="}`
			return r.putManifest("team/app", "v2", bytes.Replace(raw, raw[from:to], []byte(empty), 1), v1.MediaTypeImageManifest)
		})},
		"TakeOddManifests": {on, [2]any{405, 201}, status(func(r *rig) answer {
			return r.putManifest("team/app", "v2", bytes.Replace(image(r), []byte(`"schemaVersion":2`), []byte(`"schemaVersion":7`), 1), v1.MediaTypeImageManifest)
		})},
		"PullThroughRedirects":     {[2]any{true, false}, [2]any{[2]bool{true, false}, [2]bool{false, false}}, pullBlobs},
		"MetricLimitGzipped":       {on, [2]any{413, 200}, status(largeMetrics)},
		"PullThroughDigestMissing": {on, [2]any{200, 404}, status(pullByDigest)},
	}
}

// largeMetrics sends more than 1 MB of metrics that gzip makes smaller.
func largeMetrics(r *rig) answer {
	data := make([]map[string]any, 1000)
	for i := range data {
		data[i] = map[string]any{"MetricName": strings.Repeat("m", 200), "Value": 1.0,
			"Dimensions": []map[string]string{{"Name": "d", "Value": strings.Repeat("v", 1000)}}}
	}
	plain, err := cbor.Marshal(map[string]any{"Namespace": "dray", "MetricData": data})
	if err != nil {
		r.t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(plain)
	if err != nil || z.Close() != nil {
		r.t.Fatal(err)
	}
	return r.do(http.MethodPost, r.APIURL+"/service/GraniteServiceVersion20100801/operation/PutMetricData", &packed, "Content-Encoding", "gzip",
		"Content-Type", "application/cbor", "Smithy-Protocol", "rpc-v2-cbor", "Authorization", signed("monitoring"))
}

// pullByDigest pulls an image of a pull-through rule by digest that no one has pulled before. The
// second pull works.
func pullByDigest(r *rig) answer {
	hub := ecrtest.Start(r.t, ecrtest.Options{Quirks: ecrtest.Hub()})
	d, err := hub.Seed(ecrtest.SeedImage{Repository: "app", Tag: "v1", Seed: rand.Uint64()})
	if err != nil {
		r.t.Fatal(err)
	}
	sw := r.Switches()
	r2 := start(r.t, ecrtest.Options{Switches: &sw, PullThrough: []ecrtest.PullThroughRule{{Prefix: "hub", Upstream: hub.RegistryURL}}})
	first := r2.get("/v2/hub/app/manifests/" + d.String())
	r2.get("/v2/hub/app/manifests/"+d.String()).want(r.t, http.StatusOK, "", "")
	return first
}

// pullBlobs gets a blob of a pull-through rule twice, and returns which of the redirects led to the
// upstream's objects. Both give the blob.
func pullBlobs(r *rig) any {
	hub := ecrtest.Start(r.t, ecrtest.Options{Quirks: ecrtest.Hub()})
	if _, err := hub.Seed(ecrtest.SeedImage{Repository: "app", Tag: "v1"}); err != nil {
		r.t.Fatal(err)
	}
	sw := r.Switches()
	r2 := start(r.t, ecrtest.Options{Switches: &sw, PullThrough: []ecrtest.PullThroughRule{{Prefix: "hub", Upstream: hub.RegistryURL}}})
	var m v1.Manifest
	unmarshal(r.t, r2.get("/v2/hub/app/manifests/v1").want(r.t, 200, "", "").Body, &m)
	d := m.Layers[0].Digest
	var elsewhere [2]bool
	for i := range elsewhere {
		r2.head("/v2/hub/app/blobs/"+d.String()).want(r.t, 200, "", "")
		at := r2.follow("hub/app", d)
		elsewhere[i] = strings.HasPrefix(at, hub.ObjectsURL)
		if blob := r2.get(at).want(r.t, 200, "", "").Body; digest.FromBytes(blob) != d {
			r.t.Errorf("%d bytes of another blob", len(blob))
		}
	}
	return elsewhere
}

// TestSwitchesHaveSources: each switch says where its values come from, and of when that is.
func TestSwitchesHaveSources(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "switches.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	ast.Inspect(file, func(n ast.Node) bool {
		s, ok := n.(*ast.TypeSpec)
		if !ok || s.Name.Name != "Switches" {
			return true
		}
		for _, f := range s.Type.(*ast.StructType).Fields.List {
			if doc := f.Doc.Text(); doc != "" { // else the comment of the field before is about it, too
				text = strings.Join(strings.Fields(doc), " ")
			}
			if !regexp.MustCompile(`#\d|no source|model|quotas|guide|documentation|reference of|API|reports`).MatchString(text) || !regexp.MustCompile(`\b20\d\d\b`).MatchString(text) {
				t.Errorf("%s: no source with a date in %q", f.Names[0].Name, text)
			}
		}
		return false
	})
}

func TestSwitches(t *testing.T) {
	cases := switchCases()
	defaults := reflect.ValueOf(ecrtest.DefaultSwitches())
	for i := range defaults.NumField() {
		field := defaults.Type().Field(i).Name
		tc, ok := cases[field]
		if !ok {
			t.Errorf("%s: no test", field)
			continue
		}
		if got := defaults.Field(i).Interface(); got != tc.values[0] {
			t.Errorf("%s: default %v, the test begins with %v", field, got, tc.values[0])
		}
		for n, value := range tc.values {
			r := with(t, func(sw *ecrtest.Switches) { reflect.ValueOf(sw).Elem().FieldByName(field).Set(reflect.ValueOf(value)) })
			if got := tc.show(r); got != tc.outcomes[n] {
				t.Errorf("%s=%v: got %v, want %v", field, value, got, tc.outcomes[n])
			}
		}
		delete(cases, field)
	}
	for field := range cases {
		t.Errorf("%s: no such switch", field)
	}
}
