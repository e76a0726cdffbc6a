package s3

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/cache"
	"dray/cache/s3/s3test"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := New(Options{}).o.Logger
		b := &breaker{log: log}
		failure := errors.New("SlowDown")
		allowed := func() bool { _, ok := b.allow(); return ok }
		fail := func() {
			t.Helper()
			sent, ok := b.allow()
			if !ok {
				t.Fatal("refused")
			}
			b.done(sent, failure)
		}
		fail()
		fail()
		if b.open() {
			t.Fatal("two failures open the breaker")
		}
		early, ok := b.allow()
		if ok {
			b.done(early, nil)
		}
		for range 7 { // all were sent before the breaker opened
			b.done(early, failure)
		}
		for _, pause := range []time.Duration{5, 10, 20, 40, 60, 60} { // seconds
			if allowed() || !b.open() {
				t.Fatalf("open before the end of the pause of %d s", pause)
			}
			time.Sleep(pause*time.Second - time.Millisecond)
			if allowed() {
				t.Fatalf("the pause is shorter than %d s", pause)
			}
			time.Sleep(time.Millisecond)
			sent, ok := b.allow()
			if !ok {
				t.Fatalf("the pause is longer than %d s", pause)
			}
			for _, err := range []error{failure, context.Canceled, nil} {
				b.done(early, err) // says nothing about the attempt
			}
			if allowed() {
				t.Fatal("two attempts at once")
			}
			b.done(sent, failure)
		}
		time.Sleep(time.Minute)
		if b.open() {
			t.Fatal("open after the pause, although nobody uses the bucket")
		}
		sent, ok := b.allow()
		if !ok || !b.open() {
			t.Fatal("refused, or closed during the attempt")
		}
		b.done(sent, context.Canceled) // the caller left, so the next one tries
		if sent, ok = b.allow(); !ok {
			t.Fatal("an attempt that was given up counts as one")
		}
		b.done(sent, nil)
		if b.open() || !allowed() {
			t.Error("a success does not close the breaker")
		}
	})
}

// A bucket that fails is asked three times, and then not for a while. A blob that it does not have
// is no failure.
func TestFailingReads(t *testing.T) {
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"SlowDown":     func(w http.ResponseWriter, _ *http.Request) bool { s3test.Refuse(w, 503, "SlowDown"); return true },
		"AccessDenied": func(w http.ResponseWriter, _ *http.Request) bool { s3test.Refuse(w, 403, "AccessDenied"); return true },
		"cut": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("begin"))
			panic(http.ErrAbortHandler)
		},
		"silent": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"silent body": func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("begin"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			store := s3test.New(t)
			m := newMirror(t, store, func(o *Options) { o.Patience = 500 * time.Millisecond })
			store.Fault(fault)
			for i := range 2 * tolerated {
				if _, _, err := m.read(digest.FromString(string(rune('a'+i))), 0, 0); err == nil || errors.Is(err, cache.ErrNotFound) {
					t.Errorf("error %v", err)
				}
			}
			wantCounts(t, store, map[string]int{"get": tolerated})
			if !m.reads.open() || m.writes.open() {
				t.Error("the breaker of reads is closed, or that of writes open")
			}
		})
	}
}

// A caller that leaves, or that has no time left, says nothing about the bucket.
func TestCallersThatLeave(t *testing.T) {
	reads := map[string]func(m mirror, ctx context.Context, leave func(), d digest.Digest) error{
		"open": func(m mirror, ctx context.Context, _ func(), d digest.Digest) error {
			_, err := m.Open(ctx, d, 0, 0)
			return err
		},
		"has": func(m mirror, ctx context.Context, _ func(), d digest.Digest) error {
			if m.Has(ctx, d) {
				return nil
			}
			return ctx.Err()
		},
		"body": func(m mirror, ctx context.Context, leave func(), d digest.Digest) error {
			s, err := m.Open(ctx, d, 5, 0)
			if err != nil {
				t.Error(err)
				return err
			}
			leave()
			_, err = io.ReadAll(s.Body)
			return errors.Join(err, s.Body.Close())
		},
	}
	for _, cause := range []error{cache.ErrAbandoned, cache.ErrClosed, context.DeadlineExceeded, cache.ErrStalled} {
		for name, read := range reads {
			t.Run(name+" "+cause.Error(), func(t *testing.T) {
				var leave atomic.Pointer[func()]
				store := s3test.New(t)
				m := newMirror(t, store, nil)
				store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
					if r.Header.Get("Range") != "" {
						w.Header().Set("Content-Range", "bytes 5-999/1000")
						w.Header().Set("Content-Length", "995")
						w.WriteHeader(http.StatusPartialContent)
						_ = http.NewResponseController(w).Flush()
					} else {
						(*leave.Load())()
					}
					<-r.Context().Done()
					return true
				})
				for i := range tolerated {
					ctx, end := context.WithCancelCause(t.Context())
					left := func() { end(cause) }
					leave.Store(&left)
					if read(m, ctx, left, digest.FromString(string(rune('a'+i)))) == nil {
						t.Error("no error")
					}
				}
				if got, want := m.reads.open(), cause == cache.ErrStalled; got != want {
					t.Errorf("the breaker is open: %v, want %v", got, want)
				}
			})
		}
	}
}

// trickle is a connection that gives less than a body may give.
type trickle struct{}

func (b trickle) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return 1000, nil
}

func (b trickle) Close() error { return nil }

func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(Options{Address: Address{Region: "eu-west-1"}})
		ctx, stop := context.WithCancelCause(t.Context())
		defer stop(nil)
		began := time.Now()
		if _, err := io.Copy(io.Discard, &body{b: m, ctx: ctx, stop: stop, r: trickle{}}); !errors.Is(err, errSlow) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}

// Blobs wait in the queue while the bucket takes no writes, and pulls are not concerned. When it
// takes them again, the blobs are written.
func TestFailingWrites(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, func(o *Options) { o.Writers = 1 })
	var refusing atomic.Bool
	refusing.Store(true)
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || !refusing.Load() {
			return false
		}
		s3test.Refuse(w, 403, "AccessDenied")
		return true
	})
	var all []digest.Digest
	for i := range 5 {
		p := random(100 + i)
		d := m.disk.add(p)
		m.Keep(d, int64(len(p)))
		all = append(all, d)
	}
	for !m.writes.open() {
		time.Sleep(time.Millisecond)
	}
	if m.reads.open() {
		t.Error("refused writes stop reads")
	}
	if n := m.queue.length(); n != 5 {
		t.Errorf("%d blobs are in the queue", n)
	}
	refusing.Store(false)
	m.writes.mu.Lock()
	m.writes.until = time.Now() // the pause is over
	m.writes.mu.Unlock()
	m.wait(t)
	for _, d := range all {
		if store.Get(m.path(d)) == nil {
			t.Errorf("%s is not in the bucket", d)
		}
	}
}

// A large blob whose upload fails leaves no parts.
func TestFailingPart(t *testing.T) {
	store := s3test.New(t)
	m := newMirror(t, store, nil)
	store.Fault(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Query().Get("partNumber") != "2" {
			return false
		}
		s3test.Refuse(w, 507, "QuotaExceeded")
		return true
	})
	d := m.keep(t, random(partSize+1))
	if store.Get(m.path(d)) != nil {
		t.Error("an object without its second part")
	}
	if got := store.Counts(); got["abort"] != maxTries || got["complete"] != 0 {
		t.Errorf("requests %v", got)
	}
}

// brokenBlob is a blob whose disk fails after some bytes.
type brokenBlob struct {
	blob
	left atomic.Int64 // bytes
}

var errDisk = errors.New("the disk fails")

func (b *brokenBlob) ReadAt(p []byte, off int64) (int, error) {
	if b.left.Add(-int64(len(p))) < 0 {
		return 0, errDisk
	}
	return b.blob.ReadAt(p, off)
}

// A local disk that fails says nothing about the bucket.
func TestFailingDisk(t *testing.T) {
	const small, large = 4 << 10, partSize + 1
	for name, broken := range map[string]func(Content) (Content, error){
		"open":   func(Content) (Content, error) { return nil, errDisk },
		"verify": func(c Content) (Content, error) { return &brokenBlob{blob: c.(blob)}, nil },
		"send": func(c Content) (Content, error) {
			b := &brokenBlob{blob: c.(blob)}
			b.left.Store(c.Size())
			return b, nil
		},
	} {
		for _, size := range []int{small, large} {
			t.Run(name, func(t *testing.T) {
				m := newMirror(t, s3test.New(t), func(o *Options) {
					sound := o.Content
					o.Content = func(d digest.Digest) (Content, error) {
						c, err := sound(d)
						if err != nil {
							return nil, err
						}
						return broken(c)
					}
				})
				m.keep(t, random(size)) // tries maxTries times
				if m.writes.open() {
					t.Errorf("the breaker is open after a blob of %d bytes", size)
				}
			})
		}
	}
}
