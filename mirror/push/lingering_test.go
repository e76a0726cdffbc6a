package push

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror/flight"
	"dray/mirror/gate"
	"dray/mirror/jobs"
	"dray/mirror/pipeline"
	"dray/mirror/repository"
	"dray/mirror/request"
	"dray/mirror/route"
	"dray/mirror/wire"
	"dray/upstream"
)

// unasked is an upstream that no request reaches.
type unasked struct {
	upstream.Source
	upstream.Sink
	upstream.Lister
}

// An upload that is held back until the verdict leaves nothing behind when it has gone.
func TestNothingLingersAfterAnUpload(t *testing.T) {
	dir, err := disk.Open(disk.Options{Path: filepath.Join(t.TempDir(), "content")})
	if err != nil {
		t.Fatal(err)
	}
	content := cache.New(cache.Options{Disk: dir})
	tasks, facts, quotas, log := flight.NewTasks(), metatest.NewMemory(), NewQuotas(0, 0), slog.New(slog.DiscardHandler)
	t.Cleanup(func() {
		tasks.Stop()
		content.Close()
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	repos, err := repository.NewStore(repository.Options{
		Upstreams: []*repository.Upstream{{Name: "up", Source: unasked{}, Sink: unasked{}, Lister: unasked{}}}, Cache: content, Tasks: tasks, Logger: log,
		Tags: meta.NewTags(facts, meta.Options{}), Visibility: meta.NewVisibility(facts, meta.Options{}), Presence: meta.NewPresence(facts, meta.PresenceOptions{}),
		Staged: repository.NewStaging(time.Hour, quotas.Refund),
	})
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := pipeline.New(pipeline.Options{Name: "checks"})
	if err != nil {
		t.Fatal(err)
	}
	checks := gate.New(gate.Options{
		Gates: map[string][]*gate.Gate{"up": {{Pipeline: pipe, Repositories: []string{"*"}, HoldUploads: true}}}, Tasks: tasks, Logger: log, Bound: time.Hour,
	})
	p := New(Options{
		Repositories: repos, Cache: content, Checks: checks, Tasks: tasks, Verdicts: jobs.NewVerdicts(log), Quotas: quotas, UploadExpiry: time.Hour, Logger: log,
	})
	listener := &request.Listener{Routes: &route.Table{Order: []route.Route{{Upstream: "up"}}}}

	const uploads = 20
	var staged []weak.Pointer[repository.Staged]
	for i := range uploads {
		blob := bytes.Repeat([]byte{byte(i)}, 1000)
		d := digest.FromBytes(blob)
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v2/team/app/blobs/uploads/?digest="+d.String(), bytes.NewReader(blob))
		x := request.New(listener, repos, w, r, wire.Options{})
		if err := x.Route(); err != nil {
			t.Fatal(err)
		}
		if err := p.StartUpload(x); err != nil || w.Code != 201 {
			t.Fatalf("%d, %v", w.Code, err)
		}
		x.Close()
		staged = append(staged, weak.Make(x.Repo.Staged(d)))
	}
	repos.Staged().Expire(time.Now().Add(2 * time.Hour))
	runtime.GC()
	left := 0
	for _, s := range staged {
		if s.Value() != nil {
			left++
		}
	}
	if left > uploads/2 { // what was sent last may be in some register
		t.Errorf("%d of %d uploads are still held", left, uploads)
	}
}
