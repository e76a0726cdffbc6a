package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

var hostedKills = flag.Int("hosted-kills", 4, "how often dray is killed while images are pushed to a route that keeps them")

// TestKilledWhileHosting ends dray, as a power cut would, at any moment while clients push to a
// route that keeps what it gets. Each push that was acknowledged, in whichever round, is there as a
// whole afterwards, and nothing that is there is half.
func TestKilledWhileHosting(t *testing.T) {
	s := newStack(t, stackOptions{configure: withHosted})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	row(t, "dray", "", "killed again and again while it hosts pushes: what it acknowledged is there", func(t *testing.T) {
		landed := map[string]string{} // digest by reference
		for round := range *hostedKills {
			ctx, cancel := context.WithCancel(t.Context())
			var mu sync.Mutex
			var pushers sync.WaitGroup
			for i := range 3 {
				pushers.Go(func() {
					for n := 0; ctx.Err() == nil; n++ {
						ref := fmt.Sprintf("hosted/crash/app%d:r%d-%d-%d", i%2, round, i, n)
						img := randomImage(t, types.OCIManifestSchema1, 2, 200<<10)
						there, options := s.registry(t, ref)
						options = append(options, remote.WithContext(ctx), remote.WithRetryBackoff(remote.Backoff{Steps: 1}))
						if err := remote.Write(there, img, options...); err == nil {
							mu.Lock()
							landed[ref] = digestOf(t, img)
							mu.Unlock()
						}
					}
				})
			}
			time.Sleep(time.Duration(100+rnd.IntN(900)) * time.Millisecond)
			none := func() bool { mu.Lock(); defer mu.Unlock(); return len(landed) == 0 }
			for late := time.Now().Add(20 * time.Second); none() && time.Now().Before(late); {
				time.Sleep(5 * time.Millisecond) // a slow machine: nothing has landed that could be lost
			}
			s.dray.kill()
			cancel()
			pushers.Wait()
			s.start()
			whole := map[string]string{}
			for _, repo := range []string{"hosted/crash/app0", "hosted/crash/app1"} {
				s.wholeTags(t, repo, whole)
			}
			for ref, want := range landed { // of all rounds so far
				if whole[ref] != want {
					t.Errorf("round %d: %s was acknowledged as %s and is %q", round, ref, want, whole[ref])
				}
			}
		}
		if t.Logf("%d pushes were acknowledged", len(landed)); len(landed) == 0 {
			t.Error("no push was acknowledged; this test shows nothing")
		}
	})
}

// wholeTags reads every image that a repository lists, and notes the digests by reference.
func (s *stack) wholeTags(t *testing.T, repo string, whole map[string]string) {
	t.Helper()
	there, options := s.registry(t, repo+":any")
	tags, err := remote.List(there.Context(), options...)
	if err != nil {
		t.Logf("%s: %v", repo, err) // nothing may have landed yet
		return
	}
	for _, tag := range tags {
		ref := repo + ":" + tag
		img, err := readImage(there.Context().Tag(tag), options)
		if err != nil {
			t.Errorf("%s is listed and cannot be read: %v", ref, err)
			continue
		}
		whole[ref] = digestOf(t, img)
	}
}

// readImage gets an image and holds every byte of it to its digest.
func readImage(ref name.Reference, options []remote.Option) (v1.Image, error) {
	img, err := remote.Image(ref, options...)
	if err != nil {
		return nil, err
	}
	return img, validate.Image(img)
}
