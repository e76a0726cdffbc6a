package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

// The matrix: every way in which an origin fails a pull, met at every moment, by one client and by
// many, by one request and by ranges in parallel. Whatever happens, a client gets the right bytes,
// or sees that it did not; nothing wrong is kept; the next request fetches anew.

// Lengths of the layers of the matrix, and positions within one answer of the origin.
const (
	wholeBytes  = 200 << 10 // fetched by one request
	splitBytes  = 400 << 10 // fetched by ranges
	pieceBytes  = 64 << 10
	heldAt      = 5 << 10
	resumedAt   = 10 << 10
	faultAt     = 20 << 10
	manyClients = 6
)

// matrixEdits configure a stack with limits that a test can wait for.
var matrixEdits = []string{
	"prefixes: [aws]\n", "prefixes: [aws]\n  parallel_fill: {threshold: 300KiB, piece: 64KiB, streams: 3}\n",
	"cache: {directory", "cache: {stall_timeout: 2s, directory",
}

// moment is when the clients and the fault meet.
type moment string

const (
	cold    moment = "cold"    // the first answer of the origin is at fault
	joined  moment = "joined"  // so, and the other clients come when it has begun
	resumed moment = "resumed" // the fetch has already been continued once
)

// cell is one field of the matrix.
type cell struct {
	moment  moment
	clients int
	split   bool
}

func (c cell) String() string {
	return fmt.Sprintf("%s, %d clients, split %v", c.moment, c.clients, c.split)
}

// size of the layer in bytes, about: it is a tar.
func (c cell) size() int64 {
	if c.split {
		return splitBytes
	}
	return wholeBytes
}

// row is one fault.
type row struct {
	// fault in a cell; length is that of the layer. Blob, and in resumed cells Skip, are filled in.
	fault func(c cell, length int64) ecrtest.Fault
	// right reports whether clients get the right bytes despite the fault; nil means always.
	right func(cell) bool
	// either says that a race between ranges decides which.
	either func(cell) bool
	// counted is a metric that grows by one at least for each cell of which met is true (nil: all).
	counted string
	met     func(cell) bool
	// apart runs the cells at the same time, because each takes its time.
	apart bool
}

func never(cell) bool      { return false }
func later(c cell) bool    { return c.moment == resumed }
func bySplit(c cell) bool  { return c.split }
func byWhole(c cell) bool  { return !c.split }
func firstOne(c cell) bool { return !c.split && c.moment != resumed }

// objects makes a fault of the storage that is alike in all cells.
func objects(f ecrtest.Fault) func(cell, int64) ecrtest.Fault {
	f.Kinds = []ecrtest.Kind{ecrtest.KindObjectGet}
	return func(cell, int64) ecrtest.Fault { return f }
}

// redirects makes a fault of the registry itself, before the storage is asked.
func redirects(f ecrtest.Fault) func(cell, int64) ecrtest.Fault {
	f.Kinds = []ecrtest.Kind{ecrtest.KindBlobGet}
	return func(cell, int64) ecrtest.Fault { return f }
}

func corruptAt(at func(c cell, length int64) int64) func(cell, int64) ecrtest.Fault {
	return func(c cell, length int64) ecrtest.Fault {
		return objects(ecrtest.Fault{CorruptAt: ecrtest.At(at(c, length)), CorruptBytes: 3})(c, length)
	}
}

// lastByte is the last one of the answer that is met.
func lastByte(c cell, length int64) int64 {
	if c.split {
		length = pieceBytes
	}
	if c.moment == resumed {
		length -= resumedAt
	}
	return length - 1
}

func overlong(header string) func(cell, int64) ecrtest.Fault {
	return func(c cell, length int64) ecrtest.Fault {
		v := ""
		if header != "" {
			v = fmt.Sprint(lastByte(c, length) + 1 + 1000)
		}
		return objects(ecrtest.Fault{Append: 1000, Header: map[string]string{"Content-Length": v}})(c, length)
	}
}

var loop = redirects(ecrtest.Fault{Count: -1, Header: map[string]string{"Location": "?again"}})

var matrix = map[string]row{
	"cut":               {fault: objects(ecrtest.Fault{CutAt: ecrtest.At(faultAt)}), counted: "dray_cache_resumes_total"},
	"cut before a byte": {fault: objects(ecrtest.Fault{CutAt: ecrtest.At(0)}), counted: "dray_cache_resumes_total"},
	"cut each time":     {fault: objects(ecrtest.Fault{CutAt: ecrtest.At(9), Count: -1}), right: never, counted: "dray_cache_resumes_total", apart: true},
	"reset":             {fault: objects(ecrtest.Fault{CutAt: ecrtest.At(faultAt), Reset: true}), counted: "dray_cache_resumes_total"},
	"stall":             {fault: objects(ecrtest.Fault{StallAt: ecrtest.At(faultAt)}), counted: "dray_cache_resumes_total", apart: true},
	"stall at once":     {fault: objects(ecrtest.Fault{StallAt: ecrtest.At(0)}), counted: "dray_cache_resumes_total", apart: true},
	"slow drip":         {fault: objects(ecrtest.Fault{Rate: 1 << 20, Count: -1}), apart: true},
	"corrupt early":     {fault: corruptAt(func(cell, int64) int64 { return 0 }), right: never, counted: "dray_cache_corrupt_total"},
	"corrupt midway":    {fault: corruptAt(func(cell, int64) int64 { return faultAt }), right: never, counted: "dray_cache_corrupt_total"},
	"corrupt last":      {fault: corruptAt(func(c cell, n int64) int64 { return lastByte(c, n) - 2 }), right: never, counted: "dray_cache_corrupt_total"},
	"truncated": {
		fault: objects(ecrtest.Fault{CutAt: ecrtest.At(faultAt), Header: map[string]string{"Content-Length": fmt.Sprint(faultAt)}}), right: later,
		counted: "dray_cache_corrupt_total", met: firstOne,
	},
	"overlong":         {fault: overlong("announced"), right: func(c cell) bool { return c.moment == resumed }, counted: "dray_cache_corrupt_total", met: firstOne},
	"overlong chunked": {fault: overlong(""), right: bySplit, counted: "dray_cache_corrupt_total", met: byWhole},
	"length too large": {fault: func(c cell, n int64) ecrtest.Fault {
		return objects(ecrtest.Fault{Header: map[string]string{"Content-Length": fmt.Sprint(lastByte(c, n) + 1001)}})(c, n)
	}, right: later, apart: true},
	"range of another place": {fault: func(c cell, n int64) ecrtest.Fault {
		return objects(ecrtest.Fault{Header: map[string]string{"Content-Range": fmt.Sprintf("bytes 1-%d/%d", lastByte(c, n)+1, n)}})(c, n)
	}, right: func(c cell) bool { return !c.split || c.moment == resumed }},
	"range of another size": {fault: func(c cell, n int64) ecrtest.Fault {
		from := n - 1 - lastByte(c, n)
		if c.split {
			from = 0
		}
		return objects(ecrtest.Fault{Header: map[string]string{"Content-Range": fmt.Sprintf("bytes %d-%d/%d", from, from+lastByte(c, n), n+4096)}})(c, n)
	}, right: firstOne, either: func(c cell) bool { return c.split && c.moment == resumed }, apart: true},
	"429":             {fault: redirects(ecrtest.Fault{Status: 429}), counted: "dray_upstream_retries_total", met: byWhole},
	"500":             {fault: redirects(ecrtest.Fault{Status: 500}), counted: "dray_upstream_retries_total", met: byWhole},
	"503":             {fault: redirects(ecrtest.Fault{Status: 503}), counted: "dray_upstream_retries_total", met: byWhole},
	"503 of storage":  {fault: objects(ecrtest.Fault{Status: 503, Code: "SlowDown"})},
	"closed":          {fault: redirects(ecrtest.Fault{Close: true})},
	"closed storage":  {fault: objects(ecrtest.Fault{Close: true})},
	"expired URL":     {fault: objects(ecrtest.Fault{Status: 403, Code: "AccessDenied", Message: "Request has expired"})},
	"expired session": {fault: objects(ecrtest.Fault{Status: 400, Code: "ExpiredToken"})},
	"redirect loop":   {fault: loop, right: never, apart: true},
}

// TestFaultMatrix meets every fault at every moment.
func TestFaultMatrix(t *testing.T) {
	stacks := map[string]*stack{}
	for name := range matrix { // one after the other: they set variables of the environment
		stacks[name] = startStack(t, t.TempDir(), matrixEdits...)
	}
	var rows sync.WaitGroup
	defer rows.Wait()
	places := make(chan struct{}, 5) // slow rows only wait, but every row needs the processor in time
	for name, r := range matrix {
		rows.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				s := stacks[name]
				s.TB = t
				r.run(t, s)
			})
		})
	}
}

func (r row) run(t *testing.T, s *stack) {
	before := 0.0
	if r.counted != "" {
		before = s.metric(r.counted)
	}
	var cells sync.WaitGroup
	met, n := 0, uint64(0)
	for _, m := range []moment{cold, joined, resumed} {
		for _, clients := range []int{1, manyClients} {
			for _, split := range []bool{false, true} {
				c := cell{m, clients, split}
				if r.met == nil || r.met(c) {
					met++
				}
				n++
				repo := fmt.Sprintf("team/app%d", n)
				img := seed(t, s.ecr, repo, "v1", c.size())
				s.want(200, "GET", "/v2/"+repo+"/manifests/v1", nil)
				if r.apart {
					cells.Go(func() { r.meet(t, s, c, repo, img) })
					continue
				}
				r.meet(t, s, c, repo, img)
			}
		}
	}
	cells.Wait()
	if r.counted != "" {
		if n := s.metric(r.counted) - before; n < float64(met) {
			t.Errorf("%s grew by %v in %d cells", r.counted, n, met)
		}
	}
}

// view is what one client saw.
type view struct {
	from int64 // of the range it asked for
	*http.Response
	body []byte
	err  error
}

// complete says that the client has no reason to doubt what it got.
func (v view) complete() bool { return v.err == nil && v.StatusCode < 300 }

// meet plays one cell.
func (r row) meet(t *testing.T, s *stack, c cell, repo string, img seeded) {
	right, ok := s.ecr.Blob(img.layer)
	if !ok {
		t.Fatal("the origin lacks its own layer")
	}
	f := r.fault(c, int64(len(right)))
	f.Blob = img.layer
	hold := ecrtest.Fault{Blob: img.layer, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, HoldAt: ecrtest.At(min(heldAt, posOf(f)))}
	if f.Status != 0 || f.Close || f.Kinds[0] == ecrtest.KindBlobGet {
		hold.HoldAt, hold.Latency = nil, 30*time.Millisecond
	}
	ids := []int{}
	release := func() {}
	switch c.moment {
	case joined:
		id := s.ecr.AddFault(hold)
		release = func() { s.ecr.RemoveFault(id) }
	case resumed:
		ids = append(ids, s.ecr.AddFault(ecrtest.Fault{Blob: img.layer, Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, CutAt: ecrtest.At(resumedAt)}))
		f.Skip = 1
	}
	ids = append(ids, s.ecr.AddFault(f))

	views := s.pullAtOnce(t, c, "/v2/"+repo+"/blobs/"+img.layer.String(), hold.HoldAt != nil && posOf(f) > 0, release)
	broken := 0
	for _, v := range views {
		if !v.complete() {
			broken++
		}
		if problem := v.check(right, f.CorruptAt != nil); problem != "" {
			t.Errorf("%v: client from %d: %s", c, v.from, problem)
		}
	}
	wantRight := r.right == nil || r.right(c)
	if wantRight != (broken == 0) && (r.either == nil || !r.either(c)) {
		t.Errorf("%v: %d of %d clients did not get the blob: %s", c, broken, c.clients, views[0].reason())
	}
	if _, held := s.cache.Stat(img.layer); held && broken == c.clients {
		t.Errorf("%v: the blob is in the cache", c)
	}
	for _, id := range ids {
		s.ecr.RemoveFault(id)
	}
	release()
	if next := s.soon("/v2/"+repo+"/blobs/"+img.layer.String(), img.layer); !bytes.Equal(next.body, right) {
		t.Errorf("%v: the next request got other bytes", c)
	}
}

// posOf is where in an answer a fault shows.
func posOf(f ecrtest.Fault) int64 {
	for _, at := range []*int64{f.CutAt, f.StallAt} {
		if at != nil {
			return *at
		}
	}
	return faultAt
}

// pullAtOnce has all clients of a cell ask. In a joined cell the others come when the first has its
// header, and release is called when all have theirs; where there is no header to wait for, they
// come a moment later.
func (s *stack) pullAtOnce(t *testing.T, c cell, path string, headers bool, release func()) []view {
	views := make([]view, c.clients)
	var begun, done sync.WaitGroup
	for i := range views {
		if c.clients > 1 && i%3 == 2 { // as containerd asks for the parts of a layer
			views[i].from = int64(i) * 7000
		}
		begun.Add(1)
		first := make(chan struct{})
		done.Go(func() {
			views[i].open(t, s, path)
			begun.Done()
			close(first)
			views[i].read()
		})
		if i == 0 && c.moment == joined && headers {
			<-first
		}
	}
	if headers {
		begun.Wait()
	}
	release()
	done.Wait()
	return views
}

func (v *view) open(t *testing.T, s *stack, path string) {
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+path, nil)
	if err != nil {
		v.err = err
		return
	}
	if v.from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", v.from))
	}
	v.Response, v.err = http.DefaultClient.Do(req)
}

func (v *view) read() {
	if v.err != nil {
		return
	}
	defer v.Body.Close()
	v.body, v.err = io.ReadAll(v.Body)
}

// check says what is wrong with a view: complete and other bytes, or a cut answer that was not
// right as far as it went. corrupt bytes may be seen by a client that also sees that it did not get
// all.
func (v view) check(right []byte, corrupt bool) string {
	want := right[v.from:]
	switch {
	case v.complete() && v.StatusCode != cmp.Or(map[bool]int{true: 206}[v.from > 0], 200):
		return "status " + v.Status
	case v.complete() && !bytes.Equal(v.body, want):
		return fmt.Sprintf("%d bytes look complete, and are not the %d right ones", len(v.body), len(want))
	case v.complete():
		return ""
	case v.err != nil && !errors.Is(v.err, io.ErrUnexpectedEOF):
		return "broken off with " + v.err.Error()
	case v.err == nil && v.StatusCode == 416 && v.from > 0: // the origin said that the blob is shorter
		return ""
	case v.err == nil && v.StatusCode < 500:
		return "refused with " + v.Status
	case v.err == nil:
		return ""
	case len(v.body) >= len(want) && v.ContentLength <= int64(len(want)):
		return "all bytes were sent, and then cut off"
	case !corrupt && !bytes.HasPrefix(want, v.body):
		return "other bytes before the cut"
	}
	return ""
}

func (v view) reason() string {
	if v.err != nil {
		return v.err.Error()
	}
	return v.Status + " " + string(v.body[:min(len(v.body), 300)])
}
