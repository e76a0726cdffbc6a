package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// mixed fills a directory with blobs of both pools, some of them hit, one open and one pinned.
func mixed(t *testing.T, d *Dir, rnd *rand.Rand) []digest.Digest {
	t.Helper()
	var all []digest.Digest
	for i := range 24 {
		n := 1 + rnd.IntN(50<<10)
		if i%4 == 0 {
			n += smallBlob
		}
		all = append(all, mustStore(t, d, random(byte(i), n)))
	}
	for range 60 {
		dg := all[rnd.IntN(len(all))]
		b, err := d.Open(t.Context(), dg)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
	}
	return all
}

func reasons(victims []Victim) []string {
	var all []string
	for _, v := range victims {
		all = append(all, fmt.Sprint(v.Digest, " ", v.Reason))
	}
	return all
}

// TestPlanIsWhatHappens compares what Plan returns with what Evict does, after various operations.
func TestPlanIsWhatHappens(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 4 {
		d := opened(t, Options{MaxBytes: []int64{0, 5 << 20, 1 << 30}[rnd.IntN(3)]})
		blobs := mixed(t, d, rnd)
		if release, err := d.Retain(t.Context(), blobs[rnd.IntN(len(blobs))]); err == nil {
			defer release()
		}
		if err := d.SetPin(t.Context(), "one", blobs[:1]); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			n, before := rnd.Int64N(3<<20), d.Stats()
			want, err := d.Plan(t.Context(), n, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if d.Stats() != before {
				t.Fatalf("the plan changes %+v into %+v", before, d.Stats())
			}
			got, left, err := d.Evict(t.Context(), n, 1000)
			if err != nil || !slices.Equal(got, want) || left != max(n-(before.Bytes-d.Stats().Bytes), 0) {
				t.Fatalf("evicted for %d bytes: %v, %d left, %v;\nplanned: %v", n, reasons(got), left, err, reasons(want))
			}
			mixed(t, d, rnd)
		}
	}
}

// TestPlanForBlob checks that Plan names the blobs which a new blob then drives out.
func TestPlanForBlob(t *testing.T) {
	for _, n := range []int{10, 3 << 20} {
		d := opened(t, Options{MaxBytes: 8 << 20})
		for i := range 4 {
			mustStore(t, d, random(byte(i), 2<<20))
		}
		want, err := d.Plan(t.Context(), int64(n), 10)
		if err != nil || len(want) == 0 {
			t.Fatalf("plan: %v, %v", want, err)
		}
		mustStore(t, d, random(9, n))
		for _, v := range want {
			wantMissing(t, d, v.Digest)
		}
	}
}

func TestPlanIsBounded(t *testing.T) {
	d := opened(t, Options{})
	a, b := mustStore(t, d, random(1, 10)), mustStore(t, d, random(2, 10))
	release, err := d.Retain(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	got, err := d.Plan(t.Context(), 1<<40, 10)
	if err != nil || len(got) != 1 || got[0].Digest != a || got[0].Reason != ReasonUnused {
		t.Errorf("plan for more than there is: %v, %v", got, err)
	}
	if got, err := d.Plan(t.Context(), 1<<40, 0); err != nil || len(got) != 0 {
		t.Errorf("plan for nothing: %v, %v", got, err)
	}
	if got, left, err := d.Evict(t.Context(), 0, 10); err != nil || len(got) != 0 || left != 0 {
		t.Errorf("evicted for nothing: %v, %d left, %v", got, left, err)
	}
	if got, left, err := d.Evict(t.Context(), 1, 0); err != nil || len(got) != 0 || left != 1 {
		t.Errorf("evicted no blob: %v, %d left, %v", got, left, err)
	}
}

func TestEvictOnBrokenDisk(t *testing.T) {
	broken := true
	d := opened(t, Options{Fault: func(op Op, _ string) error {
		if op == OpUnlink && broken {
			return errors.New("broken")
		}
		return nil
	}})
	dg := mustStore(t, d, random(1, 10))
	if got, _, err := d.Evict(t.Context(), 1, 10); !errors.Is(err, errUnlink) || len(got) != 0 {
		t.Errorf("evicted %v, %v", got, err)
	}
	broken = false
	if got, _, err := d.Evict(t.Context(), 1, 10); err != nil || len(got) != 1 {
		t.Errorf("evicted %v, %v", got, err)
	}
	wantMissing(t, d, dg)
}

func TestList(t *testing.T) {
	d := opened(t, Options{})
	want := map[digest.Digest]int64{}
	for i := range listBatch + 10 {
		p := fmt.Appendf(nil, "%d", i)
		want[mustStore(t, d, p)] = int64(len(p))
	}
	seen := 0
	if err := d.List(t.Context(), func(i Info) bool {
		seen++
		if want[i.Digest] != i.Size {
			t.Errorf("%s has %d bytes, want %d", i.Digest, i.Size, want[i.Digest])
		}
		delete(want, i.Digest)
		return true
	}); err != nil || len(want) != 0 || seen != listBatch+10 {
		t.Errorf("%d listed, %d not, %v", seen, len(want), err)
	}
	seen = 0
	if err := d.List(t.Context(), func(i Info) bool { // which may work on the directory
		seen++
		if err := d.Delete(t.Context(), i.Digest); err != nil {
			t.Error(err)
		}
		return seen < 5
	}); err != nil || seen != 5 || d.Stats().Blobs != listBatch+5 {
		t.Errorf("%d listed before the end, %d blobs, %v", seen, d.Stats().Blobs, err)
	}
}

func TestLookup(t *testing.T) {
	d := opened(t, Options{})
	p := random(1, smallBlob)
	dg := mustStore(t, d, p)
	wantInfo(t, d, Info{Digest: dg, Size: smallBlob})
	b, err := d.Open(t.Context(), dg)
	if err != nil {
		t.Fatal(err)
	}
	wantInfo(t, d, Info{Digest: dg, Size: smallBlob, Hits: 1, Open: true})
	b.Close()
	if err := d.SetPin(t.Context(), "x", []digest.Digest{dg}); err != nil {
		t.Fatal(err)
	}
	wantInfo(t, d, Info{Digest: dg, Size: smallBlob, Hits: 1, Pinned: true})
	d.Close()

	d = opened(t, d.opts) // before it has been read, after an unclean stop
	wantInfo(t, d, Info{Digest: dg, Size: smallBlob, Suspect: true, Pinned: true})
	for _, missing := range []digest.Digest{digest.FromString("x"), "nonsense"} {
		if got, ok := d.Lookup(missing); ok {
			t.Errorf("%s: found %+v", missing, got)
		}
	}
}

// wantInfo compares an Info without the time of the last use.
func wantInfo(t *testing.T, d *Dir, want Info) {
	t.Helper()
	got, ok := d.Lookup(want.Digest)
	if got.LastUse.IsZero() {
		t.Error("no last use")
	}
	if got.LastUse = want.LastUse; !ok || got != want {
		t.Errorf("%+v, %v; want %+v", got, ok, want)
	}
}

func TestPins(t *testing.T) { testPins(t, "") }

// TestPinsApart: pins in a directory of their own survive the loss of the blobs, and files that a
// crash left are removed.
func TestPinsApart(t *testing.T) {
	dir := t.TempDir()
	testPins(t, dir)
	d := opened(t, Options{Pins: dir})
	if err := d.SetPin(t.Context(), "kept", nil); err != nil {
		t.Fatal(err)
	}
	d.Close()
	left := filepath.Join(dir, "pins", ".new-1")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d = opened(t, Options{Pins: dir}) // with other blobs
	if got := d.Pins(); len(got) != 1 || got[0].Name != "kept" {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("an unfinished file is left")
	}
}

func testPins(t *testing.T, dir string) {
	d := opened(t, Options{MaxBytes: 4 << 20, Pins: dir})
	keep, shared := random(1, smallBlob), random(2, smallBlob)
	mustStore(t, d, keep)
	later := digest.FromBytes(shared)
	for name, blobs := range map[string][]digest.Digest{
		"hub/library/alpine:3": {digest.FromBytes(keep), later},
		"../ü \\":              {later},
	} {
		if err := d.SetPin(t.Context(), name, blobs); err != nil {
			t.Fatal(err)
		}
	}
	mustStore(t, d, shared) // a pin waits for it
	for range 2 {
		for i := range 8 {
			mustStore(t, d, random(byte(10+i), smallBlob))
		}
		wantBlob(t, d, keep)
		wantBlob(t, d, shared)
		if s := d.Stats(); s.Pinned != 2*smallBlob || s.Bytes > 4<<20 {
			t.Errorf("stats %+v", s)
		}
		d.Close()
		d = opened(t, d.opts)
	}
	if got := d.Pins(); len(got) != 2 || got[0].Name != "../ü \\" || got[1].Name != "hub/library/alpine:3" ||
		len(got[1].Blobs) != 2 || got[1].Since.IsZero() {
		t.Errorf("pins after a restart: %+v", got)
	}
	for want := range 2 { // the other pin still keeps what they share
		if was, err := d.RemovePin(t.Context(), "../ü \\"); was != (want == 0) || err != nil {
			t.Errorf("remove: %v, %v", was, err)
		}
	}
	if got, err := d.Plan(t.Context(), 1<<40, 100); err != nil || len(got) == 0 || slices.ContainsFunc(got, func(v Victim) bool { return v.Pinned }) {
		t.Errorf("plan %v, %v", reasons(got), err)
	}
	if err := d.SetPin(t.Context(), "hub/library/alpine:3", []digest.Digest{later, later}); err != nil { // in place of the older one
		t.Fatal(err)
	}
	if i, _ := d.Lookup(digest.FromBytes(keep)); i.Pinned {
		t.Error("kept by a pin that is replaced")
	}
	if _, err := d.RemovePin(t.Context(), "hub/library/alpine:3"); err != nil || d.Stats().Pinned != 0 || len(d.claimed) != 0 {
		t.Errorf("%v, %d pinned", err, d.Stats().Pinned)
	}
}

func TestPinsAreChecked(t *testing.T) {
	d := opened(t, Options{})
	for _, name := range []string{"", "a\nb", "a\x7fb", "a\u0085b", string(make([]byte, 2000))} {
		if err := d.SetPin(t.Context(), name, nil); !errors.Is(err, ErrPinName) {
			t.Errorf("name %.10q: %v", name, err)
		}
	}
	if err := d.SetPin(t.Context(), "x", []digest.Digest{"md5:00"}); !errors.Is(err, ErrDigest) {
		t.Errorf("digest: %v", err)
	}
	if err := d.SetPin(t.Context(), "good", []digest.Digest{digest.FromString("x")}); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(d.opts.Path, pinFile("good"))
	b, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty": "", "moved": string(b), pinFile("y")[len("pins/"):]: "y\nnonsense\n",
	} {
		if err := os.WriteFile(filepath.Join(d.opts.Path, "pins", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.Close()
	d = opened(t, d.opts)
	if got := d.Pins(); len(got) != 1 || got[0].Name != "good" || len(d.claimed) != 1 {
		t.Errorf("pins %+v", got)
	}
}

func TestPinOnBrokenDisk(t *testing.T) {
	broken := errors.New("broken")
	d := opened(t, Options{Fault: func(op Op, _ string) error {
		if op == OpCreate {
			return broken
		}
		return nil
	}})
	if err := d.SetPin(t.Context(), "x", nil); !errors.Is(err, broken) || len(d.Pins()) != 0 {
		t.Errorf("%v, %v", err, d.Pins())
	}
}
