package disk

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	fillerEnv    = "DRAY_TEST_FILL"
	fillerSeed   = "DRAY_TEST_SEED"
	fillerRounds = 20
)

// filler is what the child process of TestKill does: it stores blobs until it is killed.
func filler() int {
	d, err := Open(Options{Path: os.Getenv(fillerEnv), MaxBytes: 48 << 20})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	go func() { _ = d.Run(context.Background()) }() // until it is killed
	seed, _ := strconv.ParseUint(os.Getenv(fillerSeed), 10, 64)
	rnd := rand.New(rand.NewPCG(seed, 1))
	for i := 0; ; i++ {
		p := random(byte(rnd.IntN(256)), 1+rnd.IntN(2<<20))
		if err := fillOne(d, p, i); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println(i)
	}
}

// fillOne stores p in pieces, by Write or by WriteAt.
func fillOne(d *Dir, p []byte, i int) error {
	size := int64(len(p))
	if i%2 == 0 {
		size = -1
	}
	in, err := d.Create(context.Background(), size)
	if err != nil {
		return err
	}
	if i%4 == 1 {
		if err := fillBackwards(in, p); err != nil {
			return err
		}
		p = nil
	}
	for len(p) > 0 {
		n := min(len(p), 64<<10)
		if _, err := in.Write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	b, err := in.Commit(context.Background(), digest.NewDigest(digest.SHA256, in.hash))
	if err != nil {
		return err
	}
	if i%5 == 0 {
		release, err := d.Retain(context.Background(), b.Digest())
		if err != nil {
			return err
		}
		release()
	}
	return b.Close()
}

// fillBackwards writes the last piece first.
func fillBackwards(in *Ingest, p []byte) error {
	const piece = 64 << 10
	for at := (len(p) - 1) / piece * piece; at >= 0; at -= piece {
		if _, err := in.WriteAt(p[at:min(at+piece, len(p))], int64(at)); err != nil {
			return err
		}
	}
	return in.Advance(int64(len(p)), make([]byte, piece))
}

// TestKill kills a process that fills a directory, again and again at random moments.
func TestKill(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	path := t.TempDir()
	for round := range fillerRounds {
		kill(t, path, seed+uint64(round), rnd)
		d, err := Open(Options{Path: path, MaxBytes: 48 << 20})
		if err != nil {
			t.Fatal(err)
		}
		checkAll(t, d)
		d.Close()
	}
}

// kill starts the filler and kills it some time after its first blobs.
func kill(t *testing.T, path string, seed uint64, rnd *rand.Rand) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fillerEnv+"="+path, fillerSeed+"="+strconv.FormatUint(seed, 10))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range rnd.IntN(5) {
		if !lines.Scan() {
			break
		}
	}
	<-time.After(time.Duration(rnd.IntN(20_000)) * time.Microsecond) // the moment is what is tested
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
		t.Fatalf("the filler ended by itself: %v", err)
	}
}

// checkAll verifies every file below blobs/ without the help of the package, and that nothing
// unfinished is left.
func checkAll(t *testing.T, d *Dir) {
	t.Helper()
	if sum, unfinished := onDisk(t, d.opts.Path); unfinished != 0 || sum > 48<<20 {
		t.Errorf("%d unfinished files, %d bytes", unfinished, sum)
	}
	files, err := filepath.Glob(filepath.Join(d.opts.Path, "blobs/*/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		p, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := digest.FromBytes(p); got.Encoded() != filepath.Base(name) {
			t.Errorf("%s holds the bytes of %s", name, got)
		}
		wantBlob(t, d, p)
	}
}

// marked reports whether a blob's file is marked as synced.
func marked(t *testing.T, d *Dir, dg digest.Digest) bool {
	t.Helper()
	info, err := os.Stat(file(t, d, dg))
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm() == 0o444
}

func TestMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := opened(t, Options{})
		p := random(50, 100_000)
		dg := mustStore(t, d, p)
		if info, err := os.Stat(file(t, d, dg)); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("published with %v, %v", info.Mode(), err)
		}
		stop := running(t, d)
		synctest.Wait()
		if !marked(t, d, dg) || d.Stats().Unsynced != 0 {
			t.Errorf("blob not marked, stats %+v", d.Stats())
		}
		second := mustStore(t, d, random(51, 10))
		stop() // syncs what is left
		if !marked(t, d, second) {
			t.Error("an orderly stop leaves an unmarked blob")
		}
		in, err := d.Create(t.Context(), 3)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Abort()
		if _, err := in.Write([]byte("abc")); err != nil {
			t.Fatal(err)
		}
		b, err := in.Commit(t.Context(), digest.FromString("abc"))
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		release, err := d.Retain(t.Context(), b.Digest())
		if err != nil {
			t.Fatal(err)
		}
		release()
		if !marked(t, d, b.Digest()) || d.Stats().Unsynced != 0 {
			t.Error("a durable blob is not marked")
		}
	})
}

// TestUncleanStop changes blobs of a directory that was not closed.
func TestUncleanStop(t *testing.T) {
	for _, background := range []bool{false, true} {
		t.Run(fmt.Sprintf("background=%v", background), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testUncleanStop(t, background) })
		})
	}
}

func testUncleanStop(t *testing.T, background bool) {
	d := opened(t, Options{})
	good, flipped, short := random(52, 1<<20), random(53, 1<<20), random(54, 1<<20)
	for _, p := range [][]byte{good, flipped, short} {
		mustStore(t, d, p)
	}
	d.Close()
	bad := append([]byte{flipped[0] ^ 1}, flipped[1:]...)
	if err := os.WriteFile(file(t, d, digest.FromBytes(flipped)), bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file(t, d, digest.FromBytes(short)), 1000); err != nil {
		t.Fatal(err)
	}
	d = opened(t, d.opts)
	if _, ok := d.Stat(digest.FromBytes(good)); ok {
		t.Error("a blob that is not verified is called held")
	}
	if background {
		running(t, d)
		synctest.Wait()
		if s := d.Stats(); s.Unverified != 0 || s.Unsynced != 0 || s.Blobs != 1 {
			t.Errorf("after the pass: %+v", s)
		}
		if !marked(t, d, digest.FromBytes(good)) {
			t.Error("a verified blob is not marked")
		}
	}
	wantBlob(t, d, good)
	wantMissing(t, d, digest.FromBytes(flipped))
	wantMissing(t, d, digest.FromBytes(short))
	if got := counted(t, d, "dray_disk_corrupt_total"); got != 2 {
		t.Errorf("%v corrupt blobs counted", got)
	}
	if got := counted(t, d, "dray_disk_verified_total"); got != 1 {
		t.Errorf("%v verified blobs counted", got)
	}
	mustStore(t, d, flipped)
	wantBlob(t, d, flipped)
}

// TestSuspectIsReplaced publishes a sound copy over one that was never verified.
func TestSuspectIsReplaced(t *testing.T) {
	d := opened(t, Options{})
	p := random(55, 10_000)
	dg := mustStore(t, d, p)
	d.Close()
	if err := os.WriteFile(file(t, d, dg), make([]byte, 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	d = opened(t, d.opts)
	mustStore(t, d, p)
	wantBlob(t, d, p)
	if s := d.Stats(); s.Blobs != 1 || s.Bytes != 12288 || s.Unverified != 0 {
		t.Errorf("stats %+v", s)
	}
}
