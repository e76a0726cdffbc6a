package page

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"dray/mirror/admin/api"
)

// Sources are the functions from which the page gets its data. They may be called concurrently, and
// change nothing. If a function is nil, the page leaves out its data.
type Sources struct {
	// Version is the version of dray.
	Version string
	// Ready runs the checks of /readyz.
	Ready func(ctx context.Context) api.Readiness
	// Stats returns the counts since dray was started.
	Stats func() (api.Stats, error)
	// Live returns the pulls and pushes under way.
	Live func() api.Live
	// Upstreams returns the upstreams in the order of the configuration.
	Upstreams func() []Upstream
	// Disk describes the cache on disk.
	Disk func(ctx context.Context) (Disk, error)
	// Images yields the images in the cache, sorted by name.
	Images func(ctx context.Context) iter.Seq2[api.Image, error]
	// Explain returns the known facts about an image. Tell writes them as `dray explain` does.
	Explain func(ctx context.Context, name string) (api.Explanation, error)
	Tell    func(w io.Writer, e api.Explanation) error
	// Queue returns the pushes that are not forwarded yet.
	Queue func() api.Queued
	// Uploads returns the uploads that clients have started and not finished.
	Uploads func() []Upload
	// Savings returns the savings of the last 30 days.
	Savings func() (api.Savings, error)
	// Fleet returns the members of the fleet. It is nil if dray is not a member of a fleet.
	Fleet func(ctx context.Context) (api.Fleet, error)
	// History returns counts between two times, as points that cover equal spans of time.
	History func(from, to time.Time, points int) api.History
	// Configuration returns the effective configuration as YAML, without secrets.
	Configuration func() (string, error)
	// Log gets the errors of pages that cannot be made; nil discards them.
	Log *slog.Logger
}

// Upstream is an upstream and its state.
type Upstream struct {
	Name string
	// Registry is the registry's own name, and Kind the upstream's kind in the configuration.
	Registry, Kind string
	// Push says that clients may push to the upstream.
	Push bool
	// State is nil if the content is stored in dray alone.
	State *api.ExplainedUpstream
}

// Disk describes the cache on disk. All sizes are in bytes, and count whole blocks of the disk.
type Disk struct {
	Used, Reserved, Pinned int64
	// Max is the quota; 0 means that only the free space of the disk bounds the cache.
	Max int64
	// Free is the part of the file system's free space that the cache may use.
	Free              int64
	Blobs, Unverified int
	// Next is the blob that will be evicted next. It is nil if there is no such blob, or if dray
	// cannot determine it.
	Next *api.Victim
}

// Upload is an upload of a client.
type Upload struct {
	Upstream, Repository, User string
	// Bytes is the number of bytes received so far.
	Bytes int64
	// Last is when the last request ended; it is zero while a request is under way.
	Last time.Time
}

// policy is the content security policy of all answers.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// Handler serves the page. Create it with New.
type Handler struct {
	s      Sources
	log    *slog.Logger
	mux    *http.ServeMux
	assets assets
	images listing
}

// New returns a Handler for / and everything below [Prefix].
func New(s Sources) *Handler {
	h := &Handler{s: s, log: cmp.Or(s.Log, slog.New(slog.DiscardHandler)), mux: http.NewServeMux(), assets: newAssets(), images: listing{all: s.Images}}
	h.page("GET /{$}", "Overview", h.overview)
	h.page("GET "+livePath, "Live", h.live)
	h.page("GET "+imagesPath, "Images", h.imageList)
	h.page("GET "+imagePath, "Image", h.image)
	h.page("GET "+pushesPath, "Pushes", h.pushes)
	h.page("GET "+savingsPath, "Savings", h.savings)
	h.page("GET "+fleetPath, "Fleet", h.fleet)
	h.page("GET "+configurationPath, "Configuration", h.configuration)
	h.mux.Handle("GET "+assetPrefix, h.assets)
	h.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		h.fail(w, r, api.Errorf(api.CodeNotFound, "There is no page %s.", r.URL.Path))
	})
	return h
}

// Prefix is the path below which all pages and their files are, except the overview, which is at /.
const Prefix = "/ui/"

const (
	livePath          = Prefix + "live"
	imagesPath        = Prefix + "images"
	imagePath         = Prefix + "image"
	pushesPath        = Prefix + "pushes"
	savingsPath       = Prefix + "savings"
	fleetPath         = Prefix + "fleet"
	configurationPath = Prefix + "configuration"
	assetPrefix       = Prefix + "assets/"
)

// ServeHTTP answers a request. The caller must have checked the operator's rights.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.mux.ServeHTTP(w, r)
}

// frame has the data that all pages need.
type frame struct {
	Title, Path, Version string
	At                   time.Time
	Assets               assets
	Nav                  []link
}

type link struct{ Path, Text string }

func (h *Handler) frame(title string, r *http.Request) frame {
	f := frame{Title: title, Path: r.URL.Path, Version: h.s.Version, At: time.Now().UTC(), Assets: h.assets}
	add := func(is bool, path, text string) {
		if is {
			f.Nav = append(f.Nav, link{path, text})
		}
	}
	add(true, "/", "Overview")
	add(h.s.Live != nil, livePath, "Live")
	add(h.s.Images != nil, imagesPath, "Images")
	add(h.s.Queue != nil || h.s.Uploads != nil, pushesPath, "Pushes")
	add(h.s.Savings != nil, savingsPath, "Savings")
	add(h.s.Fleet != nil, fleetPath, "Fleet")
	add(h.s.Configuration != nil, configurationPath, "Configuration")
	return f
}

// page registers a page. The parameter render returns the content of the page.
func (h *Handler) page(pattern, title string, render func(ctx context.Context, f frame, r *http.Request) (templ.Component, error)) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		c, err := render(r.Context(), h.frame(title, r), r)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		h.render(w, r, http.StatusOK, c)
	})
}

// fail answers with a page about an error.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	if e, ok := errors.AsType[*api.Error](err); ok {
		status = e.Code.Status()
	}
	h.render(w, r, status, failure(h.frame("Not shown", r), err.Error()))
}

// render sends a whole page. If the page cannot be made, render answers with 500 instead.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, status int, c templ.Component) {
	var out bytes.Buffer
	if err := c.Render(r.Context(), &out); err != nil {
		h.log.Warn("cannot make a page for operators", "path", r.URL.Path, "error", err)
		http.Error(w, "the page cannot be made: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // fails only if the client has disconnected
}
