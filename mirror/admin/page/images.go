package page

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

const (
	// perPage is the number of images on a page.
	perPage = 50
	// listingAge is the age from which the list is read again when a browser asks for it. Reading all
	// facts and manifests is expensive, so dray spends at most 1/listingShare of the time on it,
	// however many browsers show the list.
	listingAge   = 10 * time.Second
	listingShare = 20
	// listingKept is the age up to which dray shows the old list while it reads the list again, or
	// after a reading failed. Reading takes about a second for every ten thousand images.
	listingKept = 5 * time.Minute
	// listingBound bounds the time of one reading.
	listingBound = time.Minute
)

// listing has the list of images from the last reading that succeeded.
type listing struct {
	all func(ctx context.Context) iter.Seq2[api.Image, error]

	mu      sync.Mutex // guards the fields below
	images  []api.Image
	at      time.Time // when the reading that found the images began
	tried   time.Time // when the last reading began, even if it failed
	took    time.Duration
	err     error         // the error of the last reading
	reading chan struct{} // closed when the reading under way has ended; nil if no reading is under way
}

// get returns the images, and the time at which they were read.
func (l *listing) get(ctx context.Context) ([]api.Image, time.Time, error) {
	if reading := l.refresh(listingAge); reading != nil {
		select {
		case <-reading:
		case <-ctx.Done():
			return nil, time.Time{}, context.Cause(ctx)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil && !l.recent() {
		return nil, time.Time{}, l.err
	}
	return l.images, l.at, nil
}

// recent reports whether the list can be shown instead of a newer one. It needs mu.
func (l *listing) recent() bool { return !l.at.IsZero() && time.Since(l.at) < listingKept }

// refresh starts to read the list, unless a reading is under way or the last one is too recent. The
// parameter age is the least time between the beginnings of two readings. If a reading is under way
// and the present list cannot be shown, refresh returns a channel that is closed after the reading.
// Otherwise it returns nil.
func (l *listing) refresh(age time.Duration) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reading == nil && (l.tried.IsZero() || time.Since(l.tried) >= max(age, listingShare*l.took)) {
		l.reading = make(chan struct{})
		go l.read()
	}
	if l.recent() {
		return nil
	}
	return l.reading
}

func (l *listing) read() {
	began := time.Now()
	images, err := l.list()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tried, l.took, l.err = began, time.Since(began), err
	if err == nil {
		l.images, l.at = images, began
	}
	close(l.reading)
	l.reading = nil
}

// list lists the images. It converts a panic, which would end the process, to an error.
func (l *listing) list() (images []api.Image, err error) {
	defer func() {
		if v := recover(); v != nil {
			images, err = nil, fmt.Errorf("the list of images cannot be read: panic: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), listingBound)
	defer cancel()
	for i, err := range l.all(ctx) {
		if err != nil {
			return nil, err
		}
		images = append(images, i)
	}
	return images, nil
}

// imageQuery selects and orders the images that an operator wants to see.
type imageQuery struct {
	Search, Sort string
	// Parts adds the manifests that have no tag and are part of an index.
	Parts bool
	Page  int // from 1
}

// The orders of images.
const (
	byName = ""
	bySize = "size"
	byUse  = "used"
)

func imageQueryOf(r *http.Request) imageQuery {
	params := r.URL.Query()
	q := imageQuery{Search: strings.TrimSpace(params.Get("q")), Sort: params.Get("sort"), Parts: params.Get("parts") != ""}
	if q.Sort != bySize && q.Sort != byUse {
		q.Sort = byName
	}
	q.Page, _ = strconv.Atoi(params.Get("page"))
	q.Page = max(q.Page, 1)
	return q
}

// at returns the address of a page of the images that q selects, in the given order.
func (q imageQuery) at(sort string, page int) string {
	parts, number := "", ""
	if q.Parts {
		parts = "1"
	}
	if page > 1 {
		number = strconv.Itoa(page)
	}
	return address(imagesPath, "q", q.Search, "sort", sort, "parts", parts, "page", number)
}

// imagesView is one page of the images.
type imagesView struct {
	imageQuery
	Images []api.Image
	// Read is when the images were listed. First and Last are the positions of the page's first and
	// last image among all Found images, from 1. All counts the images before the search.
	Read               time.Time
	First, Last, Found int
	All                int
	Bytes              int64 // held bytes of the found images; a shared blob counts for each image
}

// Pages is the number of pages.
func (v imagesView) Pages() int { return max((v.Found+perPage-1)/perPage, 1) }

// page chooses the images of one page.
func (q imageQuery) page(all []api.Image) imagesView {
	found := make([]api.Image, 0, len(all))
	wanted := strings.ToLower(q.Search)
	v := imagesView{imageQuery: q}
	for _, i := range all {
		if i.Part && !q.Parts {
			continue
		}
		v.All++
		if wanted == "" || matches(i, wanted) {
			found = append(found, i)
			v.Bytes += i.HeldBytes
		}
	}
	switch q.Sort {
	case bySize:
		slices.SortStableFunc(found, func(a, b api.Image) int { return cmp.Compare(b.HeldBytes, a.HeldBytes) })
	case byUse:
		slices.SortStableFunc(found, func(a, b api.Image) int { return b.LastUse.Compare(a.LastUse) })
	}
	v.Found = len(found)
	v.Page = min(q.Page, v.Pages())
	v.First, v.Last = min((v.Page-1)*perPage+1, v.Found), min(v.Page*perPage, v.Found)
	if v.Found > 0 {
		v.Images = found[v.First-1 : v.Last]
	}
	return v
}

// matches reports whether an image has a text in its name, a tag or its digest.
func matches(i api.Image, wanted string) bool {
	name := strings.ToLower(i.Upstream + "/" + i.Repository)
	if strings.Contains(name, wanted) || strings.Contains(string(i.Digest), wanted) {
		return true
	}
	return slices.ContainsFunc(i.Tags, func(tag string) bool { return strings.Contains(name+":"+strings.ToLower(tag), wanted) })
}

func (h *Handler) imageList(ctx context.Context, f frame, r *http.Request) (templ.Component, error) {
	if h.s.Images == nil {
		return nil, errNotHere
	}
	all, at, err := h.images.get(ctx)
	if err != nil {
		return nil, err
	}
	v := imageQueryOf(r).page(all)
	v.Read = at.UTC()
	return imagesPage(f, v), nil
}

// reference returns the first tag of an image, or its digest if it has no tag.
func reference(i api.Image) string {
	if len(i.Tags) > 0 {
		return i.Tags[0]
	}
	return string(i.Digest)
}

// moreTags returns all tags of an image except the first.
func moreTags(i api.Image) []string { return i.Tags[min(1, len(i.Tags)):] }

// shownTags bounds the tags that the list shows for one image.
const shownTags = 6

func imageAddress(name string) string { return address(imagePath, "name", name) }

// shortReference shortens a digest. It returns a tag unchanged.
func shortReference(reference string) string {
	if algorithm, hex, ok := strings.Cut(reference, ":"); ok && len(hex) > 12 {
		return algorithm + ":" + hex[:12]
	}
	return reference
}

// found returns the number and size of the found images, as text.
func found(v imagesView) string {
	text := count(v.Found, "image", "images")
	if v.Search != "" {
		text += " of " + thousands(int64(v.All))
	}
	return text + ", " + size(v.Bytes)
}
