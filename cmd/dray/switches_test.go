package main

import (
	"bytes"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// otherValues are, for each way of ECR that nobody could verify, the values that it has not by
// default. A nil list says that no request of dray meets it.
func otherValues() map[string][]any {
	on := []any{true}
	return map[string][]any{
		"InvalidTokenStatus":       nil, // a young token is not renewed; upstream/expiry_test.go has old ones
		"HostUnknownStatus":        nil, // dray sends the name of the registry
		"DeniedMissingStatus":      {404},
		"MissingRepositoryHangsUp": on,
		"DeniedUploadHangsUp":      on,
		"CreationDelay":            {time.Second, 3 * time.Second}, // the others have none
		"InlineConfigs":            on,
		"UnreferencedBlobStatus":   {403},
		"ArchivedHeadStatus":       {200},
		"MultiRangeStatus":         {416},
		"SinglePost":               on,
		"UploadStatus":             on,
		"UploadCancel":             on,
		"UploadLife":               {time.Hour},
		"DigestMismatchStatus":     {404},
		"SmallChunkAtOnce":         on,
		"ManifestPutDigest":        {false},
		"MissingImages":            {ecrtest.Refusal{Status: 400, Code: "BLOB_UNKNOWN"}}, // missing_parts_test.go has more
		"MissingLayers":            {ecrtest.Refusal{Status: 400, Code: "MANIFEST_BLOB_UNKNOWN"}},
		"TooManyTags":              {ecrtest.Refusal{Status: 405, Code: "UNSUPPORTED"}},
		"ManifestTooLargeStatus":   {413},
		"PageSizeStatus":           {400},
		"CatalogPages":             nil, // dray does not ask for it
		"NoReferrersStatus":        {404},
		"SubjectHeader":            on,
		"FiltersReferrers":         on,
		"ReferrersPageSize":        {1},
		"ManifestDeleteStatus":     {404},
		"DeleteTagOnly":            {false},
		"BlobDelete":               on,
		"RetryAfter":               {time.Second},
		"ManifestGetSilent":        on,
		"HeadRecordsPull":          on,
		"BlobRecordsPull":          on,
		"ConvertIndexes":           on,
		"ConvertedByDigest":        on,
		"RefuseUnacceptable":       on,
		"RefuseInlineData":         {false},
		"RefuseEmptyData":          on,
		"TakeOddManifests":         on,
		"MetricLimitGzipped":       nil, // what dray sends is far below
		"PullThroughDigestMissing": on,
		"PullThroughRedirects":     {false},
	}
}

// TestEachSwitchOfECR runs dray before an ECR that differs from the usual one in one way:
// everything that clients do works with each of them.
func TestEachSwitchOfECR(t *testing.T) {
	others := otherValues()
	fields := reflect.TypeOf(ecrtest.Switches{})
	run := func(name string, change func(*ecrtest.Switches)) {
		sw := ecrtest.DefaultSwitches()
		sw.CreationDelay = 0
		change(&sw)
		t.Run(name, func(t *testing.T) { everything(t, sw) })
	}
	run("none", func(*ecrtest.Switches) {})
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		values, ok := others[name]
		if !ok {
			t.Errorf("%s: say which other values it has", name)
		}
		for _, v := range values {
			run(name+"="+strings.Trim(fmt.Sprint(v), "{}"), func(sw *ecrtest.Switches) { reflect.ValueOf(sw).Elem().FieldByName(name).Set(reflect.ValueOf(v)) })
		}
		delete(others, name)
	}
	for name := range others {
		t.Errorf("%s: there is no such switch", name)
	}
}

// everything does with one registry what clients do.
func everything(t *testing.T, sw ecrtest.Switches) {
	hub := ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()})
	double := ecrtest.Start(t, ecrtest.Options{Switches: &sw, PullThrough: []ecrtest.PullThroughRule{{Prefix: "cached", Upstream: hub.RegistryURL}}})
	s := startBefore(t, double, hub, t.TempDir(), "push: true", deleting)
	layer := layerOf(1, 50_000)
	m := s.push("brand/new", "v1", layer)
	s.holds("brand/new", "v1", m, layer)
	s.pullsWhatIsThere()
	s.pullsThrough()
	s.attaches(m)
	s.healsAndRestores(m, layer)
	s.refusesAsECR(sw)
	s.want(202, "DELETE", "/v2/brand/new/manifests/v1", nil)
	s.want(404, "GET", "/v2/brand/new/manifests/v1", nil)
}

// pullsWhatIsThere pulls, by tag and in the other family of media types, what only ECR has.
func (s *stack) pullsWhatIsThere() {
	s.Helper()
	img := seed(s, s.ecr, "old/app", "v1", 5000)
	s.want(200, "HEAD", "/v2/old/app/manifests/v1", nil)
	if r := s.want(200, "GET", "/v2/old/app/manifests/v1", nil, "Accept", img.manifest.MediaType); !bytes.Equal(r.body, img.manifest.Raw) {
		s.Errorf("another manifest: %s", r.body)
	}
	converted := s.want(200, "GET", "/v2/old/app/manifests/v1", nil, "Accept", oci.MediaTypeDockerManifest)
	s.header(converted, "Content-Type", oci.MediaTypeDockerManifest)
	s.want(200, "GET", "/v2/old/app/manifests/"+digest.FromBytes(converted.body).String(), nil)
	for _, b := range img.manifest.Children() {
		if r := s.want(200, "GET", "/v2/old/app/blobs/"+b.Digest.String(), nil); digest.FromBytes(r.body) != b.Digest {
			s.Errorf("other bytes for %s", b.Digest)
		}
	}
	s.want(200, "GET", "/aws/v2/old/app/tags/list?n=1", nil)
}

// pullsThrough pulls an image by a pull-through rule of ECR, first by digest.
func (s *stack) pullsThrough() {
	s.Helper()
	img := seed(s, s.hub, "library/app", "v1", 5000)
	byDigest := "/v2/cached/library/app/manifests/" + img.manifest.Digest.String()
	if r := s.do("GET", byDigest, nil); r.StatusCode != 200 && !(s.ecr.Switches().PullThroughDigestMissing && r.StatusCode == 404) {
		s.Errorf("by digest: %s", r.Status)
	}
	s.want(200, "GET", "/v2/cached/library/app/manifests/v1", nil)
	if r := s.want(200, "GET", "/v2/cached/library/app/blobs/"+img.layer.String(), nil); digest.FromBytes(r.body) != img.layer {
		s.Error("other bytes")
	}
}

// attaches pushes two referrers and lists them.
func (s *stack) attaches(m *oci.Manifest) {
	s.Helper()
	list := "/aws/v2/brand/new/referrers/" + m.Digest.String()
	for _, kind := range []string{"a", "b"} {
		about := referrer(s, m, "application/vnd."+kind)
		s.want(201, "PUT", "/v2/brand/new/manifests/"+about.Digest.String(), about.Raw, "Content-Type", about.MediaType)
	}
	seen := ""
	for path := list; path != ""; {
		r := s.want(200, "GET", path, nil)
		seen += string(r.body)
		path = next(s, r)
	}
	if strings.Count(seen, "application/vnd.") < 2 {
		s.Errorf("referrers: %s", seen)
	}
}

// healsAndRestores pushes an image again that ECR has lost, and one that ECR has archived.
func (s *stack) healsAndRestores(m *oci.Manifest, layer []byte) {
	s.Helper()
	for name, lose := range map[string]func(){
		"lost":     func() { s.ecr.DropBlob("brand/new", digest.FromBytes(layer)) },
		"archived": func() { s.ecr.Archive("brand/new", "v1", true) },
	} {
		lose()
		if _, put := s.pushAsking("brand/new", "v1", m, imageConfig, layer); put.StatusCode != 201 {
			s.Errorf("%s: %s %s", name, put.Status, put.body)
		}
		if img, ok := s.ecr.Image("brand/new", "v1"); !ok || img.Archived {
			s.Errorf("%s: ECR does not have the image", name)
		}
	}
}

// refusesAsECR passes on what ECR refuses: manifests that its parser does not know, tags beyond the
// quota, and what IAM forbids.
func (s *stack) refusesAsECR(sw ecrtest.Switches) {
	s.Helper()
	refused, blobs := ecrtest.RefusedManifests()
	for _, b := range blobs {
		s.upload("brand/new", b)
	}
	for _, m := range refused {
		r := s.do("PUT", "/v2/brand/new/manifests/odd", m.Manifest, "Content-Type", m.ContentType)
		mended := m.ContentType != oci.MediaTypeOCIManifest && m.ContentType != oci.MediaTypeOCIIndex // dray sends the type of the manifest
		if taken := mended || bytes.Contains(m.Manifest, []byte(`"data":`)) && !sw.RefuseInlineData; (r.StatusCode == 201) != taken || r.StatusCode/100 == 5 {
			s.Errorf("%s: %s %s", m.Name, r.Status, r.body)
		}
	}
	s.ecr.SetDenials(ecrtest.Denial{Action: "ecr:InitiateLayerUpload"})
	if r := s.do("PUT", "/v2/brand/new/manifests/v2", s.denied().Raw, "Content-Type", oci.MediaTypeOCIManifest); r.StatusCode != http.StatusForbidden {
		s.Errorf("forbidden by IAM: %s %s", r.Status, r.body)
	}
	s.ecr.SetDenials()
}

// denied uploads the layer of an image that is not to be pushed, and returns its manifest.
func (s *stack) denied() *oci.Manifest {
	layer := layerOf(9, 1000)
	s.upload("brand/new", layer)
	return imageOf(s, layer)
}
