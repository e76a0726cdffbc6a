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
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// maxPinName bounds the name of a pin, in bytes.
const maxPinName = 1024

// ErrPinName says that a pin cannot have that name: it is empty, too long, or has control characters.
var ErrPinName = errors.New("bad name of a pin")

// Pin is a set of blobs that an operator keeps, under a name such as that of an image. While any
// pin names a blob, it is not evicted; a pin fetches nothing, but also waits for blobs that come later. Delete
// removes pinned blobs like others.
type Pin struct {
	Name  string
	Blobs []digest.Digest
	Since time.Time // when it was set
}

// SetPin sets the pin of that name, in place of an older one. It is on stable storage when SetPin returns nil.
// It returns ErrPinName or ErrDigest where one is malformed. ctx bounds the wait for others who change pins.
func (d *Dir) SetPin(ctx context.Context, name string, blobs []digest.Digest) error {
	if name == "" || len(name) > maxPinName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
		return fmt.Errorf("pin %.100q: %w", name, ErrPinName)
	}
	blobs = slices.Compact(slices.Sorted(slices.Values(blobs)))
	for _, dg := range blobs {
		if _, err := blobPath(dg); err != nil {
			return fmt.Errorf("pin %q: %w", name, err)
		}
	}
	if err := d.takePins(ctx); err != nil {
		return err
	}
	defer d.freePins()
	p := Pin{Name: name, Blobs: blobs, Since: time.Now()}
	if err := d.writeFile(pinFile(name), p.text()); err != nil {
		return fmt.Errorf("pin %q: %w", name, asFull(err))
	}
	d.setPin(p)
	return nil
}

// RemovePin removes a pin and says whether there was one. Its blobs stay until they are evicted in their turn.
func (d *Dir) RemovePin(ctx context.Context, name string) (was bool, err error) {
	if err := d.takePins(ctx); err != nil {
		return false, err
	}
	defer d.freePins()
	d.mu.RLock()
	_, was = d.pins[name]
	d.mu.RUnlock()
	if !was {
		return false, nil
	}
	if err := d.root.Remove(pinFile(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, fmt.Errorf("remove pin %q: %w", name, err)
	}
	if err := d.syncDirs("pins"); err != nil {
		return true, fmt.Errorf("remove pin %q: %w", name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keep(d.pins[name].Blobs, -1)
	delete(d.pins, name)
	return true, nil
}

// Pins returns all pins by name.
func (d *Dir) Pins() []Pin {
	d.mu.RLock()
	defer d.mu.RUnlock()
	all := make([]Pin, 0, len(d.pins))
	for _, p := range d.pins {
		p.Blobs = slices.Clone(p.Blobs)
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// takePins waits until nobody else changes pins.
func (d *Dir) takePins(ctx context.Context) error {
	select {
	case d.pinning <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (d *Dir) freePins() { <-d.pinning }

// setPin puts a pin into the index.
func (d *Dir) setPin(p Pin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keep(p.Blobs, 1)
	d.keep(d.pins[p.Name].Blobs, -1)
	d.pins[p.Name] = p
}

// keep counts one pin more or less for each blob. Needs mu.
func (d *Dir) keep(blobs []digest.Digest, n int) {
	for _, dg := range blobs {
		if d.kept[dg] += n; d.kept[dg] == 0 {
			delete(d.kept, dg)
		}
	}
}

// operatorPins returns how many pins name a blob. Uploads that outlive the process keep blobs, too. Needs mu.
func (d *Dir) operatorPins(dg digest.Digest) int {
	n := 0
	for _, p := range d.pins {
		if slices.Contains(p.Blobs, dg) {
			n++
		}
	}
	return n
}

// pinnedBytes returns the blocks of blobs that are held and pinned. Needs mu.
func (d *Dir) pinnedBytes() int64 {
	var sum int64
	for dg := range d.kept {
		if e := d.index.get(dg); e != nil {
			sum += e.blocks()
		}
	}
	return sum
}

// pinFile returns where a pin lives. Its name is in the file, as it may have any characters.
func pinFile(name string) string {
	sum := sha256.Sum256([]byte(name))
	return "pins/" + hex.EncodeToString(sum[:])
}

// text returns the file of a pin: its name, and each digest, on a line.
func (p Pin) text() []byte {
	b := []byte(p.Name + "\n")
	for _, dg := range p.Blobs {
		b = append(b, dg+"\n"...)
	}
	return b
}

// parsePin is the inverse of text.
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

// loadPins reads what pins there are. A file that makes no sense is logged and left alone.
func (d *Dir) loadPins() error {
	files, err := fs.ReadDir(d.root.FS(), "pins")
	if err != nil {
		return err
	}
	for _, f := range files {
		p, err := d.loadPin("pins/" + f.Name())
		if err != nil {
			d.log.Error("pin left out", "file", "pins/"+f.Name(), "error", err)
			continue
		}
		d.setPin(p)
	}
	return nil
}

func (d *Dir) loadPin(file string) (Pin, error) {
	info, err := d.root.Stat(file)
	if err != nil {
		return Pin{}, err
	}
	b, err := d.root.ReadFile(file)
	if err != nil {
		return Pin{}, err
	}
	p, err := parsePin(b)
	if err == nil && pinFile(p.Name) != file {
		err = fmt.Errorf("it is the file of another name than %q", p.Name)
	}
	p.Since = info.ModTime()
	return p, err
}

// writeFile replaces a file of the directory by one atomic step that outlives a power cut.
func (d *Dir) writeFile(name string, b []byte) error {
	tmp := d.ingestName()
	if err := d.fault(OpCreate, tmp); err != nil {
		return err
	}
	f, err := d.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		return errors.Join(err, d.root.Remove(tmp))
	}
	return d.syncDirs(path.Dir(name))
}
