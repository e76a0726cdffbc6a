package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// holder counts who holds what.
type holder struct {
	mu   sync.Mutex
	held map[digest.Digest]int
	err  error
}

func (h *holder) hold(_ context.Context, d digest.Digest) (func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return nil, h.err
	}
	if h.held == nil {
		h.held = map[digest.Digest]int{}
	}
	h.held[d]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.held[d]--; h.held[d] == 0 {
			delete(h.held, d)
		}
	}, nil
}

func (h *holder) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

func opened(t *testing.T, o Options) (*Queue, *holder) {
	t.Helper()
	h := &holder{}
	if o.Directory == "" {
		o.Directory = t.TempDir()
	}
	o.Hold = h.hold
	q, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q, h
}

// reopened is the next process on the same journal. The former one does nothing more.
func reopened(t *testing.T, q *Queue) (*Queue, *holder) {
	t.Helper()
	return opened(t, Options{Directory: q.opts.Directory, MaxEntries: q.opts.MaxEntries, MaxBytes: q.opts.MaxBytes})
}

// push is a push to a repository; what is the same in all of them is a blob.
func push(repo, tag, text string) Push {
	d := digest.FromString(text)
	if tag == "" {
		tag = d.String()
	}
	shared, own := digest.FromString("shared"), digest.FromString("blob of "+text)
	return Push{Upstream: "ecr", Repository: repo, Reference: tag, MediaType: "application/json", Digest: d, Manifest: []byte(text),
		Blobs: []Blob{{shared, 100}, {own, 1000}}}
}

func added(t *testing.T, q *Queue, ps ...Push) {
	t.Helper()
	for _, p := range ps {
		if err := q.Add(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
}

// names are the entries in their order.
func names(q *Queue) (all []string) {
	for _, e := range q.List() {
		all = append(all, fmt.Sprintf("%s:%s %s %s", e.Repository, e.Reference, e.Manifest, e.State))
	}
	return all
}

func wantNames(t *testing.T, q *Queue, want ...string) {
	t.Helper()
	if got := names(q); !slices.Equal(got, want) {
		t.Errorf("the queue has %q, want %q", got, want)
	}
}

// running runs the queue until stop.
func running(q *Queue, f Forward) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- q.Run(ctx, f) }()
	return func() { cancel(); <-done }
}

// The next process finds an added push, with its blobs, until it is forwarded, even if the queue
// was not closed.
func TestSurvives(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "v1", "one"), push("b", "v1", "two"), push("a", "v1", "one")) // twice the same is once
	q, h := reopened(t, q)
	wantNames(t, q, "a:v1 one waiting", "b:v1 two waiting")
	if h.count() != 3 || q.index.bytes != 2*1000+100+6 {
		t.Errorf("%d blobs are held, %d bytes", h.count(), q.index.bytes)
	}
	if p, ok := q.Find("ecr", "a", "v1"); !ok || string(p.Manifest) != "one" {
		t.Errorf("found %+v %t", p, ok)
	}
	if _, ok := q.Find("ecr", "a", digest.FromString("one").String()); !ok {
		t.Error("it is not found by digest")
	}
	if size, ok := q.Blob("ecr", "a", digest.FromString("blob of one")); !ok || size != 1000 {
		t.Errorf("blob of %d bytes, %t", size, ok)
	}
	if _, ok := q.Blob("ecr", "a", digest.FromString("blob of two")); ok {
		t.Error("a repository sees the blob of another")
	}
	if tags := q.Tags("ecr", "a"); !slices.Equal(tags, []string{"v1"}) {
		t.Errorf("tags %q", tags)
	}
	forwarded := make(chan string)
	stop := running(q, func(_ context.Context, e Entry) error { forwarded <- string(e.Manifest); return nil })
	if got := []string{<-forwarded, <-forwarded}; !slices.Contains(got, "one") || !slices.Contains(got, "two") {
		t.Errorf("forwarded %q", got)
	}
	stop()
	wantNames(t, q)
	if h.count() != 0 || q.index.bytes != 0 {
		t.Errorf("%d blobs are still held, %d bytes", h.count(), q.index.bytes)
	}
	q, _ = reopened(t, q)
	wantNames(t, q)
	added(t, q, push("a", "v1", "three"))
	if id := q.List()[0].ID; id != 3 {
		t.Errorf("number %d was given twice", id)
	}
}

// One repository's pushes go in order, whatever fails meanwhile; another's do not wait for them.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "", "child"), push("a", "v1", "index"), push("b", "v1", "other"))
		var mu sync.Mutex
		var order []string
		failures := 5
		stop := running(q, func(_ context.Context, e Entry) error {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, string(e.Manifest))
			if string(e.Manifest) == "child" && failures > 0 {
				failures--
				return errors.New("down")
			}
			return nil
		})
		start := time.Now()
		for len(names(q)) > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		took := time.Since(start)
		stop()
		at := func(name string) int { return slices.Index(order, name) }
		if len(order) != 8 || at("index") != 7 || at("other") > 1 {
			t.Errorf("the order was %q", order)
		}
		if took < 24*time.Second || took > 32*time.Second { // 1+2+4+8+16 s, less a fifth at most
			t.Errorf("five failures took %s", took)
		}
	})
}

// Pauses grow to a minute and no further, and attempts never end.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "v1", "one"))
		var tries []time.Time
		stop := running(q, func(context.Context, Entry) error {
			tries = append(tries, time.Now())
			return errors.New("down")
		})
		time.Sleep(4 * time.Minute)
		if err := q.Check(t.Context()); err != nil {
			t.Errorf("too early: %v", err)
		}
		time.Sleep(72 * time.Hour)
		if err := q.Check(t.Context()); err == nil || !bytes.Contains([]byte(err.Error()), []byte("down")) {
			t.Errorf("an old push is not reported: %v", err)
		}
		stop()
		last := tries[len(tries)-1].Sub(tries[len(tries)-2])
		if n := len(tries); n < 72*60 || n > 72*76 || last > lastPause || last < lastPause*4/5 {
			t.Errorf("%d attempts, the last after %s", n, last)
		}
		if e := q.List()[0]; e.Error != "down" || e.State != Waiting || e.Attempts != len(tries) {
			t.Errorf("%+v", e)
		}
	})
}

// A refused push stays in the queue, also for the next process, and does not block later pushes.
// It can be retried or dropped, but a retry never brings an older image back under a tag.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, _ := opened(t, Options{})
		added(t, q, push("a", "v1", "bad"), push("a", "v2", "good"))
		refuse := func(_ context.Context, e Entry) error {
			if string(e.Manifest) == "bad" {
				return fmt.Errorf("%w: denied", ErrRefused)
			}
			return nil
		}
		stop := running(q, refuse)
		synctest.Wait()
		stop()
		wantNames(t, q, "a:v1 bad failed")
		if _, ok := q.Find("ecr", "a", "v1"); ok {
			t.Error("what was refused is still shown under its tag")
		}
		if err := q.Check(t.Context()); err == nil {
			t.Error("nothing is reported")
		}
		q, h := reopened(t, q)
		wantNames(t, q, "a:v1 bad failed")
		if e := q.List()[0]; e.Attempts != 1 || e.Error != "refused permanently: denied" {
			t.Errorf("%+v", e)
		}
		if h.count() != 2 {
			t.Error("its blobs are not held")
		}
		if err := q.Retry(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		wantNames(t, q, "a:v1 bad waiting")
		q, _ = reopened(t, q)
		wantNames(t, q, "a:v1 bad waiting")
		stop = running(q, refuse)
		synctest.Wait()
		stop()
		added(t, q, push("a", "v1", "newer"))
		for range 2 {
			if err := q.Retry(t.Context(), 1); !errors.Is(err, ErrOvertaken) {
				t.Errorf("retry of an overtaken push: %v", err)
			}
			q, _ = reopened(t, q)
		}
		if e, err := q.Drop(t.Context(), 1); err != nil || string(e.Manifest) != "bad" {
			t.Errorf("%+v %v", e, err)
		}
		if err := q.Retry(t.Context(), 1); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if _, err := q.Drop(t.Context(), 1); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		q, _ = reopened(t, q)
		wantNames(t, q, "a:v1 newer waiting")
	})
}

// One that is being forwarded is not tried twice at once, and dropped only when its attempt has
// ended.
func TestBusy(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "v1", "one"))
	begun, end := make(chan bool), make(chan bool)
	stop := running(q, func(context.Context, Entry) error { begun <- true; <-end; return nil })
	<-begun
	wantNames(t, q, "a:v1 one forwarding")
	if err := q.Retry(t.Context(), 1); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := q.Drop(ended, 1); err == nil {
		t.Error("it was dropped")
	}
	close(end)
	stop()
	wantNames(t, q)
}

// The error of an attempt under way is visible, and is cleared with the attempt.
func TestTrouble(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "v1", "one"))
	q.SetError(1, errors.New("nothing is under way"))
	begun, end := make(chan bool), make(chan bool)
	stop := running(q, func(_ context.Context, e Entry) error {
		q.SetError(e.ID, errors.New("connection refused"))
		begun <- true
		<-end
		return nil
	})
	<-begun
	if e := q.List()[0]; e.State != Forwarding || e.Error != "connection refused" {
		t.Errorf("%s, %q", e.State, e.Error)
	}
	close(end)
	stop()
	q.SetError(1, errors.New("it is gone"))
	wantNames(t, q)
}

// A queue that stops in the middle of an attempt has the push for the next process.
func TestStopped(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("a", "v1", "one"))
	begun := make(chan bool, 1)
	stop := running(q, func(ctx context.Context, _ Entry) error { begun <- true; <-ctx.Done(); return context.Cause(ctx) })
	<-begun
	stop()
	wantNames(t, q, "a:v1 one waiting")
	q, _ = reopened(t, q)
	wantNames(t, q, "a:v1 one waiting")
}

// TestEmpty: an empty queue is as healthy as one that was opened, and has the same metrics.
func TestEmpty(t *testing.T) {
	q := Empty()
	if err := q.Check(t.Context()); err != nil {
		t.Error(err)
	}
	r := prometheus.NewRegistry()
	r.MustRegister(q.Collectors()...)
	if families, err := r.Gather(); len(families) != 3 || err != nil {
		t.Errorf("%d metrics, %v", len(families), err)
	}
	if err := q.Close(); err != nil || q.Takes() {
		t.Errorf("it takes pushes %t, %v", q.Takes(), err)
	}
}

func TestBounds(t *testing.T) {
	q, _ := opened(t, Options{MaxEntries: 2})
	added(t, q, push("a", "v1", "one"), push("a", "v2", "two"), push("a", "v2", "two"))
	if err := q.Add(t.Context(), push("a", "v3", "three")); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if _, err := q.Drop(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	added(t, q, push("a", "v3", "three"))

	q, _ = opened(t, Options{MaxBytes: 2*1000 + 100 + 6}) // the shared blob counts once
	added(t, q, push("a", "v1", "one"))
	again := push("a", "v2", "two")
	again.Blobs = append(again.Blobs, again.Blobs...)
	added(t, q, again)

	q, h := opened(t, Options{MaxBytes: 2500})
	added(t, q, push("a", "v1", "one"), push("a", "v2", "two"))
	if err := q.Add(t.Context(), push("a", "v3", "three")); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
	if h.count() != 3 || q.index.adding != 0 {
		t.Errorf("%d held, %d", h.count(), q.index.adding)
	}
	h.err = errors.New("gone")
	if err := q.Add(t.Context(), push("a", "v1", "x")); err == nil {
		t.Error("a push without its blobs was accepted")
	}
	if q.index.bytes != 2*1000+100+6 {
		t.Errorf("%d bytes", q.index.bytes)
	}
}

// A disk that does not take the record gives an error and no entry, and when it works again nothing
// of it is left.
func TestDiskFails(t *testing.T) {
	var failing error
	q, h := opened(t, Options{Sync: func() error { return failing }})
	added(t, q, push("a", "v1", "one"))
	failing = errors.New("no space")
	for range 3 {
		if err := q.Add(t.Context(), push("a", "v2", "lost")); !errors.Is(err, failing) {
			t.Errorf("a push that is not on disk: %v", err)
		}
	}
	if _, err := q.Drop(t.Context(), 1); !errors.Is(err, failing) {
		t.Error(err)
	}
	wantNames(t, q, "a:v1 one waiting")
	if h.count() != 2 {
		t.Errorf("%d held", h.count())
	}
	failing = nil
	added(t, q, push("a", "v3", "three"))
	q, _ = reopened(t, q)
	wantNames(t, q, "a:v1 one waiting", "a:v3 three waiting")
}

// Records that no longer count do not fill the disk.
func TestCompaction(t *testing.T) {
	q, _ := opened(t, Options{})
	added(t, q, push("keep", "v1", "kept"))
	big := push("a", "v1", string(make([]byte, 200<<10)))
	for i := range 40 {
		big.Reference = fmt.Sprintf("v%d", i)
		added(t, q, big)
		if _, err := q.Drop(t.Context(), uint64(i+2)); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(q.opts.Directory, journalName))
	if err != nil || info.Size() > slack+600<<10 {
		t.Errorf("the journal has %d bytes, %v", info.Size(), err)
	}
	q, _ = reopened(t, q)
	wantNames(t, q, "keep:v1 kept waiting")
}

// A push is accepted anew while an equal one is being dropped: that one's time is over, although it
// is still there.
func TestAddWhileDropping(t *testing.T) {
	q, _ := opened(t, Options{})
	p := push("a", "v1", "one")
	added(t, q, p)
	w := withdrawn(t, q, tagged("v1")) // as Drop does at first
	if _, ok := q.Find("ecr", "a", "v1"); ok {
		t.Error("what is being dropped is still shown under its tag")
	}
	added(t, q, p)
	wantNames(t, q, "a:v1 one waiting")
	w.Done()
	wantNames(t, q, "a:v1 one waiting")
}

// A blob that is gone after a restart is not promised to clients, who would not send it again; one
// that comes anew is held with the next push that needs it. A clock that was ahead keeps no push
// waiting.
func TestAfterLossAndClockAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := push("a", "v1", "one")
		q, _ := opened(t, Options{})
		time.Sleep(240 * time.Hour)
		added(t, q, p)
		text, err := os.ReadFile(q.writer.journal.path())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, journalName), ahead(t, text), 0o600); err != nil {
			t.Fatal(err)
		}
		lost := &holder{err: errors.New("gone")}
		q, err = Open(t.Context(), Options{Directory: dir, Hold: func(ctx context.Context, d digest.Digest) (func(), error) { return lost.hold(ctx, d) }})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		blob := p.Blobs[1].Digest
		if _, ok := q.Blob("ecr", "a", blob); ok {
			t.Error("a blob that is gone is promised")
		}
		lost.err = nil
		added(t, q, p, p)
		if size, ok := q.Blob("ecr", "a", blob); !ok || size != p.Blobs[1].Size {
			t.Errorf("a blob that came anew: %d, %v", size, ok)
		}
		var tried []string
		stop := running(q, func(_ context.Context, e Entry) error { tried = append(tried, e.Reference); return nil })
		synctest.Wait()
		stop()
		if !slices.Equal(tried, []string{"v1", "v1"}) {
			t.Errorf("forwarded were %q", tried)
		}
	})
}

// ahead makes the entries of a journal accepted a year later.
func ahead(t *testing.T, journal []byte) (out []byte) {
	t.Helper()
	p, err := replay(bytes.NewReader(journal))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.sorted() {
		e.Accepted = e.Accepted.AddDate(1, 0, 0)
		line, err := record{Op: opPush, Entry: &e}.line()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, line...)
	}
	return out
}
