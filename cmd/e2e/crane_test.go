package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

// TestCrane uses go-containerregistry, the library of crane, ko and kaniko. It needs no client to
// be installed.
func TestCrane(t *testing.T) {
	s := newStack(t, stackOptions{})
	const client, version = "go-containerregistry", "of this module"

	img := randomImage(t, types.OCIManifestSchema1, 4, 500_000)
	s.hub.push(t, "library/app:1", img)
	index := multiArchRandom(t)
	s.hub.pushIndex(t, "library/multi:1", index)

	row(t, client, version, "pull through the mirror", func(t *testing.T) {
		ref, options := s.mirror(t, "library/app:1")
		manifest, _ := blobs(t, ref, options)
		if want, _ := img.RawManifest(); string(manifest) != string(want) {
			t.Errorf("pulled the manifest\n%s\nwant\n%s", manifest, want)
		}
		asked := s.hub.asked()
		blobs(t, ref, options)
		asked.none(t, mirrored...)
	})
	row(t, client, version, "pull by prefix, in both places", func(t *testing.T) {
		asked := s.hub.asked()
		ref, options := s.mirror(t, "docker.io/library/app:1")
		blobs(t, ref, options)
		asked.none(t, ecrtest.KindBlobGet, ecrtest.KindObjectGet)
	})
	row(t, client, version, "pull an index with its images", func(t *testing.T) {
		if got := s.pullIndex(t, "library/multi:1"); digestOf(t, got) != digestOf(t, index) {
			t.Errorf("pulled index %s, want %s", digestOf(t, got), digestOf(t, index))
		}
	})
	row(t, client, version, "dray top shows the pulls", func(t *testing.T) {
		ref, options := s.mirror(t, "library/app:1") // again, because a pull is shown for a minute
		blobs(t, ref, options)
		s.pullIndex(t, "library/multi:1")
		var live struct {
			Pulls []struct {
				Repository, Reference, Agent string
				Bytes                        int64
				Failures                     int
				Layers                       struct{ Asked, Of int }
			}
		}
		if err := json.Unmarshal([]byte(run(t, environment(), built.dray, "top", "--once", "--json", "--admin", s.adminAddress())), &live); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, p := range live.Pulls {
			seen[p.Repository+":"+p.Reference] = p.Bytes > 0 && p.Failures == 0 && strings.Contains(p.Agent, client) && p.Layers.Of > 0 && p.Layers.Asked == p.Layers.Of
		}
		if !seen["library/app:1"] || !seen["library/multi:1"] || len(seen) != 2 {
			t.Errorf("%+v", live.Pulls)
		}
	})
	row(t, client, version, "push, and push again", func(t *testing.T) {
		ref, options := s.registry(t, "crane/app:1")
		if err := remote.Write(ref, img, options...); err != nil {
			t.Fatal(err)
		}
		if got := s.ecr.digest(t, "crane/app:1"); got != digestOf(t, img) {
			t.Errorf("ECR has %s, want %s", got, digestOf(t, img))
		}
		s.sameBytes(t, "crane/app:1")
		asked := s.ecr.asked()
		if err := remote.Write(ref, img, options...); err != nil {
			t.Fatal(err)
		}
		asked.none(t, uploads...)
	})
	row(t, client, version, "pull what was pushed: nothing is read from ECR", func(t *testing.T) {
		asked := s.ecr.asked()
		ref, options := s.registry(t, "crane/app:1")
		blobs(t, ref, options)
		asked.none(t, mirrored...)
	})
	row(t, client, version, "push an index", func(t *testing.T) {
		ref, options := s.registry(t, "crane/multi:1")
		if err := remote.WriteIndex(ref, index, options...); err != nil {
			t.Fatal(err)
		}
		if got := s.ecr.digest(t, "crane/multi:1"); got != digestOf(t, index) {
			t.Errorf("ECR has %s, want %s", got, digestOf(t, index))
		}
	})
	row(t, client, version, "push to another repository what the first one has: layers are mounted or sent", func(t *testing.T) {
		source, options := s.registry(t, "crane/app:1")
		pulled, err := remote.Image(source, options...) // its layers know where they came from, so a mount is asked for
		if err != nil {
			t.Fatal(err)
		}
		target, options := s.registry(t, "crane/copy:1")
		if err := remote.Write(target, pulled, options...); err != nil {
			t.Fatal(err)
		}
		s.sameBytes(t, "crane/copy:1")
	})
	row(t, client, version, "list tags", func(t *testing.T) {
		for _, tag := range []string{"a", "b", "c"} {
			ref, options := s.registry(t, "crane/app:"+tag)
			if err := remote.Write(ref, img, options...); err != nil {
				t.Fatal(err)
			}
		}
		ref, options := s.registry(t, "crane/app")
		tags, err := remote.List(ref.Context(), append(options, remote.WithPageSize(2))...)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(tags)
		if want := []string{"1", "a", "b", "c"}; !slices.Equal(tags, want) {
			t.Errorf("tags %v, want %v", tags, want)
		}
	})
	row(t, client, version, "push a manifest that refers to another, and find it", func(t *testing.T) { referrers(t, s, img) })
	row(t, client, version, "push without rights is refused", func(t *testing.T) {
		ref, options := s.registry(t, "crane/refused:1")
		if err := remote.Write(ref, img, append(options, remote.WithAuth(authn.Anonymous))...); err == nil {
			t.Error("somebody without a password has pushed")
		}
		if _, ok := s.ecr.Image("crane/refused", "1"); ok {
			t.Error("what was refused is in ECR")
		}
		ref, options = s.mirror(t, "ecr/crane/refused:1")
		if err := remote.Write(ref, img, options...); err == nil {
			t.Error("a mirror has taken a push")
		}
	})
}

// pullIndex pulls an index and the images that it lists.
func (s *stack) pullIndex(t testing.TB, image string) v1.ImageIndex {
	t.Helper()
	ref, options := s.mirror(t, image)
	index, err := remote.Index(ref, options...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, child := range manifest.Manifests {
		blobs(t, ref.Context().Digest(child.Digest.String()), options)
	}
	return index
}

// multiArchRandom is multiArch without busybox, so that it needs nothing installed.
func multiArchRandom(t testing.TB) v1.ImageIndex {
	t.Helper()
	return indexOf(t, types.OCIImageIndex, randomImage(t, types.OCIManifestSchema1, 2, 100_000), randomImage(t, types.OCIManifestSchema1, 2, 100_000))
}

// referrers attaches a manifest to a pushed image and asks for it.
func referrers(t *testing.T, s *stack, img v1.Image) {
	t.Helper()
	subject, options := s.registry(t, "crane/app:1")
	described, err := remote.Head(subject, options...)
	if err != nil {
		t.Fatal(err)
	}
	attachment, ok := mutate.Subject(randomImage(t, types.OCIManifestSchema1, 1, 1000), *described).(v1.Image)
	if !ok {
		t.Fatal("an image with a subject is no image")
	}
	ref, options := s.registry(t, "crane/app@"+digestOf(t, attachment))
	if err := remote.Write(ref, attachment, options...); err != nil {
		t.Fatal(err)
	}
	found, err := remote.Referrers(subject.Context().Digest(digestOf(t, img)), options...)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := found.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(manifest.Manifests, func(d v1.Descriptor) bool { return d.Digest.String() == digestOf(t, attachment) }) {
		t.Errorf("referrers of %s: %v, want %s among them", digestOf(t, img), manifest.Manifests, digestOf(t, attachment))
	}
}
