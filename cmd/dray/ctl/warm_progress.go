package ctl

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"dray/mirror/admin/api"
)

const (
	// barColumns is the width of the progress bar with its text. A bar of this width fits all usual
	// terminals.
	barColumns = 79
	barCells   = 20
	// drawEvery is the least time between two drawings of the bar.
	drawEvery = 100 * time.Millisecond
)

// warmProgress shows how far dray has come with the images of the command dray warm.
type warmProgress struct {
	stdout, stderr io.Writer
	bar, json      bool
	began          time.Time
	total          int // images

	mu     sync.Mutex // guards the fields below
	images map[string]api.Warmth
	ended  int
	failed int
	drawn  time.Time // zero if the bar is not on the screen
}

func newWarmProgress(o *operator, images int) *warmProgress {
	return &warmProgress{
		stdout: o.stdout, stderr: o.stderr, bar: !o.json && os.Getenv("TERM") != "dumb" && isTerminal(o.stderr), json: o.json, began: time.Now(), total: images,
		images: map[string]api.Warmth{},
	}
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// problem prints what is wrong with an entry of a file that lists images.
func (p *warmProgress) problem(text string) {
	if !p.json {
		fmt.Fprintf(p.stderr, "dray: %s\n", text)
	}
}

// advance records how far dray has come with an image, and draws the bar again if drawEvery has
// passed.
func (p *warmProgress) advance(name string, w api.Warmth) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[name] = w
	if now := time.Now(); p.bar && now.Sub(p.drawn) >= drawEvery {
		p.drawn = now
		fmt.Fprintf(p.stderr, "\r%-*s", barColumns, p.line(now))
	}
}

// done counts an image whose warming has ended or failed, and prints its line unless the output is
// JSON.
func (p *warmProgress) done(r warmedImage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended++
	p.clear()
	switch {
	case r.Error != "":
		p.failed++
		if !p.json {
			fmt.Fprintf(p.stderr, "dray: %s: %s\n", r.Image, r.Error)
		}
	case !p.json:
		fmt.Fprintf(p.stdout, "%s: held, %d parts, %s (fetched %s)\n", r.Image, r.Parts, size(r.Bytes), size(r.FetchedBytes))
	}
}

// end removes the bar, and prints the sum if there was more than one image.
func (p *warmProgress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	if p.json || p.total < 2 {
		return
	}
	_, _, fetched := p.sums()
	fmt.Fprintf(p.stdout, "%d of %d images held; fetched %s in %s\n", p.ended-p.failed, p.total, size(fetched), time.Since(p.began).Round(100*time.Millisecond))
}

// clear removes the bar from the screen.
func (p *warmProgress) clear() {
	if !p.drawn.IsZero() {
		fmt.Fprintf(p.stderr, "\r%*s\r", barColumns, "")
		p.drawn = time.Time{}
	}
}

// sums adds up the bytes of all images.
func (p *warmProgress) sums() (held, all, fetched int64) {
	for _, w := range p.images {
		held, all, fetched = held+w.HeldBytes, all+w.Bytes, fetched+w.FetchedBytes
	}
	return held, all, fetched
}

// line returns the progress bar with its text, of at most barColumns columns. The bar can go back:
// when dray gets the manifest of a further image, the sum of the sizes grows.
func (p *warmProgress) line(now time.Time) string {
	held, all, fetched := p.sums()
	cells := 0
	if all > 0 {
		cells = int(min(held, all) * barCells / all)
	}
	speed := int64(float64(fetched) / max(now.Sub(p.began).Seconds(), 0.001))
	line := fmt.Sprintf("[%-*s] %d of %d images, %s of %s, %s/s", barCells, strings.Repeat("#", cells), p.ended, p.total, size(held), size(all), size(speed))
	return line[:min(len(line), barColumns)]
}
