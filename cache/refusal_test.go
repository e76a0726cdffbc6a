package cache_test

import (
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

// TestRefusalBelongsToItsPlace checks that a caller that joined a fetch gets a refusal of its
// origin only if the caller would have asked the same place.
func TestRefusalBelongsToItsPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := cachetest.Start(t, cache.Options{}, disk.Options{Path: t.TempDir()})
		p := cachetest.Random(1, 100_000)
		b := cachetest.Blob(p)
		refusal, gate := errors.New("no such blob in evil/x"), make(chan struct{})
		evil := &cachetest.Origin{Data: p, Plan: [][]cachetest.Fault{{cachetest.Refuse(refusal)}}}
		good := &cachetest.Origin{Data: p}

		var wg sync.WaitGroup
		open := func(via string, origin cache.Origin) (err error) {
			b := b
			b.Via = via
			r, err := c.Open(t.Context(), b, origin)
			if err != nil {
				return err
			}
			defer r.Close()
			if got, err := io.ReadAll(r); err != nil || string(got) != string(p) {
				t.Errorf("%s: %d bytes, %v", via, len(got), err)
			}
			return nil
		}
		wg.Go(func() {
			if err := open("evil/x", cachetest.Gated(gate, evil.Fetch)); !errors.Is(err, refusal) {
				t.Errorf("who asked first: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if err := open("evil/x", evil.Fetch); !errors.Is(err, refusal) {
				t.Errorf("who would have asked there, too: %v", err)
			}
		})
		for range 3 {
			wg.Go(func() {
				if err := open("good/app", good.Fetch); err != nil {
					t.Errorf("who asks elsewhere: %v", err)
				}
			})
		}
		synctest.Wait()
		close(gate)
		wg.Wait()
		if n := len(good.Calls()); n != 1 {
			t.Errorf("the other place was asked %d times", n)
		}
	})
}
