package pipeline

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/opencontainers/go-digest"
)

// Stage is a set of rules about one concern.
type Stage interface {
	// Name is what people and metrics know it by.
	Name() string
	// Revision changes with the stage's code and with its configuration, whenever it
	// might judge the same bytes differently. It is part of what is remembered about a
	// layer. [Revision] makes one.
	Revision() string
}

// Revision makes a stage's revision of its version and its configuration, which must
// be encodable as JSON and hold no secrets.
func Revision(version int, configuration any) string {
	text, err := json.Marshal(configuration)
	if err != nil {
		text = []byte(err.Error())
	}
	return Fingerprint(string(rune('0'+version)), string(text))
}

// Name is what is known before any byte of an image: at the start of an upload there
// is no tag yet.
type Name struct {
	Upstream, Repository string
	// Tag is empty at the start of an upload, and for a push by digest.
	Tag string
	// Digest is that of the manifest; empty at the start of an upload.
	Digest digest.Digest
	// User is who pushes; empty for nobody in particular.
	User string
	// Current tells what the tag points to at the upstream now, or will once what was
	// acknowledged is there: "" for nothing. It is
	// nil where nobody knows.
	Current func(context.Context) (digest.Digest, error)
}

// NameStage decides by names. It is asked at the start of each upload, with the
// repository alone, and once more when the manifest comes.
type NameStage interface {
	Stage
	CheckName(ctx context.Context, n Name) ([]Finding, error)
}

// Layer is what is known of a layer when its first bytes arrive.
type Layer struct {
	Upstream, Repository string
	// Digest is what its client says; empty where it says so at the end only.
	Digest digest.Digest
}

// LayerStage looks into layers.
type LayerStage interface {
	Stage
	// Open begins a layer. The visitor is used by one goroutine at a time, and closed in
	// any case.
	Open(ctx context.Context, l Layer) (Visitor, error)
}

// Visitor watches one walk over a layer. An error of any method ends its part in the
// walk: what it would have found is then unknown.
type Visitor interface {
	// Begin tells of the next entry, and asks whether its content is wanted.
	Begin(e *Entry) (wanted bool, err error)
	// Data gives the content, piece by piece. p is good during the call only.
	Data(p []byte) error
	// End ends the content of an entry that was wanted.
	End() error
	// Close ends the layer. complete tells whether it was walked to its end; the result
	// is used only if it was.
	Close(complete bool) (LayerResult, error)
}

// Entry is one file of a layer.
type Entry struct {
	// Path is clean and relative to the root, without a leading slash: "etc/passwd". It
	// never begins with "..".
	Path string
	// Type is the type flag of archive/tar.
	Type byte
	Mode int64
	// UID and GID own it.
	UID, GID int
	Size     int64
	// Target is that of a link, as it is written.
	Target string
}

// Regular reports whether the entry is a file with content.
func (e *Entry) Regular() bool { return e.Type == '0' || e.Type == 0 }

// LayerResult is what a stage found in one layer. It is kept under the layer's
// digest: it must not depend on where the layer is used.
type LayerResult struct {
	Findings []Finding `json:"findings,omitempty"`
	// Facts are for the image part of the same stage, as JSON of at most MaxFacts bytes.
	Facts json.RawMessage `json:"facts,omitempty"`
	// More is how many findings were left out.
	More int `json:"more,omitempty"`
}

// Bounds of what a stage may say of one layer.
const (
	MaxFacts         = 64 << 10
	MaxLayerFindings = 50
)

// ImageStage judges a whole image. It must end when ctx does.
type ImageStage interface {
	Stage
	CheckImage(ctx context.Context, img *Image) ([]Finding, error)
}

// Step is a stage together with what the operator says about it.
type Step struct {
	Stage   Stage
	Mode    Mode
	OnError OnError
	// Within bounds the time that the stage takes: for one layer, the time spent in its
	// visitor; for an image, the time until it returns. 0 means 10 s for an image and
	// 1 minute for a layer.
	Within time.Duration
}

func (s Step) imageTime() time.Duration { return cmp.Or(max(s.Within, 0), 10*time.Second) }

func (s Step) layerTime() time.Duration { return cmp.Or(max(s.Within, 0), time.Minute) }
