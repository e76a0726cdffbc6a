package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/s3/s3test"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// content is a disk in memory.
type content struct {
	mu    sync.Mutex
	blobs map[digest.Digest][]byte
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

func (c *content) open(d digest.Digest) (Content, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.blobs[d]
	if !ok {
		return nil, cache.ErrNotFound
	}
	return blob{bytes.NewReader(p)}, nil
}

func (c *content) add(p []byte) digest.Digest {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := digest.FromBytes(p)
	c.blobs[d] = p
	return d
}

func random(n int) []byte {
	p := make([]byte, n)
	source := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)})
	_, _ = source.Read(p)
	return p
}

// mirror is a bucket as one mirror uses it.
type mirror struct {
	*Bucket
	disk *content
	path func(digest.Digest) string
}

func newMirror(t *testing.T, store *s3test.Server, change func(*Options)) mirror {
	t.Helper()
	at := Address{Bucket: "shared", Prefix: "team/", Endpoint: store.URL, PathStyle: true}
	disk := &content{blobs: map[digest.Digest][]byte{}}
	o := Options{Address: at, Content: disk.open, MaxAge: 30 * 24 * time.Hour, Patience: time.Minute,
		Config: aws.Config{Credentials: credentials.NewStaticCredentialsProvider("id", "secret", "")}}
	if change != nil {
		change(&o)
	}
	b := New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		b.CloseIdleConnections()
	})
	return mirror{b, disk, func(d digest.Digest) string { return "/shared/" + *o.key(d) }}
}

// keep adds a blob to the disk, and waits until the bucket has dealt with it.
func (m mirror) keep(t *testing.T, p []byte) digest.Digest {
	t.Helper()
	d := m.disk.add(p)
	m.Keep(d, int64(len(p)))
	m.wait(t)
	return d
}

func (m mirror) wait(t *testing.T) {
	t.Helper()
	for m.queue.length() > 0 {
		select {
		case <-t.Context().Done():
			t.Fatal("the queue does not become empty")
		case <-time.After(time.Millisecond):
		}
	}
}

func (m mirror) read(d digest.Digest, from, to int64) ([]byte, int64, error) {
	s, err := m.Open(context.Background(), d, from, to)
	if err != nil {
		return nil, 0, err
	}
	p, err := io.ReadAll(s.Body)
	return p, s.Size, errors.Join(err, s.Body.Close())
}

func wantCounts(t *testing.T, store *s3test.Server, want map[string]int) {
	t.Helper()
	if diff := cmp.Diff(want, store.Counts()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestBlobIsWrittenOnce(t *testing.T) {
	store := s3test.New(t)
	one, two := newMirror(t, store, nil), newMirror(t, store, nil)
	p := random(1000)
	d := one.keep(t, p)
	if got := store.Get("/shared/team/cache/sha256/" + d.Encoded()); !bytes.Equal(got, p) {
		t.Fatalf("the objects are %q", store.Keys())
	}
	wantCounts(t, store, map[string]int{"head": 1, "put": 1})
	one.keep(t, p)
	wantCounts(t, store, map[string]int{})
	two.keep(t, p)
	wantCounts(t, store, map[string]int{"head": 1})
	// A mirror that has just read that the blob is absent writes it without another question.
	other := random(1001)
	if _, _, err := two.read(digest.FromBytes(other), 0, 0); !errors.Is(err, cache.ErrNotFound) {
		t.Fatal(err)
	}
	two.keep(t, other)
	wantCounts(t, store, map[string]int{"get": 1, "put": 1})
}

func TestWritersRace(t *testing.T) {
	store := s3test.New(t)
	var mirrors []mirror
	for range 4 {
		mirrors = append(mirrors, newMirror(t, store, nil))
	}
	for _, size := range []int{100, partSize + 1} {
		p := random(size)
		for _, m := range mirrors { // all of them believe that the bucket lacks the blob, however long it takes
			d := m.disk.add(p)
			m.seen.set(d, sighting{absent: time.Now().Add(time.Hour)})
			m.Keep(d, int64(size))
		}
		for _, m := range mirrors {
			m.wait(t)
			if !m.seen.get(digest.FromBytes(p)).present() {
				t.Error("a mirror does not count the object of another as its own")
			}
		}
		if got := store.Get(mirrors[0].path(digest.FromBytes(p))); !bytes.Equal(got, p) {
			t.Error("the object is wrong")
		}
	}
	if got := store.Counts(); got["create"] != 4 || got["complete"] != 4 || got["abort"] != 3 || got["put"] != 4 {
		t.Errorf("requests %v", got)
	}
}

// zeros is a blob of n zero bytes that takes no memory.
type zeros struct {
	*io.SectionReader
}

type zeroReader struct{}

func (zeroReader) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (zeros) Close() error { return nil }

func TestRequestsOfALargeBlob(t *testing.T) {
	store := s3test.New(t)
	const size = 4*partSize + 1
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool { // keeps no bytes, and so no object either
		if r.URL.Query().Has("partNumber") {
			n, _ := io.Copy(io.Discard, r.Body)
			if n > partSize {
				t.Errorf("a part of %d bytes", n)
			}
			w.Header().Set("Etag", `"x"`)
			return true
		}
		if r.URL.Query().Has("uploadId") {
			fmt.Fprint(w, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
			return true
		}
		return false
	})
	m := newMirror(t, store, func(o *Options) {
		o.Content = func(digest.Digest) (Content, error) {
			return zeros{io.NewSectionReader(zeroReader{}, 0, size)}, nil
		}
	})
	d, err := digest.FromReader(io.LimitReader(zeroSource{}, size))
	if err != nil {
		t.Fatal(err)
	}
	m.Keep(d, size)
	m.wait(t)
	wantCounts(t, store, map[string]int{"head": 1, "create": 1, "part": 5, "complete": 1})
	if n := 1<<30/partSize + 3; n > 70 {
		t.Errorf("a blob of 1 GiB takes %d requests", n)
	}
}

type zeroSource struct{}

func (zeroSource) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestMemory(t *testing.T) {
	const blobs, size, limit = 16, 64 << 20, 128 << 20
	store := s3test.New(t)
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		q := r.URL.Query()
		switch {
		case q.Has("partNumber"):
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Etag", `"x"`)
		case q.Has("uploadId") && r.Method == http.MethodPost:
			fmt.Fprint(w, "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>")
		case r.Method == http.MethodGet:
			w.Header().Set("Content-Length", fmt.Sprint(size))
			_, _ = io.CopyN(w, zeroSource{}, size)
		default:
			return false
		}
		return true
	})
	m := newMirror(t, store, func(o *Options) {
		o.Writers = blobs
		o.Content = func(digest.Digest) (Content, error) { return zeros{io.NewSectionReader(zeroReader{}, 0, size)}, nil }
	})
	d, err := digest.FromReader(io.LimitReader(zeroSource{}, size))
	if err != nil {
		t.Fatal(err)
	}
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var all sync.WaitGroup
	for i := range blobs {
		all.Go(func() {
			// Every writer reads the blob from the same file, under a digest of its own.
			if err := m.putParts(t.Context(), digest.FromString(fmt.Sprint(i)), zeros{io.NewSectionReader(zeroReader{}, 0, size)}, nil); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			s, err := m.Open(t.Context(), d, 0, 0)
			if err != nil {
				t.Error(err)
				return
			}
			if n, err := io.Copy(io.Discard, s.Body); n != size || err != nil {
				t.Error(n, err)
			}
			_ = s.Body.Close()
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	var most uint64
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-time.After(10 * time.Millisecond):
		}
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapInuse+now.StackInuse)
	}
	if grown := int64(most) - int64(before.HeapInuse+before.StackInuse); grown > limit {
		t.Errorf("%d blobs written and read at once take %d MiB", blobs, grown>>20)
	} else {
		t.Logf("%d blobs written and read at once take %d MiB", blobs, grown>>20)
	}
}

func TestRanges(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, nil)
	p := random(1000)
	d := m.keep(t, p)
	for _, at := range [][2]int64{{0, 0}, {0, 1}, {0, 1000}, {1, 0}, {10, 20}, {999, 1000}, {500, 5000}} {
		want := p[at[0]:]
		if at[1] > 0 {
			want = p[at[0]:min(at[1], 1000)]
		}
		if got, size, err := m.read(d, at[0], at[1]); err != nil || !bytes.Equal(got, want) || size != 1000 {
			t.Errorf("%v: %d bytes of %d, %v", at, len(got), size, err)
		}
	}
	empty := m.keep(t, nil)
	if got, size, err := m.read(empty, 0, 0); err != nil || len(got) != 0 || size != 0 {
		t.Errorf("the empty blob: %d bytes of %d, %v", len(got), size, err)
	}
}

func TestAbsent(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, nil)
	p := random(100)
	d := digest.FromBytes(p)
	for range 2 { // the second answer is remembered
		if _, _, err := m.read(d, 0, 0); !errors.Is(err, cache.ErrNotFound) {
			t.Errorf("error %v", err)
		}
		if m.Has(t.Context(), d) {
			t.Error("the bucket has what it does not have")
		}
	}
	wantCounts(t, store, map[string]int{"get": 1})
	// An object that was written and is gone is written again after a read has found that out.
	m.keep(t, p)
	store.Delete(d.Encoded())
	store.Counts()
	m.keep(t, p)
	wantCounts(t, store, map[string]int{})
	if !m.Has(t.Context(), d) {
		t.Error("a remembered write is not believed")
	}
	if _, _, err := m.read(d, 0, 0); !errors.Is(err, cache.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	m.keep(t, p)
	wantCounts(t, store, map[string]int{"get": 1, "put": 1})
	if got, _, err := m.read(d, 0, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("error %v", err)
	}
}

func TestObjectIsWrittenAgainBeforeItExpires(t *testing.T) {
	store := s3test.New(t)
	p := random(100)
	m := newMirror(t, store, nil)
	for _, c := range []struct {
		age  time.Duration
		puts int
	}{{22 * 24 * time.Hour, 0}, {23 * 24 * time.Hour, 1}} {
		d := digest.FromBytes(p)
		store.Set(m.path(d), p, time.Now().Add(-c.age))
		m.seen.set(d, sighting{})
		m.keep(t, p)
		if got := store.Counts(); got["put"] != c.puts || got["head"] != 1 {
			t.Errorf("an object of %v: requests %v", c.age, got)
		}
	}
}

func TestWrongBytesAreReplaced(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, nil)
	p := random(100)
	d := digest.FromBytes(p)
	store.Set(m.path(d), []byte("wrong"), time.Now())
	store.Fault(func(http.ResponseWriter, *http.Request) bool { m.Wrong(d); return false })
	if _, _, err := m.read(d, 0, 0); err != nil {
		t.Errorf("an answer that was under way: %v", err)
	}
	wantCounts(t, store, map[string]int{"get": 1})
	if _, _, err := m.read(d, 0, 0); !errors.Is(err, cache.ErrNotFound) || m.Has(t.Context(), d) {
		t.Errorf("wrong bytes are read again: %v", err)
	}
	wantCounts(t, store, map[string]int{})
	var refused atomic.Bool
	store.Fault(func(w http.ResponseWriter, _ *http.Request) bool {
		if refused.Swap(true) {
			return false
		}
		s3test.Refuse(w, 403, "AccessDenied")
		return true
	})
	m.keep(t, p)
	wantCounts(t, store, map[string]int{"put": 2})
	if got, _, err := m.read(d, 0, 0); err != nil || !bytes.Equal(got, p) {
		t.Errorf("error %v", err)
	}
}

func TestRottenBlobIsNotWritten(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, nil)
	p := random(100)
	d := m.disk.add(p)
	p[50]++
	m.Keep(d, 100)
	m.wait(t)
	if keys := store.Keys(); len(keys) > 0 {
		t.Errorf("objects %q", keys)
	}
}

func TestFullQueue(t *testing.T) {
	store := s3test.New(t)
	var held sync.WaitGroup
	held.Add(1)
	store.Fault(func(http.ResponseWriter, *http.Request) bool { held.Wait(); return false })
	m := newMirror(t, store, func(o *Options) { o.Queue, o.Writers = 2, 1 })
	for i := range 10 {
		p := random(100 + i)
		m.Keep(m.disk.add(p), int64(len(p)))
	}
	if n := m.queue.length(); n > 3 { // two wait, and one is being written
		t.Errorf("%d blobs in the queue", n)
	}
	held.Done()
	m.wait(t)
	if n := len(store.Keys()); n < 2 || n > 3 {
		t.Errorf("%d objects", n)
	}
}
