package disk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/opencontainers/go-digest"
)

// maxPinName bounds the name of a pin, in bytes.
const maxPinName = 1024

// ErrPinName says that a name is not valid for a pin: it is empty, is too long, or has control
// characters.
var ErrPinName = errors.New("invalid pin name")

// Pin is a set of blobs that an operator keeps, under a name such as the name of an image. A blob
// is not evicted while any pin names it. A pin fetches nothing, and also applies to blobs that are
// stored later. Delete removes a pinned blob like any other blob.
type Pin struct {
	Name  string
	Blobs []digest.Digest
	Since time.Time // when it was set
}

// pins holds the pins of a directory.
type pins struct {
	*resources
	kept     *tree          // has the directory pins/
	changing chan struct{}  // mutex for changes of the pins; capacity 1
	byName   map[string]Pin // guarded by account.mu
}

// unfinishedPin is the prefix of the names of unfinished files, if Options.Pins names a directory.
// [pins.load] removes the files that a process left unfinished.
const unfinishedPin = "pins/.new-"

// keptTree returns the tree of a directory for pins. If dir is empty, keptTree returns the tree of
// the blobs.
func keptTree(dir string, blobs *tree) (*tree, error) {
	if dir == "" {
		return blobs, nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "pins"), 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return &tree{root: root, log: blobs.log, inject: blobs.inject, temp: unfinishedPin}, err
}

// close closes the directory of the pins, if it is not the directory of the blobs.
func (ps *pins) close() error {
	if ps.kept == ps.tree {
		return nil
	}
	return ps.kept.root.Close()
}

// SetPin sets a pin, and replaces an older pin of the same name. The pin is on stable storage when
// SetPin returns nil. SetPin returns ErrPinName for a malformed name and ErrDigest for a malformed
// digest. ctx bounds the wait for other changes of pins.
func (ps *pins) SetPin(ctx context.Context, name string, blobs []digest.Digest) error {
	if name == "" || len(name) > maxPinName || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("pin %.100q: %w", name, ErrPinName)
	}
	blobs = slices.Compact(slices.Sorted(slices.Values(blobs)))
	for _, dg := range blobs {
		if _, err := blobPath(dg); err != nil {
			return fmt.Errorf("pin %q: %w", name, err)
		}
	}
	if err := ps.lockPins(ctx); err != nil {
		return err
	}
	defer ps.unlockPins()
	p := Pin{Name: name, Blobs: blobs, Since: time.Now()}
	if err := ps.kept.writeFile(pinFile(name), p.text()); err != nil {
		return fmt.Errorf("pin %q: %w", name, asFull(err))
	}
	ps.set(p)
	return nil
}

// RemovePin removes a pin and reports whether there was one. Its blobs stay until they are evicted
// like any other blob.
func (ps *pins) RemovePin(ctx context.Context, name string) (was bool, err error) {
	if err := ps.lockPins(ctx); err != nil {
		return false, err
	}
	defer ps.unlockPins()
	ps.mu.RLock()
	_, was = ps.byName[name]
	ps.mu.RUnlock()
	if !was {
		return false, nil
	}
	if err := ps.kept.root.Remove(pinFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("remove pin %q: %w", name, err)
	}
	if err := ps.kept.syncDirs("pins"); err != nil {
		return true, fmt.Errorf("remove pin %q: %w", name, err)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.claim(ps.byName[name].Blobs, claims{pinned: -1})
	delete(ps.byName, name)
	return true, nil
}

// Pins returns all pins, sorted by name.
func (ps *pins) Pins() []Pin {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	all := make([]Pin, 0, len(ps.byName))
	for _, p := range ps.byName {
		p.Blobs = slices.Clone(p.Blobs)
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// lockPins waits until no one else changes pins.
func (ps *pins) lockPins(ctx context.Context) error {
	select {
	case ps.changing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (ps *pins) unlockPins() { <-ps.changing }

// set adds a pin, or replaces the pin of the same name, and counts the claims on its blobs.
func (ps *pins) set(p Pin) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.claim(p.Blobs, claims{pinned: 1})
	ps.claim(ps.byName[p.Name].Blobs, claims{pinned: -1})
	ps.byName[p.Name] = p
}

// pinFile returns the name of a pin's file. The file name is a hash, because a pin's name may be
// too long for a file name or have characters that a file name cannot have. The pin's name is in
// the file.
func pinFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "pins/" + hex.EncodeToString(sum[:])
}

// text returns the content of a pin's file: the name and the digests, one on each line.
func (p Pin) text() []byte {
	b := []byte(p.Name + "\n")
	for _, dg := range p.Blobs {
		b = append(b, dg+"\n"...)
	}
	return b
}

// parsePin is the inverse of [Pin.text].
func parsePin(b []byte) (Pin, error) {
	var p Pin
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if p.Name == "" {
			p.Name = lines.Text()
			continue
		}
		dg := digest.Digest(lines.Text())
		if _, err := blobPath(dg); err != nil {
			return Pin{}, err
		}
		p.Blobs = append(p.Blobs, dg)
	}
	if p.Name == "" {
		return Pin{}, errors.Join(ErrPinName, lines.Err())
	}
	return p, lines.Err()
}

// load reads the pins from their files. A malformed file is logged and left alone.
func (ps *pins) load() error {
	files, err := fs.ReadDir(ps.kept.root.FS(), "pins")
	if err != nil {
		return err
	}
	for _, f := range files {
		if strings.HasPrefix("pins/"+f.Name(), unfinishedPin) {
			if err := ps.kept.root.Remove("pins/" + f.Name()); err != nil {
				ps.log.Warn("cannot remove unfinished file", "error", err)
			}
			continue
		}
		p, err := ps.loadOne("pins/" + f.Name())
		if err != nil {
			ps.log.Error("ignored invalid pin", "file", "pins/"+f.Name(), "error", err)
			continue
		}
		ps.set(p)
	}
	return nil
}

func (ps *pins) loadOne(file string) (Pin, error) {
	info, err := ps.kept.root.Stat(file)
	if err != nil {
		return Pin{}, err
	}
	b, err := ps.kept.root.ReadFile(file)
	if err != nil {
		return Pin{}, err
	}
	p, err := parsePin(b)
	if err == nil && pinFile(p.Name) != file {
		err = fmt.Errorf("the file name does not match the pin %q", p.Name)
	}
	p.Since = info.ModTime()
	return p, err
}
