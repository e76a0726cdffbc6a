package directories

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"dray/mirror/hosted"
	"dray/mirror/queue"
)

// Directories are the directories of one dray. State may be the same as Cache.
type Directories struct {
	Cache, State string
	// Version is the version of this program. It is recorded with the format of a directory.
	Version string
	// Restoring says that the state is about to be restored, so the state may be empty.
	Restoring bool
}

// Content returns the directory of the blobs.
func (d Directories) Content() string { return filepath.Join(d.Cache, "content") }

// Queue returns the directory of the queue's journal.
func (d Directories) Queue() string { return filepath.Join(d.State, queueName) }

// Hosted returns the directory in which a hosted upstream lists the manifests and tags of its
// repositories. If upstream is "", Hosted returns the parent of all these directories.
func (d Directories) Hosted(upstream string) string {
	return filepath.Join(d.State, hostedName, upstream)
}

// Ledger returns the directory with the counts of savings. dray can work without these.
func (d Directories) Ledger() string { return filepath.Join(d.State, "savings") }

// History returns the directory with samples of metrics over time. dray can work without these.
func (d Directories) History() string { return filepath.Join(d.State, "history") }

// Pins returns the parent of the pins' directory, or "" if the pins are with the blobs.
func (d Directories) Pins() string {
	if d.apart() {
		return d.State
	}
	return ""
}

// The names of the directories of the state.
const (
	queueName  = "queue"
	hostedName = "hosted"
	pinsName   = "pins"
)

// apart reports whether the state has a directory of its own. Different paths are not enough: two
// paths can name one directory, for example by a symbolic link. If dray moved the state from one of
// these paths to the other, the move would delete the state.
func (d Directories) apart() bool { return !same(d.State, d.Cache) }

// Prepare creates the directories, and checks their formats and that they belong together. If the
// cache's directory still has the queue, the hosted repositories or the pins, and the state has its
// own directory, Prepare moves them there. A full disk is no error if nothing has to be moved.
func (d Directories) Prepare(log *slog.Logger) error {
	for _, dir := range []string{d.Cache, d.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	cache, err := readFormat(d.Cache, cacheFormat)
	if err != nil {
		return err
	}
	state, err := readFormat(d.State, stateFormat)
	if err != nil {
		return err
	}
	if err := d.belong(cache, state); err != nil {
		return err
	}
	if d.apart() {
		if err := d.takeOver(log); err != nil {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	// The loop writes the format of the state first. If only the format of the cache were written, a
	// call of belong at the next start would refuse the state directory.
	for _, f := range []struct {
		format
		kind
		dir, other string
	}{{state, stateFormat, d.State, d.Cache}, {cache, cacheFormat, d.Cache, d.State}} {
		if err := f.format.write(f.kind, f.dir, f.other, d.Version); err != nil {
			log.Warn("cannot write the format of a directory", "directory", f.dir, "error", err)
			break
		}
	}
	return nil
}

// belong returns an error if the directories do not belong together and dray would lose something
// by using both.
func (d Directories) belong(cache, state format) error {
	if other := cache.Other; other != "" && !same(other, d.State) && !same(other, d.Cache) {
		held, err := Directories{Cache: d.Cache, State: other}.Holds()
		if err == nil && held.Any() {
			return fmt.Errorf("the state of the cache in %s is in %s, which has %s, and not in %s; set state.directory to %[2]s, or, to give that up, delete %[5]s",
				d.Cache, other, held, d.State, filepath.Join(d.Cache, cacheFormat.file()))
		}
	}
	if !d.apart() {
		return nil
	}
	if !d.Restoring && state.Number == 0 && cache.Other != "" && same(cache.Other, d.State) {
		return fmt.Errorf("the cache in %s was used with the state in %s, which is now empty or another one; mount the state that was used before, or restore a backup; to begin with an empty state, delete %s",
			d.Cache, d.State, filepath.Join(d.Cache, cacheFormat.file()))
	}
	if state.Number > 0 && cache.Number == 0 && empty(d.Content()) {
		held, err := d.Holds()
		if err == nil && held.Any() {
			return fmt.Errorf("the state in %s has %s, and the cache in %s, which had the content of them, is empty or another one; mount the cache that was used before, or restore a backup; to go on without the content, delete %s",
				d.State, held, d.Cache, filepath.Join(d.State, stateFormat.file()))
		}
	}
	return nil
}

// same reports whether two paths name the same directory.
func same(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}

// empty reports whether a directory has nothing or does not exist.
func empty(dir string) bool {
	entries, err := os.ReadDir(dir)
	return len(entries) == 0 && (err == nil || os.IsNotExist(err))
}

// Held counts the content that exists only in a state directory.
type Held struct{ Pushes, Repositories int }

// Any reports whether one of the numbers is not 0.
func (h Held) Any() bool { return h.Pushes+h.Repositories > 0 }

// String returns both numbers as text for people.
func (h Held) String() string {
	return fmt.Sprintf("%d queued pushes and %d hosted repositories", h.Pushes, h.Repositories)
}

// Holds counts the queued pushes and the hosted repositories in the state directory. It also works
// while another process uses the directory.
func (d Directories) Holds() (h Held, err error) {
	pushes, err := queue.Read(d.Queue())
	if err != nil {
		return h, err
	}
	h.Pushes = len(pushes)
	h.Repositories, err = hosted.Repositories(d.Hosted(""))
	return h, err
}
