package page

import (
	"cmp"
	"context"
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
	// listingAge is how old a list may be that is shown. Reading all facts and manifests is work, and
	// a browser asks for the next page soon. A list that took long may be older: of the time, at most
	// one part in listingShare is spent on reading it, however many browsers show it.
	listingAge   = 10 * time.Second
	listingShare = 20
)

// listing has the list of images that was read last.
type listing struct {
	all func(ctx context.Context) iter.Seq2[api.Image, error]

	mu     sync.Mutex // held while the list is read, so that it is read once for all who wait
	images []api.Image
	at     time.Time
	took   time.Duration
}

// get returns the images, and the time at which they were read.
func (l *listing) get(ctx context.Context) ([]api.Image, time.Time, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.at.IsZero() && time.Since(l.at) < max(listingAge, listingShare*l.took) {
		return l.images, l.at, nil
	}
	var images []api.Image
	at := time.Now()
	for i, err := range l.all(ctx) {
		if err != nil {
			return nil, at, err
		}
		images = append(images, i)
	}
	l.images, l.at, l.took = images, at, time.Since(at)
	return images, at, nil
}

// imageQuery is what an operator wants to see of the images.
type imageQuery struct {
	Search, Sort string
	// Parts includes manifests that have no tag and are part of an index.
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

// at is the address of the same images in another order, or of another page of them.
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
	// Read is when the images were listed. First and Last count from 1.
	Read               time.Time
	First, Last, Found int
	All                int
	Bytes              int64 // what is held of the images that were found; parts that several have count for each
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

// reference is by what an image is named: its first tag, or its digest.
func reference(i api.Image) string {
	if len(i.Tags) > 0 {
		return i.Tags[0]
	}
	return string(i.Digest)
}

// moreTags are the tags of an image that its name does not have.
func moreTags(i api.Image) []string { return i.Tags[min(1, len(i.Tags)):] }

// shownTags bounds the tags that a list shows of an image.
const shownTags = 6

// imageAddress is the address of the page about an image.
func imageAddress(name string) string { return address(imagePath, "name", name) }

// shortReference shortens a digest, and no tag.
func shortReference(reference string) string {
	if algorithm, hex, ok := strings.Cut(reference, ":"); ok && len(hex) > 12 {
		return algorithm + ":" + hex[:12]
	}
	return reference
}

// found says how many images there are.
func found(v imagesView) string {
	text := count(v.Found, "image", "images")
	if v.Search != "" {
		text += " of " + thousands(int64(v.All))
	}
	return text + ", " + size(v.Bytes)
}
