package directories

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"dray/mirror/queue"
)

// write writes files, by path, below a directory.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// push puts a push into the queue of a directory.
func push(t *testing.T, dir, repo string) {
	t.Helper()
	q, err := queue.Open(t.Context(), queue.Options{Directory: dir, Hold: func(context.Context, digest.Digest) (func(), error) { return func() {}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if err := q.Add(t.Context(), queue.Push{Upstream: "ecr", Repository: repo, Reference: "v1", Digest: digest.FromString(repo), Manifest: []byte(repo)}); err != nil {
		t.Fatal(err)
	}
}

func prepare(t *testing.T, d Directories) (log string, err error) {
	t.Helper()
	var b bytes.Buffer
	d.Version = "1.2.3"
	err = d.Prepare(slog.New(slog.NewTextHandler(&b, nil)))
	return b.String(), err
}

func refused(t *testing.T, d Directories, why string) {
	t.Helper()
	if _, err := prepare(t, d); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%v, want %q", err, why)
	}
}

func mustPrepare(t *testing.T, d Directories) {
	t.Helper()
	if _, err := prepare(t, d); err != nil {
		t.Fatal(err)
	}
}

const repositoryFile = "hosted/own/team/app/_repository.json"

// former returns the directories of a program without a state directory, and of one that has one.
func former(t *testing.T) (before, after Directories) {
	t.Helper()
	root := t.TempDir()
	before = Directories{Cache: filepath.Join(root, "cache"), State: filepath.Join(root, "cache")}
	push(t, before.Queue(), "team/a")
	write(t, before.Cache, map[string]string{repositoryFile: "{}", "content/pins/abc": "name\n", "content/blobs/sha256/ab/abc": "blob", "facts.db": "facts"})
	return before, Directories{Cache: before.Cache, State: filepath.Join(root, "state")}
}

// whole holds that the state is where it belongs, once.
func whole(t *testing.T, d Directories) {
	t.Helper()
	held, err := d.Holds()
	if err != nil || held != (Held{Pushes: 1, Repositories: 1}) {
		t.Errorf("%s has %v, %v", d.State, held, err)
	}
	if text, err := os.ReadFile(filepath.Join(d.State, "pins/abc")); err != nil || string(text) != "name\n" {
		t.Errorf("the pin is %q, %v", text, err)
	}
	for _, gone := range []string{"queue", "hosted", "content/pins"} {
		if names, err := filesIn(filepath.Join(d.Cache, gone)); err != nil || len(names) > 0 {
			t.Errorf("%s still has %q, %v", gone, names, err)
		}
	}
	for _, stays := range []string{"facts.db", "content/blobs/sha256/ab/abc"} {
		if _, err := os.Stat(filepath.Join(d.Cache, stays)); err != nil {
			t.Error(err)
		}
	}
}

func TestTakeOver(t *testing.T) {
	before, after := former(t)
	mustPrepare(t, before) // a program with formats, and with one directory
	log, err := prepare(t, after)
	if err != nil || strings.Count(log, "moved to the state directory") != 3 {
		t.Fatalf("%v\n%s", err, log)
	}
	whole(t, after)
	if log, err = prepare(t, after); err != nil || log != "" {
		t.Errorf("the next start: %v\n%s", err, log)
	}
}

// TestOneDirectoryByTwoPaths: if both keys name the same directory, nothing is moved or lost.
func TestOneDirectoryByTwoPaths(t *testing.T) {
	before, after := former(t)
	if err := os.Symlink(before.Cache, after.State); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, after)
	if held, err := after.Holds(); err != nil || held != (Held{Pushes: 1, Repositories: 1}) {
		t.Errorf("%v, %v", held, err)
	}
	if text, err := os.ReadFile(filepath.Join(before.Content(), pinsName, "abc")); err != nil || string(text) != "name\n" || after.Pins() != "" {
		t.Errorf("the pin is %q, %v; pins are in %q", text, err, after.Pins())
	}
}

// TestInterruptedTakeOver: wherever a crash came, the next start finds everything once.
func TestInterruptedTakeOver(t *testing.T) {
	for name, crash := range map[string]func(t *testing.T, before, after Directories){
		"half copied": func(t *testing.T, _, after Directories) {
			write(t, after.State, map[string]string{"queue.new/journal": "half", "hosted.new/own/x.new": ""})
		},
		"copied and not removed": func(t *testing.T, before, after Directories) {
			for _, part := range []string{"queue", "hosted"} {
				if err := copyTree(filepath.Join(before.Cache, part), filepath.Join(after.State, part)); err != nil {
					t.Fatal(err)
				}
			}
		},
		"directories alone": func(t *testing.T, _, after Directories) {
			if err := os.MkdirAll(filepath.Join(after.State, "hosted/own"), 0o700); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, after := former(t)
			if err := os.Mkdir(after.State, 0o700); err != nil {
				t.Fatal(err)
			}
			crash(t, before, after)
			mustPrepare(t, after)
			whole(t, after)
		})
	}
}

// TestOlderProgramInBetween: what an older program left in the cache's directory is taken over if
// nothing is in its way, and never overwrites anything.
func TestOlderProgramInBetween(t *testing.T) {
	before, after := former(t)
	mustPrepare(t, after)
	push(t, before.Queue(), "team/b")
	refused(t, after, "an older dray has used the cache directory again")
	if err := os.RemoveAll(after.Queue()); err != nil { // forwarded meanwhile
		t.Fatal(err)
	}
	mustPrepare(t, after)
	whole(t, after)
}

func TestNotWhileInUse(t *testing.T) {
	_, after := former(t)
	lock, err := os.Create(filepath.Join(after.Content(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	refused(t, after, "is in use by another dray; stop it first")
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, after)
	whole(t, after)
}

// TestFormats: a program does not use directories that it cannot read, and says what to do.
func TestFormats(t *testing.T) {
	for _, k := range []kind{cacheFormat, stateFormat} {
		root := t.TempDir()
		d := Directories{Cache: filepath.Join(root, "cache"), State: filepath.Join(root, "state")}
		mustPrepare(t, d)
		dir := map[string]string{"cache": d.Cache, "state": d.State}[k.name]
		f, err := readFormat(dir, k)
		if err != nil || f.Number != 1 || f.By != "1.2.3" {
			t.Errorf("%s: %+v, %v", k.name, f, err)
		}
		newer := k
		newer.newest, newer.oldest = 3, 2
		if _, err := readFormat(dir, newer); err == nil || !strings.Contains(err.Error(), "has format 1, which dray 1.2.3 wrote, and this dray reads formats from 2 on") {
			t.Errorf("a newer program: %v", err)
		}
		write(t, dir, map[string]string{k.file(): `{"format": 7, "by": "9.0.0", "more": true}`})
		refused(t, d, "the "+k.name+" directory "+dir+" has format 7, which dray 9.0.0 wrote, and this dray reads formats up to 1: run dray 9.0.0 or newer, or restore a backup")
		for _, text := range []string{"", "seven", "{}"} {
			write(t, dir, map[string]string{k.file(): text})
			refused(t, d, "does not have the format of the "+k.name+" directory")
		}
	}
}

// TestBelongTogether: neither a directory that is not mounted nor a dropped setting makes dray give
// up content. A cache whose format could not be written, because its disk was full, is no such
// directory.
func TestBelongTogether(t *testing.T) {
	_, d := former(t)
	mustPrepare(t, d)
	unmounted := d.Cache + ".away"
	if err := os.Rename(d.Cache, unmounted); err != nil {
		t.Fatal(err)
	}
	refused(t, d, "1 queued pushes and 1 hosted repositories, and the cache in "+d.Cache+", which had the content of them, is empty or another one")
	if err := os.RemoveAll(d.Cache); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(unmounted, d.Cache); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d)
	if err := os.Rename(d.State, unmounted); err != nil {
		t.Fatal(err)
	}
	refused(t, d, "was used with the state in "+d.State+", which is now empty or another one")
	restoring := Directories{Cache: d.Cache, State: d.State, Restoring: true}
	mustPrepare(t, restoring)
	if err := os.RemoveAll(d.State); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(unmounted, d.State); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(d.Cache, cacheFormat.file())); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, d)
	dropped := Directories{Cache: d.Cache, State: d.Cache}
	refused(t, dropped, "set state.directory to "+d.State)
	if err := os.Remove(filepath.Join(d.Cache, cacheFormat.file())); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, dropped)

	empty := Directories{Cache: t.TempDir(), State: t.TempDir()}
	mustPrepare(t, empty)
	if err := os.RemoveAll(empty.Cache); err != nil {
		t.Fatal(err)
	}
	mustPrepare(t, empty) // nothing is lost with such a cache
}
