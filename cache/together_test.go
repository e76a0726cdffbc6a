package cache_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

// TestUsedTogether stores other blobs until some are evicted. It compares the layers of an image
// whose manifest clients get from memory again and again with those of an unused image.
func TestUsedTogether(t *testing.T) {
	bubble(t, disk.Options{MaxBytes: 24 << 20}, func(t *testing.T, c *cache.Cache) {
		put := func(seed byte, n int) digest.Digest {
			p := cachetest.Random(seed, n)
			if err := c.Put(t.Context(), cachetest.Blob(p), p); err != nil {
				t.Fatal(err)
			}
			return cachetest.Blob(p).Digest
		}
		fetch := func(seed byte) digest.Digest {
			o := &cachetest.Origin{Data: cachetest.Random(seed, 2<<20)}
			r := open(t, c, o)
			want(t, r, o.Data)
			r.Close() // what is open is not evicted
			return cachetest.Blob(o.Data).Digest
		}
		hot, cold := put(1, 1000), put(2, 1000)
		layers := map[digest.Digest][]digest.Digest{hot: {fetch(3), fetch(4)}, cold: {fetch(5), fetch(6)}}
		asked := 0
		for i := range 60 {
			for range 10 {
				c.Used(hot, func() []digest.Digest { asked++; return layers[hot] })
			}
			fetch(byte(100 + i))
			put(byte(100+i), 50_000) // small ones have a pool of their own
			time.Sleep(time.Minute)
		}
		synctest.Wait()
		for head, held := range map[digest.Digest]bool{hot: true, cold: false} {
			for _, d := range append(layers[head], head) {
				if _, got := c.Stat(d); got != held && d != cold { // which is still in memory
					t.Errorf("%s: held %v, want %v", d, got, held)
				}
			}
		}
		if asked != 60 {
			t.Errorf("members asked for %d times in an hour", asked)
		}
		c.Used("nonsense", func() []digest.Digest { return []digest.Digest{"", cachetest.Blob([]byte("none")).Digest} })
	})
}

// TestUsedIsBounded uses more heads than are remembered.
func TestUsedIsBounded(t *testing.T) {
	bubble(t, disk.Options{}, func(t *testing.T, c *cache.Cache) {
		asked := 0
		for i := range 10_000 {
			c.Used(digest.FromString(fmt.Sprint(i)), func() []digest.Digest { asked++; return nil })
		}
		if asked != 10_000 {
			t.Errorf("asked %d times", asked)
		}
	})
}
