package writer_test

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cache/fleet"
	"dray/cache/meta"
	"dray/cache/meta/metatest"
	"dray/mirror"
	"dray/mirror/gate"
	"dray/mirror/mirrortest"
	"dray/mirror/pipeline"
	"dray/mirror/queue"
	"dray/mirror/repository"
	"dray/upstream/oci"
)

// marks are facts that members share. They count the questions about who has changed the tag v1.
type marks struct {
	*metatest.Memory
	asked atomic.Int64
}

func (m *marks) Get(ctx context.Context, key string) ([]byte, error) {
	value, err := m.Memory.Get(ctx, key)
	if strings.HasPrefix(key, "v1/forgot/") && strings.HasSuffix(key, "/v1") {
		m.asked.Add(1) // now that it is known
	}
	return value, err
}

// overtaking is a fleet of two members that share facts. The registry gets no blob from the first
// one before release is closed.
type overtaking struct {
	*world
	a, b    *member
	facts   *marks
	release chan struct{}
	name    digest.Digest
}

func startOvertaking(t *testing.T, edit func(*overtaking, *member, *mirror.Options)) *overtaking {
	t.Helper()
	o := &overtaking{facts: &marks{Memory: metatest.NewMemory()}, release: make(chan struct{}), name: digest.FromString("registry of up/team/app")}
	o.world = start(t, 2, func(m *member, options *mirror.Options) {
		m.Tags = meta.NewTags(meta.NewExcept(meta.NewCached(o.facts, meta.CachedOptions{})), meta.Options{}) // as dray wires them
		options.Tags = m.Tags
		if m.info.ID == "member-0" {
			options.Upstreams[0].Sink = slowBlobs{w(options), o.release}
			edit(o, m, options)
		}
	})
	o.a, o.b = o.members[0], o.members[1]
	return o
}

// lease has a member take the lease from whoever has it.
func (o *overtaking) lease(m *member) {
	o.Helper()
	l, err := o.claims.Find(o.Context(), o.name)
	if err == nil {
		_, err = o.claims.Take(o.Context(), o.name, m.info, l.Generation)
	}
	if err != nil {
		o.Fatal(err)
	}
}

// free has the member with the lease give it up.
func (o *overtaking) free() {
	o.Helper()
	l, err := o.claims.Find(o.Context(), o.name)
	if err == nil {
		err = o.claims.Release(o.Context(), []fleet.Lease{l})
	}
	if err != nil {
		o.Fatal(err)
	}
}

// push pushes an image of one layer through a member.
func (o *overtaking) push(m *member, tag, layer string) *oci.Manifest {
	o.Helper()
	man := mirrortest.Image(o, []byte(layer))
	o.want(m, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromString(layer).String(), []byte(layer))
	o.want(m, 201, "PUT", "/v2/team/app/manifests/"+tag, man.Raw, "Content-Type", man.MediaType)
	return man
}

// begin has a client begin to push the tag v1 through the first member, which then knows that
// nobody else has changed the tag.
func (o *overtaking) begin(man *oci.Manifest) (done chan answer) {
	done = make(chan answer, 1)
	before := o.facts.asked.Load()
	go func() {
		got, err := o.a.send("PUT", "/v2/team/app/manifests/v1", bytes.NewReader(man.Raw), "Content-Type", man.MediaType)
		if err != nil {
			o.Error(err)
		}
		done <- got
	}()
	o.a.Until(func() bool { return o.facts.asked.Load() > before })
	return done
}

// TestOvertaken has something happen while the first member sends the layers of a push. It refuses
// the push if the tag was pushed through another member since, whoever has the lease then. If not,
// the push succeeds, although another member may have taken over the repository.
func TestOvertaken(t *testing.T) {
	tests := []struct {
		name      string
		meanwhile func(*overtaking)
		refused   bool
	}{
		{"nobody pushes", func(*overtaking) {}, false},
		{"another member pushes another tag", func(o *overtaking) { o.lease(o.b); o.push(o.b, "v2", "x") }, false},
		{"another member pushes the tag", func(o *overtaking) { o.lease(o.b); o.push(o.b, "v1", "x") }, true},
		{"another member pushes the tag, and gives up the lease", func(o *overtaking) { o.lease(o.b); o.push(o.b, "v1", "x"); o.free() }, true},
		{"another member pushes the tag, and this one has the lease again", func(o *overtaking) { o.lease(o.b); o.push(o.b, "v1", "x"); o.lease(o.a) }, true},
		{"the same member pushes the tag for another client", func(o *overtaking) {
			man := mirrortest.Image(o)
			o.want(o.a, 201, "PUT", "/v2/team/app/manifests/v1", man.Raw, "Content-Type", man.MediaType)
		}, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			o := startOvertaking(t, func(*overtaking, *member, *mirror.Options) {})
			layer := layers(1)[0]
			o.want(o.a, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
			man := mirrortest.Image(t, layer)
			done := o.begin(man)
			test.meanwhile(o)
			close(o.release)
			got, fenced := <-done, o.a.Counted("dray_fleet_fenced_pushes_total")
			switch {
			case got.Response == nil:
				t.Error("no answer")
			case !test.refused:
				if o.has("team/app", "v1", man); got.StatusCode != 201 || fenced != 0 {
					t.Errorf("%s, and %v pushes were refused\n%s", got.Status, fenced, got.body)
				}
			default:
				if o.has("team/app", "v1", mirrortest.Image(t, []byte("x"))); got.StatusCode != 503 || !bytes.Contains(got.body, []byte("push again")) || fenced != 1 {
					t.Errorf("%s, and %v pushes were refused\n%s", got.Status, fenced, got.body)
				}
				if got := o.want(o.b, 200, "GET", "/v2/team/app/manifests/v1", nil).Header.Get("Docker-Content-Digest"); got == man.Digest.String() {
					t.Error("clients get the older image")
				}
				o.a.Mirror.Writers().Renew(t.Context()) // it learns who has the lease, and takes it or passes the client's next attempt on
				o.want(o.a, 201, "PUT", "/v2/team/app/manifests/v1", man.Raw, "Content-Type", man.MediaType)
				o.has("team/app", "v1", man)
			}
		})
	}
}

// paused is a check that waits.
type paused struct {
	house
	release chan struct{}
}

func (p paused) CheckName(ctx context.Context, n pipeline.Name) ([]pipeline.Finding, error) {
	if n.Tag == "v1" {
		<-p.release
	}
	return p.house.CheckName(ctx, n)
}

// TestOvertakenAcknowledges: a former writer acknowledges no push that it would publish later: not
// over what was pushed through another member, and not while another one works on the repository,
// which would not know of it.
func TestOvertakenAcknowledges(t *testing.T) {
	for name, meanwhile := range map[string]func(*overtaking){
		"the tag is another one": func(o *overtaking) { o.lease(o.b); o.push(o.b, "v1", "x"); o.free() },
		"the lease is another's": func(o *overtaking) { o.lease(o.b) },
	} {
		t.Run(name, func(t *testing.T) {
			o := startOvertaking(t, func(o *overtaking, m *member, options *mirror.Options) {
				options.Upstreams[0].AcknowledgeLocally = true
				q, err := queue.Open(t.Context(), queue.Options{Directory: filepath.Join(t.TempDir(), "queue"), Hold: m.Cache.Retain})
				if err != nil {
					t.Fatal(err)
				}
				p, err := pipeline.New(pipeline.Options{Name: "paused", Steps: []pipeline.Step{{Stage: paused{release: o.release}, Mode: pipeline.Enforce}}})
				if err != nil {
					t.Fatal(err)
				}
				options.Queue, options.Gates = q, map[string][]*gate.Gate{"up": {{Pipeline: p, Repositories: []string{"*"}}}}
			})
			layer := layers(1)[0]
			o.want(o.a, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
			done := o.begin(mirrortest.Image(t, layer))
			meanwhile(o)
			close(o.release)
			if got := <-done; got.Response == nil || got.StatusCode != 503 || !bytes.Contains(got.body, []byte("push again")) {
				t.Errorf("got %v %s", got.Response, got.body)
			}
			if n := o.a.Counted("dray_fleet_fenced_pushes_total"); n != 1 {
				t.Errorf("%v pushes were refused", n)
			}
		})
	}
}

// TestOvertakenWriteBack: a build cache whose client was answered reaches the registry, although
// another member has taken over the repository.
func TestOvertakenWriteBack(t *testing.T) {
	caches := mirrortest.NewRegistry()
	o := startOvertaking(t, func(_ *overtaking, _ *member, options *mirror.Options) {
		to := &repository.Upstream{Name: "caches", Source: caches, Sink: caches, Lister: caches, Deleter: deleter{caches}}
		options.Upstreams[0].BuildCaches = &repository.BuildCaches{To: to, WriteBack: true}
		options.Upstreams = append(options.Upstreams, to)
	})
	layer := layers(1)[0]
	o.want(o.a, 201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest.FromBytes(layer).String(), layer)
	man, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":%d}}`,
		oci.MediaTypeOCIManifest, oci.MediaTypeBuildKitCache, digest.FromBytes(layer), len(layer)))
	if err != nil {
		t.Fatal(err)
	}
	o.want(o.a, 201, "PUT", "/v2/team/app/manifests/v1", man.Raw, "Content-Type", man.MediaType)
	o.lease(o.b)
	close(o.release)
	o.a.Until(func() bool { return o.registry.Held("team/app", oci.Reference{Tag: "v1"}) != nil })
	o.has("team/app", "v1", man)
}
