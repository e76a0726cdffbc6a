package disk

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

// scrubbedBlobs is how many blobs of 1 MiB the tests below hold.
const scrubbedBlobs = 8

// scrubbed opens a directory of eight blobs that are all read in 800 s, so one blob takes 100 s.
func scrubbed(t *testing.T, opts Options) (d *Dir, blobs []digest.Digest) {
	t.Helper()
	d = opened(t, opts)
	for i := range scrubbedBlobs {
		blobs = append(blobs, mustStore(t, d, random(byte(i), 1<<20)))
	}
	slices.Sort(blobs)
	return d, blobs
}

// wantScrubbed checks how many blobs have been read.
func wantScrubbed(t *testing.T, d *Dir, want float64) {
	t.Helper()
	synctest.Wait()
	if got := counted(t, d, "dray_disk_scrubbed_bytes_total") / (1 << 20); got != want {
		t.Errorf("%v blobs were read, want %v", got, want)
	}
}

// TestScrubPace checks that a pass is spread evenly over the interval, and that the next pass
// begins when the interval is over.
func TestScrubPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: 800 * time.Second}})
		running(t, d)
		for i := range 2 * scrubbedBlobs {
			time.Sleep(50 * time.Second)
			wantScrubbed(t, d, float64(i+1))
			time.Sleep(50 * time.Second)
		}
		if got := counted(t, d, "dray_disk_scrub_pass_timestamp_seconds"); got < float64(time.Now().Unix()-101) {
			t.Errorf("last pass at %v, now is %d", got, time.Now().Unix())
		}
	})
}

func TestScrubIsOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := scrubbed(t, Options{})
		running(t, d)
		time.Sleep(1000 * time.Hour)
		wantScrubbed(t, d, 0)
	})
}

// TestScrubRate has an interval that is too short for the rate.
func TestScrubRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: time.Second, BytesPerSecond: 1 << 18}}) // 4 s a blob
		running(t, d)
		time.Sleep(15*time.Second + time.Second/2)
		wantScrubbed(t, d, 4)
		time.Sleep(16 * time.Second)
		wantScrubbed(t, d, 8)
	})
}

// TestScrubYields has a disk that takes a second for each of the four pieces of a blob. It checks
// that the scrubber leaves the disk alone for ten seconds after each piece.
func TestScrubYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := func(op Op, _ string) error {
			if op == OpRead {
				time.Sleep(time.Second)
			}
			return nil
		}
		d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: time.Second}, Fault: busy})
		running(t, d)
		time.Sleep(34*time.Second + time.Second/2)
		wantScrubbed(t, d, 1)
		time.Sleep(5 * 11 * time.Second)
		wantScrubbed(t, d, 2)
	})
}

// TestScrubGoesOn checks that a pass goes on after a restart where it was.
func TestScrubGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: 800 * time.Second}})
		for i := range 4 {
			stop := running(t, d)
			time.Sleep(150 * time.Second) // two blobs
			begun := time.Now()
			wantScrubbed(t, d, 2)
			stop()
			if waited := time.Since(begun); waited != 0 {
				t.Errorf("the end took %v", waited)
			}
			d.Close()
			if passed := counted(t, d, "dray_disk_scrub_pass_timestamp_seconds") != 0; passed {
				t.Errorf("a pass is said to be over after %d of 4 parts", i+1)
			}
			d = opened(t, d.opts)
		}
		running(t, d)
		time.Sleep(time.Second)
		wantScrubbed(t, d, 0) // the pass is over, and the interval is not
		time.Sleep(200 * time.Second)
		wantScrubbed(t, d, 1)
	})
}

// TestScrubStops ends the scrubber while it reads a piece of a blob from a slow disk.
func TestScrubStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: time.Second, BytesPerSecond: 1}})
		stop := running(t, d)
		time.Sleep(time.Second)
		begun := time.Now()
		stop()
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("the end took %v", waited)
		}
		for e := range d.index.all() {
			if e.refs.Load() != 0 {
				t.Error("a pin is left")
			}
		}
	})
}

func TestScrubNonsense(t *testing.T) {
	for _, text := range []string{"began yesterday\n", "after sha256:x\n", "what\n", "\x00"} {
		synctest.Test(t, func(t *testing.T) {
			d, _ := scrubbed(t, Options{Scrub: Scrub{Interval: 800 * time.Second}})
			if err := os.WriteFile(filepath.Join(d.opts.Path, scrubFile), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			running(t, d)
			time.Sleep(time.Second)
			wantScrubbed(t, d, 1)
		})
	}
}

// rot changes one bit of a blob, as a disk does.
func rot(t *testing.T, d *Dir, dg digest.Digest) {
	t.Helper()
	name := file(t, d, dg)
	if err := os.Chmod(name, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, 1000); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o444); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func quarantined(t *testing.T, d *Dir) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(d.opts.Path, "quarantine/*"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestRot has the scrubber find a rotten blob that a reader has open.
func TestRot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, blobs := scrubbed(t, Options{Scrub: Scrub{Interval: 800 * time.Second}, MaxBytes: 1 << 30})
		before := d.Stats().Bytes
		b, err := d.Open(t.Context(), blobs[3])
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		stop := running(t, d)
		synctest.Wait()
		rot(t, d, blobs[3])
		time.Sleep(350 * time.Second)
		wantMissing(t, d, blobs[3])
		if n, err := io.Copy(io.Discard, io.NewSectionReader(b, 0, 1<<20)); n != 1<<20 || err != nil {
			t.Errorf("who has it open reads %d bytes, %v", n, err)
		}
		b.Close()
		if s := d.Stats(); s.Blobs != scrubbedBlobs-1 || s.Bytes != before {
			t.Errorf("stats %+v, %d bytes before", s, before)
		}
		if files := quarantined(t, d); len(files) != 1 || filepath.Base(files[0]) != blobs[3].Encoded() {
			t.Errorf("quarantine has %v", files)
		}
		if counted(t, d, "dray_disk_rot_total") != 1 || counted(t, d, "dray_disk_quarantine_bytes") != 1<<20 {
			t.Error("not counted")
		}
		for i := range scrubbedBlobs { // it comes anew
			mustStore(t, d, random(byte(i), 1<<20))
		}
		time.Sleep(440 * time.Second)
		wantScrubbed(t, d, scrubbedBlobs) // the others were not kept waiting, and are sound
		stop()
		d.Close()
		d = opened(t, d.opts)
		running(t, d)
		synctest.Wait()
		if s := d.Stats(); s.Blobs != scrubbedBlobs || s.Bytes != before+1<<20 {
			t.Errorf("after a restart: %+v", s)
		}
	})
}

// TestQuarantineIsBounded checks that the newest of many files are kept, and none that is too
// large.
func TestQuarantineIsBounded(t *testing.T) {
	d := opened(t, Options{MaxBytes: 400 << 20}) // 4 MiB for the quarantine
	for i := range 10 {
		n := 1 << 20
		if i == 9 {
			n = 5 << 20
		}
		if err := d.Discard(t.Context(), mustStore(t, d, random(byte(i), n))); err != nil {
			t.Fatal(err)
		}
	}
	sum, _ := onDisk(t, d.opts.Path)
	if files := quarantined(t, d); len(files) != 4 || sum != 4<<20 || d.Stats().Bytes != sum || d.Stats().Blobs != 0 {
		t.Errorf("%d files, %d bytes, %+v", len(files), sum, d.Stats())
	}
}

// TestRotOnBrokenDisk: a rotten blob is dropped although its file cannot be moved.
func TestRotOnBrokenDisk(t *testing.T) {
	d := opened(t, Options{Fault: func(op Op, _ string) error {
		if op == OpUnlink {
			return os.ErrPermission
		}
		return nil
	}})
	dg := mustStore(t, d, random(1, 5000))
	for range 2 { // the second time, it is gone
		if err := d.Discard(t.Context(), dg); err != nil {
			t.Fatal(err)
		}
	}
	wantMissing(t, d, dg)
	if n := counted(t, d, "dray_disk_corrupt_total"); n != 1 {
		t.Errorf("%v corrupt blobs counted", n)
	}
}
