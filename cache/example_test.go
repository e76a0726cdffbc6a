package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/disk"
)

// The first reader of a blob starts the fetch, and others join it. Once the blob is on disk the
// origin is not asked again.
func ExampleCache_Open() {
	path, err := os.MkdirTemp("", "cache-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(path)
	dir, err := disk.Open(disk.Options{Path: path, MaxBytes: 1 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()
	c := cache.New(cache.Options{Disk: dir})
	defer c.Close()

	layer := []byte("hello")
	blob := cache.Blob{Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	origin := func(_ context.Context, from int64) (cache.Stream, error) {
		fmt.Println("the origin is asked for the bytes from", from)
		body := io.NopCloser(bytes.NewReader(layer[from:]))
		return cache.Stream{Body: body, Size: blob.Size}, nil
	}
	for range 2 {
		r, err := c.Open(context.Background(), blob, origin)
		if err != nil {
			fmt.Println(err)
			return
		}
		got, err := io.ReadAll(r)
		fmt.Printf("%s from %s, %v\n", got, r.Source(), err)
		if err := r.Wait(); err != nil { // the fetch has ended, and the blob is published
			fmt.Println(err)
		}
		r.Close()
	}
	// Output:
	// the origin is asked for the bytes from 0
	// hello from origin, <nil>
	// hello from disk, <nil>
}
